//! A text as the units that line selection keeps or drops: whole lines, and parts of lines that are too long to be kept
//! whole. Knows no score and no budget.

use std::ops::Range;

/// Drafter tokens of the longest line that is kept or dropped whole. Longer ones (minified code, JSON on one line) are
/// cut where chunks meet.
pub const LINE_TOKENS_MAX: usize = 128;

/// A part of a text that is kept or dropped as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its bytes; both ends are character boundaries.
    pub bytes: Range<usize>,
    /// The tokens that begin in it; none for a line whose break belongs to a token of the line before.
    pub tokens: Range<usize>,
}

/// The units of `text`, in order and without gaps. `token_bytes` holds the bytes of each token, ordered by their starts;
/// `chunk` is the number of tokens of a chunk.
pub fn units(text: &str, token_bytes: &[Range<usize>], chunk: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    let (mut start, mut first) = (0, 0);
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let last = first + token_bytes[first..].iter().take_while(|bytes| bytes.start < end).count();
        if last - first > LINE_TOKENS_MAX {
            cut(text, token_bytes, chunk.max(1), Unit { bytes: start..end, tokens: first..last }, &mut units);
        } else {
            units.push(Unit { bytes: start..end, tokens: first..last });
        }
        (start, first) = (end, last);
    }
    if let Some(last) = units.last_mut() {
        last.tokens.end = token_bytes.len();
    }
    units
}

/// Cuts a long line before the first token of each chunk that begins in it.
fn cut(text: &str, token_bytes: &[Range<usize>], chunk: usize, line: Unit, units: &mut Vec<Unit>) {
    let (mut start, mut first) = (line.bytes.start, line.tokens.start);
    let next_chunk = (line.tokens.start / chunk + 1) * chunk;
    for token in (next_chunk..line.tokens.end).step_by(chunk) {
        let at = token_bytes[token].start;
        // Tokens of one character share its bytes: the cut is before the first of them.
        let token = first + token_bytes[first..token].iter().take_while(|bytes| bytes.start < at).count();
        if start < at && first < token && text.is_char_boundary(at) {
            units.push(Unit { bytes: start..at, tokens: first..token });
            (start, first) = (at, token);
        }
    }
    units.push(Unit { bytes: start..line.bytes.end, tokens: first..line.tokens.end });
}
