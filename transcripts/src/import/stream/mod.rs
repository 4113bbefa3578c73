//! Answers that were recorded as the events they came in: puts the one answer together that the API gives without
//! streaming, and says what is missing. Knows which API an event is of; knows no log and no message.

mod chat;
mod events;
mod messages;
mod responses;

use serde_json::{Map, Value};

use self::events::Recorded;
use super::lines::Problem;
use super::number;
use super::{ImportedFile, WarningKind};

/// What an answer lacks of the one that was streamed; nothing for an answer that was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// The events end before the answer does.
    pub is_cut: bool,
    /// Events that cannot be read.
    pub unreadable: u64,
}

/// An answer put together from its events.
#[derive(Debug, PartialEq)]
pub(super) struct Streamed {
    /// In the form the API gives it without streaming.
    pub answer: Value,
    pub gaps: Gaps,
}

/// What the events of one API give, and whether the last one is among them.
type Assemble = fn(&Recorded) -> (Value, bool);

/// Puts an answer together; `None` for a value that is no recorded stream: a text of server-sent events, or a list of
/// events, each an object, or pieces of that text.
pub(super) fn assembled(recorded: &Value) -> Option<Streamed> {
    let recorded = events::read(recorded)?;
    let Some(assemble) = recorded.events.iter().find_map(api) else {
        // Nothing but errors and what cannot be read.
        let gaps = Gaps { is_cut: true, unreadable: recorded.unreadable };
        return recorded.is_event_stream.then_some(Streamed { answer: Value::Object(Map::new()), gaps });
    };
    let (answer, is_whole) = assemble(&recorded);
    Some(Streamed { answer, gaps: Gaps { is_cut: !is_whole, unreadable: recorded.unreadable } })
}

fn api(event: &Value) -> Option<Assemble> {
    match event.get("type").and_then(Value::as_str) {
        Some(kind) if kind.starts_with("response.") => Some(responses::assemble),
        Some(
            "message_start"
            | "content_block_start"
            | "content_block_delta"
            | "content_block_stop"
            | "message_delta"
            | "message_stop",
        ) => Some(messages::assemble),
        _ => chat::is_chunk(event).then_some(chat::assemble),
    }
}

impl Gaps {
    /// True where the answer is not the one that was streamed.
    pub fn are_there(self) -> bool {
        self != Self::default()
    }

    /// Tells what is missing of the answer on a line.
    pub fn tell(self, line: u32, report: &mut ImportedFile) {
        if self.unreadable > 0 {
            report.bad_message(line, format!("{} events of the answer cannot be read", self.unreadable));
        }
        if self.is_cut {
            let message = "the events of the answer end before it does: what came is kept".to_owned();
            report.note(line, [Problem { kind: WarningKind::CutAnswer, message }]);
        }
    }
}

/// The string member of an event; empty without one.
fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or("")
}

/// The place that an event names, 0 without one. Numbers beyond any real answer are no places.
fn place(event: &Value, name: &str) -> usize {
    let number = event.get(name).and_then(number::whole).filter(|number| *number < MAX_PLACES);
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// The most parts, calls or items an answer may have: lists are filled up to the place that an event names.
const MAX_PLACES: u64 = 4096;

/// Appends a piece to a string member.
fn append(object: &mut Map<String, Value>, name: &str, piece: &str) {
    match object.get_mut(name) {
        Some(Value::String(text)) => text.push_str(piece),
        _ => drop(object.insert(name.to_owned(), piece.into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_api_is_told_by_the_events() {
        let chunk = json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]});
        let message = json!({"type": "content_block_start", "content_block": {"type": "text", "text": "a"}});
        let item = json!({"type": "response.completed", "response": {"output": [{"type": "message"}]}});
        for (event, member) in [(chunk, "choices"), (message, "content"), (item, "output")] {
            let streamed = assembled(&json!([{"type": "ping"}, event])).unwrap();
            assert_eq!(streamed.answer[member].as_array().map(Vec::len), Some(1), "{event}");
        }
    }

    #[test]
    fn errors_alone_are_an_answer_of_which_nothing_came() {
        let text = "event: error\ndata: {\"type\":\"error\"}\n\ndata: {\"ty";
        let gaps = Gaps { is_cut: true, unreadable: 1 };
        assert_eq!(assembled(&json!(text)), Some(Streamed { answer: json!({}), gaps }));
    }

    #[test]
    fn answers_that_were_not_streamed_stay_as_they_are() {
        let completion = json!({"choices": [{"message": {"role": "assistant", "content": "a"}}]});
        for value in [completion.clone(), json!([completion]), json!("{\"a\": 1}"), json!("data"), json!([])]
        {
            assert_eq!(assembled(&value), None, "{value}");
        }
    }
}
