//! The whole prefill of a prompt, and decode after it, in model shapes with random weights. Prints tokens per second,
//! GFLOP/s and the share of this machine's measured matmul peak; the result of a run is checked before it is timed.
#![allow(clippy::expect_used, reason = "a bench that cannot set up has nothing to measure")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::device::{CudaOptions, Device, DeviceChoice};
use engine::kv::cache::KvCache;
use engine::kv::eviction::EvictionPlan;
use engine::model::qwen3::{Pass, Qwen3};
use engine::model_source::ModelSource;
use engine::request::CachePolicy;
use engine::residency::Resident;
use kernels::peak::Peak;

/// Tokens of a launch, as the engine's schedule cuts long segments.
const PIECE: usize = 512;

fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    (0..n as u64).map(|i| (i.wrapping_mul(6_364_136_223_846_793_005) >> 33) as u32 % vocab as u32).collect()
}

/// Prefills `tokens` into an empty cache; the logits of the last position.
fn prefill(model: &Qwen3<'_>, resident: &Resident, tokens: &[u32]) -> Vec<f32> {
    let dtype = resident.kv_dtype(model.device);
    let budget = KvCache::bytes_per_token(model.config, dtype) * tokens.len() as u64;
    let mut cache = KvCache::new(model.device, model.config, dtype, budget, CachePolicy::Off)
        .expect("a budget of one prompt");
    let sequence = cache.open(None, tokens.len()).expect("slots of one prompt");
    let slots = sequence.slots_from(0, &EvictionPlan::default());
    let mut pass = Pass::new(model, cache.memory());
    pass.take_up(&slots, 0).expect("one device");
    let mut last_row = 0;
    for start in (0..tokens.len()).step_by(PIECE) {
        let end = (start + PIECE).min(tokens.len());
        pass.run(&tokens[start..end], start).expect("tokens of the vocabulary");
        last_row = end - start - 1;
    }
    pass.logits(last_row).expect("a row of the last piece")
}

/// Multiply-adds of a prefill, counted twice: linear layers over every token, causal attention, no output head.
fn flops(model: &Qwen3<'_>, n: usize) -> f64 {
    let c = model.config;
    let (q, kv) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
    let linear = 2 * c.n_layers * (c.hidden * (2 * q + 2 * kv) + 3 * c.hidden * c.ffn);
    let attention = 4 * c.n_layers * q * (n + 1) / 2;
    (n * (linear + attention)) as f64
}

fn bench(c: &mut Criterion) {
    let device = Device::open(&DeviceChoice::Cpu, None, CudaOptions::DEFAULT).expect("there is a CPU");
    let cpu = device.cpu();
    let peak = Peak::measure(cpu);
    let peak_gflops = peak.bf16_gflops.unwrap_or(peak.f32_gflops);
    println!("{} on {} threads: peak {peak_gflops:.0} GFLOP/s", cpu.isa(), cpu.threads());
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10);
    for (shape, lengths) in [("nano", &[512usize, 4096, 16384][..]), ("qwen3-0.6b", &[512, 2048])] {
        let source = ModelSource::parse(&format!("synthetic:{shape}")).expect("a shape of the table");
        let mut resident = Resident::open(&source).expect("a synthetic model opens");
        resident.load(&device).expect("memory for the weights");
        let model = resident.on(&device).expect("it is loaded");
        for &n in lengths {
            let tokens = tokens(n, model.config.vocab);
            let logits = prefill(&model, &resident, &tokens);
            assert!(logits.iter().all(|x| x.is_finite()), "the forward pass overflowed");
            assert_eq!(logits, prefill(&model, &resident, &tokens), "two runs give the same bits");
            let start = Instant::now();
            black_box(prefill(&model, &resident, &tokens));
            let seconds = start.elapsed().as_secs_f64();
            let gflops = flops(&model, n) / seconds / 1e9;
            let share = 100.0 * gflops / peak_gflops;
            println!(
                "{shape} {n}: {:.0} tokens/s, {gflops:.0} GFLOP/s, {share:.0} % of peak",
                n as f64 / seconds
            );
            group.throughput(Throughput::Elements(n as u64));
            group.bench_with_input(BenchmarkId::new(shape, n), &tokens, |b, tokens| {
                b.iter(|| prefill(&model, &resident, tokens));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
