//! How much attention the last tokens of a prompt pay to each position, the largest over the query heads of a
//! layer:
//!
//! ```text
//! p[h, t, j]      = softmax_j(q[t, h] · k[j, g(h)] / sqrt(head_dim)),   j <= S - n_tail + t
//! max_probs[t, j] = max(max_probs[t, j], max_h p[h, t, j])
//! ```
//!
//! One call per layer folds the layers too, so a layer's keys need not outlive its call.
//!
//! Shapes: q_tail (n_tail, n_heads, head_dim); slots (S), all positions in order, the tail being the last
//! n_tail of them; max_probs (n_tail, S), zero before the first layer. Positions after a tail token
//! keep what they held.
//!
//! Method: raw scores of every head are kept (n_heads · n_tail · S f32), a position range of one KV head
//! being an item of parallel work; then the ranges' maxima and sums are folded in order, and the
//! probabilities' maximum over heads is taken range by range. An F32 layer is computed in f32, a BF16 layer
//! rounds the queries to bf16.
//! Order: ranges have a fixed length counted from position 0; the bits do not depend on the number of
//! threads.
//! Source: PFlash's token score as in Lucebox's drafter, the tail's queries in place of Speculative Prefill's
//! (Liu et al. 2025) look-ahead. Whether keys carry RoPE is the caller's choice. It must not know chunks or
//! budgets.

mod ranges;

use std::f32::consts::LOG2_E;

pub use ranges::{DeviceTail, MAX_NMSE_CUDA, cuda, cuda_scratch_len, mean_cuda};

use crate::buffer::scratch;
use crate::cost::Cost;
use crate::device::{Cpu, Disjoint};
use crate::exp::exp2;
use crate::kv::{KvLayer, Slot, StoredRows};
use crate::kv_tile::{KEY_TILE, KvWord, TileSource, key_rows};
use crate::tile::lanes::{self, Job, Lanes};
use crate::tile::{MR, NR, Start, Tile};

/// Largest relative squared error of [`cpu`] against [`spec`] on an F32 layer: the weights of attention,
/// before values are averaged. 3e-13 is seen.
pub const MAX_NMSE_F32: f64 = 4e-12;

/// The same on a BF16 layer: queries are rounded by up to 2^-9, which moves a score of size s by up to
/// s · 2^-9 and its probability by that ratio. 4e-6 is seen.
pub const MAX_NMSE_BF16: f64 = 5e-5;

/// Positions of a range, a multiple of `KEY_TILE`: part of the result's definition, so never tuned by
/// machine.
const RANGE: usize = 1024;

/// The formula in plain loops, in f64, from the keys as the layer stores them.
///
/// # Panics
/// If the shapes do not fit, as [`cpu`].
pub fn spec(q_tail: &[f32], k: &KvLayer, slots: &[Slot], n_heads: usize, max_probs: &mut [f32]) {
    let shape = Shape::check(q_tail, k, slots, n_heads, max_probs);
    let mut key = vec![0.0; shape.head_dim];
    for (row, q) in q_tail.chunks_exact(shape.head_dim).enumerate() {
        let (t, head) = (row / n_heads, row % n_heads);
        let visible = &slots[..shape.visible(t)];
        let mut scores = Vec::with_capacity(visible.len());
        for slot in visible {
            k.key(head / shape.group(), *slot, &mut key);
            let dot: f64 = q.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            scores.push(dot / (shape.head_dim as f64).sqrt());
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (best, score) in max_probs[t * slots.len()..].iter_mut().zip(scores) {
            *best = best.max(((score - max).exp() / total) as f32);
        }
    }
}

/// Raises `max_probs` to the probabilities of one layer. A NaN probability raises nothing.
///
/// # Panics
/// If `q_tail` is not (n_tail, n_heads, k.head_dim()), `n_heads` is not a multiple of the layer's KV heads,
/// `max_probs` is not (n_tail, slots.len()), there are fewer slots than tail tokens, or a slot is outside the
/// layer.
pub fn cpu(cpu: &Cpu, q_tail: &[f32], k: &KvLayer, slots: &[Slot], n_heads: usize, max_probs: &mut [f32]) {
    let shape = Shape::check(q_tail, k, slots, n_heads, max_probs);
    if shape.n_tail == 0 {
        return;
    }
    match k.rows() {
        StoredRows::F32(rows) => {
            run::<f32>(cpu, &Problem { q_tail, keys: rows.keys, slots, shape }, max_probs)
        }
        StoredRows::BF16(rows) => {
            run::<u32>(cpu, &Problem { q_tail, keys: rows.keys, slots, shape }, max_probs)
        }
    }
}

/// `score[j] = mean over t of max_probs[t, j]`, summed in f64 in the order of `t`.
///
/// # Panics
/// If `max_probs` is not one row of scores for each of `n_tail` tokens, at least one.
pub fn mean(max_probs: &[f32], n_tail: usize) -> Vec<f32> {
    assert!(
        n_tail > 0 && max_probs.len().is_multiple_of(n_tail),
        "tail_score: maxima of {n_tail} tail tokens"
    );
    let kv_len = max_probs.len() / n_tail;
    (0..kv_len)
        .map(|j| {
            let sum: f64 = (0..n_tail).map(|t| f64::from(max_probs[t * kv_len + j])).sum();
            (sum / n_tail as f64) as f32
        })
        .collect()
}

/// Cost of [`cpu`]: the keys read once, the maxima read and written.
pub fn cost(n_tail: usize, kv_len: usize, n_heads: usize, k: &KvLayer) -> Cost {
    let pairs = (n_tail * kv_len) as u64;
    let keys = (kv_len * k.n_kv_heads() * k.head_dim() * k.dtype().bytes()) as u64;
    Cost { bytes: keys + 8 * pairs, flops: 2 * pairs * (n_heads * k.head_dim()) as u64 }
}

/// The sizes of one call, checked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_tail: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    n_slots: usize,
    kv_len: usize,
}

impl Shape {
    #[track_caller]
    fn check(q_tail: &[f32], k: &KvLayer, slots: &[Slot], n_heads: usize, max_probs: &[f32]) -> Shape {
        let (n_kv_heads, head_dim) = (k.n_kv_heads(), k.head_dim());
        assert!(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "tail_score: {n_heads} query heads cannot share {n_kv_heads} KV heads evenly"
        );
        let n_tail = q_tail.len() / (n_heads * head_dim);
        assert!(
            q_tail.len() == n_tail * n_heads * head_dim && slots.len() >= n_tail,
            "tail_score: {} query values and {} slots, not a tail of whole tokens of {n_heads} x {head_dim}",
            q_tail.len(),
            slots.len()
        );
        assert_eq!(
            max_probs.len(),
            n_tail * slots.len(),
            "tail_score: max_probs must be {n_tail} tail tokens x {} positions",
            slots.len()
        );
        k.check_slots(slots);
        Shape { n_tail, n_heads, n_kv_heads, head_dim, n_slots: k.n_slots(), kv_len: slots.len() }
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Rows of a KV head: its query heads, tail token by tail token.
    fn rows(&self) -> usize {
        self.n_tail * self.group()
    }

    /// Positions a tail token sees.
    fn visible(&self, t: usize) -> usize {
        self.kv_len - self.n_tail + t + 1
    }

    fn ranges(&self) -> usize {
        self.kv_len.div_ceil(RANGE)
    }

    /// What raw scores are multiplied with before `2^x`.
    fn scale(&self) -> f32 {
        LOG2_E / (self.head_dim as f32).sqrt()
    }
}

struct Problem<'a, T> {
    q_tail: &'a [f32],
    /// (n_kv_heads, n_slots, head_dim)
    keys: &'a [T],
    slots: &'a [Slot],
    shape: Shape,
}

/// The largest raw score of a row and the sum of `2^(scale · (score - largest))`, over a range or over all.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: f32,
}

fn run<W: KvWord>(cpu: &Cpu, problem: &Problem<'_, W::Stored>, max_probs: &mut [f32]) {
    let shape = problem.shape;
    let (rows, ranges) = (shape.rows(), shape.ranges());
    // (n_kv_heads, ranges, rows, RANGE) and (n_kv_heads, ranges, rows).
    let mut scores = vec![0.0; shape.n_kv_heads * ranges * rows * RANGE];
    let mut parts = vec![Softmax { max: 0.0, sum: 0.0 }; shape.n_kv_heads * ranges * rows];
    let split_parts = Disjoint::new(&mut parts);
    cpu.parallel_chunks(&mut scores, rows * RANGE, |i, scores| {
        // SAFETY: item i owns the parts of its own range and head.
        let parts = unsafe { split_parts.slice(i * rows..(i + 1) * rows) };
        score_range::<W>(cpu, problem, i / ranges, i % ranges, scores);
        lanes::run(cpu, Summarise { shape, first: i % ranges * RANGE, scores, parts });
    });
    // (n_kv_heads, rows)
    let totals: Vec<Softmax> = (0..shape.n_kv_heads)
        .flat_map(|head| (0..rows).map(move |row| (head, row)))
        .map(|(head, row)| {
            total((0..ranges).map(|range| parts[(head * ranges + range) * rows + row]), shape.scale())
        })
        .collect();
    let best = Disjoint::new(max_probs);
    cpu.parallel(ranges, |range| {
        let columns = range * RANGE..shape.kv_len.min((range + 1) * RANGE);
        for t in 0..shape.n_tail {
            let row = t * shape.kv_len;
            // SAFETY: an item writes the columns of its own range.
            let best = unsafe { best.slice(row + columns.start..row + columns.end) };
            for (head, row) in (0..shape.n_kv_heads).flat_map(|h| (0..shape.group()).map(move |g| (h, g))) {
                let row = t * shape.group() + row;
                let scores = &scores[((head * ranges + range) * rows + row) * RANGE..][..best.len()];
                lanes::run(
                    cpu,
                    Raise { scores, total: totals[head * rows + row], scale: shape.scale(), best },
                );
            }
        }
    });
}

/// The softmax over all ranges from those of the ranges, in order.
fn total(parts: impl Iterator<Item = Softmax> + Clone, scale: f32) -> Softmax {
    let max = parts.clone().map(|p| p.max).fold(f32::NEG_INFINITY, f32::max);
    let sum = parts.map(|p| p.sum * exp2((p.max - max) * scale)).sum();
    Softmax { max, sum }
}

/// Raw scores of one KV head's rows over one range: (rows, RANGE).
fn score_range<W: KvWord>(
    cpu: &Cpu,
    problem: &Problem<'_, W::Stored>,
    kv_head: usize,
    range: usize,
    scores: &mut [f32],
) {
    let shape = problem.shape;
    let (head_dim, row_words) = (shape.head_dim, shape.head_dim / W::VALUES);
    let query = |row: usize| {
        let head = kv_head * shape.group() + row % shape.group();
        &problem.q_tail[(row / shape.group() * shape.n_heads + head) * head_dim..][..head_dim]
    };
    let keys = &problem.keys[kv_head * shape.n_slots * head_dim..][..shape.n_slots * head_dim];
    let rows = shape.rows();
    let blocks = || (0..rows).step_by(MR).map(|first_row| (first_row, MR.min(rows - first_row)));
    let query_rows = (rows * row_words).div_ceil(NR);
    scratch(query_rows + key_rows::<W>(head_dim), |memory: &mut [[W; NR]]| {
        let (queries, panels) = memory.split_at_mut(query_rows);
        let queries = queries.as_flattened_mut();
        for (first_row, n) in blocks() {
            let packed = &mut queries[first_row * row_words..][..n * row_words];
            W::pack_a(cpu, n, head_dim, |i| query(first_row + i), packed);
        }
        let first = range * RANGE;
        for first_key in (first..shape.kv_len.min(first + RANGE)).step_by(KEY_TILE) {
            W::gather_keys(cpu, TileSource::new(keys, head_dim, problem.slots, first_key), panels);
            for (first_row, n) in blocks() {
                let product = Tile {
                    rows: n,
                    k: row_words,
                    panels: KEY_TILE / NR,
                    panel_stride: row_words,
                    ldc: RANGE,
                    start: Start::Zero,
                };
                let c = &mut scores[first_row * RANGE + first_key - first..];
                W::multiply(cpu, product, &queries[first_row * row_words..], panels, c);
            }
        }
    });
}

/// Masks what a row may not see and takes each row's maximum and sum.
struct Summarise<'a> {
    shape: Shape,
    /// First position of the range.
    first: usize,
    /// (rows, RANGE)
    scores: &'a mut [f32],
    parts: &'a mut [Softmax],
}

impl Job for Summarise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (row, (scores, part)) in self.scores.chunks_exact_mut(RANGE).zip(self.parts).enumerate() {
            let visible = self.shape.visible(row / self.shape.group()).saturating_sub(self.first).min(RANGE);
            scores[visible..].fill(f32::NEG_INFINITY);
            let mut max = [f32::NEG_INFINITY; NR];
            let (blocks, _) = scores.as_chunks::<NR>();
            for block in blocks {
                for (max, x) in max.iter_mut().zip(block) {
                    *max = if *x > *max { *x } else { *max };
                }
            }
            let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
            // A range beyond the row's last position has no maximum; any finite one gives it the sum 0.
            let max = max.max(f32::MIN);
            let mut sums = [0.0; NR];
            for block in blocks {
                for (sum, x) in sums.iter_mut().zip(block) {
                    *sum += exp2((x - max) * self.shape.scale());
                }
            }
            *part = Softmax { max, sum: sums.iter().sum() };
        }
    }
}

/// Raises maxima to the probabilities of one row.
struct Raise<'a> {
    scores: &'a [f32],
    total: Softmax,
    scale: f32,
    best: &'a mut [f32],
}

impl Job for Raise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Softmax { max, sum } = self.total;
        let share = 1.0 / sum;
        for (best, score) in self.best.iter_mut().zip(self.scores) {
            let p = exp2((score - max) * self.scale) * share;
            *best = if p > *best { p } else { *best };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvDType;

    #[test]
    fn cost_reads_the_keys_once() {
        let cost = cost(8, 100, 16, &KvLayer::new(100, 8, 128, KvDType::BF16));
        assert_eq!(cost, Cost { bytes: 100 * 8 * 128 * 2 + 8 * 800, flops: 2 * 800 * 16 * 128 });
    }
}
