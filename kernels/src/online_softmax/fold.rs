//! One step of attention: a gathered tile of keys and values folded into the states of some rows, by the
//! micro-kernels. It knows neither heads nor positions: which rows, and how many of the tile's keys each may
//! see, is the caller's business.

use std::ops::Range;

use super::{State, Weigh};
use crate::device::Cpu;
use crate::kv_tile::{KEY_TILE, KvWord, TileSource, key_rows, transpose_weights, value_rows};
use crate::tile::lanes;
use crate::tile::{MR, NR, Start, Tile};

/// Memory for one tile of keys, one of values and the weights of a block of rows.
pub(crate) struct Fold<'a, W> {
    cpu: &'a Cpu,
    head_dim: usize,
    keys: &'a mut [[W; NR]],
    values: &'a mut [[W; NR]],
    /// The weights of a block, row by row and as a tile of A.
    weight_rows: &'a mut [W],
    weights: &'a mut [W],
}

/// Rows that fold a tile: some rows of a state, and their queries.
pub(crate) struct FoldRows<'a, W> {
    /// Row blocks as [`row_blocks`] gives them, each a tile of A, from the first of `range` on.
    pub queries: &'a [W],
    /// The rows of the state.
    pub range: Range<usize>,
    /// What raw scores are multiplied with before `2^x`: log2(e) / sqrt(head_dim).
    pub scale: f32,
}

impl<'a, W: KvWord> Fold<'a, W> {
    /// Rows of `NR` words that [`Fold::new`] takes.
    pub fn len(head_dim: usize) -> usize {
        key_rows::<W>(head_dim) + value_rows::<W>(head_dim) + 2 * weight_rows::<W>()
    }

    /// A fold in `memory`, whatever it holds.
    pub fn new(cpu: &'a Cpu, head_dim: usize, memory: &'a mut [[W; NR]]) -> Self {
        let (keys, memory) = memory.split_at_mut(key_rows::<W>(head_dim));
        let (values, memory) = memory.split_at_mut(value_rows::<W>(head_dim));
        let (rows, weights) = memory.split_at_mut(weight_rows::<W>());
        let (weight_rows, weights) = (rows.as_flattened_mut(), weights.as_flattened_mut());
        Fold { cpu, head_dim, keys, values, weight_rows, weights }
    }

    /// Gathers a tile of keys and of values.
    pub fn gather(&mut self, keys: TileSource<'_, W::Stored>, values: TileSource<'_, W::Stored>) {
        W::gather_keys(self.cpu, keys, self.keys);
        W::gather_values(self.cpu, values, self.values);
    }

    /// Folds the gathered tile into the rows, a block of them at a time; `visible(i)` is the number of its
    /// keys that row `i` of the range may see.
    pub fn fold(&mut self, rows: &FoldRows<'_, W>, visible: impl Fn(usize) -> usize, state: &mut State<'_>) {
        let (row_words, depth) = (self.head_dim / W::VALUES, KEY_TILE / W::VALUES);
        let ldc = self.head_dim.next_multiple_of(NR);
        let (mut scores, mut seen) = ([0.0; MR * KEY_TILE], [0; MR]);
        for (first, n) in row_blocks(rows.range.len()) {
            let seen = &mut seen[..n];
            for (i, seen) in seen.iter_mut().enumerate() {
                *seen = visible(first + i);
            }
            if seen.iter().all(|n| *n == 0) {
                continue;
            }
            let product = Tile {
                rows: n,
                k: row_words,
                panels: KEY_TILE / NR,
                panel_stride: row_words,
                ldc: KEY_TILE,
                start: Start::Zero,
            };
            W::multiply(self.cpu, product, &rows.queries[first * row_words..], self.keys, &mut scores);
            let (first_row, weights) = (rows.range.start + first, &mut self.weight_rows[..n * depth]);
            let scale = rows.scale;
            let (scores, visible) = (&mut scores, &*seen);
            lanes::run(self.cpu, Weigh { state, first_row, scores, visible, scale, weights });
            transpose_weights(self.cpu, weights, n, self.weights);
            let product =
                Tile { rows: n, k: depth, panels: ldc / NR, panel_stride: depth, ldc, start: Start::Resume };
            let sums = &mut state.outputs[first_row * ldc..];
            W::multiply(self.cpu, product, self.weights, self.values, sums);
        }
    }
}

/// The blocks of at most `MR` rows the micro-kernels take: first row and number of rows.
pub(crate) fn row_blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(MR).map(move |first| (first, MR.min(rows - first)))
}

/// Rows of `NR` words for the weights of a block.
fn weight_rows<W: KvWord>() -> usize {
    MR * KEY_TILE / W::VALUES / NR
}
