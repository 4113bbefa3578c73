//! What a file is, told by its first values. Knows the importers by the one question each answers; reads no session.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

use super::exchange::Exchange;
use super::lines;
use super::records::{self, Layout};
use super::{claude_code, codewhale, codex, helexa, openai_chat, openhands, responses, swe_agent};
use crate::canonical;
use crate::session::SourceFormat;

/// Values that are looked at to tell what a file is.
const PEEK_VALUES: u32 = 64;
/// Lines after which looking stops.
const PEEK_LINES: u32 = 256;

/// What the first values of a file say.
#[derive(Debug)]
pub(super) struct Peek {
    pub canonical: bool,
    pub format: Option<SourceFormat>,
    pub layout: Layout,
    pub empty: bool,
    /// Something in it cannot be read.
    pub damaged: bool,
    pub session_id: Option<String>,
    pub first_time: Option<String>,
    /// Every line so far is of this sub-agent.
    pub only_agent: Option<String>,
}

impl Peek {
    /// What a person is told a file is that no importer reads.
    pub fn describe(&self) -> String {
        let got = match (self.empty, self.damaged) {
            (true, _) => "an empty file",
            (false, true) => "a file that is damaged before anything can be told of it",
            (false, false) => "a file whose first values are neither",
        };
        got.to_owned()
    }
}

/// Looks at the first values of a file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn peek(path: &Path) -> io::Result<Peek> {
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    let mut peek = Peek {
        canonical: canonical::looks_canonical(&head),
        format: None,
        layout: Layout::Lines,
        empty: head.len() < 4096 && !head.contains(&0) && lines::trim(&head).is_empty(),
        damaged: false,
        session_id: None,
        first_time: None,
        only_agent: None,
    };
    if peek.canonical || peek.empty {
        return Ok(peek);
    }
    peek.layout = records::layout(path)?;
    let mut values = 0;
    let mut agent: Option<Option<String>> = None;
    let report = records::read(path, peek.layout, |record, _| {
        values += 1;
        peek.format = peek.format.or_else(|| format_of(&record.value));
        let listed = record.value.as_array().into_iter().flatten().take(PEEK_VALUES as usize);
        for object in record.value.as_object().into_iter().chain(listed.filter_map(Value::as_object)) {
            peek.claude_code_names(object, &mut agent);
        }
        let done = match peek.format {
            None | Some(SourceFormat::ClaudeCode) => values >= PEEK_VALUES || record.line >= PEEK_LINES,
            Some(_) => true,
        };
        if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    peek.only_agent = agent.flatten();
    peek.damaged = report.bad_lines > 0;
    Ok(peek)
}

impl Peek {
    /// Notes what a line of a Claude Code file says of its session, its time and its agent.
    fn claude_code_names(&mut self, object: &Map<String, Value>, agent: &mut Option<Option<String>>) {
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        self.session_id = self.session_id.take().or_else(|| text("sessionId"));
        self.first_time = self.first_time.take().or_else(|| text("timestamp"));
        if object.contains_key("uuid") {
            let sidechain = object.get("isSidechain").and_then(Value::as_bool).unwrap_or(false);
            let this = text("agentId").filter(|_| sidechain);
            *agent = Some(match agent.take() {
                None => this,
                Some(known) => known.filter(|known| Some(known) == this.as_ref()),
            });
        }
    }
}

/// Which importer reads a value.
pub(super) fn format_of(value: &Value) -> Option<SourceFormat> {
    if let Value::Array(items) = value
        && let Some(format) = items.iter().take(16).find_map(of_object)
    {
        return Some(format);
    }
    of_object(value).or_else(|| openai_chat::is_recognised(value).then_some(SourceFormat::OpenaiChat))
}

/// True for an object that one importer reads.
type IsRecognised = fn(&Map<String, Value>) -> bool;

fn of_object(value: &Value) -> Option<SourceFormat> {
    let object = value.as_object()?;
    let told: [(SourceFormat, IsRecognised); 6] = [
        (SourceFormat::ClaudeCode, claude_code::is_recognised),
        (SourceFormat::Codex, codex::is_recognised),
        (SourceFormat::Codewhale, codewhale::is_recognised),
        (SourceFormat::Helexa, helexa::is_recognised),
        (SourceFormat::SweAgent, swe_agent::is_recognised),
        (SourceFormat::Openhands, openhands::is_recognised),
    ];
    if let Some((format, _)) = told.iter().find(|(_, is_recognised)| is_recognised(object)) {
        return Some(*format);
    }
    if responses::is_recognised(value) {
        return Some(SourceFormat::Responses);
    }
    Exchange::of(value.clone()).and_then(|exchange| exchange.format())
}
