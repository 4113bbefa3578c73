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

use crate::cost::Cost;
use crate::device::Cpu;
use crate::rms;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]: that of the norm (2e-13), and beside it two products
/// and a sum and the rounding of the table.
pub const MAX_NMSE: f64 = 3e-13;

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
