//! How much of the drafter's work was done before: the number behind the anti-stack.

use crate::grid::Grid;
use crate::record::CallRecord;

/// Scoring of one arm over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescoring {
    /// Arm name.
    pub arm: String,
    /// Tokens that went through the drafter.
    pub tokens_scored: f64,
    /// Times a tool message was scored.
    pub n_events: u64,
    /// Of these, times it had been scored by an earlier call of its session.
    pub n_events_again: u64,
    /// Share of `tokens_scored` that belongs to messages scored before, taking the messages of a call as equally long.
    pub tokens_again: f64,
}

/// Arms that scored anything, over their first repeat.
pub(super) fn rows(grid: &Grid) -> Vec<Rescoring> {
    let row = |(arm_idx, arm): (usize, &String)| {
        let mut tally = Tally::default();
        for (call_idx, key) in grid.calls().iter().enumerate() {
            if call_idx == 0 || grid.calls()[call_idx - 1].session_id != key.session_id {
                tally.start_session();
            }
            if let Some((_, record)) = grid.repeats(arm_idx, call_idx).next() {
                tally.add(record);
            }
        }
        (tally.tokens_scored > 0.0).then(|| Rescoring {
            arm: arm.clone(),
            tokens_scored: tally.tokens_scored,
            n_events: tally.n_events,
            n_events_again: tally.n_events_again,
            tokens_again: tally.tokens_again,
        })
    };
    grid.arms().iter().enumerate().filter_map(row).collect()
}

/// Walks the calls of a session and keeps how many of its tool messages were not scored yet. An event is counted as "again"
/// only when no such message is left, so that the count never overstates: after a compaction all messages count as new.
#[derive(Default)]
struct Tally {
    messages_before: u64,
    unscored: u64,
    tokens_scored: f64,
    n_events: u64,
    n_events_again: u64,
    tokens_again: f64,
}

impl Tally {
    fn start_session(&mut self) {
        (self.messages_before, self.unscored) = (0, 0);
    }

    fn add(&mut self, record: &CallRecord) {
        let scored = record.tokens_scored.unwrap_or(0) as f64;
        self.tokens_scored += scored;
        let messages = record.messages_tool.unwrap_or(0);
        let frozen = record.messages_frozen_hit.unwrap_or(0);
        let events = record.messages_compressed.unwrap_or(0).saturating_sub(frozen).min(messages);
        self.unscored = match messages.checked_sub(self.messages_before) {
            Some(new) => self.unscored.saturating_add(new),
            None => messages,
        };
        self.messages_before = messages;
        let first_time = events.min(self.unscored);
        self.unscored -= first_time;
        self.n_events = self.n_events.saturating_add(events);
        self.n_events_again = self.n_events_again.saturating_add(events - first_time);
        if events > 0 {
            self.tokens_again += scored * (events - first_time) as f64 / events as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunManifest;

    /// (tool messages, compressed, from the memo, tokens scored) of each call.
    fn again(calls: &[(u64, u64, u64, u64)]) -> (u64, u64, f64) {
        let record = |(i, &(tool, compressed, frozen, scored)): (usize, &(u64, u64, u64, u64))| CallRecord {
            arm: "a".into(),
            call_index: i as u32,
            messages_tool: Some(tool),
            messages_compressed: Some(compressed),
            messages_frozen_hit: Some(frozen),
            tokens_scored: Some(scored),
            ..CallRecord::default()
        };
        let records: Vec<CallRecord> = calls.iter().enumerate().map(record).collect();
        let rows = rows(&Grid::new(&RunManifest::default(), &records));
        rows.first().map_or((0, 0, 0.0), |r| (r.n_events, r.n_events_again, r.tokens_again))
    }

    #[test]
    fn ten_messages_scored_on_every_call_are_the_published_55_events() {
        let calls: Vec<_> = (1..=10).map(|k| (k, k, 0, 100 * k)).collect();
        let (events, again, tokens) = again(&calls);
        assert_eq!((events, again), (55, 45));
        assert!((tokens - 4500.0).abs() < 1e-9);
    }

    #[test]
    fn frozen_messages_are_never_scored_again() {
        let calls: Vec<_> = (1..=10).map(|k| (k, k, k - 1, 100)).collect();
        assert_eq!(again(&calls), (10, 0, 0.0));
    }

    #[test]
    fn a_threshold_that_opens_late_scores_old_messages_for_the_first_time() {
        assert_eq!(again(&[(1, 0, 0, 0), (2, 0, 0, 0), (3, 3, 0, 300), (4, 4, 3, 100)]), (4, 0, 0.0));
    }

    #[test]
    fn messages_after_a_compaction_count_as_new() {
        assert_eq!(again(&[(3, 3, 0, 300), (1, 1, 0, 100), (2, 2, 1, 100)]), (5, 0, 0.0));
    }

    #[test]
    fn a_compressed_user_message_is_no_tool_message() {
        assert_eq!(again(&[(0, 1, 0, 50), (0, 1, 0, 50)]), (0, 0, 0.0));
    }
}
