//! A generated tool call, and how far two lists of them say the same. Pure functions over names and JSON; knows no tool, no
//! schema and no record.
//!
//! Two lists agree by name where they hold as many calls with the same names in the same order; exactly where arguments are
//! equal as JSON besides (the order of keys apart); normalised where they are equal after this rule:
//!
//! - The text under a key that names a place in a file system (it ends in `path`, `paths`, `dir`, `directory`, `folder` or
//!   `cwd`, or is `file`, `files` or `filename`) is normalised lexically: `.`, empty parts and the slash at the end go, `..`
//!   takes the part before it away, but for a text with `://`. A symbolic link may make two such places differ all the same.
//! - In the text under `command` or `cmd`, blanks and tabs outside of quotes are one blank, and none at its ends. A line
//!   break ends a command and stays; so does everything that a backslash or quotes protect.
//!
//! Any other text stays as it is: white space in an edit or a search pattern has a meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A tool call as it was generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// How far two lists of calls say the same: each level holds only where the one before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// Other tools, another order or another number of calls.
    None,
    /// The same tools in the same order.
    Name,
    /// And equal arguments after normalisation.
    Normalised,
    /// And equal arguments.
    Exact,
}

/// How far two lists of calls say the same; two empty lists do exactly.
pub fn agreement(ours: &[ToolCall], theirs: &[ToolCall]) -> Agreement {
    let names = |calls: &[ToolCall]| calls.iter().map(|call| call.name.clone()).collect::<Vec<_>>();
    let normal = |calls: &[ToolCall]| calls.iter().map(normalised).collect::<Vec<_>>();
    if ours == theirs {
        Agreement::Exact
    } else if names(ours) != names(theirs) {
        Agreement::None
    } else if normal(ours) == normal(theirs) {
        Agreement::Normalised
    } else {
        Agreement::Name
    }
}

fn normalised(call: &ToolCall) -> Map<String, Value> {
    call.arguments.iter().map(|(key, value)| (key.clone(), under_key(key, value))).collect()
}

/// A value under a key; items of a list stand under the key of the list.
fn under_key(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if is_place(key) => Value::String(lexical_path(text)),
        Value::String(text) if is_command(key) => Value::String(one_blank(text)),
        Value::Array(items) => items.iter().map(|item| under_key(key, item)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), under_key(key, value))).collect())
        }
        other => other.clone(),
    }
}

fn is_place(key: &str) -> bool {
    const ENDS: [&str; 6] = ["path", "paths", "dir", "directory", "folder", "cwd"];
    let key = key.to_lowercase();
    ENDS.iter().any(|end| key.ends_with(end)) || ["file", "files", "filename"].contains(&key.as_str())
}

fn is_command(key: &str) -> bool {
    ["command", "cmd"].contains(&key.to_lowercase().as_str())
}

/// A path without `.`, empty parts and parts that `..` takes away; `..` above the root is the root.
fn lexical_path(text: &str) -> String {
    if text.is_empty() || text.contains("://") {
        return text.to_owned();
    }
    let root = if text.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match parts.last() {
            Some(last) if part == ".." && *last != ".." => _ = parts.pop(),
            None if part == ".." && !root.is_empty() => {}
            _ => parts.push(part),
        }
    }
    if parts.is_empty() && root.is_empty() { ".".to_owned() } else { format!("{root}{}", parts.join("/")) }
}

/// Runs of blanks and tabs outside of quotes as one blank, none at the ends.
fn one_blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quote, mut is_apart) = (None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && matches!(c, ' ' | '\t') {
            is_apart = true;
            continue;
        }
        if std::mem::take(&mut is_apart) && !out.is_empty() {
            out.push(' ');
        }
        out.push(c);
        match (c, quote) {
            // Within single quotes a backslash is a character like any other.
            ('\\', None | Some('"')) => out.extend(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: &Value) -> ToolCall {
        ToolCall { name: name.to_owned(), arguments: arguments.as_object().cloned().unwrap_or_default() }
    }

    fn check(ours: &[(&str, Value)], theirs: &[(&str, Value)], expected: Agreement) {
        let calls = |calls: &[(&str, Value)]| calls.iter().map(|(n, a)| call(n, a)).collect::<Vec<_>>();
        assert_eq!(agreement(&calls(ours), &calls(theirs)), expected, "{ours:?} {theirs:?}");
        assert_eq!(agreement(&calls(theirs), &calls(ours)), expected, "{theirs:?} {ours:?}");
    }

    #[test]
    fn levels_of_agreement() {
        let read = |path: &str| ("Read", json!({"file_path": path, "limit": 3}));
        let reordered = ("Read", json!({"limit": 3, "file_path": "src/a.rs"}));
        check(&[], &[], Agreement::Exact);
        check(&[read("src/a.rs")], &[reordered], Agreement::Exact);
        check(&[read("src/a.rs")], &[read("./src//b/../a.rs")], Agreement::Normalised);
        check(&[read("src/a.rs")], &[read("src/b.rs")], Agreement::Name);
        check(&[read("src/a.rs")], &[], Agreement::None);
        check(&[read("a"), read("b")], &[read("b"), read("a")], Agreement::Name);
        check(&[read("a")], &[("Edit", json!({"file_path": "a", "limit": 3}))], Agreement::None);
        check(&[read("a")], &[("Read", json!({"file_path": "a"}))], Agreement::Name);
        let bash = |command: &str| ("Bash", json!({"command": command}));
        check(&[bash("ls  -l\tsrc ")], &[bash("ls -l src")], Agreement::Normalised);
        check(&[bash("echo 'a  b'")], &[bash("echo 'a b'")], Agreement::Name);
        check(&[bash("ls\nid")], &[bash("ls id")], Agreement::Name);
        let edit = |old: &str| ("Edit", json!({"old_string": old}));
        check(&[edit("a  b")], &[edit("a b")], Agreement::Name);
    }

    #[test]
    fn places_are_known_by_their_key_at_any_depth() {
        let value =
            json!({"edits": [{"filePath": "./a"}], "paths": ["b/", "c//d"], "note": "./a", "file": "e/."});
        let expected =
            json!({"edits": [{"filePath": "a"}], "paths": ["b", "c/d"], "note": "./a", "file": "e"});
        assert_eq!(Value::Object(normalised(&call("x", &value))), expected);
    }

    #[test]
    fn paths_of_every_form() {
        for (path, expected) in [
            ("a/./b//c/", "a/b/c"),
            ("./a", "a"),
            ("a/..", "."),
            ("../a/../b", "../b"),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("/a/..", "/"),
            ("...", "..."),
            ("", ""),
            ("https://host//x/../y", "https://host//x/../y"),
        ] {
            assert_eq!(lexical_path(path), expected, "{path}");
        }
    }

    #[test]
    fn quotes_and_backslashes_keep_their_blanks() {
        for (command, expected) in [
            ("  a   b ", "a b"),
            (r#"grep "a  b"   c"#, r#"grep "a  b" c"#),
            (r#"echo "it\"s   x"   y"#, r#"echo "it\"s   x" y"#),
            (r"echo \   x", r"echo \  x"),
            (r"echo 'a\'   b", r"echo 'a\' b"),
            ("open 'x   y", "open 'x   y"),
            ("a \\", "a \\"),
        ] {
            assert_eq!(one_blank(command), expected, "{command}");
        }
    }

    /// The slow twin: one rewriting at a time until none applies.
    fn lexical_path_slowly(text: &str) -> String {
        let is_absolute = text.starts_with('/');
        let mut parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        loop {
            let noise = parts.iter().position(|part| part.is_empty() || part == ".");
            let pair = parts.windows(2).position(|pair| pair[0] != ".." && pair[1] == "..");
            match (noise, pair, parts.first()) {
                (Some(at), ..) => _ = parts.remove(at),
                (None, Some(at), _) => _ = parts.drain(at..at + 2),
                (None, None, Some(first)) if is_absolute && first == ".." => _ = parts.remove(0),
                _ => break,
            }
        }
        match (is_absolute, parts.is_empty()) {
            (true, _) => format!("/{}", parts.join("/")),
            (false, true) => ".".to_owned(),
            (false, false) => parts.join("/"),
        }
    }

    proptest! {
        #[test]
        fn a_path_is_what_rewriting_step_by_step_leaves(text in "/{0,2}(a|b|\\.|\\.\\.|/){1,12}") {
            let once = lexical_path(&text);
            prop_assert_eq!(&once, &lexical_path_slowly(&text));
            prop_assert_eq!(lexical_path(&once), once);
        }

        #[test]
        fn blanks_of_a_command_are_one_and_stay_so(text in "[ab'\"\\\\ \t\n]{0,16}") {
            let once = one_blank(&text);
            prop_assert_eq!(one_blank(&once), once.clone());
            let solid = |text: &str| text.chars().filter(|c| !matches!(c, ' ' | '\t')).collect::<String>();
            prop_assert_eq!(solid(&once), solid(&text), "only blanks go");
        }
    }
}
