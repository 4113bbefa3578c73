//! Matmul at the shapes of Qwen3: milliseconds by criterion, and for each case a line with the best rate seen as
//! a share of this machine's measured peak. Run with `cargo bench -p kernels --bench matmul`, one case by adding
//! `-- BF16/512x3072x1024`; the machine should be idle.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use half::{bf16, f16};
use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::ops::matmul::{self, MAX_NMSE, Matrix};
use kernels::peak::Peak;

/// (rows, cols) of a weight: gate and down of Qwen3-0.6B, gate of Qwen3-4B.
const WEIGHTS: [(usize, usize); 3] = [(3072, 1024), (1024, 3072), (9728, 2560)];
const N_TOKENS: [usize; 3] = [1, 64, 512];
const FORMATS: [DType; 4] = [DType::BF16, DType::Q8_0, DType::Q4K, DType::F32];

/// Weights are read in turn from copies of at least this many bytes, as a model's layers are, so that no cache
/// holds them from one call to the next.
const COLD_BYTES: usize = 128 << 20;

fn main() {
    let cpu = Cpu::new(None);
    let peak = Peak::measure(&cpu);
    println!("{} with {} threads: {peak:.0?}", cpu.isa(), cpu.threads());
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (rows, cols) in WEIGHTS {
        for dtype in FORMATS {
            let weights = Weights::new(dtype, rows, cols);
            for n_tokens in N_TOKENS {
                weights.bench(&mut criterion, &cpu, &peak, n_tokens);
            }
        }
    }
    criterion.final_summary();
}

/// Copies of one matrix.
struct Weights {
    copies: Vec<Matrix>,
}

impl Weights {
    fn new(dtype: DType, rows: usize, cols: usize) -> Self {
        // Each row is a stretch of one series of blocks, started at another block so that rows differ.
        let (blocks, starts) = (cols / dtype.block_len(), 61);
        let series: Vec<u8> = (0..blocks + starts).flat_map(|i| block(dtype, i)).collect();
        let row = |r: usize| &series[r % starts * dtype.block_bytes()..][..blocks * dtype.block_bytes()];
        let bytes: Vec<u8> = (0..rows).flat_map(|r| row(r).iter().copied()).collect();
        match Matrix::from_bytes(dtype, rows, cols, &bytes) {
            Ok(w) => Self { copies: vec![w; COLD_BYTES.div_ceil(bytes.len())] },
            Err(error) => panic!("the bench makes whole matrices: {error}"),
        }
    }

    fn bench(&self, criterion: &mut Criterion, cpu: &Cpu, peak: &Peak, n_tokens: usize) {
        let w = &self.copies[0];
        let x: Vec<f32> = (0..n_tokens * w.cols()).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        let mut y = vec![0.0; n_tokens * w.rows()];
        let (mut best, mut calls) = (Duration::MAX, 0);
        let name = format!("matmul/{}/{n_tokens}x{}x{}", w.dtype(), w.rows(), w.cols());
        criterion.bench_function(&name, |bencher| {
            matmul::cpu(cpu, &x, w, &mut y);
            check_last_token(&x, w, &y);
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for i in 0..iterations as usize {
                    let begin = Instant::now();
                    matmul::cpu(cpu, black_box(&x), &self.copies[i % self.copies.len()], &mut y);
                    let took = begin.elapsed();
                    black_box(&mut y);
                    best = best.min(took);
                    calls += 1;
                    total += took;
                }
                total
            });
        });
        // One call is criterion's test mode, which times nothing.
        if calls > 1 {
            report(&name, w, n_tokens, best, peak);
        }
    }
}

/// Prints the best rate and its share of what bounds the case: arithmetic or memory.
fn report(name: &str, w: &Matrix, n_tokens: usize, best: Duration, peak: &Peak) {
    let cost = matmul::cost(n_tokens, w);
    let ms = best.as_secs_f64() * 1e3;
    let gflops = match (w.dtype(), peak.bf16_gflops) {
        (DType::BF16, Some(bf16)) => bf16,
        _ => peak.f32_gflops,
    };
    let bound = cost.roofline_ms(gflops, peak.read_gb_s);
    println!(
        "{name}: best {ms:.3} ms, {:.1} GFLOP/s ({:.0} % of {gflops:.0}), {:.1} GB/s ({:.0} % of {:.1}), {:.0} % of \
         the roofline",
        cost.flops as f64 / ms / 1e6,
        100.0 * cost.flops as f64 / ms / 1e6 / gflops,
        cost.bytes as f64 / ms / 1e6,
        100.0 * cost.bytes as f64 / ms / 1e6 / peak.read_gb_s,
        peak.read_gb_s,
        100.0 * bound / ms,
    );
}

/// Compares the last token's outputs with the specification.
fn check_last_token(x: &[f32], w: &Matrix, y: &[f32]) {
    let mut want = vec![0.0; w.rows()];
    matmul::spec(&x[x.len() - w.cols()..], w, &mut want);
    let got = &y[y.len() - w.rows()..];
    let error: f64 = want.iter().zip(got).map(|(w, g)| f64::from(w - g).powi(2)).sum();
    let signal: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    assert!(error <= MAX_NMSE * signal, "matmul is wrong before it is fast: error {error:e} of {signal:e}");
}

/// The bytes of the `i`-th block of a row, values of moderate size.
fn block(dtype: DType, i: usize) -> Vec<u8> {
    let value = (i * 37 % 101) as f32 / 50.0 - 1.0;
    let scale = f16::from_f32(0.01).to_le_bytes();
    let mut bytes: Vec<u8> = (0..dtype.block_bytes()).map(|b| ((i + b) * 73 % 256) as u8).collect();
    match dtype {
        DType::F32 => bytes.copy_from_slice(&value.to_le_bytes()),
        DType::F16 => bytes.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        DType::BF16 => bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        DType::Q8_0 | DType::Q5_0 => bytes[..2].copy_from_slice(&scale),
        DType::Q4K => {
            bytes[..2].copy_from_slice(&scale);
            bytes[2..4].copy_from_slice(&scale);
        }
        DType::Q6K => bytes[208..].copy_from_slice(&scale),
    }
    bytes
}
