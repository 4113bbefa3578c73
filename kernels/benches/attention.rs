//! Attention and the small ops at the shapes of Qwen3-0.6B (16 query heads, 8 KV heads of 128, hidden 1024,
//! FFN 3072): milliseconds by criterion, and for each case a line with the best rate seen as a share of this
//! machine's measured peak. Each case checks a result before it is timed. Run with `cargo bench -p kernels
//! --bench attention`, one case by adding `-- "prefill/512 @ 8192 BF16"`; the machine should be idle. The
//! elementwise ops find their rows in a cache, as they do behind a matmul, and so exceed the peak, which is
//! that of memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use kernels::cost::Cost;
use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::matmul::Matrix;
use kernels::ops::qk_norm_rope::{self, Angles, HeadNorm, Positions, Rotation};
use kernels::ops::{attention, embedding, kv_store, rms_norm, swiglu, tail_score};
use kernels::peak::Peak;

const N_HEADS: usize = 16;
const N_KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const HIDDEN: usize = 1024;
const FFN: usize = 3072;
const PIECE: usize = 512;
const TAIL: usize = 8;
const EPS: f32 = 1e-6;
const THETA: f64 = 1e6;

/// Keys and values are read in turn from copies of at least this many bytes, as a model's layers are, so that
/// no cache holds them from one call to the next.
const COLD_BYTES: u64 = 128 << 20;

/// What bounds a case, and so what its rate is compared with.
#[derive(Clone, Copy)]
enum Bound {
    F32Flops,
    Bf16Flops,
    Bytes,
}

fn main() {
    let cpu = Cpu::new(None);
    let peak = Peak::measure(&cpu);
    println!("{} with {} threads: {peak:.0?}", cpu.isa(), cpu.threads());
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut bench = Bench { criterion, cpu, peak };
    for dtype in [KvDType::BF16, KvDType::F32] {
        for kv_len in [512, 2048, 8192] {
            bench.attention(PIECE, kv_len, dtype);
        }
        for kv_len in [4096, 16384] {
            bench.attention(1, kv_len, dtype);
        }
    }
    for kv_len in [2048, 8192] {
        bench.tail_score(kv_len);
    }
    bench.rms_norm();
    bench.qk_norm_rope();
    bench.swiglu();
    bench.embedding();
    bench.kv_store();
    bench.criterion.final_summary();
}

struct Bench {
    criterion: Criterion,
    cpu: Cpu,
    peak: Peak,
}

impl Bench {
    /// Times `run`, which gets the number of the iteration, after `check` has passed.
    fn case(
        &mut self,
        name: &str,
        cost: Cost,
        bound: Bound,
        mut check: impl FnMut(&Cpu),
        mut run: impl FnMut(&Cpu, usize),
    ) {
        let (cpu, mut best) = (&self.cpu, Duration::MAX);
        self.criterion.bench_function(name, |bencher| {
            check(cpu);
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for i in 0..iterations as usize {
                    let begin = Instant::now();
                    run(cpu, i);
                    let took = begin.elapsed();
                    best = best.min(took);
                    total += took;
                }
                total
            });
        });
        if best == Duration::MAX {
            return; // Another case was asked for.
        }
        let (amount, unit, peak) = match bound {
            Bound::F32Flops => (cost.flops, "GFLOP/s", self.peak.f32_gflops),
            Bound::Bf16Flops => {
                (cost.flops, "GFLOP/s", self.peak.bf16_gflops.unwrap_or(self.peak.f32_gflops))
            }
            Bound::Bytes => (cost.bytes, "GB/s", self.peak.read_gb_s),
        };
        let rate = amount as f64 / best.as_secs_f64() / 1e9;
        let percent = 100.0 * rate / peak;
        println!("{name}: {:.3} ms, {rate:.1} {unit}, {percent:.0} % of peak", best.as_secs_f64() * 1e3);
    }

    fn attention(&mut self, n_tokens: usize, kv_len: usize, dtype: KvDType) {
        let (layers, slots) = layers(&self.cpu, kv_len, dtype);
        let q: Vec<f32> = values(n_tokens * N_HEADS * HEAD_DIM).iter().map(|x| x * 3.0).collect();
        let mut out = vec![0.0; q.len()];
        let cost = attention::cost(n_tokens, kv_len, N_HEADS, &layers[0]);
        let (stage, bound) = match (n_tokens, dtype) {
            (1, _) => ("decode", Bound::Bytes),
            (_, KvDType::F32) => ("prefill", Bound::F32Flops),
            (_, KvDType::BF16) => ("prefill", Bound::Bf16Flops),
        };
        let max_nmse = match dtype {
            KvDType::F32 => attention::MAX_NMSE_F32,
            KvDType::BF16 => attention::MAX_NMSE_BF16,
        };
        let check = |cpu: &Cpu| {
            let mut out = vec![0.0; q.len()];
            attention::cpu(cpu, &q, &layers[0], &slots, N_HEADS, &mut out);
            // The spec of the last token alone: it sees every key.
            let last = q.len() - N_HEADS * HEAD_DIM;
            let mut want = vec![0.0; N_HEADS * HEAD_DIM];
            attention::spec(&q[last..], &layers[0], &slots, N_HEADS, &mut want);
            assert_close(&want, &out[last..], max_nmse);
        };
        self.case(&format!("{stage}/{n_tokens} @ {kv_len} {dtype}"), cost, bound, check, |cpu, i| {
            attention::cpu(cpu, black_box(&q), &layers[i % layers.len()], &slots, N_HEADS, &mut out);
        });
    }

    fn tail_score(&mut self, kv_len: usize) {
        let (layers, slots) = layers(&self.cpu, kv_len, KvDType::BF16);
        let q = values(TAIL * N_HEADS * HEAD_DIM);
        let mut best = vec![0.0; TAIL * kv_len];
        let cost = tail_score::cost(TAIL, kv_len, N_HEADS, &layers[0]);
        let check = |cpu: &Cpu| {
            let [mut want, mut got] = [0; 2].map(|_| vec![0.0; TAIL * kv_len]);
            tail_score::spec(&q, &layers[0], &slots, N_HEADS, &mut want);
            tail_score::cpu(cpu, &q, &layers[0], &slots, N_HEADS, &mut got);
            assert_close(&want, &got, tail_score::MAX_NMSE_BF16);
        };
        self.case(&format!("tail_score/{TAIL} @ {kv_len} BF16"), cost, Bound::Bytes, check, |cpu, i| {
            tail_score::cpu(cpu, black_box(&q), &layers[i % layers.len()], &slots, N_HEADS, &mut best);
        });
    }

    fn rms_norm(&mut self) {
        let (x, delta, weight) = (values(PIECE * HIDDEN), values(PIECE * HIDDEN), values(HIDDEN));
        let (mut residual, mut y) = (x.clone(), vec![0.0; x.len()]);
        let check = |cpu: &Cpu| {
            let [mut want, mut got] = [0; 2].map(|_| vec![0.0; x.len()]);
            rms_norm::spec(&x, &weight, EPS, &mut want);
            rms_norm::cpu(cpu, &x, &weight, EPS, &mut got);
            assert_close(&want, &got, rms_norm::MAX_NMSE);
        };
        let alone = rms_norm::cost(PIECE, HIDDEN);
        self.case("rms_norm/512 x 1024", alone, Bound::Bytes, check, |cpu, _| {
            rms_norm::cpu(cpu, black_box(&x), &weight, EPS, &mut y);
        });
        let check = |cpu: &Cpu| {
            let mut sum = x.clone();
            let [mut want, mut got] = [0; 2].map(|_| vec![0.0; x.len()]);
            rms_norm::add_cpu(cpu, &mut sum, &delta, &weight, EPS, &mut got);
            rms_norm::spec(&sum, &weight, EPS, &mut want);
            assert_close(&want, &got, rms_norm::MAX_NMSE);
        };
        let fused = rms_norm::add_cost(PIECE, HIDDEN);
        self.case("rms_norm/512 x 1024 and residual", fused, Bound::Bytes, check, |cpu, _| {
            rms_norm::add_cpu(cpu, &mut residual, black_box(&delta), &weight, EPS, &mut y);
        });
    }

    fn qk_norm_rope(&mut self) {
        let (x, weight) = (values(PIECE * N_HEADS * HEAD_DIM), values(HEAD_DIM));
        let mut y = vec![0.0; x.len()];
        let norm = HeadNorm { n_heads: N_HEADS, weight: &weight, eps: EPS };
        let angles = Angles::new(HEAD_DIM, THETA, 4096, PIECE);
        let check = |cpu: &Cpu| {
            let [mut want, mut got] = [0; 2].map(|_| vec![0.0; x.len()]);
            let positions = Positions { theta: THETA, start: 4096 };
            qk_norm_rope::spec(&x, norm, Rotation::By(positions), &mut want);
            qk_norm_rope::cpu(cpu, &x, norm, Rotation::By(&angles), &mut got);
            assert_close(&want, &got, qk_norm_rope::MAX_NMSE);
        };
        let cost = qk_norm_rope::cost(PIECE, N_HEADS, HEAD_DIM);
        self.case("qk_norm_rope/512 x 16 x 128", cost, Bound::Bytes, check, |cpu, _| {
            qk_norm_rope::cpu(cpu, black_box(&x), norm, Rotation::By(&angles), &mut y);
        });
    }

    fn swiglu(&mut self) {
        let (mut gate, up) = (values(PIECE * FFN), values(PIECE * FFN));
        let check = |cpu: &Cpu| {
            let mut want = values(PIECE * FFN);
            let mut got = want.clone();
            swiglu::spec(&mut want, &up);
            swiglu::cpu(cpu, &mut got, &up);
            assert_close(&want, &got, swiglu::MAX_NMSE);
        };
        self.case("swiglu/512 x 3072", swiglu::cost(PIECE * FFN), Bound::Bytes, check, |cpu, _| {
            swiglu::cpu(cpu, black_box(&mut gate), &up);
        });
    }

    fn embedding(&mut self) {
        let (rows, dim) = (32_768, 1024);
        let bytes: Vec<u8> =
            values(rows * dim).iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        let Ok(table) = Matrix::from_bytes(DType::BF16, rows, dim, &bytes) else {
            panic!("a table of whole rows")
        };
        let tokens: Vec<u32> = (0..PIECE).map(|i| (i * 61 % rows) as u32).collect();
        let check = |cpu: &Cpu| {
            let (mut want, mut got) = (vec![0.0; PIECE * dim], vec![0.0; PIECE * dim]);
            assert!(embedding::spec(&tokens, &table, &mut want).is_ok());
            assert!(embedding::cpu(cpu, &tokens, &table, &mut got).is_ok());
            assert_close(&want, &got, embedding::MAX_NMSE);
        };
        let mut out = vec![0.0; PIECE * dim];
        let cost = embedding::cost(PIECE, &table);
        self.case("embedding/512 x 1024", cost, Bound::Bytes, check, |cpu, _| {
            let _ = embedding::cpu(cpu, &tokens, &table, black_box(&mut out));
        });
    }

    fn kv_store(&mut self) {
        let width = N_KV_HEADS * HEAD_DIM;
        let (k, v) = (values(PIECE * width), values(PIECE * width));
        let slots: Vec<Slot> = (0..PIECE as u32).map(Slot).collect();
        let empty = || KvLayer::new(PIECE, N_KV_HEADS, HEAD_DIM, KvDType::BF16);
        let check = |cpu: &Cpu| {
            let mut layer = empty();
            kv_store::cpu(cpu, &k, &v, &slots, &mut layer);
            let mut row = vec![0.0; HEAD_DIM];
            layer.key(N_KV_HEADS - 1, slots[PIECE - 1], &mut row);
            let want = k[PIECE * width - HEAD_DIM..].iter().map(|&x| kv_store::spec(x, KvDType::BF16));
            assert!(want.eq(row.iter().copied()));
        };
        let mut layer = empty();
        let cost = kv_store::cost(PIECE, N_KV_HEADS, HEAD_DIM, KvDType::BF16);
        self.case("kv_store/512 x 8 x 128", cost, Bound::Bytes, check, |cpu, _| {
            kv_store::cpu(cpu, &k, &v, &slots, black_box(&mut layer));
        });
    }
}

/// Uniform values in -1..1, the same in every run.
fn values(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Copies of a layer of `kv_len` random tokens in order, more than a cache holds.
fn layers(cpu: &Cpu, kv_len: usize, dtype: KvDType) -> (Vec<KvLayer>, Vec<Slot>) {
    let slots: Vec<Slot> = (0..kv_len as u32).map(Slot).collect();
    let mut layer = KvLayer::new(kv_len, N_KV_HEADS, HEAD_DIM, dtype);
    let keys = values(kv_len * N_KV_HEADS * HEAD_DIM);
    kv_store::cpu(cpu, &keys, &keys, &slots, &mut layer);
    let copies = COLD_BYTES.div_ceil(layer.bytes()) as usize;
    (vec![layer; copies], slots)
}

fn assert_close(want: &[f32], got: &[f32], max_nmse: f64) {
    let error: f64 = want.iter().zip(got).map(|(w, g)| f64::from(w - g).powi(2)).sum();
    let signal: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    assert!(error <= max_nmse * signal, "wrong result: nmse {:e}", error / signal);
}
