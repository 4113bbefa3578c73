//! Whole passes on the first card in the shape of Qwen3-8B with random weights: prefill, decode, and a segment over a long
//! prefix, each beside its floor made of a large copy and a large matrix product measured in the same run. One JSON
//! object a line on stdout, a table on stderr; times are the card's own. Run with `cargo bench -p engine --bench cuda`;
//! without a card it says so and ends.
#![allow(clippy::expect_used, reason = "a bench that cannot set up has nothing to measure")]

use std::time::Duration;

use engine::device::{Cuda, CudaOptions, Device, DeviceChoice, KernelError, detect};
use engine::error::EngineError;
use engine::kv::cache::KvCache;
use engine::kv::eviction::EvictionPlan;
use engine::model::qwen3::{Pass, Qwen3};
use engine::model_source::ModelSource;
use engine::request::CachePolicy;
use engine::residency::Resident;
use engine::sample::{Sampler, Sampling};
use half::bf16;
use kernels::device::cuda::DeviceMatrix;
use kernels::dtype::DType;
use kernels::kv::KvDType;
use kernels::ops::matmul::{self, Epilogue, Form};
use kernels::ops::synthetic;

const SHAPE: &str = "qwen3-8b";
/// Tokens of a launch, as the engine's schedule cuts long segments.
const PIECE: usize = 512;
/// Positions that the KV of this bench holds.
const N_SLOTS: usize = 95_000;
const REPETITIONS: usize = 5;

fn main() {
    if let Err(absence) = detect() {
        eprintln!("skipped: {absence}");
        return;
    }
    run().expect("the card runs the bench");
}

/// What the card was measured to reach.
struct Ceilings {
    copy_gb_s: f64,
    gemm_tflop_s: f64,
}

fn run() -> Result<(), EngineError> {
    let device = Device::open(&DeviceChoice::Cuda(0), None, CudaOptions::DEFAULT)?;
    let cuda = device.cuda().expect("it was asked for by number");
    let ceilings = ceilings(&device, cuda)?;
    let mut resident = Resident::open(&ModelSource::parse(&format!("synthetic:{SHAPE}"))?)?;
    resident.load(&device)?;
    let model = resident.on(&device)?;
    let bytes_per_token = KvCache::bytes_per_token(model.config, KvDType::BF16);
    let budget = bytes_per_token * N_SLOTS as u64;
    let mut cache = KvCache::new(&device, model.config, KvDType::BF16, budget, CachePolicy::Off)?;
    let sequence = cache.open(None, N_SLOTS)?;
    let slots = sequence.slots_from(0, &EvictionPlan::default());
    let mut pass = Pass::new(&model, cache.memory());
    pass.take_up(&slots, 0)?;
    let bench = Bench { device: &device, model, ceilings, bytes_per_token };
    for n in [512, 4096, 16_384] {
        bench.prefill(&mut pass, n, 0)?;
    }
    // What stands in the slots before does not change the time.
    bench.prefill(&mut pass, 600, 94_000)?;
    for context in [512, 8192, 32_768] {
        bench.decode(&mut pass, context)?;
    }
    Ok(())
}

/// A large copy, counting bytes read and written, and a large product.
fn ceilings(device: &Device, cuda: &Cuda) -> Result<Ceilings, EngineError> {
    let failed = |source: KernelError| EngineError::Device { source };
    let bytes = 2usize << 30;
    let source = cuda.zeroed::<u8>(bytes).map_err(failed)?;
    let mut target = cuda.zeroed::<u8>(bytes).map_err(failed)?;
    let copy = typical(device, || target.copy_from(&source).map_err(failed))?;
    drop((source, target));
    let n = 8192;
    let mut w = DeviceMatrix::alloc(cuda, DType::BF16, n, n).map_err(failed)?;
    let fill = synthetic::Fill { seed: 1, mean: 0.0, deviation: 0.02 };
    synthetic::cuda(cuda, fill, n, w.bytes.view_mut()).map_err(failed)?;
    let pattern: Vec<bf16> =
        (0..n * n).map(|i| bf16::from_f32((i * 37 % 255) as f32 / 128.0 - 1.0)).collect();
    let x = cuda.upload(&pattern).map_err(failed)?;
    let mut y = cuda.alloc::<f32>(n * n).map_err(failed)?;
    let form = Form { n, ldy: n, epilogue: Epilogue::Store };
    let gemm = typical(device, || matmul::cuda(cuda, x.view(), &w, y.view_mut(), form).map_err(failed))?;
    let ceilings = Ceilings {
        copy_gb_s: 2.0 * bytes as f64 / copy.as_secs_f64() / 1e9,
        gemm_tflop_s: 2.0 * (n as f64).powi(3) / gemm.as_secs_f64() / 1e12,
    };
    let Ceilings { copy_gb_s, gemm_tflop_s } = ceilings;
    eprintln!("{}: copy {copy_gb_s:.0} GB/s, product {gemm_tflop_s:.0} TFLOP/s", cuda.info().name);
    Ok(ceilings)
}

/// Median time of `work` on the card's clock, after one run that is not timed.
fn typical(
    device: &Device,
    mut work: impl FnMut() -> Result<(), EngineError>,
) -> Result<Duration, EngineError> {
    work()?;
    let mut times = Vec::with_capacity(REPETITIONS);
    for _ in 0..REPETITIONS {
        times.push(device.timed(&mut work)?.1.expect("a card has a clock"));
    }
    times.sort();
    Ok(times[REPETITIONS / 2])
}

/// What a pass must at least do.
struct Work {
    flops: f64,
    bytes: f64,
}

struct Bench<'a> {
    device: &'a Device,
    model: Qwen3<'a>,
    ceilings: Ceilings,
    bytes_per_token: u64,
}

impl Bench<'_> {
    /// Weights that a forward pass of one token reads: all but the embedding.
    fn weight_bytes(&self) -> f64 {
        let c = self.model.config;
        let (q, kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        let layer = c.hidden * (2 * q + 2 * kv) + 3 * c.hidden * c.ffn;
        2.0 * (c.n_layers * layer + c.vocab * c.hidden) as f64
    }

    fn prefill(&self, pass: &mut Pass<'_>, n: usize, start: usize) -> Result<(), EngineError> {
        let c = self.model.config;
        let tokens: Vec<u32> = (0..n).map(|i| (i * 7919 % c.vocab) as u32).collect();
        let time = typical(self.device, || {
            tokens.chunks(PIECE).enumerate().try_for_each(|(i, piece)| pass.run(piece, start + i * PIECE))
        })?;
        let (q, kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        let linear = 2 * n * c.n_layers * (c.hidden * (2 * q + 2 * kv) + 3 * c.hidden * c.ffn);
        let pairs = n * start + n * (n + 1) / 2;
        let flops = (linear + 4 * c.n_layers * q * pairs) as f64;
        // Each piece reads the weights, and the keys and values before its end.
        let kv_read: usize = (0..n.div_ceil(PIECE)).map(|i| start + (PIECE * (i + 1)).min(n)).sum();
        let bytes =
            n.div_ceil(PIECE) as f64 * self.weight_bytes() + (kv_read as u64 * self.bytes_per_token) as f64;
        self.report(("prefill", &format!("{n} over {start}")), n, Work { flops, bytes }, time);
        Ok(())
    }

    fn decode(&self, pass: &mut Pass<'_>, context: usize) -> Result<(), EngineError> {
        let mut sampler = Sampler::new(Sampling::Greedy)?;
        const TOKENS: usize = 16;
        let time = typical(self.device, || {
            (0..TOKENS).try_for_each(|i| pass.decode(i as u32, context + i, &mut sampler).map(drop))
        })?;
        let bytes = self.weight_bytes() + (context as u64 * self.bytes_per_token) as f64;
        let flops = self.weight_bytes();
        self.report(("decode", &format!("1 over {context}")), 1, Work { flops, bytes }, time / TOKENS as u32);
        Ok(())
    }

    fn report(&self, (what, shape): (&str, &str), n: usize, work: Work, time: Duration) {
        let Work { flops, bytes } = work;
        let seconds = time.as_secs_f64();
        let Ceilings { copy_gb_s, gemm_tflop_s } = self.ceilings;
        let floor = (flops / gemm_tflop_s / 1e12).max(bytes / copy_gb_s / 1e9);
        let line = serde_json::json!({
            "pass": what, "model": SHAPE, "shape": shape, "ms": seconds * 1e3, "tokens_s": n as f64 / seconds,
            "tflop_s": flops / seconds / 1e12, "gb_s": bytes / seconds / 1e9, "floor_share": floor / seconds,
            "ceiling_copy_gb_s": copy_gb_s, "ceiling_gemm_tflop_s": gemm_tflop_s,
        });
        println!("{line}");
        eprintln!(
            "{what:8} {shape:18} {:10.2} ms {:9.0} tokens/s {:5.1} % of floor",
            seconds * 1e3,
            n as f64 / seconds,
            100.0 * floor / seconds
        );
    }
}
