//! From what was frozen of a prompt's messages to the rows of its KV that are dropped: which messages have aged, where in
//! the prompt that happens, and which of their tokens go. A pure function of messages, frozen forms and places, so that
//! the same prompt gives the same plan in every run. Knows no drafter, no slot and no model.
//!
//! A *turn* is an assistant message and what follows it up to the next one. A call sends whole turns and is answered once,
//! behind the last of them. Before a turn is prefilled, the rows of every message are dropped that stands before the turn
//! and has aged by its end. So the answer right behind a message sees all of it, even where parallel tool messages make it
//! old at once, and what a turn sees is settled by the messages up to its end.

use std::ops::Range;

use transcripts::message::{Message, Part, Role};

use crate::chat::Place;
use crate::compress::age::aged_before;
use crate::compress::compressor::Compressed;
use crate::compress::elision::{Form, render};
use crate::compress::frozen::Frozen;
use crate::kv::eviction::{Eviction, EvictionPlan, Rows};

/// A prompt in tokens, and where its messages stand in it.
#[derive(Clone, Copy, Debug)]
pub struct Rendered<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// Bytes of the text that each comes from, ascending.
    pub bytes: &'a [Range<usize>],
    /// Bytes of the text that each message's content takes.
    pub places: &'a [Place],
    /// Token that opens a turn of the template.
    pub boundary: u32,
}

/// A message that loses rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    index: usize,
    /// Bytes of its text that stay.
    kept: Vec<Range<usize>>,
    /// Tokens of its text.
    n_tokens: usize,
    /// What of them goes, and where.
    evictions: Vec<Eviction>,
}

/// The messages of a prompt that lose rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts(Vec<Cut>);

impl Cuts {
    /// What the frozen forms of messages leave out once `keep_verbatim_newest` newer tool messages have come. A message
    /// without a place in the prompt stays whole.
    pub fn new(
        messages: &[&Message],
        decided: &[(usize, Frozen)],
        keep_verbatim_newest: usize,
        rendered: &Rendered<'_>,
    ) -> Self {
        let turns = dropped_before(messages, keep_verbatim_newest);
        let cut = |(index, frozen): &(usize, Frozen)| {
            let Frozen::Compressed { ranges, .. } = frozen else { return None };
            let from = rendered.start_of_turn(messages, turns[*index]?)?;
            let place = rendered.places[*index].as_ref()?;
            let own = rendered.tokens_of(place);
            let ages = messages[*index].role == Role::Tool && own.end <= from;
            let rows = own.clone().filter(|token| ages && rendered.is_left_out(*token, place, ranges));
            let evictions: Vec<Eviction> =
                rows.map(|row| Eviction { rows: Rows { start: row, end: row + 1 }, from }).collect();
            let cut = Cut { index: *index, kept: ranges.clone(), n_tokens: own.len(), evictions };
            (!cut.evictions.is_empty()).then_some(cut)
        };
        Self(decided.iter().filter_map(cut).collect())
    }

    /// Whether no message loses a row.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The plan of the whole prompt.
    pub fn plan(&self) -> EvictionPlan {
        EvictionPlan::new(self.0.iter().flat_map(|cut| &cut.evictions).copied())
    }

    /// The messages as the answer can see them, once the evictions of `settled` have taken effect: of those that lost
    /// rows, the kept parts.
    pub fn visible<'m>(&self, messages: &[&'m Message], settled: &EvictionPlan) -> Compressed<'m> {
        let mut visible = Compressed::verbatim(messages);
        let took_effect = |eviction: &Eviction| settled.dropped_from(eviction.rows.start).is_some();
        for cut in self.0.iter().filter(|cut| cut.evictions.iter().all(took_effect)) {
            let n_dropped: usize = cut.evictions.iter().map(|gone| gone.rows.positions().len()).sum();
            visible.n_compressed += 1;
            visible.tokens_raw += cut.n_tokens as u64;
            visible.tokens_kept += (cut.n_tokens - n_dropped) as u64;
            let message = &mut visible.messages[cut.index];
            if let Some(text) = render(&message.flat_text(), &cut.kept, Form::Joined) {
                message.to_mut().content = vec![Part::Text { text }];
            }
        }
        visible
    }
}

/// The turn before which each message has aged, by the index of its assistant message; `None` where the prompt ends first.
fn dropped_before(messages: &[&Message], keep_verbatim_newest: usize) -> Vec<Option<usize>> {
    let opens = |index: &usize| messages[*index].role == Role::Assistant;
    let turns: Vec<usize> = (0..messages.len()).filter(opens).collect();
    let mut before = vec![None; messages.len()];
    for (nth, &turn) in turns.iter().enumerate() {
        let end = turns.get(nth + 1).copied().unwrap_or(messages.len());
        let young_from = aged_before(&messages[..end], keep_verbatim_newest);
        before[..turn.min(young_from)].iter_mut().for_each(|place| {
            place.get_or_insert(turn);
        });
    }
    before
}

impl Rendered<'_> {
    /// Tokens that begin in a place.
    fn tokens_of(&self, place: &Range<usize>) -> Range<usize> {
        let first_from = |byte| self.bytes.partition_point(|bytes| bytes.start < byte);
        first_from(place.start)..first_from(place.end)
    }

    /// The token that opens the turn of the assistant message at `turn`: of those that open a turn behind the last message
    /// before it that has a place, as many on as assistant messages have come since.
    fn start_of_turn(&self, messages: &[&Message], turn: usize) -> Option<usize> {
        let last = messages[..turn].iter().rposition(|message| message.role != Role::Assistant)?;
        let behind = self.tokens_of(self.places[last].as_ref()?).end;
        let opens = |at: &usize| self.tokens[*at] == self.boundary;
        (behind..self.tokens.len()).filter(opens).nth(turn - last - 1)
    }

    /// Whether a token that begins in a place lies in it whole, and in none of the kept bytes of its text.
    fn is_left_out(&self, token: usize, place: &Range<usize>, kept: &[Range<usize>]) -> bool {
        let bytes = &self.bytes[token];
        let (start, end) = (bytes.start - place.start, bytes.end - place.start);
        let next = kept.partition_point(|range| range.end <= start);
        let is_kept = kept.get(next).is_some_and(|range| range.start < end);
        start < end && bytes.end <= place.end && !is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(roles: &str) -> Vec<Message> {
        let role = |letter| match letter {
            'u' => Role::User,
            'a' => Role::Assistant,
            _ => Role::Tool,
        };
        roles.chars().map(|letter| Message::text(role(letter), "text")).collect()
    }

    #[test]
    fn a_message_is_dropped_before_the_first_turn_that_makes_it_old_and_never_before_it_was_answered() {
        let none = None;
        for (roles, newest, expected) in [
            ("uat", 1, vec![none; 3]),
            ("uatat", 1, vec![Some(1), Some(3), Some(3), none, none]),
            ("uatatat", 2, vec![Some(1), Some(5), Some(5), none, none, none, none]),
            // Parallel: the first is old at once, but no answer has seen it yet.
            ("uatt", 1, vec![Some(1), none, none, none]),
            ("uattat", 1, vec![Some(1), Some(4), Some(4), Some(4), none, none]),
            // A turn without a tool message makes nothing old.
            ("uatau", 1, vec![none; 5]),
            ("uatauat", 1, vec![Some(1), Some(5), Some(5), Some(5), Some(5), none, none]),
            // Two assistant messages in a row are two turns.
            ("uataat", 1, vec![Some(1), Some(4), Some(4), Some(4), none, none]),
            ("uat", 0, vec![Some(1), none, none]),
        ] {
            let messages = prompt(roles);
            let messages: Vec<&Message> = messages.iter().collect();
            let found = dropped_before(&messages, newest);
            let of_tools = |all: &[Option<usize>]| -> Vec<Option<usize>> {
                let tools = (0..all.len()).filter(|&index| messages[index].role == Role::Tool);
                tools.map(|index| all[index]).collect()
            };
            assert_eq!(of_tools(&found), of_tools(&expected), "{roles} {newest}");
        }
    }

    /// Bytes are tokens here, and `#` opens a turn.
    #[test]
    fn what_the_frozen_form_leaves_out_is_dropped_where_the_next_turn_opens() {
        let text = "#u:ask#a:go#t:keep lose keep#a:go#t:new#";
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let bytes: Vec<Range<usize>> = (0..text.len()).map(|at| at..at + 1).collect();
        let place = |content: &str| text.find(content).map(|at| at..at + content.len());
        let places = [place("ask"), None, place("keep lose keep"), None, place("new")];
        let contents = ["ask", "go", "keep lose keep", "go", "new"];
        let mut messages = prompt("uatat");
        for (message, content) in messages.iter_mut().zip(contents) {
            *message = Message::text(message.role, content);
        }
        let messages: Vec<&Message> = messages.iter().collect();
        let boundary = u32::from(b'#');
        let rendered = Rendered { tokens: &tokens, bytes: &bytes, places: &places, boundary };
        let frozen = Frozen::compressed(contents[2], vec![0..5, 10..14], Form::Marked, [14, 9]).unwrap();
        let cuts = Cuts::new(&messages, &[(2, frozen.clone()), (4, Frozen::Verbatim)], 1, &rendered);

        let start = text.find("lose ").unwrap();
        let from = text.find("#a:go#t:new").unwrap();
        let rows = Rows { start, end: start + 5 };
        assert_eq!(cuts.plan().evictions(), [Eviction { rows, from }]);
        let visible = cuts.visible(&messages, &cuts.plan());
        assert_eq!(visible.messages[2].flat_text(), "keep keep");
        assert_eq!((visible.n_compressed, visible.keep_ratio()), (1, Some(9.0 / 14.0)));
        let none_yet = cuts.visible(&messages, &EvictionPlan::default());
        assert_eq!((none_yet.n_compressed, none_yet.messages[2].flat_text()), (0, contents[2].to_owned()));

        let nowhere: Vec<Place> = vec![None; 5];
        let lost = Rendered { places: &nowhere, ..rendered };
        assert_eq!(Cuts::new(&messages, &[(2, frozen)], 1, &lost), Cuts::default());
    }
}
