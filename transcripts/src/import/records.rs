//! Reads the values of a file, whatever its layout: one JSON document, several after each other, or one value a line.
//! Repairs and reports what is malformed. Knows JSON and lines; knows no format.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::lines::{self, MAX_LINE_BYTES, ParsedText, Problem, WarningKind};
use super::{ImportedFile, Warning, salvage};

/// The largest document that is read. Its parsed form is several times as large, all of it in memory.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 128 << 20;
/// The most warnings that are kept for one file; the rest is counted in `bad_lines` only.
pub(super) const MAX_WARNINGS_PER_FILE: usize = 1000;
/// Lines that are looked at to tell a document from lines.
const PEEK_LINES: u32 = 64;

/// How the values lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A value on every line.
    Lines,
    /// One document over the whole file.
    Document,
}

/// One value and the line it begins on.
#[derive(Debug)]
pub(super) struct Record {
    pub line: u32,
    pub value: Value,
}

/// Tells the layout: values that fill a line each are lines; a value that runs over several lines is a document.
pub(super) fn layout(path: &Path) -> io::Result<Layout> {
    let (mut whole, mut partial) = (0_u32, 0_u32);
    let mut first_is_whole = None;
    lines::for_each_line(BufReader::new(File::open(path)?), MAX_LINE_BYTES, |number, line| {
        let line = lines::trim(line.unwrap_or_default());
        if line.is_empty() {
            return ControlFlow::Continue(());
        }
        let parsed = lines::parse_text(line);
        let is_whole = parsed.values.iter().any(|value| value.is_object() || value.is_array())
            && !parsed.problems.iter().any(|problem| problem.kind == WarningKind::TrailingText);
        first_is_whole.get_or_insert(is_whole);
        *(if is_whole { &mut whole } else { &mut partial }) += 1;
        match number >= PEEK_LINES || first_is_whole == Some(true) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    // The first line of a document is a bracket with or without more; the first of lines may be damaged.
    let lines = first_is_whole != Some(false) || (whole > 0 && whole >= partial && !is_document(path)?);
    Ok(if lines { Layout::Lines } else { Layout::Document })
}

fn is_document(path: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice::<serde::de::IgnoredAny>(lines::trim(&bytes)).is_ok())
}

/// Calls `each` with every value of a file, in order, and reports the lines and their problems. `each` may stop it.
pub(super) fn read(
    path: &Path,
    layout: Layout,
    each: impl FnMut(Record, &mut ImportedFile) -> ControlFlow<()>,
) -> io::Result<ImportedFile> {
    read_from(BufReader::new(File::open(path)?), path.display().to_string(), layout, each)
}

/// As [`read`], from what is open already; `path` is what the report calls it.
pub(super) fn read_from(
    reader: impl BufRead,
    path: String,
    layout: Layout,
    mut each: impl FnMut(Record, &mut ImportedFile) -> ControlFlow<()>,
) -> io::Result<ImportedFile> {
    let mut report = ImportedFile::new(path);
    match layout {
        Layout::Document => document(reader, &mut report, &mut each)?,
        Layout::Lines => {
            let count = lines::for_each_line(reader, MAX_LINE_BYTES, |line, bytes| {
                let Some(bytes) = bytes else {
                    let message = format!("longer than {MAX_LINE_BYTES} bytes");
                    report.note(line, [Problem { kind: WarningKind::TooLong, message }]);
                    return ControlFlow::Continue(());
                };
                let ParsedText { values, problems } = lines::parse_text(bytes);
                report.note(line, problems);
                values.into_iter().try_for_each(|value| each(Record { line, value }, &mut report))
            })?;
            report.lines = u64::from(count);
        }
    }
    Ok(report)
}

/// Reads a document; of one that is damaged, what stands before the damage.
fn document(
    reader: impl BufRead,
    report: &mut ImportedFile,
    each: &mut impl FnMut(Record, &mut ImportedFile) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes)?;
    report.lines = count_lines(&bytes);
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        let message = format!("a document of more than {MAX_DOCUMENT_BYTES} bytes: split the recording");
        report.note(1, [Problem { kind: WarningKind::TooLong, message }]);
        return Ok(());
    }
    let text = lines::repair(&bytes);
    if text.len() != bytes.len() || matches!(text, std::borrow::Cow::Owned(_)) {
        let message = "invalid UTF-8 or a lone surrogate became U+FFFD".to_owned();
        report.note(1, [Problem { kind: WarningKind::Repaired, message }]);
    }
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
    let end = text.iter().rposition(|byte| !byte.is_ascii_whitespace() && *byte != 0).map_or(0, |at| at + 1);
    let text = &text[..end];
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let mut flow = ControlFlow::Continue(());
    let mut start = 0;
    while flow.is_continue() {
        match values.next() {
            None => break,
            Some(Ok(value)) => {
                let line = line_at(text, start);
                start = values.byte_offset();
                flow = each(Record { line, value }, report);
            }
            Some(Err(error)) => {
                let rest = &text[start..];
                let at = offset_of(text, error.line(), error.column()).saturating_sub(start);
                let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
                let kept = salvage::close_before(rest, at.min(rest.len()));
                let value = kept.and_then(|kept| serde_json::from_slice(&kept).ok());
                let (kind, what) = match value {
                    Some(_) => (WarningKind::CutOff, "what follows is lost"),
                    None => (WarningKind::NotJson, "nothing of it can be kept"),
                };
                report.note(line, [Problem { kind, message: format!("{error}: {what}") }]);
                if let Some(value) = value {
                    let _ = each(Record { line: line_at(text, start), value }, report);
                }
                break;
            }
        }
    }
    Ok(())
}

fn count_lines(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    ends + u64::from(bytes.last().is_some_and(|&byte| byte != b'\n'))
}

/// The line, from 1, of the first value at or after an offset.
fn line_at(text: &[u8], offset: usize) -> u32 {
    let blank = text[offset..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let before = &text[..(offset + blank).min(text.len())];
    u32::try_from(before.iter().filter(|&&byte| byte == b'\n').count() + 1).unwrap_or(u32::MAX)
}

/// The offset of a line and column, both from 1.
fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let start = if line <= 1 { 0 } else { ends.nth(line - 2).unwrap_or(text.len()) };
    (start + column.saturating_sub(1)).min(text.len())
}

impl ImportedFile {
    /// A file of which nothing is known yet.
    pub(super) fn new(path: String) -> Self {
        Self { path, lines: 0, bad_lines: 0, warnings: Vec::new() }
    }

    /// Writes the problems of one line into the report; a line that lost something counts once.
    pub(super) fn note(&mut self, line: u32, problems: impl IntoIterator<Item = Problem>) {
        let mut lost = false;
        for Problem { kind, message } in problems {
            lost |= kind.loses_data();
            if self.warnings.len() < MAX_WARNINGS_PER_FILE {
                self.warnings.push(Warning { line: u64::from(line), kind, message });
            }
        }
        self.bad_lines += u64::from(lost);
    }

    /// A value that is no object where one must stand.
    pub(super) fn not_an_object(&mut self, line: u32, value: &Value) {
        self.note(line, [lines::not_an_object(value)]);
    }

    /// A message that cannot be read: it is skipped and counted.
    pub(super) fn bad_message(&mut self, line: u32, message: impl Into<String>) {
        self.note(line, [Problem { kind: WarningKind::BadMessage, message: message.into() }]);
    }
}
