//! The walk over query tiles, key splits and key tiles, and how it is spread over threads. It knows the order
//! of work and its memory; the arithmetic is in [`crate::online_softmax`] and the micro-kernels.
//!
//! An item of parallel work is a tile of queries of one KV head, all query heads of its group beside each
//! other so that a gathered tile of keys serves them all. Where that gives too few items (decode), the splits
//! of the keys are items too and their states are merged afterwards. Both ways fold the same states in the
//! same order.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::Shape;
use crate::buffer::scratch;
use crate::device::{Cpu, Disjoint};
use crate::kv::{Rows, Slot};
use crate::kv_tile::{KEY_TILE, KvWord, TileSource};
use crate::online_softmax::fold::{Fold, FoldRows, row_blocks};
use crate::online_softmax::{Finish, KEY_SPLIT, Merge, State};
use crate::tile::NR;
use crate::tile::lanes;

/// Most rows (tokens times query heads of a KV head) of a query tile: their queries, state and one tile of
/// keys stay in a 1 MiB L2 cache up to a head_dim of 256.
const MAX_ROWS: usize = 264;

/// Fewest rows worth gathering a tile of keys for, when there could be more items.
const MIN_ROWS: usize = 48;

/// Items per thread below which work is cut finer, so that the last item does not leave threads idle for
/// long.
const ITEMS_PER_THREAD: usize = 4;

/// One call, checked.
pub(super) struct Problem<'a, T> {
    pub q: &'a [f32],
    pub rows: Rows<&'a [T]>,
    pub slots: &'a [Slot],
    pub shape: Shape,
}

/// Neighbouring tokens of one KV head. Its rows are its tokens' query heads, token by token.
#[derive(Clone, Copy)]
struct QueryTile {
    kv_head: usize,
    first_token: usize,
    n_tokens: usize,
}

/// Computes every output.
pub(super) fn run<W: KvWord>(cpu: &Cpu, problem: &Problem<'_, W::Stored>, out: &mut [f32]) {
    let shape = problem.shape;
    if shape.n_tokens == 0 {
        return;
    }
    let items = ITEMS_PER_THREAD * cpu.threads();
    let rows = shape.n_tokens * shape.group() / items.div_ceil(shape.n_kv_heads);
    let tile_tokens = (rows.clamp(MIN_ROWS, MAX_ROWS) / shape.group()).clamp(1, shape.n_tokens);
    let tiles: Vec<QueryTile> = (0..shape.n_tokens)
        .step_by(tile_tokens)
        .flat_map(|first| (0..shape.n_kv_heads).map(move |kv_head| (kv_head, first)))
        .map(|(kv_head, first_token)| {
            let n_tokens = tile_tokens.min(shape.n_tokens - first_token);
            QueryTile { kv_head, first_token, n_tokens }
        })
        .collect();
    let out = Disjoint::new(out);
    if tiles.len() < items && tiles.len() == shape.n_kv_heads {
        run_splits::<W>(cpu, problem, &tiles, &out);
    } else {
        // The last tokens see the most keys: the longest items first, so that the short ones fill the end.
        cpu.parallel(tiles.len(), |i| run_tile::<W>(cpu, problem, tiles[tiles.len() - 1 - i], &out));
    }
}

/// One item: a query tile over all its splits, in order.
fn run_tile<W: KvWord>(
    cpu: &Cpu,
    problem: &Problem<'_, W::Stored>,
    tile: QueryTile,
    out: &Disjoint<'_, f32>,
) {
    let (rows, width) = (tile.rows(&problem.shape), problem.shape.width());
    let state_len = State::len(rows, width);
    scratch(2 * state_len, |memory: &mut [f32]| {
        let (first, second) = memory.split_at_mut(state_len);
        let (mut total, mut part) = (State::new(first, rows, width), State::new(second, rows, width));
        Walk::<W>::start(cpu, problem, tile, |mut walk| {
            walk.fold_split(0, &mut total);
            for split in 1..tile.splits(&problem.shape) {
                walk.fold_split(split, &mut part);
                lanes::run(cpu, Merge { into: &mut total, from: &part, scale: problem.shape.scale() });
            }
        });
        tile.write(cpu, &problem.shape, &total, out);
    });
}

/// Few items: every split of every tile at once, then the merges.
fn run_splits<W: KvWord>(
    cpu: &Cpu,
    problem: &Problem<'_, W::Stored>,
    tiles: &[QueryTile],
    out: &Disjoint<'_, f32>,
) {
    // One tile to each KV head, so all have the same rows and splits.
    let Some(first) = tiles.first() else { return };
    let (rows, width) = (first.rows(&problem.shape), problem.shape.width());
    let (splits, state_len) = (first.splits(&problem.shape), State::len(rows, width));
    scratch(tiles.len() * splits * state_len, |memory: &mut [f32]| {
        cpu.parallel_chunks(memory, state_len, |i, memory| {
            let mut state = State::new(memory, rows, width);
            let tile = tiles[i / splits];
            Walk::<W>::start(cpu, problem, tile, |mut walk| walk.fold_split(i % splits, &mut state));
        });
        cpu.parallel_chunks(memory, splits * state_len, |i, memory| {
            let mut states = memory.chunks_exact_mut(state_len).map(|m| State::new(m, rows, width));
            let Some(mut total) = states.next() else { return };
            for part in states {
                lanes::run(cpu, Merge { into: &mut total, from: &part, scale: problem.shape.scale() });
            }
            tiles[i].write(cpu, &problem.shape, &total, out);
        });
    });
}

/// A query tile on its way over the keys: its packed queries and the memory for one tile of keys.
struct Walk<'a, W: KvWord> {
    problem: &'a Problem<'a, W::Stored>,
    tile: QueryTile,
    rows: FoldRows<'a, W>,
    fold: Fold<'a, W>,
}

impl<W: KvWord> Walk<'_, W> {
    /// Packs the queries and hands the walk to `work`.
    fn start(cpu: &Cpu, problem: &Problem<'_, W::Stored>, tile: QueryTile, work: impl FnOnce(Walk<'_, W>)) {
        let (shape, n_rows) = (&problem.shape, tile.rows(&problem.shape));
        let query_rows = (n_rows * shape.head_dim / W::VALUES).div_ceil(NR);
        scratch(query_rows + Fold::<W>::len(shape.head_dim), |memory: &mut [[W; NR]]| {
            let (queries, memory) = memory.split_at_mut(query_rows);
            let queries = queries.as_flattened_mut();
            tile.pack_queries(cpu, problem, queries);
            let rows = FoldRows { queries, range: 0..n_rows, scale: shape.scale() };
            work(Walk { problem, tile, rows, fold: Fold::new(cpu, shape.head_dim, memory) });
        });
    }

    /// Makes `state` that of the rows over one split of the keys.
    fn fold_split(&mut self, split: usize, state: &mut State<'_>) {
        state.clear();
        let Problem { rows, slots, shape, .. } = self.problem;
        let head_len = shape.n_slots * shape.head_dim;
        let head = self.tile.kv_head * head_len..(self.tile.kv_head + 1) * head_len;
        let (keys, values) = (&rows.keys[head.clone()], &rows.values[head]);
        let end = self.tile.end(shape).min((split + 1) * KEY_SPLIT);
        for first_key in (split * KEY_SPLIT..end).step_by(KEY_TILE) {
            let tile = |rows| TileSource::new(rows, shape.head_dim, slots, first_key);
            self.fold.gather(tile(keys), tile(values));
            let visible = |row| {
                let position = self.tile.position(shape, row);
                (position + 1).saturating_sub(first_key).min(KEY_TILE)
            };
            self.fold.fold(&self.rows, visible, state);
        }
    }
}

impl QueryTile {
    fn rows(&self, shape: &Shape) -> usize {
        self.n_tokens * shape.group()
    }

    /// The position of a row's token.
    fn position(&self, shape: &Shape, row: usize) -> usize {
        shape.prefix() + self.first_token + row / shape.group()
    }

    /// One past the last position any row sees.
    fn end(&self, shape: &Shape) -> usize {
        shape.prefix() + self.first_token + self.n_tokens
    }

    /// Splits of the keys its rows see.
    fn splits(&self, shape: &Shape) -> usize {
        self.end(shape).div_ceil(KEY_SPLIT)
    }

    /// Where the row's values lie in q and in the output.
    fn values(&self, shape: &Shape, row: usize) -> Range<usize> {
        let head = self.kv_head * shape.group() + row % shape.group();
        let start = ((self.first_token + row / shape.group()) * shape.n_heads + head) * shape.head_dim;
        start..start + shape.head_dim
    }

    /// Packs the queries block by block, each a tile of A.
    fn pack_queries<W: KvWord>(&self, cpu: &Cpu, problem: &Problem<'_, W::Stored>, out: &mut [W]) {
        let shape = &problem.shape;
        let row_words = shape.head_dim / W::VALUES;
        for (first_row, n) in row_blocks(self.rows(shape)) {
            let row = |i: usize| &problem.q[self.values(shape, first_row + i)];
            W::pack_a(cpu, n, shape.head_dim, row, &mut out[first_row * row_words..][..n * row_words]);
        }
    }

    /// Writes the outputs of a finished state.
    fn write(&self, cpu: &Cpu, shape: &Shape, state: &State<'_>, out: &Disjoint<'_, f32>) {
        for row in 0..state.rows() {
            // SAFETY: a row of a token and head belongs to one query tile, and a tile to one item.
            let out = unsafe { out.slice(self.values(shape, row)) };
            lanes::run(cpu, Finish { state, row, out });
        }
    }
}

impl Shape {
    /// Values of a state's output row: `head_dim` in whole panels.
    fn width(&self) -> usize {
        self.head_dim.next_multiple_of(NR)
    }

    /// What raw scores are multiplied with before `2^x`.
    fn scale(&self) -> f32 {
        LOG2_E / (self.head_dim as f32).sqrt()
    }
}
