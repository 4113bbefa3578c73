//! Selection: scores of tokens in, kept token ranges out, and from those the kept bytes of the text. Pure functions;
//! knows no drafter, no message and no memo.
//!
//! The rule is the plain top-k of the PFlash compressor (Lucebox `lucebox-hub`, PR 70 and 75): smooth, average per
//! chunk, keep the best chunks, emit them in prompt order with nothing put between them. The cut is made the same on
//! every machine: sums run in f64 in a fixed order, scores are rounded to 2^-20 before they are ranked, and ties go to
//! the earlier unit. Line selection ranks its own units, lines, by the same rule.

use std::cmp::Reverse;
use std::ops::Range;

/// Texts of fewer tokens are kept whole: they are shorter than the 8 tail queries and their own first key.
pub const MIN_SCORED: usize = 9;

/// How much is kept, and in what units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectParams {
    /// Share of the chunks kept, in thousandths; 1000 and more keep everything, and one chunk is always kept.
    pub keep_permille: u32,
    /// Tokens of a chunk, the unit that is kept or dropped; 0 counts as 1.
    pub chunk: usize,
    /// Tokens averaged by the smoothing, centred; an even number counts as the next odd one.
    pub pool: usize,
}

impl SelectParams {
    /// Tokens of a chunk, by default.
    pub const CHUNK: usize = 32;
    /// Tokens averaged by the smoothing, by default.
    pub const POOL: usize = 13;

    /// The default units with this share kept.
    pub const fn keep(keep_permille: u32) -> Self {
        Self { keep_permille, chunk: Self::CHUNK, pool: Self::POOL }
    }
}

/// What is kept of a text, in tokens of the drafter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Kept token ranges: ascending, not empty, not touching.
    pub ranges: Vec<Range<usize>>,
    /// Chunks of the text, the partial last one included.
    pub n_chunks: usize,
    /// Chunks kept.
    pub n_keep: usize,
    /// Tokens kept.
    pub kept: usize,
}

/// Centred average over `pool` scores (`pool / 2` on each side); at the edges over those that are there. Each sum runs
/// in f64 from left to right. Time `scores.len() * pool`.
pub fn smooth(scores: &[f32], pool: usize) -> Vec<f64> {
    let side = pool / 2;
    (0..scores.len())
        .map(|at| {
            let end = scores.len().min(at.saturating_add(side).saturating_add(1));
            mean(scores[at.saturating_sub(side)..end].iter().copied().map(f64::from))
        })
        .collect()
}

/// The token ranges of the chunks of `n` tokens: `chunk` each, fewer in the last.
pub fn chunks(n: usize, chunk: usize) -> Vec<Range<usize>> {
    let chunk = chunk.max(1);
    (0..n).step_by(chunk).map(|start| start..n.min(start + chunk)).collect()
}

/// The indices of `units` from the best to the worst: by score descending, then index ascending. The score of a unit is
/// the mean of the smoothed scores of its own tokens, 0 where it has none. A score that is not a number counts as 0.
pub fn ranked(scores: &[f32], units: &[Range<usize>], pool: usize) -> Vec<usize> {
    let smoothed = smooth(scores, pool);
    let score = |unit: &Range<usize>| quantise(mean(smoothed[unit.clone()].iter().copied()));
    let scored: Vec<i64> = units.iter().map(score).collect();
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_unstable_by_key(|&index| (Reverse(scored[index]), index));
    order
}

/// Chooses the chunks to keep: the first `max(1, n_chunks * keep_permille / 1000)` as [`ranked`].
pub fn select(scores: &[f32], params: &SelectParams) -> Selection {
    let n = scores.len();
    let chunks = chunks(n, params.chunk);
    let n_chunks = chunks.len();
    if n < MIN_SCORED || params.keep_permille >= 1000 {
        let ranges = if n == 0 { Vec::new() } else { vec![Range { start: 0, end: n }] };
        return Selection { ranges, n_chunks, n_keep: n_chunks, kept: n };
    }
    let n_keep = (n_chunks as u64 * u64::from(params.keep_permille) / 1000).max(1) as usize;
    let mut order = ranked(scores, &chunks, params.pool);
    order.truncate(n_keep);
    order.sort_unstable();
    let ranges = merge(order.into_iter().map(|index| chunks[index].clone()));
    let kept = ranges.iter().map(ExactSizeIterator::len).sum();
    Selection { ranges, n_chunks, n_keep, kept }
}

/// Maps kept tokens to the bytes of the text they came from. `token_bytes` holds the byte range of each token; a token
/// may be part of a character, so each range grows outward to whole characters. Ranges beyond the text or the tokens
/// are cut off. The result is ascending, not empty, not touching, and its ends are character boundaries of `text`.
pub fn kept_bytes(text: &str, token_bytes: &[Range<usize>], kept: &[Range<usize>]) -> Vec<Range<usize>> {
    let tokens = kept.iter().flat_map(|range| {
        let end = range.end.min(token_bytes.len());
        &token_bytes[range.start.min(end)..end]
    });
    let mut ranges: Vec<Range<usize>> = tokens.filter_map(|bytes| snap_outward(text, bytes)).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    merge(ranges)
}

/// Mean in the order of the values; 0 of none.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1);
    values.sum::<f64>() / n as f64
}

/// Score in units of 2^-20, so that a last bit of rounding cannot decide a ranking. Saturates; not-a-number is 0.
fn quantise(score: f64) -> i64 {
    (score * f64::from(1 << 20)).round() as i64
}

/// Joins ranges that overlap or touch; they come ordered by start.
pub(crate) fn merge(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The whole characters that `bytes` touches; `None` if it touches none.
fn snap_outward(text: &str, bytes: &Range<usize>) -> Option<Range<usize>> {
    let mut start = bytes.start;
    let mut end = bytes.end.min(text.len());
    if start >= end {
        return None;
    }
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    Some(start..end)
}
