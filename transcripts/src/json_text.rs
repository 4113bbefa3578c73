//! JSON text as models and clients write it: what common parsers take and JSON does not know, and what a parser hides.
//! Pure functions over one text; knows no message and no rule.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A text made readable for a strict parser, and what was in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The text: lone surrogates as U+FFFD, `NaN` and `Infinity` as 0, everything else as it was.
    pub text: Cow<'a, str>,
    /// An escape names half of a surrogate pair.
    pub lone_surrogate: bool,
    /// A number is `NaN`, `Infinity` or `-Infinity`.
    pub not_finite: bool,
    /// An escape names U+0000.
    pub nul: bool,
}

/// Reads a text once, from the left.
pub fn read(text: &str) -> Reading<'_> {
    let mut reading =
        Reading { text: Cow::Borrowed(text), lone_surrogate: false, not_finite: false, nul: false };
    // (start, end, replacement) of what is replaced, in order.
    let mut replaced: Vec<(usize, usize, &'static str)> = Vec::new();
    let bytes = text.as_bytes();
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        at += match bytes[at] {
            b'\\' if in_string => match escaped_unit(bytes, at) {
                Some(0xD800..=0xDBFF) if is_low(escaped_unit(bytes, at + 6)) => 12,
                Some(0xD800..=0xDFFF) => {
                    reading.lone_surrogate = true;
                    replaced.push((at, at + 6, "\\ufffd"));
                    6
                }
                unit => {
                    reading.nul |= unit == Some(0);
                    2
                }
            },
            b'"' => {
                in_string = !in_string;
                1
            }
            b'N' | b'I' | b'-' if !in_string => {
                let word =
                    ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| text[at..].starts_with(word));
                if let Some(word) = word {
                    reading.not_finite = true;
                    replaced.push((at, at + word.len(), "0"));
                }
                word.map_or(1, str::len)
            }
            _ => 1,
        };
    }
    if !replaced.is_empty() {
        let (mut whole, mut from) = (String::with_capacity(text.len()), 0);
        for (start, end, replacement) in replaced {
            whole.push_str(&text[from..start]);
            whole.push_str(replacement);
            from = end;
        }
        whole.push_str(&text[from..]);
        reading.text = Cow::Owned(whole);
    }
    reading
}

/// The UTF-16 unit that an escape of `\u` and four hexadecimal digits names, if one starts at `at`.
pub(crate) fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}

fn is_low(unit: Option<u32>) -> bool {
    unit.is_some_and(|unit| (0xDC00..=0xDFFF).contains(&unit))
}

/// The first key that an object holds twice, at any depth; `None` without one and for what is no JSON.
pub fn duplicate_key(text: &str) -> Option<String> {
    let mut found = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    // A text that does not parse is the caller's finding; what was seen before the error stands.
    let _ = Keys { found: &mut found }.deserialize(&mut parser);
    found
}

/// Walks a JSON value for keys alone.
struct Keys<'a> {
    found: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(Keys { found: self.found })?;
            if self.found.is_none() && seen.contains(&key) {
                *self.found = Some(key.clone());
            }
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Keys { found: self.found })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oddities_are_found_where_they_stand_and_nowhere_else() {
        type Case = (&'static str, &'static str, [bool; 3]);
        let cases: [Case; 9] = [
            (r#"{"a": "\ud83d\ude00"}"#, r#"{"a": "\ud83d\ude00"}"#, [false; 3]),
            (r#"{"a": "\ud83d"}"#, r#"{"a": "\ufffd"}"#, [true, false, false]),
            (r#"{"a": "\ude00\ud83d"}"#, r#"{"a": "\ufffd\ufffd"}"#, [true, false, false]),
            (r#"{"a": "\\ud83d"}"#, r#"{"a": "\\ud83d"}"#, [false; 3]),
            (r#"{"a": -Infinity, "b": NaN}"#, r#"{"a": 0, "b": 0}"#, [false, true, false]),
            (r#"{"NaN": "Infinity", "n": -1}"#, r#"{"NaN": "Infinity", "n": -1}"#, [false; 3]),
            (r#"{"a": "x\u0000"}"#, r#"{"a": "x\u0000"}"#, [false, false, true]),
            (r#""\u12"#, r#""\u12"#, [false; 3]),
            ("\"\\", "\"\\", [false; 3]),
        ];
        for (text, expected, flags) in cases {
            let found = read(text);
            assert_eq!(
                (&*found.text, [found.lone_surrogate, found.not_finite, found.nul]),
                (expected, flags)
            );
        }
    }

    #[test]
    fn keys_repeat_inside_one_object_only() {
        assert_eq!(duplicate_key(r#"{"a": 1, "b": [{"c": 1.5, "\u0063": null}]}"#), Some("c".to_owned()));
        assert_eq!(duplicate_key(r#"{"a": {"a": -1}, "b": [{"a": true}, {"a": "a"}]}"#), None);
        assert_eq!(duplicate_key("{\"a\""), None);
    }
}
