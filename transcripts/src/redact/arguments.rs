//! Secrets inside JSON text: every string of it is taken as the text it stands for and written back as JSON, so that
//! what parsed still parses; all other bytes stay. Knows JSON strings, no pattern.

use serde::de::IgnoredAny;

/// Rewrites the strings of a JSON document. `rewrite` gets the name of the member (empty where there is none) and the
/// string, and returns what takes its place, if anything does. `None` when nothing changes or the text is no JSON.
pub(super) fn rewrite_strings(
    json: &str,
    mut rewrite: impl FnMut(&str, &str) -> Option<String>,
) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let mut written = String::with_capacity(json.len());
    let (mut copied, mut at) = (0, 0);
    let mut key = String::new();
    let bytes = json.as_bytes();
    while let Some(start) = bytes[at..].iter().position(|byte| *byte == b'"').map(|offset| at + offset) {
        let end = string_end(bytes, start)?;
        let text: String = serde_json::from_str(&json[start..end]).ok()?;
        let is_key = json[end..].trim_start_matches([' ', '\t', '\r', '\n']).starts_with(':');
        let belongs = json[..start].trim_end_matches([' ', '\t', '\r', '\n']).ends_with([':', '[', ',']);
        let member = if is_key || !belongs { "" } else { key.as_str() };
        if let Some(text) = rewrite(member, &text) {
            written.push_str(&json[copied..start]);
            written.push_str(&serde_json::to_string(&text).ok()?);
            copied = end;
        }
        if is_key {
            key = text;
        }
        at = end;
    }
    (copied > 0).then(|| written + &json[copied..])
}

/// The byte after the closing quote of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_change_and_all_other_bytes_stay() {
        let json = r#" { "a" : "x\ny" ,"b":[1.50, "x\ny", {"c":"\u00e9"}], "n": null }"#;
        let mut seen = Vec::new();
        let written = rewrite_strings(json, |key, text| {
            seen.push((key.to_owned(), text.to_owned()));
            (text == "x\ny").then(|| "q\"\n".to_owned())
        });
        assert_eq!(written.unwrap(), r#" { "a" : "q\"\n" ,"b":[1.50, "q\"\n", {"c":"\u00e9"}], "n": null }"#);
        let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        assert!(seen.contains(&pair("a", "x\ny")) && seen.contains(&pair("b", "x\ny")), "{seen:?}");
        assert!(seen.contains(&pair("", "a")) && seen.contains(&pair("c", "é")), "{seen:?}");
    }

    #[test]
    fn no_json_and_no_change_give_none() {
        assert_eq!(rewrite_strings("{\"a\": \"x", |_, _| Some(String::new())), None);
        assert_eq!(rewrite_strings("{\"a\": \"x\"}", |_, _| None), None);
    }
}
