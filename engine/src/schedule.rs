//! Canonical segmentation: tokens in, launch schedule out. A pure function of the token sequence, so that a cold and a
//! cached run of the same prompt launch the same shapes and give the same bits. Knows no cache, slot, model or message.
//!
//! ```text
//! segment   starts at a boundary token and ends before the next one. Under `min_segment` tokens it is merged into
//!           the segment after it, until the merged length reaches `min_segment`. The segment that the end of the
//!           tokens cuts off is open: tokens may still be added to it.
//! piece     `piece` tokens of a segment, counted from the segment's start; the last may be shorter. One launch.
//! reuse     a piece's end is a reuse point if the piece is full, or if it is the last of a closed segment. Both
//!           facts are settled by the tokens up to that end and the one boundary after it, whatever else follows.
//! ```
//! Hence the reuse points of a prompt are a subset of those of every extension of it, and the pieces up to a reuse
//! point are the same pieces in both: this is what makes cached logits equal cold logits bit for bit.

/// Parameters of the segmentation. They are part of the numeric identity of a KV cache: a cache filled under other
/// rules holds other bits (see [`crate::kv::prefix::Identity`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Token id that opens a message (`<|im_start|>`).
    pub boundary: u32,
    /// Fewest tokens of a segment; shorter ones are merged forward.
    pub min_segment: usize,
    /// Tokens of a full piece; 0 counts as 1.
    pub piece: usize,
}

impl Rules {
    /// Fewest tokens of a segment, by default.
    pub const MIN_SEGMENT: usize = 64;
    /// Tokens of a full piece, by default.
    pub const PIECE: usize = 512;

    /// The default rules for a model whose messages open with token `boundary`.
    pub const fn new(boundary: u32) -> Self {
        Self { boundary, min_segment: Self::MIN_SEGMENT, piece: Self::PIECE }
    }
}

/// One launch: the positions `start..end` of the prompt, attending to everything before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First position.
    pub start: usize,
    /// One past the last position.
    pub end: usize,
    /// Whether `end` is a reuse point: KV up to it may be published and restored.
    pub reusable: bool,
}

impl Piece {
    /// Tokens of the piece; at least 1.
    pub const fn n_tokens(&self) -> usize {
        self.end - self.start
    }
}

/// The launches of one prompt, in order. They tile `0..n_tokens()`; only the last may be not reusable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The launches.
    pub pieces: Vec<Piece>,
}

impl Schedule {
    /// Tokens of the prompt.
    pub fn n_tokens(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// Prompt lengths at which KV may be published and restored, ascending.
    pub fn reuse_points(&self) -> impl Iterator<Item = usize> + '_ {
        self.pieces.iter().filter(|piece| piece.reusable).map(|piece| piece.end)
    }

    /// The launches left to run once the first `n_tokens` are restored. `n_tokens` is 0 or a reuse point; anything
    /// else is rounded up to the next launch, which would leave a hole, so callers pass what a lookup returned.
    pub fn pieces_from(&self, n_tokens: usize) -> &[Piece] {
        let first = self.pieces.partition_point(|piece| piece.start < n_tokens);
        &self.pieces[first..]
    }
}

/// Cuts `tokens` into launches. Linear in the number of tokens.
pub fn schedule(tokens: &[u32], rules: &Rules) -> Schedule {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (position, &token) in tokens.iter().enumerate() {
        if token == rules.boundary && position - start >= rules.min_segment {
            cut(&mut pieces, start, position, Segment::Closed, rules);
            start = position;
        }
    }
    cut(&mut pieces, start, tokens.len(), Segment::Open, rules);
    Schedule { pieces }
}

/// Whether a boundary token follows the segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Closed,
    Open,
}

/// Appends the pieces of the segment `start..end`.
fn cut(pieces: &mut Vec<Piece>, start: usize, end: usize, segment: Segment, rules: &Rules) {
    let full = rules.piece.max(1);
    for piece_start in (start..end).step_by(full) {
        let piece_end = end.min(piece_start.saturating_add(full));
        let reusable = segment == Segment::Closed || piece_end - piece_start == full;
        pieces.push(Piece { start: piece_start, end: piece_end, reusable });
    }
}
