//! Training text for the sample models: generated sessions in the chat template, with the places that the training
//! supervises. Knows no tokenizer and no model.
//!
//! A row in the form `session` is a whole session; one in the form `single` is a session of a single request, so that one
//! tool output fills the row. A row in the form `scoring` is what a drafter reads when it scores a tool output at birth:
//! the output, the birth query, and then the turn that needs the fact.

use std::ops::Range;

use engine::chat::{ChatTemplate, Generation, Thinking};
use engine::error::EngineError;
use serde::Serialize;
use transcripts::error::TranscriptError;
use transcripts::message::{Message, Role};
use transcripts::session::Session;
use transcripts::synth::{FactKind, Needle, Shape, generate};

const ASSISTANT: &str = "<|im_start|>assistant\n";
const TURN_END: &str = "<|im_end|>";

/// What a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A whole session.
    Session,
    /// A whole session of one request: it explores, acts and closes.
    Single,
    /// One tool output with its birth query and the turn that needs it.
    Scoring,
}

/// Start and end of a place in a row's text, in characters (which are bytes: rows are ASCII).
pub type Span = [usize; 2];

/// One row of training text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The text.
    pub text: String,
    /// What the model writes, each with its ending token.
    pub turns: Vec<Span>,
    /// The facts and where they are needed.
    pub needles: Vec<RowNeedle>,
}

/// A fact of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowNeedle {
    /// What it is about.
    pub kind: FactKind,
    /// The key in the request.
    pub ask: Span,
    /// The key in the fact.
    pub key: Span,
    /// The fact's lines.
    pub fact: Span,
    /// The lines of other facts of its form in the same output.
    pub others: Vec<Span>,
    /// What stands between the last message and the answer.
    pub tail: Span,
    /// The turn that needs it.
    pub answer: Span,
    /// What is copied, from where to where.
    pub copies: Vec<Copied>,
}

/// One copy of a name or value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copied {
    /// Where it is read.
    pub source: Span,
    /// Where it is written.
    pub r#use: Span,
    /// It is written into a tool call; else into a sentence.
    pub in_call: bool,
}

/// Why a row could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The generated session does not import.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// The template refuses the session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The rendered text does not hold a message as it is.
    #[error("the chat template does not show message {message_index} of the generated session as it is")]
    Rendering {
        /// Which.
        message_index: usize,
    },
}

/// The row of a seed, of about `chars` characters.
///
/// # Errors
/// [`CorpusError`]; none is known for the built-in template.
pub fn row(chat: &ChatTemplate, form: Form, seed: u64, chars: usize) -> Result<Row, CorpusError> {
    let shape = match form {
        Form::Session => Shape::of_row(seed, chars),
        Form::Single => Shape { seed, calls: 3, chars: Some(chars) },
        // Ask, explore, output, act.
        Form::Scoring => Shape { seed, calls: 2, chars: Some(chars) },
    };
    let synthetic = generate(&shape);
    let mut sessions = synthetic.import("row.jsonl")?.sessions;
    // A generated file is one chain.
    let session = sessions.swap_remove(0);
    match (form, synthetic.needles.as_slice()) {
        (Form::Scoring, [needle, ..]) => scoring(chat, &session, needle),
        _ => whole(chat, &session, &synthetic.needles),
    }
}

fn whole(chat: &ChatTemplate, session: &Session, needles: &[Needle]) -> Result<Row, CorpusError> {
    let last = session.calls.last().map_or(0, |call| call.completion as usize);
    let messages: Vec<&Message> = session.messages.iter().take(last + 1).collect();
    let text = chat.render(&messages, &[], Generation::None, Thinking::Default)?;
    let places = places_of(&text, &messages)?;
    let needles = needles.iter().map(|needle| row_needle(&text, session, needle, &places)).collect();
    let turns = messages.iter().zip(&places).filter(|(message, _)| message.role == Role::Assistant);
    let turns = turns.map(|(_, place)| [place.start, place.end]).collect();
    Ok(Row { text, turns, needles })
}

fn scoring(chat: &ChatTemplate, session: &Session, needle: &Needle) -> Result<Row, CorpusError> {
    let holder = &session.messages[needle.message_index];
    let goal = &session.messages[needle.ask_message_index];
    let mut explorer = session.messages[needle.ask_message_index + 1].clone();
    explorer.tool_calls.retain(|call| Some(&call.id) == holder.tool_call_id.as_ref());
    let acting = session.completion(needle.call_index).unwrap_or(goal);
    let query = [goal, &explorer, acting];
    let tail = chat.render(&query, &[], Generation::None, Thinking::Default)?;
    let output = holder.flat_text();
    let text = format!("{output}{tail}");
    let shift = |place: Range<usize>| place.start + output.len()..place.end + output.len();
    let mut places = vec![0..0; session.messages.len()];
    let shown: Vec<Range<usize>> = places_of(&tail, &query)?.into_iter().map(shift).collect();
    let acting_index = session.calls[needle.call_index].completion as usize;
    places[needle.message_index] = 0..output.len();
    for (index, place) in
        [needle.ask_message_index, needle.ask_message_index + 1, acting_index].iter().zip(&shown)
    {
        places[*index] = place.clone();
    }
    let answer = [shown[2].start, shown[2].end];
    let mut needle = row_needle(&text, session, needle, &places);
    needle.tail = [shown[1].end, shown[2].start];
    // The exploring call is part of the query here: it is read and not written.
    needle.copies.retain(|copy| answer[0] <= copy.r#use[0]);
    Ok(Row { text, turns: vec![answer], needles: vec![needle] })
}

/// Where each message stands in the rendered text: the content of what the model reads; the whole turn, ending token
/// included, of what it writes.
fn places_of(text: &str, messages: &[&Message]) -> Result<Vec<Range<usize>>, CorpusError> {
    let mut places = Vec::with_capacity(messages.len());
    let mut from = 0;
    for (message_index, message) in messages.iter().enumerate() {
        let missing = CorpusError::Rendering { message_index };
        let find = |what: &str, from: usize| Some(from + text.get(from..)?.find(what)?);
        let place = if message.role == Role::Assistant {
            let start = find(ASSISTANT, from).map(|at| at + ASSISTANT.len());
            start.and_then(|start| Some(start..find(TURN_END, start)? + TURN_END.len()))
        } else {
            let content = message.flat_text();
            find(&content, from).map(|start| start..start + content.len())
        };
        let place = place.ok_or(missing)?;
        from = place.end;
        places.push(place);
    }
    Ok(places)
}

fn row_needle(text: &str, session: &Session, needle: &Needle, places: &[Range<usize>]) -> RowNeedle {
    let at = |message: usize, range: &Range<usize>| {
        [places[message].start + range.start, places[message].start + range.end]
    };
    let in_ask = |range: &Range<usize>| at(needle.ask_message_index, range);
    let in_fact = |range: &Range<usize>| at(needle.message_index, range);
    let place_of_call = |index: usize| {
        session.calls.get(index).map(|call| places[call.completion as usize].clone()).unwrap_or_default()
    };
    let names: Vec<Span> = needle.names.iter().map(in_ask).collect();
    let values: Vec<Span> = needle.values.iter().map(in_fact).collect();
    let answer = place_of_call(needle.call_index);
    let mut copies = Vec::new();
    if !needle.delayed {
        copies.extend(copied(text, &place_of_call(needle.call_index - 1), &names, true));
    }
    let needed: Vec<Span> = values.iter().chain(names.first()).copied().collect();
    copies.extend(copied(text, &answer, &needed, true));
    copies.extend(copied(text, &place_of_call(needle.call_index + 1), &needed, false));
    let before = session.calls[needle.call_index].prefix.last().map_or(0, |&last| places[last as usize].end);
    RowNeedle {
        kind: needle.kind,
        ask: names.first().copied().unwrap_or_default(),
        key: in_fact(&needle.key),
        fact: in_fact(&needle.fact),
        others: needle.others.iter().map(in_fact).collect(),
        tail: [before, answer.start],
        answer: [answer.start, answer.end],
        copies,
    }
}

/// Where the texts at `sources` are written in a turn, each as a whole word; a place counts for the first source alone.
fn copied(text: &str, turn: &Range<usize>, sources: &[Span], in_call: bool) -> Vec<Copied> {
    let mut copies: Vec<Copied> = Vec::new();
    let is_inside_word = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    for source in sources {
        let name = &text[source[0]..source[1]];
        for (offset, _) in text[turn.clone()].match_indices(name) {
            let [start, end] = [turn.start + offset, turn.start + offset + name.len()];
            let cut = is_inside_word(text[..start].chars().next_back())
                || is_inside_word(text[end..].chars().next());
            let taken = copies.iter().any(|copy| start < copy.r#use[1] && copy.r#use[0] < end);
            if !cut && !taken {
                copies.push(Copied { source: *source, r#use: [start, end], in_call });
            }
        }
    }
    copies.sort_by_key(|copy| copy.r#use);
    copies
}
