//! How much of the drafter's work was done before: the number behind the anti-stack.

use crate::grid::Grid;
use crate::number::count;
use crate::record::CallRecord;

/// Scoring of one arm over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescoring {
    /// Arm name.
    pub arm: String,
    /// Tokens that went through the drafter.
    pub tokens_scored: f64,
    /// Calls that scored anything: each is one batch, with one loading of the drafter where models are parked.
    pub n_batches: u64,
    /// Times a tool message was scored.
    pub n_events: u64,
    /// Of these, times it had been scored by an earlier call of its session.
    pub n_events_again: u64,
    /// Tokens of `tokens_scored` that freezing each message when it was first scored would have saved.
    pub tokens_again: f64,
    /// Whether `tokens_again` is counted, or in part taken from messages of one call as equally long.
    pub again: Again,
}

impl Rescoring {
    /// `tokens_again` as words: `68,400`, or `about 68,400` where it is an estimate.
    pub fn tokens_again_words(&self) -> String {
        let about = if self.again == Again::Estimated && self.tokens_again > 0.0 { "about " } else { "" };
        format!("{about}{}", count(self.tokens_again))
    }
}

/// How well the tokens of repeated scorings are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// Every repeated scoring repeats a whole earlier call, whose tokens are recorded.
    #[default]
    Counted,
    /// Some calls scored only a part of what the call before had.
    Estimated,
}

/// Arms that scored anything, over their first repeat.
pub(super) fn rows(grid: &Grid) -> Vec<Rescoring> {
    let row = |(arm_idx, arm): (usize, &String)| {
        let mut tally = Tally::default();
        for (call_idx, key) in grid.calls().iter().enumerate() {
            if call_idx == 0 || grid.calls()[call_idx - 1].session_id != key.session_id {
                tally.before = Before::default();
            }
            if let Some((_, record)) = grid.repeats(arm_idx, call_idx).find(|(_, r)| r.error.is_none()) {
                tally.add(record);
            }
        }
        let Tally { tokens_scored, n_batches, n_events, n_events_again, tokens_again, again, .. } = tally;
        let arm = arm.clone();
        (tokens_scored > 0.0).then_some(Rescoring {
            arm,
            tokens_scored,
            n_batches,
            n_events,
            n_events_again,
            tokens_again,
            again,
        })
    };
    grid.arms().iter().enumerate().filter_map(row).collect()
}

/// What the call before left standing compressed in its prompt.
#[derive(Default)]
struct Before {
    /// Tool messages in its prompt.
    messages: u64,
    /// Of these, compressed.
    compressed: u64,
    /// Drafter tokens of the compressed ones, where it scored them all.
    tokens: Option<u64>,
}

/// Walks the calls of a session. What stood compressed before and does not come from the memo now was scored again; where a
/// prompt holds fewer tool messages than the one before, history was replaced, and all of it counts as new.
#[derive(Default)]
struct Tally {
    before: Before,
    tokens_scored: f64,
    n_batches: u64,
    n_events: u64,
    n_events_again: u64,
    tokens_again: f64,
    again: Again,
}

impl Tally {
    fn add(&mut self, record: &CallRecord) {
        let scored = record.tokens_scored.unwrap_or(0);
        self.tokens_scored += scored as f64;
        self.n_batches += u64::from(scored > 0);
        if record.tokens_backfilled.is_some() {
            // What stood compressed before is history as it came now.
            self.before = Before { messages: self.before.messages, ..Before::default() };
        }
        let messages = record.messages_tool.unwrap_or(0);
        let compressed = record.messages_compressed.unwrap_or(0).min(messages);
        let frozen = record.messages_frozen_hit.unwrap_or(0);
        // Records of before this field: what stands compressed and is not from the memo. A memo that also answers for
        // messages that stay verbatim hides scorings from that count.
        let events =
            record.messages_scored.map_or(compressed.saturating_sub(frozen), |scored| scored.min(messages));
        let again = if messages < self.before.messages {
            0
        } else {
            self.before.compressed.saturating_sub(frozen).min(events)
        };
        self.n_events = self.n_events.saturating_add(events);
        self.n_events_again = self.n_events_again.saturating_add(again);
        match self.before.tokens.filter(|&tokens| again == self.before.compressed && tokens <= scored) {
            _ if again == 0 => {}
            Some(tokens) => self.tokens_again += tokens as f64,
            None => {
                self.tokens_again += scored as f64 * again as f64 / events as f64;
                self.again = Again::Estimated;
            }
        }
        let tokens = (frozen == 0 && compressed > 0).then_some(scored);
        self.before = Before { messages, compressed, tokens };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunManifest;

    /// (tool messages, compressed, from the memo, tokens scored) of each call.
    fn again(calls: &[(u64, u64, u64, u64)]) -> (u64, u64, f64, Again) {
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
        let row = rows.first().unwrap();
        (row.n_events, row.n_events_again, row.tokens_again, row.again)
    }

    #[test]
    fn ten_messages_scored_on_every_call_are_the_published_55_events() {
        let calls: Vec<_> = (1..=10).map(|k| (k, k, 0, 100 * k)).collect();
        assert_eq!(again(&calls), (55, 45, 4500.0, Again::Counted));
    }

    #[test]
    fn messages_of_unequal_length_are_counted_to_the_token() {
        // Messages of 1000, 10 and 1 tokens: freezing would score 1011 of them.
        let calls = [(1, 1, 0, 1000), (2, 2, 0, 1010), (3, 3, 0, 1011)];
        assert_eq!(again(&calls), (6, 3, 2010.0, Again::Counted));
    }

    #[test]
    fn frozen_messages_are_never_scored_again() {
        let calls: Vec<_> = (1..=10).map(|k| (k, k, k - 1, 100)).collect();
        assert_eq!(again(&calls), (10, 0, 0.0, Again::Counted));
    }

    #[test]
    fn short_messages_that_stay_verbatim_are_no_scorings() {
        // Every second message is under the floor.
        let calls: Vec<_> = (1..=4).map(|k| (2 * k, k, 0, 100 * k)).collect();
        assert_eq!(again(&calls), (10, 6, 600.0, Again::Counted));
    }

    #[test]
    fn a_memo_that_lost_entries_scores_a_part_again() {
        // The third call finds one of two messages; which of them it scored again is not recorded.
        assert_eq!(again(&[(1, 1, 0, 100), (2, 2, 1, 300), (3, 3, 1, 500)]), (4, 1, 250.0, Again::Estimated));
    }

    #[test]
    fn a_threshold_that_opens_late_scores_old_messages_for_the_first_time() {
        let calls = [(1, 0, 0, 0), (2, 0, 0, 0), (3, 3, 0, 300), (4, 4, 3, 100)];
        assert_eq!(again(&calls), (4, 0, 0.0, Again::Counted));
    }

    #[test]
    fn a_memo_that_holds_verbatim_messages_hides_no_scoring() {
        // Two messages under the floor were seen before the first that is scored.
        let record = CallRecord {
            arm: "a".into(),
            messages_tool: Some(3),
            messages_compressed: Some(1),
            messages_frozen_hit: Some(2),
            tokens_scored: Some(700),
            messages_scored: Some(1),
            ..CallRecord::default()
        };
        let row = rows(&Grid::new(&RunManifest::default(), &[record])).remove(0);
        assert_eq!((row.n_events, row.n_events_again), (1, 0));
    }

    #[test]
    fn messages_after_a_compaction_count_as_new() {
        assert_eq!(again(&[(3, 3, 0, 300), (1, 1, 0, 100), (2, 2, 1, 100)]), (5, 0, 0.0, Again::Counted));
    }

    #[test]
    fn a_compressed_user_message_is_no_tool_message() {
        assert_eq!(again(&[(0, 1, 0, 50), (0, 1, 0, 50)]), (0, 0, 0.0, Again::Counted));
    }
}
