//! Kept parts of a text as the text that is sent. Pure; knows no score and no memo.

use std::ops::Range;

/// What stands between kept parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing, as in the first published version.
    Joined,
    /// A line of its own that says how much was left out.
    Marked,
}

/// The longest marker that is likely, with its break: its tokens are the price of leaving something out.
pub const MARKER: &str = "[... 1000 lines elided ...]\n";

/// The kept parts of `raw` as they are sent; `None` if a part does not lie in `raw` at character boundaries, or they are
/// not in order.
pub fn render(raw: &str, kept: &[Range<usize>], form: Form) -> Option<String> {
    let mut text = String::new();
    let mut end = 0;
    for part in kept {
        let gap = raw.get(end..part.start)?;
        if form == Form::Marked && !gap.is_empty() {
            mark(&mut text, raw, end..part.start);
        }
        text.push_str(raw.get(part.clone())?);
        end = part.end;
    }
    if form == Form::Marked && end < raw.len() {
        mark(&mut text, raw, end..raw.len());
    }
    Some(text)
}

/// Writes the marker of a gap on a line of its own.
fn mark(text: &mut String, raw: &str, gap: Range<usize>) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let (before, after) = (&raw[..gap.start], &raw[gap.end..]);
    let gone = &raw[gap];
    let is_whole_lines =
        (before.is_empty() || before.ends_with('\n')) && (after.is_empty() || gone.ends_with('\n'));
    let (n, what) = match is_whole_lines {
        true => (gone.lines().count(), "line"),
        false => (gone.chars().count(), "character"),
    };
    let plural = if n == 1 { "" } else { "s" };
    text.push_str(&format!("[... {n} {what}{plural} elided ...]"));
    if !after.is_empty() || gone.ends_with('\n') {
        text.push('\n');
    }
}
