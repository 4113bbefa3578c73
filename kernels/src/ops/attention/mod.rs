//! Causal grouped-query attention over slots:
//!
//! ```text
//! p[t, h, j] = softmax_j(q[t, h] · k[j, g(h)] / sqrt(head_dim)),   j <= the position of t
//! out[t, h]  = sum_j p[t, h, j] · v[j, g(h)],                      g(h) = h / (n_heads / n_kv_heads)
//! ```
//!
//! Shapes: q, out (n_tokens, n_heads, head_dim) f32 row-major; slots (kv_len) in position order, the last
//! n_tokens of them the tokens' own, already stored. Prefill over a cached prefix and decode are the same
//! call.
//!
//! Method: tiles of 64 keys, an online softmax with f32 state (Milakov and Gimelshein 2018; FlashAttention,
//! Dao et al. 2022), both products on the micro-kernels of [`crate::tile`]. An F32 layer is computed in f32
//! throughout. A BF16 layer rounds queries and weights to bf16 and sums in f32.
//!
//! Order: keys are cut into tiles and splits of fixed size counted from position 0; a row folds the tiles of
//! a split one by one, then the splits one by one. Nothing else enters, so the bits of a token's output
//! depend on its query and the keys and values before it alone: **not on the number of threads, not on how
//! many tokens share the call.** Decode equals prefill bit for bit, and a prefix may be cut anywhere.
//! (Positions after a token in its last tile weigh exactly 0; only infinite values there would show, as NaN.)
//!
//! Roofline: 512 queries over 8192 keys (16 query heads, 8 KV heads of 128) reach 63 % of the `VDPBF16PS`
//! peak on a BF16 layer and 74 % of the f32 FMA peak on an F32 layer; decode over 4096 keys reads 16 and 13
//! GB/s (one core of a busy Zen 4 EPYC, CPU time; `cargo bench -p kernels --bench attention`).
//!
//! It must not know which slots are cached, shared or new, nor which model or layer it serves.

mod any_dim;
pub mod decode;
pub mod prefill;
mod prefill_wgmma;
mod walk;

use std::f64::consts::LOG2_E;

use half::bf16;

use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{DeviceKv, View};
use crate::kv::{KvDType, KvLayer, Slot, StoredRows};

/// Largest relative squared error of [`cpu`] against [`spec`] on an F32 layer. Scores are chains of
/// `head_dim` additions and outputs of up to a split's keys, weights err by 3e-7: 8e-13 is seen where scores
/// spread widely.
pub const MAX_NMSE_F32: f64 = 4e-12;

/// The same on a BF16 layer, whose keys and values the spec reads as stored. Queries and weights are rounded
/// by up to 2^-9; a rounded query moves a score of 10 by 2e-2 and its weight by as much. 1.3e-5 is seen
/// there.
pub const MAX_NMSE_BF16: f64 = 5e-5;

/// The same of [`prefill::cuda`] and [`decode::cuda`], where the spec reads queries, keys and values rounded to
/// bf16 as the device does. What is left is the rounding of outputs to bf16 and, in prefill, of weights: 2^-9 at
/// most each, about 3e-6 of relative squared error together; 5.6e-6 is seen (prefill), 3.5e-6 (decode), emulated.
pub const MAX_NMSE_CUDA: f64 = 2e-5;

/// The formula in plain loops, in f64, from the values as the layer stores them.
///
/// # Panics
/// If the shapes do not fit, as [`cpu`].
pub fn spec(q: &[f32], kv: &KvLayer, slots: &[Slot], n_heads: usize, out: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, n_heads, out);
    let head_dim = shape.head_dim;
    let mut row = vec![0.0; head_dim];
    for (i, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let (token, kv_head) = (i / n_heads, i % n_heads / shape.group());
        let visible = &slots[..shape.prefix() + token + 1];
        let mut scores = Vec::with_capacity(visible.len());
        for slot in visible {
            kv.key(kv_head, *slot, &mut row);
            let dot: f64 = q.iter().zip(&row).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            scores.push(dot / (head_dim as f64).sqrt());
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let mut sums = vec![0.0; head_dim];
        for (slot, score) in visible.iter().zip(&scores) {
            kv.value(kv_head, *slot, &mut row);
            let weight = (score - max).exp() / total;
            sums.iter_mut().zip(&row).for_each(|(sum, v)| *sum += weight * f64::from(*v));
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
    }
}

/// Attention of `q` over the keys and values at `slots`.
///
/// # Panics
/// If `q` and `out` are not (n_tokens, n_heads, kv.head_dim()), `n_heads` is not a multiple of the layer's KV
/// heads, there are fewer slots than tokens, or a slot is outside the layer.
pub fn cpu(cpu: &Cpu, q: &[f32], kv: &KvLayer, slots: &[Slot], n_heads: usize, out: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, n_heads, out);
    match kv.rows() {
        StoredRows::F32(rows) => walk::run::<f32>(cpu, &walk::Problem { q, rows, slots, shape }, out),
        StoredRows::BF16(rows) => walk::run::<u32>(cpu, &walk::Problem { q, rows, slots, shape }, out),
    }
}

/// Cost of [`cpu`]: every KV head's visible keys and values read once, four flops for each query head,
/// visible pair of positions and head value.
pub fn cost(n_tokens: usize, kv_len: usize, n_heads: usize, kv: &KvLayer) -> Cost {
    cost_of(n_tokens, kv_len, n_heads, (kv.n_kv_heads(), kv.head_dim(), kv.dtype()))
}

fn cost_of(n_tokens: usize, kv_len: usize, n_heads: usize, kv: (usize, usize, KvDType)) -> Cost {
    let (n_kv_heads, head_dim, dtype) = kv;
    let [n_tokens, kv_len, head_dim] = [n_tokens, kv_len, head_dim].map(|n| n as u64);
    // The first token sees kv_len - n_tokens + 1 positions, the last all of them.
    let pairs = n_tokens * (2 * kv_len + 1 - n_tokens) / 2;
    let activations = 2 * 4 * n_tokens * n_heads as u64 * head_dim;
    let cache = 2 * kv_len * n_kv_heads as u64 * head_dim * dtype.bytes() as u64;
    Cost { bytes: activations + cache, flops: 4 * head_dim * n_heads as u64 * pairs }
}

/// What the device multiplies scores with before `2^x`.
fn log2_scale(head_dim: usize) -> f32 {
    (LOG2_E / (head_dim as f64).sqrt()) as f32
}

/// Tokens that `q` (n, n_heads, head_dim) holds.
#[track_caller]
fn tokens_of(q: View<'_, bf16>, kv: &DeviceKv, n_heads: usize) -> usize {
    let (n_kv_heads, head_dim) = (kv.n_kv_heads, kv.head_dim);
    assert!(
        n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
        "attention: {n_heads} query heads cannot share {n_kv_heads} KV heads evenly"
    );
    assert!(
        q.len().is_multiple_of(n_heads * head_dim),
        "attention: {} values of q are not whole tokens of {n_heads} x {head_dim}",
        q.len()
    );
    q.len() / (n_heads * head_dim)
}

/// The sizes of one call, checked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_tokens: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    n_slots: usize,
    kv_len: usize,
}

impl Shape {
    #[track_caller]
    fn check(q: &[f32], kv: &KvLayer, slots: &[Slot], n_heads: usize, out: &[f32]) -> Shape {
        let (n_kv_heads, head_dim) = (kv.n_kv_heads(), kv.head_dim());
        assert!(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "attention: {n_heads} query heads cannot share {n_kv_heads} KV heads evenly"
        );
        assert!(
            q.len().is_multiple_of(n_heads * head_dim) && out.len() == q.len(),
            "attention: q has {} and out {} values, not whole tokens of {n_heads} x {head_dim}",
            q.len(),
            out.len()
        );
        let n_tokens = q.len() / (n_heads * head_dim);
        assert!(
            slots.len() >= n_tokens,
            "attention: {} slots for {n_tokens} tokens: the last slots must be the tokens' own",
            slots.len()
        );
        kv.check_slots(slots);
        Shape { n_tokens, n_heads, n_kv_heads, head_dim, n_slots: kv.n_slots(), kv_len: slots.len() }
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Positions before the first token.
    fn prefix(&self) -> usize {
        self.kv_len - self.n_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_counts_the_visible_pairs() {
        // Two tokens after one cached position see 2 + 3 positions.
        let cost = cost(2, 3, 4, &KvLayer::new(3, 2, 8, KvDType::BF16));
        assert_eq!(cost, Cost { bytes: 2 * 4 * 2 * 4 * 8 + 2 * 2 * 3 * 2 * 8, flops: 4 * 8 * 4 * 5 });
    }
}
