//! Dense against block-sparse prefill of a whole text at the attention shape of Qwen3-0.6B (16 query heads, 8 KV
//! heads of 128, BF16): milliseconds by criterion, then a line with the best time of each step, how much of dense
//! attention was kept and how much faster that is. Run with `cargo bench -p kernels --bench sparse_attention`, one
//! length by adding `-- "/8192"`; the machine should be idle. With `-- --test` every case runs once, on a short text.
//!
//! The text is made up: keys of a block lie about one of [`N_TOPICS`] directions, the rows of a query block ask for a
//! few of them, most for the first. The recall beside a speed is that of this text and shows what the measure says;
//! that of a drafter on real text is another number.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use kernels::blocks::mass::{block_mass, recall};
use kernels::blocks::{BLOCK, Blocks, KeptBlocks};
use kernels::cost::Cost;
use kernels::device::Cpu;
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::block_score::{Form, Params};
use kernels::ops::block_select::Rule;
use kernels::ops::{attention, block_score, block_select, kv_store, sparse_attention};
use kernels::peak::Peak;

const N_HEADS: usize = 16;
const N_KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
/// Directions that keys lie about.
const N_TOPICS: usize = 64;
/// How many of 100 rows of a query block ask for its first, second, third and fourth topic.
const ROWS_OF_100: [usize; 4] = [60, 30, 7, 3];
/// Size of a topic in queries and keys beside noise of size 1: a match adds a score of about 5.
const TOPIC: f32 = 0.7;

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test");
    let lengths: &[usize] = if smoke { &[700] } else { &[4096, 8192, 16384] };
    let cpu = Cpu::new(None);
    let peak = Peak::measure(&cpu);
    println!("{} with {} threads: {peak:.0?}", cpu.isa(), cpu.threads());
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut bench = Bench { criterion, cpu };
    for length in lengths {
        bench.length(*length);
    }
    bench.criterion.final_summary();
}

struct Bench {
    criterion: Criterion,
    cpu: Cpu,
}

impl Bench {
    /// The best time of `run`; `None` where another case was asked for.
    fn time(&mut self, name: &str, mut run: impl FnMut(&Cpu)) -> Option<Duration> {
        let (cpu, mut best) = (&self.cpu, Duration::MAX);
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let begin = Instant::now();
                    run(cpu);
                    let took = begin.elapsed();
                    best = best.min(took);
                    total += took;
                }
                total
            });
        });
        (best < Duration::MAX).then_some(best)
    }

    fn length(&mut self, n: usize) {
        let text = Text::new(&self.cpu, n);
        let mut out = vec![0.0; text.q.len()];
        let dense = self.time(&format!("dense/{n}"), |cpu| {
            attention::cpu(cpu, black_box(&text.q), &text.kv, &text.slots, N_HEADS, &mut out);
        });
        let params = Params { n_heads: N_HEADS, form: Form::Normalised };
        let mut scores = vec![0.0; N_HEADS * text.blocks.n_query_blocks() * text.blocks.n_key_blocks()];
        let score = self.time(&format!("block_score/{n}"), |cpu| {
            block_score::cpu(cpu, black_box(&text.q), &text.kv, &text.slots, params, &mut scores);
        });
        block_score::cpu(&self.cpu, &text.q, &text.kv, &text.slots, params, &mut scores);
        for alpha in [0.12, 0.5] {
            let rule = Rule { alpha, ..Rule::default() };
            let mut kept = KeptBlocks::empty(N_HEADS, text.blocks);
            let select = self.time(&format!("block_select/{n}, alpha {alpha}"), |cpu| {
                block_select::cpu(cpu, black_box(&scores), text.blocks, &rule, &mut kept);
            });
            block_select::cpu(&self.cpu, &scores, text.blocks, &rule, &mut kept);
            let sparse = self.time(&format!("sparse/{n}, alpha {alpha}"), |cpu| {
                sparse_attention::cpu(cpu, black_box(&text.q), &text.kv, &text.slots, &kept, &mut out);
            });
            if let (Some(dense), Some(score), Some(select), Some(sparse)) = (dense, score, select, sparse) {
                report(&text, alpha, &kept, dense, [score, select, sparse]);
            }
        }
    }
}

/// One line: what was kept, what that is worth, what it saves.
fn report(text: &Text, alpha: f32, kept: &KeptBlocks, dense: Duration, steps: [Duration; 3]) {
    let share = kept.n_pairs() as f64 / (N_HEADS * text.blocks.n_pairs()) as f64;
    // Query blocks over the text's second half, one head each: the dense measure is slow.
    let (mut mass, mut top) = (0.0, 0.0);
    for head in 0..N_HEADS {
        let n_blocks = text.blocks.n_query_blocks();
        let block = n_blocks / 2 + (n_blocks - n_blocks / 2) * head / N_HEADS;
        let dense_mass = block_mass(&text.q, &text.kv, &text.slots, N_HEADS, (head, block));
        let found = recall(&dense_mass, kept.list(head, block));
        mass += found.mass / N_HEADS as f64;
        top += found.top / N_HEADS as f64;
    }
    let [score, select, sparse] = steps.map(|step| step.as_secs_f64() * 1e3);
    let (dense, all) = (dense.as_secs_f64() * 1e3, score + select + sparse);
    let Cost { flops, .. } = sparse_attention::cost(text.blocks, kept, &text.kv);
    println!(
        "{} tokens, alpha {alpha}: {:.0} % of block pairs kept, holding {:.1} % of attention and {:.0} % of \
         the heaviest blocks (mean of {N_HEADS}); dense {dense:.1} ms, sparse {all:.1} ms ({score:.1} score, \
         {select:.2} select, {sparse:.1} attention at {:.0} GFLOP/s): {:.2} times as fast",
        text.blocks.n_tokens(),
        share * 100.0,
        mass * 100.0,
        top * 100.0,
        flops as f64 / sparse / 1e6,
        dense / all
    );
}

/// A made-up text.
struct Text {
    q: Vec<f32>,
    kv: KvLayer,
    slots: Vec<Slot>,
    blocks: Blocks,
}

impl Text {
    fn new(cpu: &Cpu, n: usize) -> Self {
        let mut random = Random(1);
        let topics: Vec<f32> = (0..N_TOPICS * HEAD_DIM).map(|_| random.value() * TOPIC).collect();
        let topic = |t: usize| &topics[t * HEAD_DIM..][..HEAD_DIM];
        let n_blocks = n.div_ceil(BLOCK);
        let (mut q, mut k) = (Vec::new(), Vec::new());
        let asked: Vec<[usize; 4]> = (0..n_blocks).map(|_| [0; 4].map(|_| random.below(N_TOPICS))).collect();
        let held: Vec<usize> = (0..n_blocks).map(|_| random.below(N_TOPICS)).collect();
        for token in 0..n {
            for _ in 0..N_HEADS {
                let (mut rank, mut left) = (0, random.below(100));
                while left >= ROWS_OF_100[rank] {
                    left -= ROWS_OF_100[rank];
                    rank += 1;
                }
                q.extend(topic(asked[token / BLOCK][rank]).iter().map(|x| x + random.value()));
            }
            for _ in 0..N_KV_HEADS {
                k.extend(topic(held[token / BLOCK]).iter().map(|x| x + random.value()));
            }
        }
        let slots: Vec<Slot> = (0..n as u32).map(Slot).collect();
        let mut kv = KvLayer::new(n, N_KV_HEADS, HEAD_DIM, KvDType::BF16);
        kv_store::cpu(cpu, &k, &k, &slots, &mut kv);
        let text = Self { q, kv, slots, blocks: Blocks::new(n, n) };
        text.check(cpu);
        text
    }

    /// With every block kept, sparse attention is dense attention, bit for bit.
    fn check(&self, cpu: &Cpu) {
        let end = self.blocks.n_tokens().min(3 * BLOCK + 5);
        let (q, slots) = (&self.q[..end * N_HEADS * HEAD_DIM], &self.slots[..end]);
        let [mut dense, mut sparse] = [0; 2].map(|_| vec![f32::NAN; q.len()]);
        attention::cpu(cpu, q, &self.kv, slots, N_HEADS, &mut dense);
        let kept = KeptBlocks::all(N_HEADS, Blocks::new(end, end));
        sparse_attention::cpu(cpu, q, &self.kv, slots, &kept, &mut sparse);
        assert!(dense == sparse, "sparse attention over all blocks differs from dense");
    }
}

/// Xorshift: the same numbers in every run.
struct Random(u32);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// About normal, of mean 0 and variance 1.
    fn value(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.bits() as f32 / u32::MAX as f32 - 0.5).sum();
        sum * 3f32.sqrt()
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 8) as usize % n
    }
}
