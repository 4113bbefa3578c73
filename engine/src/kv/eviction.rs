//! Which rows of a prompt's KV are dropped, and from where on: an eviction plan. Pure; knows positions alone, no token, no
//! slot and no message.
//!
//! ```text
//! token t sees row r   iff   r <= t, and no eviction with r in rows has from <= start of the piece that t runs in
//! ```
//! Nothing behind dropped rows is computed again, and the rows that stay keep their positions. So a prompt under a plan is
//! a function of its own: not the prompt with those tokens left out, whose later tokens never saw them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::schedule::Schedule;

/// The rows of the positions `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rows {
    /// First position.
    pub start: usize,
    /// One past the last position.
    pub end: usize,
}

impl Rows {
    /// The positions.
    pub const fn positions(self) -> Range<usize> {
        self.start..self.end
    }
}

/// Rows that are dropped, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// What is dropped; not empty.
    pub rows: Rows,
    /// Pieces that start here or later do not see them; not before the end of the rows.
    pub from: usize,
}

/// Every eviction of a prompt. A row is dropped at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvictionPlan {
    /// Ascending by rows; those that touch are dropped at different places.
    evictions: Vec<Eviction>,
    /// The same rows, ascending, by where they are dropped.
    steps: BTreeMap<usize, Vec<Rows>>,
}

impl EvictionPlan {
    /// The plan of these evictions, in any order and any cut.
    ///
    /// # Panics
    /// If rows are empty, overlap, or are dropped before their own piece could have run.
    pub fn new(evictions: impl IntoIterator<Item = Eviction>) -> Self {
        let mut evictions: Vec<Eviction> = evictions.into_iter().collect();
        evictions.sort_unstable_by_key(|eviction| eviction.rows);
        let well_formed = |e: &Eviction| e.rows.start < e.rows.end && e.rows.end <= e.from;
        assert!(
            evictions.iter().all(well_formed),
            "rows of an eviction end where it takes effect, or before"
        );
        let apart = evictions.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start);
        assert!(apart, "a row is dropped at most once");
        evictions.dedup_by(|next, eviction| {
            let continues = next.rows.start == eviction.rows.end && next.from == eviction.from;
            eviction.rows.end = if continues { next.rows.end } else { eviction.rows.end };
            continues
        });
        let mut steps: BTreeMap<usize, Vec<Rows>> = BTreeMap::new();
        for eviction in &evictions {
            steps.entry(eviction.from).or_default().push(eviction.rows);
        }
        Self { evictions, steps }
    }

    /// The plan with every eviction moved to the piece before which it takes effect; those that no piece follows are left
    /// out. Two plans are equal then if they let the same tokens see the same rows.
    #[must_use]
    pub fn settled(&self, schedule: &Schedule) -> Self {
        let first_piece = |from: usize| {
            let at = schedule.pieces.partition_point(|piece| piece.start < from);
            schedule.pieces.get(at).map(|piece| piece.start)
        };
        let settle = |e: &Eviction| first_piece(e.from).map(|from| Eviction { rows: e.rows, from });
        Self::new(self.evictions.iter().filter_map(settle))
    }

    /// Whether nothing is dropped.
    pub fn is_empty(&self) -> bool {
        self.evictions.is_empty()
    }

    /// Every eviction, ascending by rows.
    pub fn evictions(&self) -> &[Eviction] {
        &self.evictions
    }

    /// Rows that are dropped exactly at `position`, ascending.
    pub fn dropped_at(&self, position: usize) -> &[Rows] {
        self.steps.get(&position).map_or(&[], Vec::as_slice)
    }

    /// Where the row of `position` is dropped; `None` if it stays.
    pub fn dropped_from(&self, position: usize) -> Option<usize> {
        let at = self.evictions.partition_point(|eviction| eviction.rows.end <= position);
        self.evictions
            .get(at)
            .filter(|eviction| eviction.rows.start <= position)
            .map(|eviction| eviction.from)
    }

    /// Rows that a piece which starts at `position` no longer sees.
    pub fn gone(&self, position: usize) -> impl Iterator<Item = Rows> + '_ {
        self.steps.range(..=position).flat_map(|(_, rows)| rows).copied()
    }

    /// Number of [`EvictionPlan::gone`] rows: how far the index of a row is behind its position.
    pub fn n_gone(&self, position: usize) -> usize {
        self.gone(position).map(|rows| rows.positions().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Piece;

    fn eviction(start: usize, end: usize, from: usize) -> Eviction {
        Eviction { rows: Rows { start, end }, from }
    }

    #[test]
    fn a_row_is_gone_from_its_eviction_on() {
        let plan = EvictionPlan::new([
            eviction(8, 9, 30),
            eviction(2, 4, 10),
            eviction(12, 13, 30),
            eviction(7, 8, 30),
        ]);
        let from: Vec<Option<usize>> = [1, 2, 3, 4, 7, 8, 9, 12, 13].map(|p| plan.dropped_from(p)).to_vec();
        let (first, second) = (Some(10), Some(30));
        assert_eq!(from, [None, first, first, None, second, second, None, second, None]);
        assert_eq!([0, 9, 10, 29, 30, 99].map(|at| plan.n_gone(at)), [0, 0, 2, 2, 5, 5]);
        assert_eq!(plan.dropped_at(30), [Rows { start: 7, end: 9 }, Rows { start: 12, end: 13 }]);
        assert!(plan.dropped_at(29).is_empty() && EvictionPlan::default().is_empty());
    }

    #[test]
    fn a_plan_settles_on_the_pieces_that_follow() {
        let piece = |start, end| Piece { start, end, reusable: true };
        let schedule = Schedule { pieces: vec![piece(0, 10), piece(10, 14), piece(14, 20)] };
        let plan = EvictionPlan::new([
            eviction(0, 1, 10),
            eviction(2, 3, 11),
            eviction(4, 5, 14),
            eviction(6, 7, 15),
        ]);
        let settled = plan.settled(&schedule);
        let kept = [eviction(0, 1, 10), eviction(2, 3, 14), eviction(4, 5, 14)];
        assert_eq!(settled.evictions(), kept);
        assert_eq!(settled.settled(&schedule), settled);
    }

    #[test]
    #[should_panic(expected = "dropped at most once")]
    fn a_row_cannot_be_dropped_twice() {
        EvictionPlan::new([eviction(0, 4, 10), eviction(3, 5, 20)]);
    }

    #[test]
    #[should_panic(expected = "end where it takes effect")]
    fn rows_cannot_be_dropped_before_they_ran() {
        EvictionPlan::new([eviction(0, 4, 3)]);
    }
}
