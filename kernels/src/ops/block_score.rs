//! How much each block of 128 queries is likely to attend to each block of 128 keys, from the mean key of a block:
//!
//! ```text
//! d[r, n]  = (q[r] · mean(k[j], j in n)) · log2(e) / sqrt(head_dim)     r a row of query block m, n <= m
//! m[n]     = max_r d[r, n],   P[n] = sum_r 2^(d[r, n] - m[n])
//! score[n] = P[n] · 2^(m[n] - max_i m[i]) / sum_i P[i] · 2^(m[i] - max_i m[i])      Form::Normalised
//! score[n] = P[n]                                                                    Form::LuceboxCompat
//! ```
//!
//! Shapes: q (n_tokens, n_heads, head_dim) f32 row-major, its first token the first of a block; slots (kv_len)
//! in position order, the last n_tokens the tokens' own; scores (n_heads, n_query_blocks, n_key_blocks), 0 for
//! the blocks after a query block. Rows and keys that do not exist enter nothing: in a partial last block only
//! those present are counted. A block's own mean holds keys after some of its rows; selection always keeps it.
//!
//! Method: the means in the type the layer stores (bf16 in the published form), summed in f32; their product
//! with the queries on the micro-kernels of [`crate::tile`]; per key block a running maximum and sum over the
//! rows. Order: rows in blocks of fixed size from the query block's first, key blocks ascending; the bits do
//! not depend on the number of threads.
//! Source: FlashPrefill as in Lucebox's drafter. Its selection compares P of different blocks, each with its own
//! maximum removed: that measures how flat a block is over the rows and ranks a needle last.
//! [`Form::LuceboxCompat`] keeps this for comparison; its reference, and [`Form::Normalised`], put the maxima
//! back.
//!
//! On CUDA: bf16 queries, keys and means, sums in f32, head_dim 64 or 128.
//!
//! It must not know which blocks are kept, nor why.

use std::f32::consts::LOG2_E;

use half::bf16;

use crate::blocks::Blocks;
use crate::buffer::scratch;
use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View, ViewMut};
use crate::error::KernelError;
use crate::exp::exp2;
use crate::kv::{KvLayer, Slot, StoredRows};
use crate::kv_tile::{KEY_TILE, KvWord, TileSource, key_rows};
use crate::online_softmax::fold::row_blocks;
use crate::tile::lanes::{self, Job, Lanes};
use crate::tile::{MR, NR, Start, Tile};

/// Largest relative squared error of [`cpu`] against [`spec`] on an F32 layer: chains of `head_dim` additions
/// under a power of two, as in attention. 6e-14 is seen.
pub const MAX_NMSE_F32: f64 = 1e-12;

/// The same on a BF16 layer: queries and means are rounded by up to 2^-9 each, which moves a logit of size s by
/// up to s · 2^-8. 3e-6 is seen.
pub const MAX_NMSE_BF16: f64 = 2e-5;

/// The same of [`cuda`]: queries arrive in bf16, the means are rounded to it and `2^x` is approximate. 5e-7 is
/// seen when emulated.
pub const MAX_NMSE_CUDA: f64 = 5e-6;

/// What is compared between key blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The softmax over key blocks of the block's weight: what the method means.
    Normalised,
    /// The weight relative to the block's own maximum, in 1..=128: what Lucebox's drafter compares.
    LuceboxCompat,
}

/// What a call is told beside its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Query heads, a multiple of the layer's KV heads.
    pub n_heads: usize,
    /// What the scores are.
    pub form: Form,
}

/// The formula in plain loops, in f64, from the keys as the layer stores them.
///
/// # Panics
/// If the shapes do not fit, as [`cpu`].
pub fn spec(q: &[f32], kv: &KvLayer, slots: &[Slot], params: Params, scores: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, params, scores);
    let Shape { blocks, head_dim, .. } = shape;
    for (list, scores) in scores.chunks_exact_mut(blocks.n_key_blocks()).enumerate() {
        let (head, query_block) = (list / blocks.n_query_blocks(), list % blocks.n_query_blocks());
        let mut key = vec![0.0; head_dim];
        let (mut maxima, mut sums) = (Vec::new(), Vec::new());
        for key_block in 0..=blocks.own(query_block) {
            let positions = blocks.positions(key_block);
            let mut mean = vec![0.0; head_dim];
            for slot in &slots[positions.clone()] {
                kv.key(head / shape.group(), *slot, &mut key);
                mean.iter_mut()
                    .zip(&key)
                    .for_each(|(mean, k)| *mean += f64::from(*k) / positions.len() as f64);
            }
            let logits: Vec<f64> = blocks
                .tokens(query_block)
                .map(|token| {
                    let q = &q[(token * params.n_heads + head) * head_dim..][..head_dim];
                    let dot: f64 = q.iter().zip(&mean).map(|(q, k)| f64::from(*q) * k).sum();
                    dot / (head_dim as f64).sqrt() * std::f64::consts::LOG2_E
                })
                .collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            maxima.push(max);
            sums.push(logits.iter().map(|d| (d - max).exp2()).sum::<f64>());
        }
        scores.fill(0.0);
        let best = maxima.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = sums.iter().zip(&maxima).map(|(p, m)| p * (m - best).exp2()).collect();
        let total: f64 = weights.iter().sum();
        for (n, score) in scores.iter_mut().take(sums.len()).enumerate() {
            *score = match params.form {
                Form::Normalised => (weights[n] / total) as f32,
                Form::LuceboxCompat => sums[n] as f32,
            };
        }
    }
}

/// Writes every score. A NaN query or key makes the scores it enters NaN.
///
/// # Panics
/// If `q` is not (n_tokens, n_heads, kv.head_dim()), `params.n_heads` is not a multiple of the layer's KV heads,
/// the first token does not begin a block, `scores` has not (n_heads, n_query_blocks, n_key_blocks) values, or a
/// slot is outside the layer.
pub fn cpu(cpu: &Cpu, q: &[f32], kv: &KvLayer, slots: &[Slot], params: Params, scores: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, params, scores);
    match kv.rows() {
        StoredRows::F32(rows) => run::<f32>(cpu, &Problem { q, keys: rows.keys, slots, shape }, scores),
        StoredRows::BF16(rows) => run::<u32>(cpu, &Problem { q, keys: rows.keys, slots, shape }, scores),
    }
}

/// What [`cuda`] reads besides queries.
#[derive(Clone, Copy, Debug)]
pub struct DeviceKeys<'a> {
    /// The layer.
    pub kv: &'a DeviceKv,
    /// (kv_len), in position order.
    pub slots: View<'a, i32>,
}

/// What [`cuda`] writes.
#[derive(Debug)]
pub struct DeviceScores<'a> {
    /// (n_kv_heads, n_key_blocks, head_dim): the mean keys.
    pub means: ViewMut<'a, bf16>,
    /// (n_heads, n_query_blocks, n_key_blocks)
    pub scores: ViewMut<'a, f32>,
}

/// [`cpu`] on a CUDA device, from `q` (n_tokens, n_heads, head_dim).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses a launch: the text has too many blocks for a multiprocessor's
/// shared memory (about 3,900, half a million tokens, on the smallest supported).
///
/// # Panics
/// As [`cpu`], but what is no slot counts as a key of zeros; and if head_dim is neither 64 nor 128.
pub fn cuda(
    cuda: &Cuda,
    q: View<'_, bf16>,
    keys: DeviceKeys<'_>,
    params: Params,
    out: &mut DeviceScores<'_>,
) -> Result<(), KernelError> {
    const MEAN_THREADS: u32 = 128;
    const SCORE_THREADS: u32 = 256;
    let kv = keys.kv;
    let sizes = [q.len(), keys.slots.len(), out.scores.len()];
    let shape = Shape::of(sizes, params, [kv.n_slots, kv.n_kv_heads, kv.head_dim]);
    let Shape { blocks, head_dim, .. } = shape;
    let n_key_blocks = blocks.n_key_blocks();
    assert_eq!(
        out.means.len(),
        kv.n_kv_heads * n_key_blocks * head_dim,
        "block_score: means must be KV heads x key blocks x head_dim"
    );
    let aligned = [q.address(), out.means.address()].iter().all(|at| at.is_multiple_of(16));
    assert!(aligned, "block_score: rows are copied in vectors of 16 bytes");
    let (means, scores) = match head_dim {
        64 => ("block_score_means_d64", "block_score_d64"),
        128 => ("block_score_means_d128", "block_score_d128"),
        _ => panic!("block_score: head_dim {head_dim} has no kernel, 64 and 128 have"),
    };
    let grid = Grid {
        blocks: [n_key_blocks as u32, kv.n_kv_heads as u32, 1],
        threads: MEAN_THREADS,
        // A sum of each head value for every row read at once; rows are read 16 bytes to a thread.
        shared_bytes: MEAN_THREADS * 8 * size_of::<f32>() as u32,
    };
    let args = Args::new().view(kv.keys.view()).view(keys.slots).view_mut(&mut out.means);
    let args = args.i32(blocks.kv_len() as i32).i32(kv.n_slots as i32);
    // SAFETY: the kernel's parameters; it keeps what it reads in slots inside the layer and writes a mean for each
    // head and block, as many as asserted.
    unsafe { cuda.launch(means, grid, &args) }?;
    let tiles = 2 * 64 * head_dim * size_of::<bf16>() + 8 * 64 * 2 * size_of::<f32>();
    let grid = Grid {
        blocks: [blocks.n_query_blocks() as u32, params.n_heads as u32, 1],
        threads: SCORE_THREADS,
        shared_bytes: (tiles + n_key_blocks * 2 * size_of::<f32>()) as u32,
    };
    let normalise = i32::from(params.form == Form::Normalised);
    let args = Args::new().view(q).view_mut(&mut out.means).view_mut(&mut out.scores);
    let args = args.i32(blocks.n_tokens() as i32).i32(blocks.own(0) as i32).i32(n_key_blocks as i32);
    let args = args.i32(kv.n_kv_heads as i32).i32(normalise).f32(shape.scale());
    // SAFETY: the kernel's parameters; queries, means and scores have the sizes checked above.
    unsafe { cuda.launch(scores, grid, &args) }
}

/// Cost of [`cpu`]: keys and queries read once, scores written; an addition for each key value, two flops for
/// each head value of a row and a key block it sees.
pub fn cost(blocks: Blocks, n_heads: usize, kv: &KvLayer) -> Cost {
    let keys = (blocks.kv_len() * kv.n_kv_heads() * kv.head_dim()) as u64;
    let width = (n_heads * kv.head_dim()) as u64;
    let pairs: usize =
        (0..blocks.n_query_blocks()).map(|m| blocks.tokens(m).len() * (blocks.own(m) + 1)).sum();
    let scores = (n_heads * blocks.n_query_blocks() * blocks.n_key_blocks()) as u64;
    Cost {
        bytes: keys * kv.dtype().bytes() as u64 + 4 * (blocks.n_tokens() as u64 * width + scores),
        flops: keys + 2 * pairs as u64 * width,
    }
}

/// The sizes of one call, checked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    params: Params,
    blocks: Blocks,
    n_kv_heads: usize,
    head_dim: usize,
    n_slots: usize,
}

impl Shape {
    #[track_caller]
    fn check(q: &[f32], kv: &KvLayer, slots: &[Slot], params: Params, scores: &[f32]) -> Shape {
        kv.check_slots(slots);
        let sizes = [q.len(), slots.len(), scores.len()];
        Shape::of(sizes, params, [kv.n_slots(), kv.n_kv_heads(), kv.head_dim()])
    }

    /// From the numbers of query values, positions and scores, and of the layer's slots, heads and head values.
    #[track_caller]
    fn of(sizes: [usize; 3], params: Params, kv: [usize; 3]) -> Shape {
        let ([n_queries, kv_len, n_scores], [n_slots, n_kv_heads, head_dim]) = (sizes, kv);
        let n_heads = params.n_heads;
        assert!(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "block_score: {n_heads} query heads cannot share {n_kv_heads} KV heads evenly"
        );
        assert!(
            n_queries.is_multiple_of(n_heads * head_dim),
            "block_score: {n_queries} query values are not whole tokens of {n_heads} x {head_dim}"
        );
        let blocks = Blocks::new(n_queries / (n_heads * head_dim), kv_len);
        assert_eq!(
            n_scores,
            n_heads * blocks.n_query_blocks() * blocks.n_key_blocks(),
            "block_score: scores must be heads x query blocks x key blocks"
        );
        Shape { params, blocks, n_kv_heads, head_dim, n_slots }
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.params.n_heads / self.n_kv_heads
    }

    /// What raw logits are multiplied with before `2^x`.
    fn scale(&self) -> f32 {
        LOG2_E / (self.head_dim as f32).sqrt()
    }
}

struct Problem<'a, T> {
    q: &'a [f32],
    /// (n_kv_heads, n_slots, head_dim)
    keys: &'a [T],
    slots: &'a [Slot],
    shape: Shape,
}

fn run<W: KvWord<Stored: Element>>(cpu: &Cpu, problem: &Problem<'_, W::Stored>, scores: &mut [f32]) {
    let Shape { blocks, head_dim, n_slots, n_kv_heads, .. } = problem.shape;
    let n_key_blocks = blocks.n_key_blocks();
    // (n_kv_heads, n_key_blocks, head_dim)
    let mut means = vec![W::Stored::default(); n_kv_heads * n_key_blocks * head_dim];
    cpu.parallel_chunks(&mut means, head_dim, |i, mean| {
        let rows = &problem.keys[i / n_key_blocks * n_slots * head_dim..][..n_slots * head_dim];
        let slots = &problem.slots[blocks.positions(i % n_key_blocks)];
        scratch(head_dim, |sums: &mut [f32]| lanes::run(cpu, Mean { rows, slots, sums, mean }));
    });
    let in_order: Vec<Slot> = (0..n_key_blocks as u32).map(Slot).collect();
    cpu.parallel_chunks(scores, n_key_blocks, |i, scores| {
        let (head, query_block) = (i / blocks.n_query_blocks(), i % blocks.n_query_blocks());
        let head_len = n_key_blocks * head_dim;
        let means = &means[head / problem.shape.group() * head_len..][..head_len];
        let seen = blocks.own(query_block) + 1;
        scores[seen..].fill(0.0);
        scratch(seen, |maxima: &mut [f32]| {
            let columns = Columns { maxima, sums: &mut scores[..seen] };
            score_block::<W>(cpu, problem, (head, query_block), (means, &in_order), columns);
        });
    });
}

/// The largest raw logit of each key block and the sum of the rows' weights relative to it.
struct Columns<'a> {
    maxima: &'a mut [f32],
    sums: &'a mut [f32],
}

/// The scores of one head and query block, over the mean keys of its KV head, which lie in `slots`.
fn score_block<W: KvWord>(
    cpu: &Cpu,
    problem: &Problem<'_, W::Stored>,
    (head, query_block): (usize, usize),
    (means, slots): (&[W::Stored], &[Slot]),
    columns: Columns<'_>,
) {
    let Shape { blocks, head_dim, params, .. } = problem.shape;
    let tokens = blocks.tokens(query_block);
    let (row_words, scale, Columns { maxima, sums }) = (head_dim / W::VALUES, problem.shape.scale(), columns);
    let query_rows = (tokens.len() * row_words).div_ceil(NR);
    scratch(query_rows + key_rows::<W>(head_dim), |memory: &mut [[W; NR]]| {
        let (queries, panels) = memory.split_at_mut(query_rows);
        let queries = queries.as_flattened_mut();
        for (first, n) in row_blocks(tokens.len()) {
            let row = |i: usize| {
                &problem.q[((tokens.start + first + i) * params.n_heads + head) * head_dim..][..head_dim]
            };
            W::pack_a(cpu, n, head_dim, row, &mut queries[first * row_words..][..n * row_words]);
        }
        for first_key in (0..maxima.len()).step_by(KEY_TILE) {
            W::gather_keys(cpu, TileSource::new(means, head_dim, slots, first_key), panels);
            let mut tile = TileColumns { maxima: [f32::NEG_INFINITY; KEY_TILE], sums: [0.0; KEY_TILE] };
            let mut logits = [[0.0; KEY_TILE]; MR];
            for (first, n) in row_blocks(tokens.len()) {
                let product = Tile {
                    rows: n,
                    k: row_words,
                    panels: KEY_TILE / NR,
                    panel_stride: row_words,
                    ldc: KEY_TILE,
                    start: Start::Zero,
                };
                W::multiply(cpu, product, &queries[first * row_words..], panels, logits.as_flattened_mut());
                lanes::run(cpu, FoldColumns { tile: &mut tile, logits: &logits[..n], scale });
            }
            let end = maxima.len().min(first_key + KEY_TILE);
            maxima[first_key..end].copy_from_slice(&tile.maxima[..end - first_key]);
            sums[first_key..end].copy_from_slice(&tile.sums[..end - first_key]);
        }
    });
    if params.form == Form::Normalised {
        lanes::run(cpu, Normalise { maxima, scores: sums, scale });
    }
}

/// An element of a KV layer, widened and rounded.
trait Element: Copy + Default + Send + Sync {
    fn widen(self) -> f32;
    fn round(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn round(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// The mean of the rows at `slots`.
struct Mean<'a, T> {
    /// (n_slots, head_dim)
    rows: &'a [T],
    slots: &'a [Slot],
    /// (head_dim), whatever it holds.
    sums: &'a mut [f32],
    mean: &'a mut [T],
}

impl<T: Element> Job for Mean<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        self.sums.fill(0.0);
        let head_dim = self.sums.len();
        for slot in self.slots {
            let row = &self.rows[slot.0 as usize * head_dim..][..head_dim];
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += x.widen();
            }
        }
        for (mean, sum) in self.mean.iter_mut().zip(self.sums) {
            *mean = T::round(*sum * (1.0 / self.slots.len() as f32));
        }
    }
}

/// The columns of one tile of key blocks, as rows are folded into them.
struct TileColumns {
    maxima: [f32; KEY_TILE],
    sums: [f32; KEY_TILE],
}

/// Folds the raw logits of a block of rows into the columns.
struct FoldColumns<'a> {
    tile: &'a mut TileColumns,
    logits: &'a [[f32; KEY_TILE]],
    scale: f32,
}

impl Job for FoldColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let old = self.tile.maxima;
        let mut max = old;
        for row in self.logits {
            for (max, x) in max.iter_mut().zip(row) {
                *max = if *x > *max { *x } else { *max };
            }
        }
        for (i, sum) in self.tile.sums.iter_mut().enumerate() {
            *sum *= exp2((old[i] - max[i]) * self.scale);
        }
        for row in self.logits {
            for (i, sum) in self.tile.sums.iter_mut().enumerate() {
                *sum += exp2((row[i] - max[i]) * self.scale);
            }
        }
        self.tile.maxima = max;
    }
}

/// Brings the weights of one query block to a common maximum and divides them by their sum.
struct Normalise<'a> {
    maxima: &'a [f32],
    scores: &'a mut [f32],
    scale: f32,
}

impl Job for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let mut best = f32::NEG_INFINITY;
        for max in self.maxima {
            best = if *max > best { *max } else { best };
        }
        let mut total = 0.0;
        for (score, max) in self.scores.iter_mut().zip(self.maxima) {
            *score *= exp2((max - best) * self.scale);
            total += *score;
        }
        for score in self.scores {
            *score /= total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvDType;

    #[test]
    fn cost_counts_rows_and_the_blocks_they_see() {
        // 72 rows of the second query block see its 4 blocks, 128 of the first 3.
        let kv = KvLayer::new(456, 2, 64, KvDType::BF16);
        let cost = cost(Blocks::new(200, 456), 4, &kv);
        assert_eq!(cost.flops, 456 * 2 * 64 + 2 * 4 * 64 * (128 * 3 + 72 * 4));
        assert_eq!(cost.bytes, 456 * 2 * 64 * 2 + 4 * (200 * 4 * 64 + 4 * 2 * 4));
    }
}
