//! Query and key heads made ready for attention: each head's RMS norm, then rotary position embedding with
//! half-split (NEOX) pairing, where values `i` and `i + head_dim / 2` turn together by the angle
//! `position · theta^(-2i / head_dim)`. The rotation can be left out, for scores that look at unrotated heads.
//!
//! `u[i] = x[i] · w[i] / sqrt(mean_i x[i]² + eps)`;
//! `y[i] = u[i]·cos − u[i+h]·sin; y[i+h] = u[i+h]·cos + u[i]·sin`, `h = head_dim / 2`.
//!
//! Shapes: x, y (n_tokens, n_heads, head_dim) f32 row-major; w (head_dim). Bound by memory.
//! Precision: angles in f64. In f32 the angle itself would be wrong by 1e-3 at position 16k, the largest
//! error of a whole forward pass; the table is made once for a piece and shared by all layers, so exact
//! angles cost nothing.
//! Source: Zhang and Sennrich 2019, equation 4; Su et al. 2021, equation 34; pairing as in GPT-NeoX, Llama
//! (Hugging Face) and Qwen; a norm for each head as in Qwen3. It must not know which tokens or layers it turns.

use half::bf16;

use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::error::KernelError;
use crate::rms;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]: that of the norm (2e-13), and beside it two products
/// and a sum and the rounding of the table.
pub const MAX_NMSE: f64 = 3e-13;

/// Largest relative squared error of [`cuda`]'s queries against [`spec`]: they are rounded to bf16, by at most 2^-8 of each
/// value, which squared is 1.5e-5. 3e-6 is seen over long rows.
pub const MAX_NMSE_CUDA: f64 = 1.6e-5;

/// The same of its keys, which stay f32. 1e-14 is seen.
pub const MAX_NMSE_CUDA_KEYS: f64 = 5e-13;

/// Values of a head that a warp of the device holds.
const MAX_HEAD_DIM: usize = 256;

/// Elements one item of parallel work handles: 64 KiB of f32, enough to outweigh handing it out.
const ITEM_ELEMENTS: usize = 16 * 1024;

/// Heads that share a norm: all queries of a layer, or all its keys.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// Heads of a token.
    pub n_heads: usize,
    /// What a normed head is multiplied with, (head_dim).
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// Whether normed heads are turned by their position, and what gives the angles.
#[derive(Clone, Copy, Debug)]
pub enum Rotation<T> {
    /// Heads stay as the norm leaves them.
    Off,
    /// Each token is turned by its angles.
    By(T),
}

/// Cosines and sines of consecutive positions.
#[derive(Clone, Debug)]
pub struct Angles {
    head_dim: usize,
    n_positions: usize,
    /// (n_positions, head_dim): the cosines of a position's pairs, then their sines.
    table: Vec<f32>,
}

impl Angles {
    /// The angles of positions `start..start + n` for heads of `head_dim` values and the model's `theta` (the
    /// base of the frequencies, 1e6 for Qwen3), computed in f64 and stored in f32.
    ///
    /// # Panics
    /// If `head_dim` is zero or odd.
    pub fn new(head_dim: usize, theta: f64, start: usize, n: usize) -> Angles {
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "rope turns pairs: head_dim {head_dim} must be even"
        );
        let half = head_dim / 2;
        let frequencies: Vec<f64> =
            (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let mut table = vec![0.0; n * head_dim];
        for (t, row) in table.chunks_exact_mut(head_dim).enumerate() {
            let (cos, sin) = row.split_at_mut(half);
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(&frequencies) {
                let angle = (start + t) as f64 * frequency;
                (*cos, *sin) = (angle.cos() as f32, angle.sin() as f32);
            }
        }
        Angles { head_dim, n_positions: n, table }
    }

    /// Values of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Number of positions, which is the number of tokens [`cpu`] turns.
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// (n_positions, head_dim): the cosines of a position's pairs, then their sines.
    pub fn table(&self) -> &[f32] {
        &self.table
    }
}

/// Where [`spec`] takes its angles from.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    /// Base of the frequencies.
    pub theta: f64,
    /// Position of the first token.
    pub start: usize,
}

/// The formula in plain loops, in f64, angles included.
///
/// # Panics
/// If `x` is not whole tokens or `y` differs from it in length.
pub fn spec(x: &[f32], norm: HeadNorm<'_>, rotation: Rotation<Positions>, y: &mut [f32]) {
    check(x, norm, y);
    let (head_dim, half) = (norm.weight.len(), norm.weight.len() / 2);
    for (row, (x, y)) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)).enumerate() {
        let sum: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let root = (sum / head_dim as f64 + f64::from(norm.eps)).sqrt();
        let normed = |i: usize| f64::from(x[i]) * f64::from(norm.weight[i]) / root;
        for i in 0..half {
            let angle = match rotation {
                Rotation::Off => 0.0,
                Rotation::By(Positions { theta, start }) => {
                    (start + row / norm.n_heads) as f64 / theta.powf(2.0 * i as f64 / head_dim as f64)
                }
            };
            let (a, b) = (normed(i), normed(i + half));
            y[i] = (a * angle.cos() - b * angle.sin()) as f32;
            y[i + half] = (b * angle.cos() + a * angle.sin()) as f32;
        }
    }
}

/// Norms every head of every token of `x` into `y`, turned by its position's angles or not.
///
/// # Panics
/// If `x` is not whole tokens, `y` differs from it in length, or the angles are not those of `x`'s tokens and heads.
pub fn cpu(cpu: &Cpu, x: &[f32], norm: HeadNorm<'_>, rotation: Rotation<&Angles>, y: &mut [f32]) {
    check(x, norm, y);
    let head_dim = norm.weight.len();
    let token = norm.n_heads * head_dim;
    if let Rotation::By(angles) = rotation {
        assert!(
            angles.head_dim == head_dim && x.len() == angles.n_positions * token,
            "qk_norm_rope: x must be {} tokens of {} heads of {}",
            angles.n_positions,
            norm.n_heads,
            angles.head_dim
        );
    }
    let tokens = (ITEM_ELEMENTS / token).max(1);
    cpu.parallel_chunks(y, tokens * token, |i, y| {
        y.copy_from_slice(&x[i * tokens * token..][..y.len()]);
        let table = match rotation {
            Rotation::Off => Rotation::Off,
            Rotation::By(angles) => Rotation::By(&angles.table[i * tokens * head_dim..]),
        };
        lanes::run(cpu, NormTokens { y, norm, table });
    });
}

/// What the device reads: queries, keys and values of `n` tokens in one matrix.
#[derive(Clone, Copy, Debug)]
pub struct DeviceHeads<'a> {
    /// (n, (n_heads + 2 · n_kv_heads) · head_dim): a token's query heads, its key heads, its values.
    pub qkv: View<'a, f32>,
    /// Query heads.
    pub n_heads: usize,
    /// Key heads.
    pub n_kv_heads: usize,
    /// What normed queries are multiplied with, (head_dim).
    pub q_weight: View<'a, f32>,
    /// What normed keys are multiplied with, (head_dim).
    pub k_weight: View<'a, f32>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Where the device takes its angles from.
#[derive(Clone, Copy, Debug)]
pub struct DeviceAngles<'a> {
    /// [`Angles::table`] of positions from 0 on.
    pub table: View<'a, f32>,
    /// Position of the first token, one number.
    pub start: View<'a, i32>,
}

/// Queries and keys on the device: `q` (n, n_heads, head_dim) and `k` (n, n_kv_heads, head_dim). `heads` stay as they
/// are, so that they can be made ready twice, turned and not. A position beyond the table gives NaN, as positions are
/// out of the launcher's sight.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If lengths do not fit, or a head is odd or longer than 256 values, or one begins off a multiple of 8 bytes.
pub fn cuda(
    cuda: &Cuda,
    heads: &DeviceHeads<'_>,
    rotation: Rotation<DeviceAngles<'_>>,
    mut q: ViewMut<'_, bf16>,
    mut k: ViewMut<'_, f32>,
) -> Result<(), KernelError> {
    let DeviceHeads { qkv, n_heads, n_kv_heads, q_weight, k_weight, eps } = *heads;
    let head_dim = q_weight.len();
    let row_len = (n_heads + 2 * n_kv_heads) * head_dim;
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM && k_weight.len() == head_dim,
        "qk_norm_rope: heads of {head_dim} and {}, not of one even length up to {MAX_HEAD_DIM}",
        k_weight.len()
    );
    let n = qkv.len() / row_len.max(1);
    assert!(
        qkv.len() == n * row_len && q.len() == n * n_heads * head_dim && k.len() == n * n_kv_heads * head_dim,
        "qk_norm_rope: qkv, q and k have {}, {} and {} values, not {n} tokens of {n_heads} and {n_kv_heads} heads",
        qkv.len(),
        q.len(),
        k.len()
    );
    let addresses = [qkv.address(), q_weight.address(), k_weight.address(), q.address(), k.address()];
    assert!(addresses.iter().all(|a| a.is_multiple_of(8)), "qk_norm_rope: heads are read in vectors");
    let kernel = match head_dim {
        64 => "qk_norm_rope_64",
        128 => "qk_norm_rope_128",
        _ => "qk_norm_rope_any",
    };
    let blocks = [n as u32, (n_heads + n_kv_heads).div_ceil(4) as u32, 1];
    let args = Args::new().view(qkv).view(q_weight).view(k_weight);
    let (args, n_positions) = match rotation {
        Rotation::Off => (args.null().null(), 0),
        Rotation::By(DeviceAngles { table, start }) => {
            let whole = table.len().is_multiple_of(head_dim) && table.address().is_multiple_of(8);
            assert!(
                whole && start.len() == 1,
                "qk_norm_rope: a table of whole positions and one to start at"
            );
            (args.view(table).view(start), table.len() / head_dim)
        }
    };
    let args = args.view_mut(&mut q).view_mut(&mut k).i32(n_heads as i32).i32(n_kv_heads as i32);
    let args = args.i32(head_dim as i32).i32(row_len as i32).i32(n_positions as i32).f32(eps);
    // SAFETY: a warp reads its own head of qkv, a weight and one position of the table, and writes its head of q or k.
    unsafe { cuda.launch(kernel, Grid { blocks, threads: 128, shared_bytes: 0 }, &args) }
}

/// Cost of [`cpu`].
pub fn cost(n_tokens: usize, n_heads: usize, head_dim: usize) -> Cost {
    let elements = (n_tokens * n_heads * head_dim) as u64;
    Cost { bytes: 8 * elements + 4 * (n_tokens * head_dim) as u64, flops: 7 * elements }
}

#[track_caller]
fn check(x: &[f32], norm: HeadNorm<'_>, y: &[f32]) {
    let (n_heads, head_dim) = (norm.n_heads, norm.weight.len());
    assert!(
        n_heads > 0
            && head_dim > 0
            && head_dim.is_multiple_of(2)
            && x.len().is_multiple_of(n_heads * head_dim),
        "qk_norm_rope: x has {} values, not whole tokens of {n_heads} heads of an even {head_dim}",
        x.len()
    );
    assert_eq!(x.len(), y.len(), "qk_norm_rope: x and y must have the same length");
}

/// Norms and turns whole tokens in place.
struct NormTokens<'a> {
    y: &'a mut [f32],
    norm: HeadNorm<'a>,
    /// The angles from the first token's on.
    table: Rotation<&'a [f32]>,
}

impl Job for NormTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let HeadNorm { n_heads, weight, eps } = self.norm;
        let head_dim = weight.len();
        for (t, token) in self.y.chunks_exact_mut(n_heads * head_dim).enumerate() {
            let turn = match self.table {
                Rotation::Off => None,
                Rotation::By(table) => Some(table[t * head_dim..][..head_dim].split_at(head_dim / 2)),
            };
            for head in token.chunks_exact_mut(head_dim) {
                rms::divide(head, weight, eps);
                if let Some((cos, sin)) = turn {
                    rotate(head, cos, sin);
                }
            }
        }
    }
}

/// Turns the pairs of a head.
#[inline(always)]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = head.split_at_mut(cos.len());
    for i in 0..cos.len() {
        let (a, b) = (low[i], high[i]);
        low[i] = a * cos[i] - b * sin[i];
        high[i] = b * cos[i] + a * sin[i];
    }
}
