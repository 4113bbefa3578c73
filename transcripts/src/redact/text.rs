//! Secrets of one text: finds them, claims each stretch once, and writes the placeholders in. Knows plain text alone.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder, RegexSet};

use super::pattern::{Find, NOBODY, PATTERNS, SecretKind};
use super::placeholder;

/// Names of users that are looked for outside of paths, at most.
const NAMES_MAX: usize = 64;
/// Shorter names are words too often; they are replaced in paths and addresses only.
const NAME_LENGTH_MIN: usize = 4;

/// A stretch of a text and what it becomes; without that, it is a placeholder already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
    pub kind: SecretKind,
    pub placeholder: Option<String>,
}

/// The compiled patterns.
#[derive(Debug)]
pub(super) struct Finder {
    /// Tells in one pass which patterns a text is worth. The expressions themselves would not do: their counted
    /// repetitions make too many states for one automaton.
    needles: RegexSet,
    each: Vec<Regex>,
    names: Option<Regex>,
}

impl Finder {
    /// Compiles the patterns; no name is known yet.
    ///
    /// # Errors
    /// None in practice: the patterns are ours.
    pub fn new() -> Result<Self, regex::Error> {
        let expressions = PATTERNS.iter().map(|pattern| pattern.expression);
        let needles = RegexSet::new(PATTERNS.iter().map(|pattern| pattern.needle))?;
        let each: Result<Vec<Regex>, regex::Error> = expressions.map(Regex::new).collect();
        Ok(Self { needles, each: each?, names: None })
    }

    /// Looks for users' names from now on, as [`Finder::names_of`] collects them.
    ///
    /// # Errors
    /// None in practice: names are escaped and bounded.
    pub fn know(&mut self, names: &[String]) -> Result<(), regex::Error> {
        let mut names: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
        // Of two names that begin alike the longer one is tried first.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names.truncate(NAMES_MAX);
        self.names = match names.is_empty() {
            true => None,
            false => Some(RegexBuilder::new(&names.join("|")).case_insensitive(true).build()?),
        };
        Ok(())
    }

    /// Names of users in the paths of a text that are worth looking for elsewhere, added to `names`.
    pub fn names_of(&self, text: &str, names: &mut BTreeMap<String, ()>) {
        let Some(at) = PATTERNS.iter().position(|pattern| pattern.kind == SecretKind::HomePath) else {
            return;
        };
        let mut from = 0;
        while let Some(found) = self.each[at].captures_at(text, from) {
            let Some((start, end)) = self.accepted(at, &found, text) else {
                from = found.get(0).map_or(text.len(), |all| all.start() + 1);
                continue;
            };
            let name = text[start..end].to_ascii_lowercase();
            let goes_on = text[end..].starts_with(['/', '\\', '-']);
            if goes_on && name.len() >= NAME_LENGTH_MIN && !placeholder::is_name(&name) && !is_nobody(&name) {
                names.insert(name, ());
            }
            from = end;
        }
    }

    /// What is in a text, in order, no two overlapping.
    pub fn spans(&self, text: &str) -> Vec<Span> {
        self.spans_of(text, self.needles.matches(text))
    }

    /// As [`Finder::spans`], of these patterns alone.
    fn spans_of(&self, text: &str, patterns: impl IntoIterator<Item = usize>) -> Vec<Span> {
        let mut spans: BTreeMap<usize, Span> = BTreeMap::new();
        for at in patterns {
            let mut from = 0;
            while let Some(found) = self.each[at].captures_at(text, from) {
                let Some(all) = found.get(0) else { break };
                let free = |&(start, end): &(usize, usize)| {
                    let before = spans.range(..end).next_back();
                    before.is_none_or(|(_, span)| span.end <= start)
                };
                match self.accepted(at, &found, text).filter(free) {
                    Some((start, end)) => {
                        let kind = PATTERNS[at].kind;
                        if let Some(placeholder) = replaced(kind, &text[start..end]) {
                            spans.insert(start, Span { start, end, kind, placeholder });
                        }
                        from = end;
                    }
                    None => from = all.start() + 1,
                }
            }
        }
        if let Some(names) = &self.names {
            for found in names.find_iter(text) {
                let (start, end) = (found.start(), found.end());
                let before = spans.range(..end).next_back();
                let is_free = before.is_none_or(|(_, span)| span.end <= start);
                let ends = !text[end..].starts_with(|next: char| next.is_ascii_alphanumeric());
                if is_free && ends && starts_word(text, start).is_some_and(|begins| begins == start) {
                    let placeholder = Some(placeholder::name(found.as_str()));
                    spans.insert(start, Span { start, end, kind: SecretKind::UserName, placeholder });
                }
            }
        }
        spans.into_values().collect()
    }

    /// Where the secret part of a match lies; `None` when a rule of its pattern speaks against it.
    fn accepted(&self, at: usize, found: &regex::Captures<'_>, text: &str) -> Option<(usize, usize)> {
        let (all, body) = (found.get(0)?, found.name("body")?);
        let begins = starts_word(text, all.start())?;
        // A match may begin with the letter of an escape: `\nalice@...` in quoted text is alice.
        let start = body.start().max(begins);
        let pattern = &PATTERNS[at];
        let body = text.get(start..body.end())?;
        let key = found.name("key").map_or("", |key| key.as_str());
        let find = Find { key, body, after: &text[start + body.len()..] };
        if !(placeholder::holds_token(body) || (pattern.accepts)(&find)) {
            return None;
        }
        let value = body.trim_start_matches(['\\', '"', '\'']);
        let start = start + body.len() - value.len();
        let value = match pattern.kind {
            SecretKind::HomePath => value.trim_end_matches(['.', '-', '_']),
            _ => value,
        };
        (!value.is_empty()).then(|| (start, start + value.len()))
    }
}

/// What takes the place of a find: `Some(None)` for a placeholder, which stays and is nothing else's; `None` for what
/// is no secret after all.
fn replaced(kind: SecretKind, value: &str) -> Option<Option<String>> {
    match kind {
        SecretKind::Email => {
            let (local, domain) = value.split_once('@')?;
            Some((!placeholder::is_name(local)).then(|| placeholder::email(local, domain)))
        }
        SecretKind::HomePath | SecretKind::UserName if is_nobody(value) => None,
        SecretKind::HomePath | SecretKind::UserName => {
            Some((!placeholder::is_name(value)).then(|| placeholder::name(value)))
        }
        _ => Some((!placeholder::holds_token(value)).then(|| placeholder::token(value))),
    }
}

fn is_nobody(name: &str) -> bool {
    NOBODY.contains(&name.to_ascii_lowercase().as_str())
}

/// Where a word begins that a match begins with: at the match, or behind the letters of an escape sequence whose
/// backslash stands before it. `None` inside a word.
fn starts_word(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let backslashes = |end: usize| bytes[..end].iter().rev().take_while(|byte| **byte == b'\\').count();
    let Some(&previous) = start.checked_sub(1).and_then(|before| bytes.get(before)) else {
        return Some(start);
    };
    if previous == b'\\' && backslashes(start) % 2 == 1 {
        let is_letter = bytes.get(start).is_some_and(|byte| b"nrtbf".contains(byte));
        return Some(if is_letter { start + 1 } else { start });
    }
    let is_escape = b"nrtbf".contains(&previous) && backslashes(start - 1) % 2 == 1;
    (!previous.is_ascii_alphanumeric() || is_escape).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts in which every pattern has something to find.
    fn texts() -> Vec<String> {
        let key = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R";
        let upper = "ABCDEFGH12345678";
        [
            format!("-----BEGIN RSA PRIVATE KEY-----\nMII{key}{key}\n-----END RSA PRIVATE KEY-----"),
            format!("AKIA{upper} ghp_{key} github_pat_{key} glpat-{key} sk-ant-api03-{key} sk-proj-{key}"),
            format!("xoxb-{key} https://hooks.slack.com/services/{key} AIza{key} ya29.{key} hf_{key} SG.{key}.{key}"),
            format!("eyJ{key}.eyJ{key} BEARER {key} X-Api-Key: {key} https://me:{key}@host.org/x"),
            format!("DB_PASSWD={key} apiKey: \"{key}\" Credential = '{key}' alice@firm.org /home/alice/x C:\\Users\\bob\\y"),
            "nothing of the kind: the task-list of a disk-cache, at home".to_owned(),
        ]
        .to_vec()
    }

    #[test]
    fn needles_leave_out_nothing_that_is_found_without_them() {
        let finder = Finder::new().unwrap();
        let mut found = std::collections::BTreeSet::new();
        for text in texts() {
            for (at, pattern) in PATTERNS.iter().enumerate() {
                let alone = finder.spans_of(&text, [at]);
                found.extend((!alone.is_empty()).then_some(at));
                assert!(
                    alone.is_empty() || finder.needles.matches(&text).matched(at),
                    "{}: {text}",
                    pattern.needle
                );
            }
            assert_eq!(finder.spans(&text), finder.spans_of(&text, 0..PATTERNS.len()), "{text}");
        }
        assert_eq!(found.len(), PATTERNS.len(), "every pattern finds something: {found:?}");
    }
}
