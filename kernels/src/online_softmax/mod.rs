//! The running softmax of a set of rows: for each row the largest score so far, the sum of its weights
//! relative to that score, and the weighted sum of values. It knows neither keys nor slots: scores in,
//! weights out. [`fold`] is one step of attention over it: a gathered tile of keys and values.

pub(crate) mod fold;

use crate::exp::exp2;
use crate::kv_tile::{KEY_TILE, KvWord};
use crate::tile::NR;
use crate::tile::lanes::{Job, Lanes};

/// Positions folded into one state before it is merged: part of the definition of an attention's result, so
/// never tuned by machine.
pub(crate) const KEY_SPLIT: usize = 1024;

/// The state of `rows` rows, carved from one piece of memory.
pub(crate) struct State<'a> {
    /// (rows, width): weighted sums of values, each row padded to whole panels.
    pub outputs: &'a mut [f32],
    /// (rows, NR): sums of weights, lane by lane; their total is taken once, at the end.
    sums: &'a mut [f32],
    /// (rows): largest raw score seen; -inf before the first.
    maxima: &'a mut [f32],
    width: usize,
}

impl<'a> State<'a> {
    /// Values needed for a state, a multiple of `NR`.
    pub fn len(rows: usize, width: usize) -> usize {
        rows * (width + NR) + rows.next_multiple_of(NR)
    }

    /// A state in `memory`, whatever it holds.
    pub fn new(memory: &'a mut [f32], rows: usize, width: usize) -> State<'a> {
        let (outputs, rest) = memory.split_at_mut(rows * width);
        let (sums, rest) = rest.split_at_mut(rows * NR);
        State { outputs, sums, maxima: &mut rest[..rows], width }
    }

    /// The state before any key.
    pub fn clear(&mut self) {
        self.outputs.fill(0.0);
        self.sums.fill(0.0);
        self.maxima.fill(f32::NEG_INFINITY);
    }

    pub fn rows(&self) -> usize {
        self.maxima.len()
    }
}

/// Turns the scores of one tile of keys into weights and folds their maxima and sums into the state.
pub(crate) struct Weigh<'a, 'b, W> {
    pub state: &'a mut State<'b>,
    /// First of the rows the scores belong to.
    pub first_row: usize,
    /// (n, KEY_TILE) raw scores, overwritten by the weights.
    pub scores: &'a mut [f32],
    /// Number of keys of the tile each row may see.
    pub visible: &'a [usize],
    /// What raw scores are multiplied with before `2^x`: log2(e) / sqrt(head_dim).
    pub scale: f32,
    /// (n, KEY_TILE / VALUES) words: the weights.
    pub weights: &'a mut [W],
}

impl<W: KvWord> Job for Weigh<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let (scores, _) = self.scores.as_chunks_mut::<KEY_TILE>();
        let rows = scores.iter_mut().zip(self.weights.chunks_exact_mut(KEY_TILE / W::VALUES));
        for (i, ((scores, weights), visible)) in rows.zip(self.visible).enumerate() {
            if *visible == 0 {
                // A row that has not reached this tile keeps its state: not even -inf - -inf is computed for
                // it.
                W::pack_weights(&[0.0; KEY_TILE], weights);
                continue;
            }
            scores[*visible..].fill(f32::NEG_INFINITY);
            self.state.raise(self.first_row + i, largest(scores), self.scale);
            self.state.weigh(self.first_row + i, scores, self.scale);
            W::pack_weights(scores, weights);
        }
    }
}

impl State<'_> {
    /// Raises the maximum of a row to at least `max`, rescaling what was summed relative to the old one.
    #[inline(always)]
    fn raise(&mut self, row: usize, max: f32, scale: f32) {
        let old = self.maxima[row];
        if max > old {
            self.maxima[row] = max;
            let factor = exp2((old - max) * scale);
            let sums = self.sums[row * NR..(row + 1) * NR].iter_mut();
            let outputs = self.outputs[row * self.width..(row + 1) * self.width].iter_mut();
            sums.for_each(|x| *x *= factor);
            outputs.for_each(|x| *x *= factor);
        }
    }

    /// Turns scores into weights relative to the row's maximum and adds them to its sums.
    #[inline(always)]
    fn weigh(&mut self, row: usize, scores: &mut [f32; KEY_TILE], scale: f32) {
        let max = self.maxima[row];
        for x in scores.iter_mut() {
            // The difference first: it is nearly exact, so that the weight is, however large the scores are.
            *x = exp2((*x - max) * scale);
        }
        let mut sums = [0.0; NR];
        for block in scores.as_chunks::<NR>().0 {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += x;
            }
        }
        for (total, sum) in self.sums[row * NR..(row + 1) * NR].iter_mut().zip(sums) {
            *total += sum;
        }
    }
}

/// Folds the state of a later split of the keys into that of the earlier ones.
pub(crate) struct Merge<'a, 'b> {
    pub into: &'a mut State<'b>,
    pub from: &'a State<'b>,
    pub scale: f32,
}

impl Job for Merge<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Merge { into, from, scale } = self;
        let width = into.width;
        for (row, max) in from.maxima.iter().enumerate() {
            if *max == f32::NEG_INFINITY {
                // The row ends before this split, or its scores are NaN; then so are its sums.
                continue;
            }
            into.raise(row, *max, scale);
            let factor = exp2((max - into.maxima[row]) * scale);
            let add = |into: &mut [f32], from: &[f32]| {
                into.iter_mut().zip(from).for_each(|(into, from)| *into += from * factor);
            };
            add(&mut into.sums[row * NR..(row + 1) * NR], &from.sums[row * NR..(row + 1) * NR]);
            add(
                &mut into.outputs[row * width..(row + 1) * width],
                &from.outputs[row * width..(row + 1) * width],
            );
        }
    }
}

/// The output of one row, `out.len()` values: the weighted sum over the sum of the weights.
pub(crate) struct Finish<'a, 'b> {
    pub state: &'a State<'b>,
    pub row: usize,
    pub out: &'a mut [f32],
}

impl Job for Finish<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let State { outputs, sums, width, .. } = self.state;
        let total: f32 = sums[self.row * NR..(self.row + 1) * NR].iter().sum();
        for (out, sum) in self.out.iter_mut().zip(&outputs[self.row * width..]) {
            *out = sum / total;
        }
    }
}

/// The largest of a row of scores, halving it.
#[inline(always)]
fn largest(scores: &[f32; KEY_TILE]) -> f32 {
    // Plain loops over arrays: a closure would not be compiled for the caller's instruction set.
    let mut lanes = [f32::NEG_INFINITY; 16];
    for block in scores.as_chunks::<16>().0 {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = larger(*x, *lane);
        }
    }
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = larger(lanes[i], lanes[i + 8]);
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = larger(eight[i], eight[i + 4]);
    }
    larger(larger(four[0], four[2]), larger(four[1], four[3]))
}

/// The larger of two, in the form that is one instruction.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
