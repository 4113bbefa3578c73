//! The events of a recorded stream, whatever they were recorded as: server-sent events in one text or cut into pieces,
//! JSON objects a line, or a list of objects with or without an envelope. Source: the HTML standard, section 9.2.6,
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>. Knows no API.

use serde_json::Value;

/// What was recorded of a stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Recorded {
    /// The JSON objects among the events, in order.
    pub events: Vec<Value>,
    /// Events whose data is no JSON.
    pub unreadable: u64,
    /// `[DONE]`, the last event of chat completions, is there.
    pub is_done: bool,
    /// It is written as server-sent events, so it is a stream whatever the events are.
    pub is_event_stream: bool,
}

/// The events of a text or list; `None` for a value that cannot hold any.
pub(super) fn read(recorded: &Value) -> Option<Recorded> {
    match recorded {
        Value::String(text) => of_text(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let pieces: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            // Pieces are lines without their ends, or stretches of the text.
            let are_lines = !pieces.iter().any(|piece| piece.contains('\n'));
            of_text(&pieces.join(if are_lines { "\n" } else { "" }))
        }
        Value::Array(items) => {
            let mut read = Recorded::default();
            items.iter().for_each(|item| read.item(item));
            Some(read)
        }
        _ => None,
    }
}

/// Lines with and without the names of fields: some logs keep the data alone.
fn of_text(text: &str) -> Option<Recorded> {
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let is_event_stream =
        ["data:", "event:", "id:", "retry:", ":"].iter().any(|start| text.starts_with(start));
    if !is_event_stream && !text.starts_with('{') {
        return None;
    }
    let mut read = Recorded { is_event_stream, ..Recorded::default() };
    let mut waiting = String::new();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("data", data)) => read.data(data.strip_prefix(' ').unwrap_or(data), &mut waiting),
            Some(("event" | "id" | "retry" | "", _)) => read.give_up(&mut waiting),
            _ if line.trim().is_empty() => read.give_up(&mut waiting),
            _ => read.data(line, &mut waiting),
        }
    }
    read.give_up(&mut waiting);
    Some(read)
}

impl Recorded {
    /// Takes one line of data. The data of one event may run over several lines.
    fn data(&mut self, data: &str, waiting: &mut String) {
        if data.trim() == "[DONE]" {
            self.give_up(waiting);
            self.is_done = true;
        } else if let Ok(event @ Value::Object(_)) = serde_json::from_str(data) {
            self.give_up(waiting);
            self.events.push(event);
        } else {
            waiting.push_str(if waiting.is_empty() { "" } else { "\n" });
            waiting.push_str(data);
            if let Ok(event @ Value::Object(_)) = serde_json::from_str(waiting) {
                waiting.clear();
                self.events.push(event);
            }
        }
    }

    /// The event is over: what waits for the rest of it waits in vain.
    fn give_up(&mut self, waiting: &mut String) {
        self.unreadable += u64::from(!waiting.is_empty());
        waiting.clear();
    }

    /// Takes one element of a list: an event, or its envelope.
    fn item(&mut self, item: &Value) {
        let inner = ["data", "chunk"].iter().find_map(|name| item.get(*name));
        match inner.unwrap_or(item) {
            Value::Object(event) => self.events.push(Value::Object(event.clone())),
            Value::String(text) if text.trim() == "[DONE]" => self.is_done = true,
            Value::String(text) => match of_text(text) {
                Some(read) => {
                    self.events.extend(read.events);
                    self.unreadable += read.unreadable;
                    self.is_done |= read.is_done;
                }
                None => self.unreadable += 1,
            },
            _ => self.unreadable += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_record_gives_the_same_events() {
        let events = [json!({"n": 1}), json!({"n": 2})];
        for recorded in [
            json!("data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: [DONE]\n\n"),
            json!(
                "\u{feff}event: a\r\ndata:{\"n\":1}\r\n\r\n: ping\r\nevent: b\r\ndata:{\"n\":2}\r\n\r\ndata: [DONE]"
            ),
            json!("id: 1\ndata: {\ndata: \"n\":1}\n\ndata: {\"n\":2}\ndata: [DONE]\n"),
            json!("{\"n\":1}\n{\"n\":2}\n[DONE]"),
            json!(["data: {\"n\":1}", "", "data: {\"n\":2}", "", "data: [DONE]"]),
            json!(["data: {\"n\"", ":1}\n\ndata: {\"n\":2}\n", "\ndata: [DONE]\n\n"]),
            json!([{"n": 1}, {"n": 2}, "[DONE]"]),
            json!([{"event": "a", "data": {"n": 1}}, {"event": "b", "data": "{\"n\":2}"}, {"data": "[DONE]"}]),
            json!([{"at": 5, "chunk": "data: {\"n\":1}\n\n"}, {"at": 6, "chunk": {"n": 2}}, {"chunk": "[DONE]"}]),
        ] {
            let read = read(&recorded).unwrap();
            assert_eq!(read.events, events, "{recorded}");
            assert_eq!((read.unreadable, read.is_done), (0, true), "{recorded}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_the_next_event_is_not_lost() {
        for (recorded, unreadable) in [
            (json!("data: {\"n\":\n\ndata: {\"n\":1}\n\n"), 1),
            (json!("data: {\"n\":\ndata: {\"n\":1}\ndata: {\"n"), 2),
            (json!("event: a\ndata: {\"n\":1}\n\nevent: b\ndata: 7\n\nevent: c\ndata: null\n\n"), 2),
            (json!([{"n": 1}, 7, null, "n", {"data": ""}]), 4),
        ] {
            let read = read(&recorded).unwrap();
            assert_eq!(read.events, [json!({"n": 1})], "{recorded}");
            assert_eq!((read.unreadable, read.is_done), (unreadable, false), "{recorded}");
        }
    }

    #[test]
    fn a_plain_text_is_no_stream() {
        for value in [json!("The data: is here."), json!(""), json!(7), json!({"n": 1}), json!(["a", "b"])] {
            assert_eq!(read(&value), None, "{value}");
        }
    }
}
