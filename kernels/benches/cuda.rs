//! The CUDA kernels on the first card, at the shapes of Qwen3-8B, each beside a ceiling measured in the same run: a large
//! copy for what moves memory, a large matrix product for what computes. One JSON object a line on stdout, a table on
//! stderr. Times are the card's own, medians over repetitions; weights are read in turn from copies larger than its
//! cache. Run with `cargo bench -p kernels --bench cuda`; without a card it says so and ends.
#![allow(clippy::expect_used, reason = "a bench that cannot set up has nothing to measure")]

use half::bf16;
use kernels::KernelError;
use kernels::blocks::device::DeviceKeptBlocks;
use kernels::blocks::{BLOCK, Blocks};
use kernels::cost::Cost;
use kernels::device::cuda::{Cuda, CudaOptions, DeviceBuffer, DeviceKv, DeviceMatrix, detect};
use kernels::dtype::DType;
use kernels::ops::attention::decode::{self, Decode};
use kernels::ops::attention::prefill::{self, Prefill};
use kernels::ops::block_score::{self, DeviceKeys, DeviceScores, Params};
use kernels::ops::block_select::{self, Rule};
use kernels::ops::matmul::{self, Epilogue, Form};
use kernels::ops::qk_norm_rope::{self, Angles, DeviceAngles, DeviceHeads, Rotation};
use kernels::ops::sparse_attention::{self, DeviceContext};
use kernels::ops::tail_score::{self, DeviceTail};
use kernels::ops::{argmax, rms_norm, swiglu, synthetic};

/// Qwen3-8B.
const HIDDEN: usize = 4096;
const N_HEADS: usize = 32;
const N_KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const FFN: usize = 12_288;
const VOCAB: usize = 151_936;
const QKV: usize = (N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM;

/// Rows and columns of the matrices of a layer: queries, keys and values; attention's output; gate and up; down.
const MATRICES: [(&str, usize, usize); 4] =
    [("qkv", QKV, HIDDEN), ("o", HIDDEN, HIDDEN), ("gate_up", 2 * FFN, HIDDEN), ("down", HIDDEN, FFN)];

/// Bytes of copies that weights are read from in turn, several times the largest cache of a card.
const COLD_BYTES: usize = 1 << 30;
/// Launches before anything is timed, and timed ones.
const WARM_UP: usize = 3;
const REPETITIONS: usize = 15;

type Outcome = Result<(), KernelError>;

fn main() {
    let cuda = match detect() {
        Ok(_) => Cuda::open(0, CudaOptions::DEFAULT).expect("the card opens"),
        Err(absence) => {
            eprintln!("skipped: {absence}");
            return;
        }
    };
    let mut bench = Bench { cuda, copy_gb_s: 0.0, gemm_tflop_s: 0.0 };
    eprintln!("{} ({})", bench.cuda.info().name, bench.cuda.kernels());
    let run = |bench: &mut Bench| -> Outcome {
        bench.ceilings()?;
        bench.matmuls()?;
        bench.attentions()?;
        bench.sparse_attention(65_536)?;
        bench.small_ops()
    };
    run(&mut bench).expect("every launch of the bench is valid");
}

/// The card, and what it was measured to reach.
struct Bench {
    cuda: Cuda,
    copy_gb_s: f64,
    gemm_tflop_s: f64,
}

impl Bench {
    /// Median seconds of one of `n` launches that `work` asks for.
    fn seconds(&self, n: usize, mut work: impl FnMut() -> Outcome) -> Result<f64, KernelError> {
        for _ in 0..WARM_UP {
            work()?;
        }
        let mut times = Vec::with_capacity(REPETITIONS);
        for _ in 0..REPETITIONS {
            let start = self.cuda.mark()?;
            work()?;
            let end = self.cuda.mark()?;
            let time = self.cuda.between(&start, &end)?.expect("a card has a clock");
            times.push(time.as_secs_f64() / n as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// One row: rates, and the share of the roofline that the two ceilings make.
    fn report(&self, op: &str, shape: &str, path: &str, cost: Cost, seconds: f64) {
        let (gb_s, tflop_s) = (cost.bytes as f64 / seconds / 1e9, cost.flops as f64 / seconds / 1e12);
        let floor_ms = cost.roofline_ms(self.gemm_tflop_s * 1e3, self.copy_gb_s);
        let share = floor_ms / (seconds * 1e3);
        let line = serde_json::json!({
            "op": op, "shape": shape, "path": path, "us": seconds * 1e6, "gb_s": gb_s, "tflop_s": tflop_s,
            "roofline_share": share, "ceiling_copy_gb_s": self.copy_gb_s,
            "ceiling_gemm_tflop_s": self.gemm_tflop_s, "device": self.cuda.info().name,
        });
        println!("{line}");
        eprintln!(
            "{op:20} {shape:34} {path:10} {:10.1} us {gb_s:8.0} GB/s {tflop_s:7.1} TFLOP/s {:5.1} % of roofline",
            seconds * 1e6,
            100.0 * share
        );
    }

    /// A large copy, counting bytes read and written, and a large product of BF16 matrices.
    fn ceilings(&mut self) -> Outcome {
        let bytes = 2usize << 30;
        let source = self.cuda.zeroed::<u8>(bytes)?;
        let mut target = self.cuda.alloc::<u8>(bytes)?;
        let seconds = self.seconds(1, || target.copy_from(&source))?;
        self.copy_gb_s = 2.0 * bytes as f64 / seconds / 1e9;
        drop((source, target));
        let n = 8192;
        let (w, x) = (self.normal_matrix(n, n)?, self.activations(n * n)?);
        let mut y = self.cuda.alloc::<f32>(n * n)?;
        let form = Form { n, ldy: n, epilogue: Epilogue::Store };
        let seconds = self.seconds(1, || matmul::cuda(&self.cuda, x.view(), &w, y.view_mut(), form))?;
        self.gemm_tflop_s = 2.0 * (n as f64).powi(3) / seconds / 1e12;
        eprintln!("ceilings: copy {:.0} GB/s, product {:.0} TFLOP/s", self.copy_gb_s, self.gemm_tflop_s);
        Ok(())
    }

    /// Random values: zeros draw less power, so that clocks, and times with them, would be better than real ones.
    fn normal_matrix(&self, rows: usize, cols: usize) -> Result<DeviceMatrix, KernelError> {
        let mut matrix = DeviceMatrix::alloc(&self.cuda, DType::BF16, rows, cols)?;
        let fill = synthetic::Fill { seed: (rows * 31 + cols) as u64, mean: 0.0, deviation: 0.02 };
        synthetic::cuda(&self.cuda, fill, cols, matrix.bytes.view_mut())?;
        Ok(matrix)
    }

    fn activations(&self, len: usize) -> Result<DeviceBuffer<bf16>, KernelError> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bf16::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        };
        let values: Vec<bf16> = (0..len).map(|_| next()).collect();
        self.cuda.upload(&values)
    }

    /// Copies of a weight; of quantised ones the contents do not matter for speed, and zeros are valid blocks.
    fn weights(&self, dtype: DType, rows: usize, cols: usize) -> Result<Vec<DeviceMatrix>, KernelError> {
        let bytes = rows * dtype.row_bytes(cols)?;
        (0..COLD_BYTES.div_ceil(bytes))
            .map(|_| match dtype {
                DType::BF16 => self.normal_matrix(rows, cols),
                _ => {
                    let mut matrix = DeviceMatrix::alloc(&self.cuda, dtype, rows, cols)?;
                    matrix.bytes.zero()?;
                    Ok(matrix)
                }
            })
            .collect()
    }

    /// The matrices of a layer for one token and for a piece, through every path the card has.
    fn matmuls(&self) -> Outcome {
        let own = Cuda::open(0, CudaOptions { cublaslt: false, ..CudaOptions::DEFAULT })?;
        let hopper = Cuda::open(0, CudaOptions { cublaslt: false, hopper_kernels: true })?;
        let mut paths = vec![("default", &self.cuda), ("own", &own)];
        if hopper.hopper_kernels() {
            paths.push(("wgmma", &hopper));
        }
        for (name, rows, cols) in MATRICES {
            for dtype in [DType::BF16, DType::Q8_0, DType::Q4K, DType::Q6K] {
                for n in [1, 64, 512] {
                    let paths = if dtype == DType::BF16 && n > 1 { &paths[..] } else { &paths[..1] };
                    for (path, cuda) in paths {
                        let bench = Bench { cuda: (*cuda).clone(), ..*self };
                        bench.matmul(path, (name, rows, cols), dtype, n)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn matmul(&self, path: &str, matrix: (&str, usize, usize), dtype: DType, n: usize) -> Outcome {
        let (name, rows, cols) = matrix;
        let weights = self.weights(dtype, rows, cols)?;
        let x = self.activations(n * cols)?;
        let mut y = self.cuda.alloc::<f32>(n * rows)?;
        let form = Form { n, ldy: rows, epilogue: Epilogue::Store };
        let seconds = self.seconds(weights.len(), || {
            weights.iter().try_for_each(|w| matmul::cuda(&self.cuda, x.view(), w, y.view_mut(), form))
        })?;
        let bytes = weights[0].bytes.len() + n * (2 * cols + 4 * rows);
        let cost = Cost { bytes: bytes as u64, flops: 2 * (n * rows * cols) as u64 };
        self.report("matmul", &format!("{name} {dtype} {n}x{rows}x{cols}"), path, cost, seconds);
        Ok(())
    }

    /// Attention over keys in slots that lie in order, as a session fills them.
    fn attentions(&self) -> Outcome {
        // A whole prompt of 16k, a piece of one, a segment over a long prefix, a short segment over a long prefix.
        for (n, start) in [(16_384, 0), (512, 15_872), (600, 94_000), (64, 94_000)] {
            self.prefill_attention(n, start)?;
        }
        for kv_len in [1024, 8192, 94_000] {
            self.decode_attention(kv_len)?;
        }
        Ok(())
    }

    fn layer(&self, n_slots: usize) -> Result<(DeviceKv, DeviceBuffer<i32>), KernelError> {
        let mut kv = DeviceKv::new(&self.cuda, n_slots, N_KV_HEADS, HEAD_DIM)?;
        let random = self.activations(kv.keys.len())?;
        kv.keys.copy_from(&random)?;
        kv.values.copy_from(&random)?;
        Ok((kv, self.cuda.upload(&(0..n_slots as i32).collect::<Vec<_>>())?))
    }

    fn prefill_attention(&self, n: usize, start: usize) -> Outcome {
        let kv_len = start + n;
        let (kv, slots) = self.layer(kv_len)?;
        let q = self.activations(n * N_HEADS * HEAD_DIM)?;
        let mut out = self.cuda.alloc::<bf16>(q.len())?;
        let mut scratch = self.cuda.alloc::<f32>(prefill::scratch_len(n, kv_len, N_HEADS, &kv))?;
        let call = Prefill { q: q.view(), kv: &kv, slots: slots.view(), start, n_heads: N_HEADS };
        let seconds =
            self.seconds(1, || prefill::cuda(&self.cuda, &call, scratch.view_mut(), out.view_mut()))?;
        let pairs = n * start + n * (n + 1) / 2;
        let bytes = 4 * kv_len * N_KV_HEADS * HEAD_DIM + 4 * q.len();
        let cost = Cost { bytes: bytes as u64, flops: (4 * pairs * N_HEADS * HEAD_DIM) as u64 };
        self.report("attention prefill", &format!("{n} over {kv_len}"), "default", cost, seconds);
        Ok(())
    }

    /// Block-sparse attention of a whole text, its scores and choice included, beside dense attention of the same. The
    /// text is random: the share kept is printed because speed follows from it, and is not that of a drafter's text.
    fn sparse_attention(&self, n: usize) -> Outcome {
        let (cuda, blocks) = (&self.cuda, Blocks::new(n, n));
        let (kv, slots) = self.layer(n)?;
        let q = self.activations(n * N_HEADS * HEAD_DIM)?;
        let mut out = cuda.alloc::<bf16>(q.len())?;
        let mut means = cuda.alloc::<bf16>(N_KV_HEADS * blocks.n_key_blocks() * HEAD_DIM)?;
        let lists = N_HEADS * blocks.n_query_blocks() * blocks.n_key_blocks();
        let mut scores = cuda.alloc::<f32>(lists)?;
        let mut kept = DeviceKeptBlocks::new(cuda, N_HEADS, blocks)?;
        let params = Params { n_heads: N_HEADS, form: block_score::Form::Normalised };
        for alpha in [0.12, 0.5] {
            let rule = Rule { alpha, ..Rule::default() };
            let seconds = self.seconds(1, || {
                let keys = DeviceKeys { kv: &kv, slots: slots.view() };
                let mut to = DeviceScores { means: means.view_mut(), scores: scores.view_mut() };
                block_score::cuda(cuda, q.view(), keys, params, &mut to)?;
                block_select::cuda(cuda, scores.view(), &rule, &mut kept)?;
                let context = DeviceContext { kv: &kv, slots: slots.view(), kept: &kept };
                sparse_attention::cuda(cuda, q.view(), context, &mut out.view_mut())
            })?;
            let lists = kept.read()?;
            let pairs = lists.n_pairs();
            let share = pairs as f64 / (N_HEADS * blocks.n_pairs()) as f64;
            let cost =
                Cost { bytes: 4 * q.len() as u64, flops: (4 * pairs * BLOCK * BLOCK * HEAD_DIM) as u64 };
            let shape = format!("{n} at alpha {alpha}, {:.1} % kept", 100.0 * share);
            self.report("attention sparse", &shape, "default", cost, seconds);
        }
        self.prefill_attention(n, 0)
    }

    fn decode_attention(&self, kv_len: usize) -> Outcome {
        let n_layers = (COLD_BYTES / (4 * kv_len * N_KV_HEADS * HEAD_DIM)).clamp(1, 36);
        let layers: Vec<_> = (0..n_layers).map(|_| self.layer(kv_len)).collect::<Result<_, _>>()?;
        let q = self.activations(N_HEADS * HEAD_DIM)?;
        let start = self.cuda.upload(&[kv_len as i32 - 1])?;
        let mut out = self.cuda.alloc::<bf16>(q.len())?;
        let mut scratch = self.cuda.alloc::<f32>(decode::scratch_len(N_HEADS, &layers[0].0))?;
        let seconds = self.seconds(n_layers, || {
            layers.iter().try_for_each(|(kv, slots)| {
                let (q, slots, start) = (q.view(), slots.view(), start.view());
                let call = Decode { q, kv, slots, start, n_heads: N_HEADS };
                decode::cuda(&self.cuda, &call, scratch.view_mut(), out.view_mut())
            })
        })?;
        let bytes = (4 * kv_len * N_KV_HEADS * HEAD_DIM) as u64;
        let cost = Cost { bytes, flops: (4 * kv_len * N_HEADS * HEAD_DIM) as u64 };
        self.report("attention decode", &format!("1 over {kv_len}"), "default", cost, seconds);
        Ok(())
    }

    /// What moves memory between the matrices, over a piece; the scorer's tail; the choice of a token.
    fn small_ops(&self) -> Outcome {
        let (cuda, n) = (&self.cuda, 512);
        let vector = |len: usize| cuda.upload(&vec![1.0f32; len]);
        let hidden = vector(n * HIDDEN)?;
        let (weight, mut normed) = (vector(HIDDEN)?, cuda.alloc::<bf16>(n * HIDDEN)?);
        let seconds =
            self.seconds(1, || rms_norm::cuda(cuda, hidden.view(), weight.view(), 1e-6, normed.view_mut()))?;
        self.memory_op("rms_norm", &format!("{n}x{HIDDEN}"), 6 * n * HIDDEN, seconds);

        let (gate_up, mut activated) = (vector(n * 2 * FFN)?, cuda.alloc::<bf16>(n * FFN)?);
        let seconds = self.seconds(1, || swiglu::cuda(cuda, gate_up.view(), n, activated.view_mut()))?;
        self.memory_op("swiglu", &format!("{n}x{FFN}"), 10 * n * FFN, seconds);

        let qkv = vector(n * QKV)?;
        let (q_weight, angles) = (vector(HEAD_DIM)?, Angles::new(HEAD_DIM, 1e6, 0, n));
        let (table, start) = (cuda.upload(angles.table())?, cuda.upload(&[0i32])?);
        let mut q = cuda.alloc::<bf16>(n * N_HEADS * HEAD_DIM)?;
        let mut k = cuda.alloc::<f32>(n * N_KV_HEADS * HEAD_DIM)?;
        let heads = DeviceHeads {
            qkv: qkv.view(),
            n_heads: N_HEADS,
            n_kv_heads: N_KV_HEADS,
            q_weight: q_weight.view(),
            k_weight: q_weight.view(),
            eps: 1e-6,
        };
        let turn = DeviceAngles { table: table.view(), start: start.view() };
        let seconds = self.seconds(1, || {
            qk_norm_rope::cuda(cuda, &heads, Rotation::By(turn), q.view_mut(), k.view_mut())
        })?;
        let bytes = n * HEAD_DIM * (6 * N_HEADS + 8 * N_KV_HEADS + 4);
        self.memory_op("qk_norm_rope", &format!("{n}x{N_HEADS}+{N_KV_HEADS}x{HEAD_DIM}"), bytes, seconds);

        let logits = vector(VOCAB)?;
        let mut scratch = cuda.alloc::<u32>(argmax::cuda_scratch_len(VOCAB))?;
        let mut best = cuda.alloc::<u32>(1)?;
        let seconds =
            self.seconds(1, || argmax::cuda(cuda, logits.view(), scratch.view_mut(), best.view_mut()))?;
        self.memory_op("argmax", &format!("{VOCAB}"), 4 * VOCAB, seconds);
        self.tail(65_536)
    }

    fn tail(&self, kv_len: usize) -> Outcome {
        let (cuda, n_tail) = (&self.cuda, 8);
        let (kv, slots) = self.layer(kv_len)?;
        let q = self.activations(n_tail * N_HEADS * HEAD_DIM)?;
        let mut scratch = cuda.alloc::<f32>(tail_score::cuda_scratch_len(n_tail, N_HEADS, kv_len))?;
        let mut best = cuda.zeroed::<f32>(n_tail * kv_len)?;
        let tail = DeviceTail { q: q.view(), n_tail, n_heads: N_HEADS };
        let seconds = self.seconds(1, || {
            tail_score::cuda(cuda, tail, &kv, slots.view(), scratch.view_mut(), best.view_mut())
        })?;
        let bytes = 2 * kv_len * N_KV_HEADS * HEAD_DIM + 8 * n_tail * kv_len;
        self.memory_op("tail_score", &format!("{n_tail} over {kv_len}"), bytes, seconds);
        Ok(())
    }

    fn memory_op(&self, op: &str, shape: &str, bytes: usize, seconds: f64) {
        self.report(op, shape, "default", Cost { bytes: bytes as u64, flops: 0 }, seconds);
    }
}
