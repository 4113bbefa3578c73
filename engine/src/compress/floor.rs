//! The structural floor: places of a tool's output that are kept whatever the drafter says, since their form alone shows
//! that they matter. Knows text and the call that made it; knows no token, no score and no budget.
//!
//! Each kind of place has a limit, and where more lines are of a kind its first and last ones are taken: a kind that half
//! of the lines are of (hits of a search, a log of errors) says nothing about any of them. Source of the idea: AGORA
//! (arXiv 2605.26596), whose floor carried most of the result.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// Lines with a failure that are kept.
const FAILURES_MAX: usize = 16;
/// Lines that name a place in a file that are kept.
const PLACES_MAX: usize = 8;
/// Hunk heads of a patch that are kept.
const HUNKS_MAX: usize = 16;
/// Keys of a JSON object that are kept.
const KEYS_MAX: usize = 16;
/// Words of the call that are looked for.
const WORDS_MAX: usize = 64;
/// Fewest characters of such a word.
const WORD_CHARS_MIN: usize = 4;
/// Most lines that a word of the call may stand on and still point somewhere.
const LINES_OF_WORD_MAX: usize = 4;

/// Bytes of `text` whose lines are kept, ascending. `arguments` are those of the call that made the text.
pub fn forced(text: &str, arguments: Option<&str>) -> Vec<usize> {
    let mut forced = BTreeSet::new();
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        lines.push((start, line));
        start += line.len();
    }
    let holds_text = |(_, line): &&(usize, &str)| !line.trim().is_empty();
    let ends = [lines.iter().find(holds_text), lines.iter().rev().find(holds_text)];
    forced.extend(ends.iter().flatten().map(|(start, _)| *start));

    let of_kind = |place: fn(&str) -> Option<usize>, most: usize| {
        let found = lines.iter().filter_map(|(start, line)| place(line).map(|at| start + at)).collect();
        first_and_last(found, most)
    };
    forced.extend(of_kind(failure, FAILURES_MAX));
    forced.extend(of_kind(file_place, PLACES_MAX));
    forced.extend(of_kind(hunk_head, HUNKS_MAX));
    forced.extend(first_and_last(top_level_keys(text), KEYS_MAX));
    forced.extend(words_of_call(text, arguments.unwrap_or_default()));
    forced.into_iter().collect()
}

/// The first and the last half of `most`, all where there are no more.
fn first_and_last(found: Vec<usize>, most: usize) -> Vec<usize> {
    match found.len() > most {
        true => [&found[..most / 2], &found[found.len() - most / 2..]].concat(),
        false => found,
    }
}

/// Where a line says that something failed or ended.
fn failure(line: &str) -> Option<usize> {
    const WORDS: [&str; 10] = [
        "error",
        "fail",
        "panic",
        "fatal",
        "exception",
        "traceback",
        "exit code",
        "exit status",
        "exited with",
        "aborted",
    ];
    let lower = line.to_ascii_lowercase();
    let begins_word = |at: &usize| {
        let before = line[..*at].chars().next_back();
        let camel = line[*at..].starts_with(|c: char| c.is_ascii_uppercase())
            && before.is_some_and(|c| c.is_ascii_lowercase());
        camel || !before.is_some_and(char::is_alphanumeric)
    };
    WORDS.iter().filter_map(|word| lower.match_indices(word).map(|(at, _)| at).find(begins_word)).min()
}

/// Where a line names a file and a line of it: `path/file.ext:12`, `File "path", line 12`.
fn file_place(line: &str) -> Option<usize> {
    if let (Some(file), Some(number)) = (line.find("File \""), line.find("\", line "))
        && file < number
    {
        return Some(file);
    }
    let mut at = 0;
    for word in line.split_inclusive(char::is_whitespace) {
        let is_place = word.match_indices(':').any(|(colon, _)| {
            let (path, rest) = (&word[..colon], &word[colon + 1..]);
            let is_path = path.contains(['.', '/', '\\']) && path.contains(|c: char| c.is_ascii_alphabetic());
            is_path && !path.contains("://") && rest.starts_with(|c: char| c.is_ascii_digit())
        });
        if is_place {
            return Some(at);
        }
        at += word.len();
    }
    None
}

/// Where a patch names a file or a hunk begins.
fn hunk_head(line: &str) -> Option<usize> {
    (line.starts_with("@@ ") || line.starts_with("diff --git ")).then_some(0)
}

/// Where the keys of a JSON object stand that the text begins with; nothing for other texts.
fn top_level_keys(text: &str) -> Vec<usize> {
    let body = text.trim_start();
    if !body.starts_with('{') || !body[1..].trim_start().starts_with(['"', '}']) {
        return Vec::new();
    }
    let mut keys = Vec::new();
    let (mut depth, mut string, mut escaped) = (0usize, None, false);
    let mut may_be_key = false;
    for (at, byte) in text.bytes().enumerate() {
        match (string, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(start), b'"') => {
                string = None;
                if may_be_key && depth == 1 {
                    keys.push(start);
                }
            }
            (Some(_), _) => {}
            (None, b'"') => string = Some(at),
            (None, b'{' | b'[') => {
                may_be_key = byte == b'{';
                depth += 1;
            }
            (None, b'}' | b']') => {
                depth = depth.saturating_sub(1);
                may_be_key = false;
                if depth == 0 {
                    break;
                }
            }
            (None, b':') => may_be_key = false,
            // The text begins with an object, so depth 1 is that object.
            (None, b',') => may_be_key = depth == 1,
            (None, _) => {}
        }
    }
    keys
}

/// Where words of the call's arguments stand that few lines hold.
fn words_of_call(text: &str, arguments: &str) -> Vec<usize> {
    let mut said = Vec::new();
    match serde_json::from_str::<Value>(arguments) {
        Ok(value) => leaves(&value, &mut said),
        Err(_) => said.push(arguments.to_owned()),
    }
    let mut found: HashMap<&str, Vec<usize>> = HashMap::new();
    for (_, word) in said.iter().flat_map(|text| words(text)) {
        if word.len() >= WORD_CHARS_MIN && found.len() < WORDS_MAX {
            found.entry(word).or_default();
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let mut seen = BTreeSet::new();
        for (at, word) in words(line) {
            if let Some(places) = found.get_mut(word)
                && places.len() <= LINES_OF_WORD_MAX
                && seen.insert(word)
            {
                places.push(start + at);
            }
        }
        start += line.len();
    }
    found.into_values().filter(|places| places.len() <= LINES_OF_WORD_MAX).flatten().collect()
}

/// The texts in a JSON value.
fn leaves(value: &Value, said: &mut Vec<String>) {
    match value {
        Value::String(text) => said.push(text.clone()),
        Value::Number(number) => said.push(number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, said)),
        Value::Object(fields) => fields.values().for_each(|field| leaves(field, said)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Runs of ASCII letters, digits and underscores, with where they start.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_break = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let mut next = 0;
    let pieces = text.split_inclusive(is_break).map(move |piece| {
        let at = next;
        next += piece.len();
        (at, piece.trim_end_matches(is_break))
    });
    pieces.filter(|(_, word)| !word.is_empty())
}
