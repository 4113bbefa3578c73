//! Reads a JSON-lines file one line at a time with a bounded buffer, and repairs or reports what is malformed. Knows
//! JSON, and nothing of what the objects mean.

use std::borrow::Cow;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json_text::escaped_unit;

/// The longest line that is read, in bytes. A longer one is reported and skipped without being held in memory.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// The most JSON values that are taken from one line.
const MAX_VALUES_PER_LINE: usize = 64;

/// What is wrong with a line, or with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// The line is no JSON. It is skipped.
    NotJson,
    /// The line is JSON, but no object. It is skipped.
    NotAnObject,
    /// The line is longer than [`MAX_LINE_BYTES`]. It is skipped.
    TooLong,
    /// Text follows the last readable object of the line. The objects before it are kept.
    TrailingText,
    /// The line holds several objects. All are kept.
    SeveralObjects,
    /// Invalid UTF-8 or lone surrogates became U+FFFD, or NUL bytes were cut off. The line is kept.
    Repaired,
    /// A message line lacks what makes it a message. It is skipped.
    BadMessage,
    /// No importer recognises the file. It is skipped.
    UnknownFormat,
    /// The file has lines, but no model call of its own.
    NoCalls,
    /// The sessions of the file are larger than an import holds: later calls were left out.
    LeftOut,
    /// Requests have no recorded answer: they are no calls.
    NoCompletion,
    /// The document is cut off or damaged: what stands before the damage is kept.
    CutOff,
    /// An answer was recorded as events that end before it does. What came of it is kept.
    CutAnswer,
}

impl WarningKind {
    /// True when a line with this problem is lost, as a whole or in part.
    pub const fn loses_data(self) -> bool {
        matches!(
            self,
            Self::NotJson
                | Self::NotAnObject
                | Self::TooLong
                | Self::TrailingText
                | Self::BadMessage
                | Self::CutOff
        )
    }
}

/// A problem of a line, before its file and line number are known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub kind: WarningKind,
    pub message: String,
}

/// Calls `each` with the number (from 1) and the bytes of every line, without its end; `None` for a line over `cap`.
/// Stops early when `each` says so. Returns the number of lines seen.
pub(super) fn for_each_line(
    mut reader: impl BufRead,
    cap: usize,
    mut each: impl FnMut(u32, Option<&[u8]>) -> std::ops::ControlFlow<()>,
) -> io::Result<u32> {
    let mut number = 0_u32;
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let at_end = available.is_empty();
        let newline = available.iter().position(|&byte| byte == b'\n');
        let taken = newline.unwrap_or(available.len());
        if line.len() + taken > cap {
            too_long = true;
            line = Vec::new();
        } else if !too_long {
            line.extend_from_slice(&available[..taken]);
        }
        let consumed = taken + usize::from(newline.is_some());
        reader.consume(consumed);
        if newline.is_none() && !(at_end && (too_long || !line.is_empty())) {
            if at_end {
                return Ok(number);
            }
            continue;
        }
        number = number.saturating_add(1);
        let flow = each(number, (!too_long).then_some(&line[..]));
        line.clear();
        too_long = false;
        if at_end || flow.is_break() {
            return Ok(number);
        }
    }
}

/// The values of one piece of text, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct ParsedText {
    pub values: Vec<Value>,
    pub problems: Vec<Problem>,
}

/// The problem of a value that is no object where one must stand.
pub(super) fn not_an_object(value: &Value) -> Problem {
    Problem { kind: WarningKind::NotAnObject, message: format!("got {}", describe(value)) }
}

/// Parses all values of a piece of text. A blank one gives neither values nor problems.
pub(super) fn parse_text(bytes: &[u8]) -> ParsedText {
    let mut line = ParsedText::default();
    let trimmed = trim(bytes);
    if trimmed.is_empty() {
        if bytes.contains(&0) {
            line.push_problem(
                WarningKind::NotJson,
                "only NUL bytes: the file was cut off while being written",
            );
        }
        return line;
    }
    let (mut values, mut error) = parse_values(trimmed);
    if error.is_some()
        && let Cow::Owned(repaired) = repair(trimmed)
    {
        let (more, second) = parse_values(&repaired);
        if second.is_none() || more.len() > values.len() {
            line.push_problem(WarningKind::Repaired, "invalid UTF-8 or a lone surrogate became U+FFFD");
            (values, error) = (more, second);
        }
    }
    line.values = values;
    let objects = line.values.iter().filter(|value| value.is_object()).count();
    match error {
        Some(error) if line.values.is_empty() => line.push_problem(WarningKind::NotJson, error),
        Some(error) => line.push_problem(WarningKind::TrailingText, error),
        None if objects > 1 => {
            line.push_problem(WarningKind::SeveralObjects, format!("{objects} objects on one line"));
        }
        None => {}
    }
    if trimmed.len() < bytes.len() && bytes.contains(&0) && !trimmed.contains(&0) {
        line.push_problem(WarningKind::Repaired, "NUL bytes around the object were cut off");
    }
    line
}

impl ParsedText {
    fn push_problem(&mut self, kind: WarningKind, message: impl Into<String>) {
        self.problems.push(Problem { kind, message: message.into() });
    }
}

/// Cuts off white space, NUL bytes and byte-order marks on both sides.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let Some(start) = bytes.iter().position(|byte| !blank(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let inner = &bytes[start..end];
    match inner.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => trim(rest),
        None => inner,
    }
}

/// All JSON values at the start of the text, and the first error. serde_json stops at a nesting depth of 128, so a
/// hostile line cannot exhaust the stack.
fn parse_values(bytes: &[u8]) -> (Vec<Value>, Option<String>) {
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        match value {
            Ok(_) if values.len() == MAX_VALUES_PER_LINE => {
                return (values, Some(format!("more than {MAX_VALUES_PER_LINE} values on one line")));
            }
            Ok(value) => values.push(value),
            Err(error) => return (values, Some(error.to_string())),
        }
    }
    (values, None)
}

/// The text with invalid UTF-8 and escaped lone surrogates as U+FFFD; borrowed when there are none. JavaScript writes
/// a lone surrogate when it cuts a string inside a pair; neither UTF-8 nor a JSON parser of Unicode text accepts it.
pub(super) fn repair(bytes: &[u8]) -> Cow<'_, [u8]> {
    let lossy = String::from_utf8_lossy(bytes);
    let source = lossy.as_bytes();
    let mut fixed = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while at < source.len() {
        if source[at] != b'\\' {
            at += 1;
            continue;
        }
        let width = match escaped_unit(source, at) {
            Some(0xD800..=0xDBFF) if matches!(escaped_unit(source, at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                fixed.extend_from_slice(&source[copied..at]);
                fixed.extend_from_slice("\u{FFFD}".as_bytes());
                copied = at + 6;
                6
            }
            Some(_) => 6,
            None => 2,
        };
        at += width;
    }
    if copied > 0 {
        fixed.extend_from_slice(&source[copied..]);
        return Cow::Owned(fixed);
    }
    match lossy {
        Cow::Borrowed(_) => Cow::Borrowed(bytes),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn kinds(line: &[u8]) -> (usize, Vec<WarningKind>) {
        let parsed = parse_text(line);
        let objects = parsed.values.iter().filter(|value| value.is_object()).count();
        (objects, parsed.problems.iter().map(|problem| problem.kind).collect())
    }

    #[test]
    fn every_malformed_shape_has_its_verdict() {
        use WarningKind::{NotJson, Repaired, SeveralObjects, TrailingText};
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        let cases: [(&[u8], usize, &[WarningKind]); 12] = [
            (b"{}", 1, &[]),
            (b"  \r", 0, &[]),
            (b"\xEF\xBB\xBF{\"a\":1}\r", 1, &[]),
            (b"{\"a\":1}{\"b\":2}", 2, &[SeveralObjects]),
            (b"\"a string\"", 0, &[]),
            (b"{\"a\":1}{\"b\":", 1, &[TrailingText]),
            (b"{\"a\":", 0, &[NotJson]),
            (b"\0\0\0", 0, &[NotJson]),
            (b"{\"a\":1}\0\0", 1, &[Repaired]),
            (b"{\"a\":\"\\ud83d\"}", 1, &[Repaired]),
            (b"{\"a\":\"\xFF\"}", 1, &[Repaired]),
            (&deep, 0, &[NotJson]),
        ];
        for (line, objects, problems) in cases {
            let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
            assert_eq!(kinds(line), (objects, problems.to_vec()), "{shown}");
        }
    }

    #[test]
    fn a_lone_surrogate_is_replaced_and_a_pair_is_kept() {
        let line = parse_text(br#"{"a":"\ud83d\ude00 \ud83d x \udE00 \\ud83d"}"#);
        assert_eq!(line.values[0]["a"], "\u{1F600} \u{FFFD} x \u{FFFD} \\ud83d");
    }

    #[test]
    fn lines_are_numbered_and_long_ones_are_skipped_whole() {
        let text = b"one\n\nthree is long\nfour";
        let mut seen = Vec::new();
        let small = io::BufReader::with_capacity(4, &text[..]);
        let count = for_each_line(small, 8, |number, line| {
            seen.push((number, line.map(<[u8]>::to_vec)));
            ControlFlow::Continue(())
        });
        assert_eq!(count.unwrap(), 4);
        let expected = [(1, Some(&b"one"[..])), (2, Some(b"")), (3, None), (4, Some(b"four"))];
        assert_eq!(seen, expected.map(|(number, line)| (number, line.map(<[u8]>::to_vec))));
    }

    #[test]
    fn a_last_line_over_the_cap_is_counted() {
        let count = for_each_line(&b"12345678"[..], 4, |_, line| {
            assert_eq!(line, None);
            ControlFlow::Continue(())
        });
        assert_eq!(count.unwrap(), 1);
    }
}
