//! Line selection: ranked lines and forced places in, kept bytes out, within a budget of tokens. Lines are ranked, not
//! chunks: a chunk of 32 tokens touches three lines where one answers, and their neighbours took the place of other facts.
//! Pure; knows no drafter, no message and no memo.
//!
//! What is left out costs a marker, so that a gap no longer than its marker is kept, and forced lines, kept lines and
//! markers all count against the budget. What is forced cannot take all of it: half of the budget is always left to the
//! ranking, or a long list of failures would leave nothing for what was asked; and the best line is kept whatever it costs.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::compress::lines::Unit;
use crate::compress::select::{SelectParams, merge};

/// What the selection may spend, and on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of kept units and markers together. What is forced is kept even where it is more; where it is more than a
    /// half, the ranking has the other half on top of it. The best unit is kept in any case.
    pub tokens: usize,
    /// Tokens of a marker.
    pub marker_tokens: usize,
}

impl Budget {
    /// The tokens that a text of `n` may keep: the share, but never fewer than `least`, so that a text of twice as many
    /// keeps at least a half, of ten times as many a tenth.
    pub fn of_text(n: usize, params: &SelectParams, least: usize) -> usize {
        (n * params.keep_permille.min(1000) as usize / 1000).max(least)
    }
}

/// What is kept of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLines {
    /// Bytes: ascending, not empty, not touching, both ends where units meet.
    pub ranges: Vec<Range<usize>>,
    /// Tokens of what is kept, and of the markers between.
    pub tokens: usize,
}

/// Keeps the units that hold a byte of `forced`, and the first of `ranked`, which are indices of units from the best to
/// the worst; then the others in that order. One that does not fit is passed over.
pub fn select_lines(units: &[Unit], forced: &[usize], ranked: &[usize], budget: Budget) -> KeptLines {
    let mut kept = Kept::new(units, budget.marker_tokens);
    for byte in forced {
        let unit = units.partition_point(|unit| unit.bytes.end <= *byte);
        if unit < units.len() {
            kept.insert(unit);
        }
    }
    let most = match kept.units_kept.is_empty() {
        true => budget.tokens,
        false => budget.tokens.max(kept.price + budget.tokens / 2),
    };
    for (rank, unit) in ranked.iter().enumerate() {
        if kept.insert(*unit) && kept.price > most && rank > 0 {
            kept.remove(*unit);
        }
    }
    kept.finish()
}

/// Kept units, and what they and the markers of the gaps between them cost.
struct Kept<'a> {
    units: &'a [Unit],
    units_kept: BTreeSet<usize>,
    marker_tokens: usize,
    price: usize,
}

impl<'a> Kept<'a> {
    fn new(units: &'a [Unit], marker_tokens: usize) -> Self {
        let mut kept = Self { units, units_kept: BTreeSet::new(), marker_tokens, price: 0 };
        kept.price = kept.price_of_gap(0..units.len());
        kept
    }

    /// A gap costs its marker, or itself where that is no more.
    fn price_of_gap(&self, gap: Range<usize>) -> usize {
        self.tokens_of(gap).min(self.marker_tokens)
    }

    fn tokens_of(&self, units: Range<usize>) -> usize {
        match (self.units.get(units.start), self.units[..units.end].last()) {
            (Some(first), Some(last)) if units.start < units.end => last.tokens.end - first.tokens.start,
            _ => 0,
        }
    }

    /// The gap around a unit, as if the unit were part of it.
    fn gap_around(&self, unit: usize) -> Range<usize> {
        let before = self.units_kept.range(..unit).next_back().map_or(0, |kept| kept + 1);
        let after = self.units_kept.range(unit + 1..).next().copied().unwrap_or(self.units.len());
        before..after
    }

    /// What changes when a unit in `gap` is kept: the gap's price goes, this comes.
    fn price_in(&self, gap: &Range<usize>, unit: usize) -> usize {
        self.price_of_gap(gap.start..unit)
            + self.tokens_of(unit..unit + 1)
            + self.price_of_gap(unit + 1..gap.end)
    }

    /// Keeps a unit; `false` if it was kept already.
    fn insert(&mut self, unit: usize) -> bool {
        if !self.units_kept.insert(unit) {
            return false;
        }
        let gap = self.gap_around(unit);
        self.price = self.price + self.price_in(&gap, unit) - self.price_of_gap(gap);
        true
    }

    fn remove(&mut self, unit: usize) {
        self.units_kept.remove(&unit);
        let gap = self.gap_around(unit);
        self.price = self.price + self.price_of_gap(gap.clone()) - self.price_in(&gap, unit);
    }

    /// The kept bytes, with the gaps that a marker would not shorten.
    fn finish(self) -> KeptLines {
        let mut kept = Vec::new();
        let mut next = 0;
        for unit in self.units_kept.iter().copied().chain([self.units.len()]) {
            if self.tokens_of(next..unit) <= self.marker_tokens {
                kept.extend(next..unit);
            }
            kept.extend((unit < self.units.len()).then_some(unit));
            next = unit + 1;
        }
        let ranges = merge(kept.into_iter().map(|unit| self.units[unit].bytes.clone()));
        KeptLines { ranges, tokens: self.price }
    }
}
