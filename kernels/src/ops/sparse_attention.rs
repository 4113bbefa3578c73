//! Causal grouped-query attention of query blocks over the key blocks kept for them:
//!
//! ```text
//! p[t, h, j] = softmax_j(q[t, h] · k[j, g(h)] / sqrt(head_dim)),   j <= the position of t, j in a kept block
//! out[t, h]  = sum_j p[t, h, j] · v[j, g(h)],                      g(h) = h / (n_heads / n_kv_heads)
//! ```
//!
//! Shapes: q, out (n_tokens, n_heads, head_dim) f32 row-major, the first token the first of a block of 128;
//! slots (kv_len) in position order, the last n_tokens the tokens' own, already stored; kept, for each head and
//! query block, the ascending key blocks it sees, the last of them its own. The own block is masked causally.
//!
//! Method and order are those of dense attention: tiles of 64 keys folded into an online softmax, splits of
//! fixed size counted from position 0, and the same arithmetic in a tile. **Where every block is kept, the output
//! is that of dense attention, bit for bit**; a block that is not kept is a tile left out. An item of parallel
//! work is a query block of one KV head, so that a gathered tile serves all its query heads that keep it.
//!
//! On CUDA: bf16 throughout with sums in f32, head_dim 64 or 128, a thread block for each query block and head,
//! on the tile walk of dense prefill.
//!
//! Source: the sparse forward of FlashPrefill as in Lucebox's drafter, which leaves the own block unmasked.
//! It must not know scores nor why a block is kept, and has no place in the exact path of a target.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use half::bf16;

use crate::blocks::device::DeviceKeptBlocks;
use crate::blocks::{BLOCK, Blocks, KeptBlocks};
use crate::buffer::scratch;
use crate::cost::Cost;
use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View, ViewMut};
use crate::device::{Cpu, Disjoint};
use crate::error::KernelError;
use crate::kv::{KvLayer, Rows, Slot, StoredRows};
use crate::kv_tile::{KEY_TILE, KvWord, TileSource};
use crate::online_softmax::fold::{Fold, FoldRows, row_blocks};
use crate::online_softmax::{Finish, KEY_SPLIT, Merge, State};
use crate::tile::NR;
use crate::tile::lanes;

/// Largest relative squared error of [`cpu`] against [`spec`] on an F32 layer: that of dense attention, whose
/// sums it takes in the same order. 4e-13 is seen.
pub const MAX_NMSE_F32: f64 = 4e-12;

/// The same on a BF16 layer. 1.6e-5 is seen.
pub const MAX_NMSE_BF16: f64 = 5e-5;

/// The same of [`cuda`]: queries arrive in bf16, weights and outputs are rounded to it. 6e-6 is seen when
/// emulated.
pub const MAX_NMSE_CUDA: f64 = 3e-5;

/// The formula in plain loops, in f64, from the values as the layer stores them.
///
/// # Panics
/// If the shapes do not fit, as [`cpu`].
pub fn spec(q: &[f32], kv: &KvLayer, slots: &[Slot], kept: &KeptBlocks, out: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, kept, out);
    let Shape { blocks, n_heads, head_dim, .. } = shape;
    let mut row = vec![0.0; head_dim];
    for (i, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let (token, head) = (i / n_heads, i % n_heads);
        let (kv_head, position) = (head / shape.group(), blocks.kv_len() - blocks.n_tokens() + token);
        let visible: Vec<Slot> = kept
            .list(head, token / BLOCK)
            .iter()
            .flat_map(|n| blocks.positions(*n as usize))
            .filter(|j| *j <= position)
            .map(|j| slots[j])
            .collect();
        let mut scores = Vec::with_capacity(visible.len());
        for slot in &visible {
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

/// Attention of `q` over the kept blocks of the keys and values at `slots`.
///
/// # Panics
/// If `q` and `out` are not (n_tokens, n_heads, kv.head_dim()) with the heads of `kept`, these are not a multiple
/// of the layer's KV heads, the first token does not begin a block, `kept` was made for other blocks or a list
/// does not end with the query block's own, or a slot is outside the layer.
pub fn cpu(cpu: &Cpu, q: &[f32], kv: &KvLayer, slots: &[Slot], kept: &KeptBlocks, out: &mut [f32]) {
    let shape = Shape::check(q, kv, slots, kept, out);
    match kv.rows() {
        StoredRows::F32(rows) => run::<f32>(cpu, &Problem { q, rows, slots, kept, shape }, out),
        StoredRows::BF16(rows) => run::<u32>(cpu, &Problem { q, rows, slots, kept, shape }, out),
    }
}

/// The layer and the lists that [`cuda`] reads.
#[derive(Clone, Copy, Debug)]
pub struct DeviceContext<'a> {
    /// The layer.
    pub kv: &'a DeviceKv,
    /// (kv_len), in position order.
    pub slots: View<'a, i32>,
    /// The kept blocks, each list ending with the query block's own.
    pub kept: &'a DeviceKeptBlocks,
}

/// [`cpu`] on a CUDA device: `q` and `out` are (n_tokens, n_heads, head_dim).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// As [`cpu`], but what is no slot reads as zeros; and if head_dim is neither 64 nor 128.
pub fn cuda(
    cuda: &Cuda,
    q: View<'_, bf16>,
    context: DeviceContext<'_>,
    out: &mut ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    const THREADS: u32 = 128;
    const KEYS: usize = 64;
    let DeviceContext { kv, slots, kept } = context;
    let sizes = [q.len(), out.len(), slots.len()];
    let shape = Shape::of(sizes, kept.n_heads(), [kv.n_slots, kv.n_kv_heads, kv.head_dim]);
    let Shape { blocks, head_dim, .. } = shape;
    assert_eq!(kept.blocks(), blocks, "sparse_attention: kept blocks of another call");
    let aligned = [q.address(), out.address()].iter().all(|at| at.is_multiple_of(16));
    assert!(aligned, "sparse_attention: rows are copied in vectors of 16 bytes");
    let kernel = match head_dim {
        64 => "sparse_attention_d64",
        128 => "sparse_attention_d128",
        _ => panic!("sparse_attention: head_dim {head_dim} has no kernel, 64 and 128 have"),
    };
    // `FlashShared`: queries, keys and values; the slots of two tiles; a position for each row; the largest score and
    // the sum of weights of each thread's four rows. Then the list's address and number of tiles.
    let shared = (BLOCK + 2 * KEYS) * head_dim * size_of::<bf16>()
        + (2 * KEYS + BLOCK) * size_of::<i32>()
        + 4 * THREADS as usize * size_of::<[f32; 2]>()
        + 2 * size_of::<u64>();
    let grid = Grid {
        blocks: [blocks.n_query_blocks() as u32, shape.n_heads as u32, 1],
        threads: THREADS,
        shared_bytes: shared as u32,
    };
    let args = Args::new().view(q).view(kv.keys.view()).view(kv.values.view()).view(slots);
    let args = args.view(kept.counts.view()).view(kept.indices.view()).view_mut(out);
    let args = args.i32(blocks.n_tokens() as i32).i32((blocks.kv_len() - blocks.n_tokens()) as i32);
    let args = args.i32(kv.n_kv_heads as i32).i32(kv.n_slots as i32).f32(shape.scale());
    // SAFETY: the kernel's parameters; queries, outputs and lists have the sizes checked above, the lists name blocks
    // of the sequence, and the kernel keeps what it reads in slots inside the layer.
    unsafe { cuda.launch(kernel, grid, &args) }
}

/// Cost of [`cpu`]: keys and values read once (sink, window and diagonal together keep nearly every block for some
/// query), four flops for each query head, visible kept pair of positions and head value.
pub fn cost(blocks: Blocks, kept: &KeptBlocks, kv: &KvLayer) -> Cost {
    let (n_heads, head_dim) = (kept.n_heads(), kv.head_dim() as u64);
    let pairs: usize = (0..n_heads)
        .flat_map(|head| (0..blocks.n_query_blocks()).map(move |block| (head, block)))
        .map(|(head, block)| {
            let rows = blocks.tokens(block).len();
            rows * BLOCK * (kept.list(head, block).len() - 1) + rows * (rows + 1) / 2
        })
        .sum();
    let activations = 2 * 4 * (blocks.n_tokens() * n_heads) as u64 * head_dim;
    let cache = 2 * (blocks.kv_len() * kv.n_kv_heads() * kv.dtype().bytes()) as u64 * head_dim;
    Cost { bytes: activations + cache, flops: 4 * head_dim * pairs as u64 }
}

/// The sizes of one call, checked.
#[derive(Clone, Copy, Debug)]
struct Shape {
    blocks: Blocks,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    n_slots: usize,
}

impl Shape {
    #[track_caller]
    fn check(q: &[f32], kv: &KvLayer, slots: &[Slot], kept: &KeptBlocks, out: &[f32]) -> Shape {
        kv.check_slots(slots);
        let sizes = [q.len(), out.len(), slots.len()];
        let shape = Shape::of(sizes, kept.n_heads(), [kv.n_slots(), kv.n_kv_heads(), kv.head_dim()]);
        kept.check(shape.blocks);
        shape
    }

    /// From the numbers of query values, outputs and positions, the query heads, and the layer's slots, heads and
    /// head values.
    #[track_caller]
    fn of(sizes: [usize; 3], n_heads: usize, kv: [usize; 3]) -> Shape {
        let ([n_queries, n_outputs, kv_len], [n_slots, n_kv_heads, head_dim]) = (sizes, kv);
        assert!(
            n_heads > 0 && n_heads.is_multiple_of(n_kv_heads),
            "sparse_attention: {n_heads} query heads cannot share {n_kv_heads} KV heads evenly"
        );
        assert!(
            n_queries.is_multiple_of(n_heads * head_dim) && n_outputs == n_queries,
            "sparse_attention: {n_queries} query values and {n_outputs} outputs are not whole tokens of \
             {n_heads} x {head_dim}"
        );
        let blocks = Blocks::new(n_queries / (n_heads * head_dim), kv_len);
        Shape { blocks, n_heads, n_kv_heads, head_dim, n_slots }
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Values of a state's output row: `head_dim` in whole panels.
    fn width(&self) -> usize {
        self.head_dim.next_multiple_of(NR)
    }

    /// What raw scores are multiplied with before `2^x`.
    fn scale(&self) -> f32 {
        LOG2_E / (self.head_dim as f32).sqrt()
    }
}

struct Problem<'a, T> {
    q: &'a [f32],
    rows: Rows<&'a [T]>,
    slots: &'a [Slot],
    kept: &'a KeptBlocks,
    shape: Shape,
}

/// One query block of one KV head. Its rows are the tokens of its first query head, then those of the next.
#[derive(Clone, Copy)]
struct Item {
    kv_head: usize,
    query_block: usize,
    n_tokens: usize,
}

fn run<W: KvWord>(cpu: &Cpu, problem: &Problem<'_, W::Stored>, out: &mut [f32]) {
    let shape = problem.shape;
    let n_items = shape.blocks.n_query_blocks() * shape.n_kv_heads;
    let out = Disjoint::new(out);
    cpu.parallel(n_items, |i| {
        // The last blocks see the most keys: the longest items first, so that the short ones fill the end.
        let query_block = shape.blocks.n_query_blocks() - 1 - i / shape.n_kv_heads;
        let n_tokens = shape.blocks.tokens(query_block).len();
        run_item::<W>(cpu, problem, Item { kv_head: i % shape.n_kv_heads, query_block, n_tokens }, &out);
    });
}

fn run_item<W: KvWord>(cpu: &Cpu, problem: &Problem<'_, W::Stored>, item: Item, out: &Disjoint<'_, f32>) {
    let shape = &problem.shape;
    let (rows, width) = (item.n_tokens * shape.group(), shape.width());
    let (state_len, head_words) = (State::len(rows, width), item.n_tokens * shape.head_dim / W::VALUES);
    let query_rows = (shape.group() * head_words).div_ceil(NR);
    scratch(2 * state_len, |memory: &mut [f32]| {
        let (first, second) = memory.split_at_mut(state_len);
        let (mut total, mut part) = (State::new(first, rows, width), State::new(second, rows, width));
        scratch(query_rows + Fold::<W>::len(shape.head_dim), |memory: &mut [[W; NR]]| {
            let (queries, memory) = memory.split_at_mut(query_rows);
            let queries = queries.as_flattened_mut();
            for (g, queries) in queries.chunks_exact_mut(head_words).take(shape.group()).enumerate() {
                item.pack_queries(cpu, problem, g, queries);
            }
            let lists = (0..shape.group())
                .map(|g| problem.kept.list(item.kv_head * shape.group() + g, item.query_block))
                .collect();
            let fold = Fold::new(cpu, shape.head_dim, memory);
            let mut walk = Walk::<W> { problem, item, queries, head_words, lists, fold };
            walk.fold_split(0, &mut total);
            for split in 1..=shape.blocks.own(item.query_block) * BLOCK / KEY_SPLIT {
                if walk.fold_split(split, &mut part) {
                    lanes::run(cpu, Merge { into: &mut total, from: &part, scale: shape.scale() });
                }
            }
        });
        for row in 0..rows {
            // SAFETY: a row of a token and head belongs to one item.
            let out = unsafe { out.slice(item.values(shape, row / item.n_tokens, row % item.n_tokens)) };
            lanes::run(cpu, Finish { state: &total, row, out });
        }
    });
}

/// An item on its way over the kept blocks.
struct Walk<'a, W: KvWord> {
    problem: &'a Problem<'a, W::Stored>,
    item: Item,
    /// (group, head_words), each head's row blocks as tiles of A.
    queries: &'a [W],
    head_words: usize,
    /// What is left of each head's list.
    lists: Vec<&'a [u32]>,
    fold: Fold<'a, W>,
}

impl<W: KvWord> Walk<'_, W> {
    /// Makes `state` that of the rows over the kept blocks of one split of the keys; false if there are none.
    fn fold_split(&mut self, split: usize, state: &mut State<'_>) -> bool {
        const SPLIT_BLOCKS: usize = KEY_SPLIT / BLOCK;
        state.clear();
        let mut any = false;
        loop {
            let Some(next) = self.lists.iter().filter_map(|list| list.first()).min().copied() else {
                return any;
            };
            if next as usize / SPLIT_BLOCKS > split {
                return any;
            }
            any = true;
            self.fold_block(next, state);
            for list in &mut self.lists {
                *list = list.strip_prefix(&[next]).unwrap_or(list);
            }
        }
    }

    /// Folds one block into the rows of the heads that keep it.
    fn fold_block(&mut self, block: u32, state: &mut State<'_>) {
        let Problem { rows, slots, shape, .. } = self.problem;
        let head_len = shape.n_slots * shape.head_dim;
        let head = self.item.kv_head * head_len..(self.item.kv_head + 1) * head_len;
        let (keys, values) = (&rows.keys[head.clone()], &rows.values[head]);
        let first_position = shape.blocks.own(self.item.query_block) * BLOCK;
        for first_key in shape.blocks.positions(block as usize).step_by(KEY_TILE) {
            let tile = |rows| TileSource::new(rows, shape.head_dim, slots, first_key);
            self.fold.gather(tile(keys), tile(values));
            let visible = |row: usize| (first_position + row + 1).saturating_sub(first_key).min(KEY_TILE);
            for (g, list) in self.lists.iter().enumerate() {
                if list.first() == Some(&block) {
                    let rows = FoldRows {
                        queries: &self.queries[g * self.head_words..],
                        range: g * self.item.n_tokens..(g + 1) * self.item.n_tokens,
                        scale: shape.scale(),
                    };
                    self.fold.fold(&rows, visible, state);
                }
            }
        }
    }
}

impl Item {
    /// Where the values of a token of the block and a query head of the group lie in q and in the output.
    fn values(&self, shape: &Shape, g: usize, token: usize) -> Range<usize> {
        let (token, head) = (self.query_block * BLOCK + token, self.kv_head * shape.group() + g);
        let start = (token * shape.n_heads + head) * shape.head_dim;
        start..start + shape.head_dim
    }

    /// Packs the queries of one head block by block, each a tile of A.
    fn pack_queries<W: KvWord>(&self, cpu: &Cpu, problem: &Problem<'_, W::Stored>, g: usize, out: &mut [W]) {
        let shape = &problem.shape;
        let row_words = shape.head_dim / W::VALUES;
        for (first, n) in row_blocks(self.n_tokens) {
            let row = |i: usize| &problem.q[self.values(shape, g, first + i)];
            W::pack_a(cpu, n, shape.head_dim, row, &mut out[first * row_words..][..n * row_words]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvDType;

    #[test]
    fn cost_counts_the_kept_pairs() {
        let blocks = Blocks::new(130, 386);
        let mut kept = KeptBlocks::all(2, blocks);
        kept.set(1, 0, &[2]);
        // Head 0: 128 rows see 2 blocks and their own, 2 rows 3 and their own; head 1 less the 2 blocks.
        let own = 128 * 129 / 2 + 3;
        let pairs = 2 * own + 128 * 128 * 2 + 2 * (2 * 128 * 3);
        let cost = cost(blocks, &kept, &KvLayer::new(386, 1, 8, KvDType::F32));
        assert_eq!(cost, Cost { bytes: 2 * 4 * 130 * 2 * 8 + 2 * 386 * 4 * 8, flops: 4 * 8 * pairs });
    }
}
