//! A planned session as messages: requests, tool calls, outputs with their facts in place, and where every fact ended up.
//! Knows no file format.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::synth::Needle;
use crate::synth::draw::Draw;
use crate::synth::fact::{Fact, Outcome, Use};
use crate::synth::filler::Output;
use crate::synth::plan::{Sight, Turn};
use crate::synth::sizes;

/// One message, or the results of one turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The person.
    User(String),
    /// The model: a sentence, or tool calls.
    Assistant {
        /// What it says; empty beside tool calls.
        text: String,
        /// What it calls.
        uses: Vec<Use>,
    },
    /// One result per call of the turn before.
    Results(Vec<String>),
}

/// Where a fact stands.
#[derive(Clone, Debug)]
struct Place {
    message_index: usize,
    lines: Range<usize>,
}

/// A session under way.
struct Story<'a> {
    draw: &'a mut Draw,
    entries: Vec<Entry>,
    needles: Vec<Needle>,
    places: BTreeMap<String, Place>,
    fillers: std::vec::IntoIter<usize>,
    n_messages: usize,
    n_calls: usize,
    n_calls_wanted: usize,
}

/// Tells a session of exactly `n_calls` calls whose messages hold about `chars` characters before the last of them, or
/// as many as recorded sessions have.
pub fn tell(
    draw: &mut Draw,
    turns: &[Turn],
    n_calls: usize,
    chars: Option<usize>,
) -> (Vec<Entry>, Vec<Needle>) {
    let n_outputs = outputs_before(turns, n_calls);
    let budget = chars.map(|chars| chars.saturating_sub(fixed_chars(turns)));
    let mut fillers = sizes::fillers(draw, n_outputs, budget);
    // The results of the last call are in no prompt.
    fillers.push(0);
    let mut story = Story {
        draw,
        entries: Vec::new(),
        needles: Vec::new(),
        places: BTreeMap::new(),
        fillers: fillers.into_iter(),
        n_messages: 0,
        n_calls: 0,
        n_calls_wanted: n_calls,
    };
    for turn in turns {
        story.turn(turn);
    }
    (story.entries, story.needles)
}

/// Outputs of any size that the last call's prompt holds.
fn outputs_before(turns: &[Turn], n_calls: usize) -> usize {
    let mut of_calls = Vec::new();
    for turn in turns {
        if matches!(turn.sight, Sight::Explored { .. }) {
            of_calls.push(turn.fact.explore().len());
        }
        of_calls.push(usize::from(matches!(turn.fact.act().1, Outcome::Output(_))));
        of_calls.push(0);
    }
    of_calls.iter().take(n_calls.saturating_sub(1)).sum()
}

/// Characters of all messages without filler.
fn fixed_chars(turns: &[Turn]) -> usize {
    let of_use = |one: &Use| one.tool.len() + one.arguments.to_string().len();
    let of_fact = |fact: &Fact| fact.text.len() + 1;
    turns
        .iter()
        .map(|turn| {
            let fact = &turn.fact;
            let acting = fact.ask().len() + of_use(&fact.act().0) + fact.close().len();
            let exploring = match &turn.sight {
                Sight::Explored { pending, distractors } => {
                    let lines: usize = pending.iter().chain(distractors).map(of_fact).sum();
                    of_fact(fact) + lines + fact.explore().iter().map(of_use).sum::<usize>()
                }
                Sight::Shown => 0,
            };
            acting + exploring
        })
        .sum()
}

impl Story<'_> {
    const fn is_over(&self) -> bool {
        self.n_calls >= self.n_calls_wanted
    }

    fn turn(&mut self, turn: &Turn) {
        if self.is_over() {
            return;
        }
        let fact = &turn.fact;
        let delayed = matches!(turn.sight, Sight::Shown);
        let ask = if delayed { fact.ask_again() } else { fact.ask() };
        let ask_message_index = self.n_messages;
        self.push(Entry::User(ask.clone()));
        if let Sight::Explored { pending, distractors } = &turn.sight {
            self.explore(fact, pending, distractors);
        }
        if self.is_over() {
            return;
        }
        if let Some(place) = self.places.get(&fact.key) {
            let start = place.lines.start;
            self.needles.push(Needle {
                kind: fact.kind,
                call_index: self.n_calls,
                delayed,
                ask_message_index,
                names: fact.names().iter().filter_map(|name| place_of(&ask, name, 0)).collect(),
                message_index: place.message_index,
                fact: place.lines.clone(),
                key: shifted(place_of(&fact.text, &fact.key, 0), start),
                values: fact.value_places().into_iter().map(|at| shifted(Some(at), start)).collect(),
                others: self.others(place),
            });
        }
        let (acting, outcome) = fact.act();
        self.assistant(String::new(), vec![acting]);
        let result = match outcome {
            Outcome::Output(output) => self.output(output, &[]),
            Outcome::Done(text) => text.to_owned(),
        };
        self.push(Entry::Results(vec![result]));
        if !self.is_over() {
            self.assistant(fact.close(), Vec::new());
        }
    }

    /// The exploring call and its outputs, one of which holds the facts.
    fn explore(&mut self, fact: &Fact, pending: &[Fact], distractors: &[Fact]) {
        let uses = fact.explore();
        let holder = self.draw.below(uses.len());
        self.assistant(String::new(), uses.clone());
        let facts: Vec<&Fact> = std::iter::once(fact).chain(pending).chain(distractors).collect();
        let first_message = self.n_messages;
        let mut results = Vec::new();
        for index in 0..uses.len() {
            let shown: &[&Fact] = if index == holder { &facts } else { &[] };
            let text = self.output(fact.kind.output(), shown);
            for fact in shown {
                if let Some(lines) = place_of(&text, &fact.text, 0) {
                    let place = Place { message_index: first_message + index, lines };
                    self.places.insert(fact.key.clone(), place);
                }
            }
            results.push(text);
        }
        self.push(Entry::Results(results));
    }

    /// The lines of the other facts of the message that holds this one.
    fn others(&self, place: &Place) -> Vec<Range<usize>> {
        let beside = self.places.values().filter(|other| other.message_index == place.message_index);
        let mut lines: Vec<Range<usize>> =
            beside.map(|other| other.lines.clone()).filter(|lines| *lines != place.lines).collect();
        lines.sort_by_key(|lines| lines.start);
        lines
    }

    /// An output with these facts between its lines, in any order.
    fn output(&mut self, output: Output, facts: &[&Fact]) -> String {
        let chars = self.fillers.next().unwrap_or(0);
        let mut lines = output.lines(self.draw, chars);
        for fact in facts {
            let at = self.draw.below(lines.len() + 1);
            lines.insert(at, fact.text.clone());
        }
        if lines.is_empty() { "(no output)".to_owned() } else { lines.join("\n") }
    }

    fn assistant(&mut self, text: String, uses: Vec<Use>) {
        self.push(Entry::Assistant { text, uses });
        self.n_calls += 1;
    }

    fn push(&mut self, entry: Entry) {
        self.n_messages += match &entry {
            Entry::User(_) | Entry::Assistant { .. } => 1,
            Entry::Results(results) => results.len(),
        };
        self.entries.push(entry);
    }
}

/// Where `name` stands in `text`, from `start` on.
fn place_of(text: &str, name: &str, start: usize) -> Option<Range<usize>> {
    let at = start + text.get(start..)?.find(name)?;
    Some(at..at + name.len())
}

fn shifted(range: Option<Range<usize>>, by: usize) -> Range<usize> {
    range.map_or(by..by, |range| range.start + by..range.end + by)
}
