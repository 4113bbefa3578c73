//! Rotary position embedding, half-split (NEOX) pairing: values `i` and `i + head_dim / 2` of a head turn
//! together by the angle `position · theta^(-2i / head_dim)`.
//!
//! `y[i] = x[i]·cos − x[i+h]·sin; y[i+h] = x[i+h]·cos + x[i]·sin`, `h = head_dim / 2`.
//! Shapes: x (n_tokens, n_heads, head_dim) f32 row-major, turned in place. Bound by memory.
//! Precision: angles in f64. In f32 the angle itself would be wrong by 1e-3 at position 16k, the largest
//! error of a whole forward pass; the table is made once for a piece and shared by all layers, so exact
//! angles cost nothing.
//! Source: Su et al. 2021, equation 34; pairing as in GPT-NeoX, Llama (Hugging Face) and Qwen. It must not
//! know which tokens or layers it turns.

use crate::cost::Cost;
use crate::device::Cpu;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]: two products and a sum, and the rounding of
/// the table.
pub const MAX_NMSE: f64 = 1e-14;

/// Elements one item of parallel work handles: 64 KiB of f32, enough to outweigh handing it out.
const ITEM_ELEMENTS: usize = 16 * 1024;

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
}

/// The formula in plain loops, in f64, angles included: `x` (n_tokens, n_heads, head_dim) from position
/// `start` on.
///
/// # Panics
/// If `x` is not whole tokens.
pub fn spec(x: &mut [f32], n_heads: usize, head_dim: usize, theta: f64, start: usize) {
    assert!(x.len().is_multiple_of(n_heads * head_dim), "rope: x has {} values, not whole tokens", x.len());
    for (row, head) in x.chunks_exact_mut(head_dim).enumerate() {
        let position = (start + row / n_heads) as f64;
        for i in 0..head_dim / 2 {
            let angle = position / theta.powf(2.0 * i as f64 / head_dim as f64);
            let (a, b) = (f64::from(head[i]), f64::from(head[i + head_dim / 2]));
            head[i] = (a * angle.cos() - b * angle.sin()) as f32;
            head[i + head_dim / 2] = (b * angle.cos() + a * angle.sin()) as f32;
        }
    }
}

/// Turns every head of every token by its position's angles.
///
/// # Panics
/// If `x` is not (angles.n_positions(), n_heads, angles.head_dim()).
pub fn cpu(cpu: &Cpu, x: &mut [f32], n_heads: usize, angles: &Angles) {
    let token = n_heads * angles.head_dim;
    assert_eq!(
        x.len(),
        angles.n_positions * token,
        "rope: x must be {} tokens of {n_heads} heads of {}",
        angles.n_positions,
        angles.head_dim
    );
    if token == 0 {
        return;
    }
    let tokens = (ITEM_ELEMENTS / token).max(1);
    cpu.parallel_chunks(x, tokens * token, |i, x| {
        let table = &angles.table[i * tokens * angles.head_dim..];
        lanes::run(cpu, TurnTokens { x, token, table, head_dim: angles.head_dim });
    });
}

/// Cost of [`cpu`].
pub fn cost(n_tokens: usize, n_heads: usize, head_dim: usize) -> Cost {
    let elements = (n_tokens * n_heads * head_dim) as u64;
    Cost { bytes: 8 * elements + 4 * (n_tokens * head_dim) as u64, flops: 3 * elements }
}

/// Turns whole tokens of `token` values.
struct TurnTokens<'a> {
    x: &'a mut [f32],
    token: usize,
    /// From the first token's row on.
    table: &'a [f32],
    head_dim: usize,
}

impl Job for TurnTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let half = self.head_dim / 2;
        for (token, row) in self.x.chunks_exact_mut(self.token).zip(self.table.chunks_exact(self.head_dim)) {
            let (cos, sin) = row.split_at(half);
            for head in token.chunks_exact_mut(self.head_dim) {
                let (low, high) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b) = (low[i], high[i]);
                    low[i] = a * cos[i] - b * sin[i];
                    high[i] = b * cos[i] + a * sin[i];
                }
            }
        }
    }
}
