//! Reads the files of one session family (a main file and its sub-agents' files) into lines, in file order: the first
//! line with a uuid wins. Knows files and lines, not the tree they form.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufRead;
use std::ops::ControlFlow;

use serde_json::Value;

use super::line::{self, AgentCopy, Body, Entry, Line};
use super::names::{Name, Names};
use crate::import::ImportedFile;
use crate::import::records::{self, Layout, Record};
use crate::message::Origin;
use crate::session::IssueKind;

/// What is noted about a place while reading or rebuilding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    pub kind: IssueKind,
    pub at: Origin,
    pub agent: Option<Name>,
}

/// A sub-agent message found in a progress line, and where.
#[derive(Debug)]
pub(super) struct FoundCopy {
    pub copy: AgentCopy,
    pub agent: Name,
}

/// All lines of a family and what they say besides.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub names: Names,
    /// Lines that can be part of a path: all with a uuid, and message lines without one.
    pub lines: Vec<Line>,
    pub by_uuid: HashMap<Name, u32>,
    /// Lines of another file that an agent's file repeats: its history starts with them.
    pub repeated: HashSet<(Name, u32)>,
    pub copies: Vec<FoundCopy>,
    pub forks: HashMap<Name, Name>,
    /// Per tool call: from which line on its result is sent as which text.
    pub replacements: HashMap<Name, Vec<(u32, String)>>,
    pub notes: Vec<Note>,
    pub unknown_lines: BTreeMap<String, u64>,
    pub unknown_projections: u64,
    pub files: Vec<ImportedFile>,
    /// Client versions per file, in order of appearance.
    pub versions: Vec<Vec<String>>,
}

impl Loaded {
    /// Reads one file. `agent` names the sub-agent whose file it is; its lines belong to that agent even where they do
    /// not say so.
    pub fn read(
        &mut self,
        reader: impl BufRead,
        path: String,
        layout: Layout,
        agent: Option<&str>,
    ) -> std::io::Result<()> {
        let file = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let agent = agent.map(|agent| self.names.intern(agent));
        self.versions.push(Vec::new());
        let report = records::read_from(reader, path, layout, |Record { line, value }, report| {
            let at = Origin { file, line };
            match value {
                // Somebody made one list of the lines.
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    items.into_iter().for_each(|item| self.take(item, at, agent, report))
                }
                value => self.take(value, at, agent, report),
            }
            ControlFlow::Continue(())
        })?;
        self.files.push(report);
        Ok(())
    }

    fn take(&mut self, value: Value, at: Origin, agent: Option<Name>, report: &mut ImportedFile) {
        let Value::Object(object) = value else {
            return report.not_an_object(at.line, &value);
        };
        let parsed = line::parse(object, at, &mut self.names);
        for _ in 0..parsed.unknown_blocks {
            self.notes.push(Note { kind: IssueKind::UnknownBlock, at, agent });
        }
        if let (Some(version), Some(versions)) = (parsed.version, self.versions.last_mut())
            && !versions.contains(&version)
            && versions.len() < 16
        {
            versions.push(version);
        }
        if let Some(problem) = self.take_entry(parsed.entry, agent) {
            report.bad_message(at.line, problem);
        }
    }

    fn take_entry(&mut self, entry: Entry, agent: Option<Name>) -> Option<String> {
        match entry {
            Entry::Line(line) => self.push(line, agent),
            Entry::Progress(line, copy) => {
                if let Some(copy) = copy
                    && let Some(agent) = copy.line.agent
                {
                    self.copies.push(FoundCopy { copy: *copy, agent });
                }
                self.push(line, agent);
            }
            Entry::ClientResponse(line) => {
                self.notes.push(Note { kind: IssueKind::ClientResponse, at: line.at, agent: line.agent });
                self.push(line, agent);
            }
            Entry::Replacements(replaced) => {
                let since = self.next_index();
                for (tool, text) in replaced {
                    self.replacements.entry(tool).or_default().push((since, text));
                }
            }
            Entry::Fork { agent, last } => {
                self.forks.entry(agent).or_insert(last);
            }
            Entry::Bookkeeping => {}
            Entry::UnknownProjection(kind) => {
                self.unknown_projections += 1;
                self.count_unknown(kind);
            }
            Entry::Unknown(kind, line) => {
                self.count_unknown(kind);
                if let Some(line) = line {
                    self.push(line, agent);
                }
            }
            Entry::BadMessage(line, problem) => {
                self.push(line, agent);
                return Some(problem);
            }
        }
        None
    }

    /// Appends a line; a uuid that is known already drops it.
    fn push(&mut self, mut line: Line, agent: Option<Name>) {
        if agent.is_some() {
            line.agent = line.agent.or(agent);
            line.sidechain = true;
        } else if !line.sidechain {
            // Some versions name an agent on lines of the main chain.
            line.agent = None;
        }
        let index = self.next_index();
        let Some(uuid) = line.uuid else {
            if !matches!(line.body, Body::Silent) {
                self.lines.push(line);
            }
            return;
        };
        if let Some(&first) = self.by_uuid.get(&uuid) {
            let other_file =
                self.lines.get(first as usize).is_some_and(|first| first.at.file != line.at.file);
            match line.agent {
                Some(agent) if other_file => {
                    self.repeated.insert((agent, first));
                }
                _ => self.notes.push(Note { kind: IssueKind::DuplicateUuid, at: line.at, agent: line.agent }),
            }
            return;
        }
        self.by_uuid.insert(uuid, index);
        self.lines.push(line);
    }

    /// Turns the copies in progress lines into lines of their agents, for agents that have no lines of their own. Each
    /// copy follows the one before it; the first follows the agent's prompt where the copies do not start with one.
    pub fn adopt_copies(&mut self) -> HashMap<Name, Name> {
        let own: HashSet<Name> = self.lines.iter().filter_map(|line| line.agent).collect();
        let mut started_by = HashMap::new();
        let mut last: HashMap<Name, Name> = HashMap::new();
        for (number, FoundCopy { mut copy, agent }) in
            std::mem::take(&mut self.copies).into_iter().enumerate()
        {
            if let Some(tool_use) = copy.tool_use {
                started_by.entry(agent).or_insert(tool_use);
            }
            if own.contains(&agent) {
                continue;
            }
            if !last.contains_key(&agent)
                && matches!(copy.line.body, Body::Assistant(_))
                && let Some(text) = copy.prompt.take()
            {
                let uuid = self.names.intern(&format!("prompt of copy {number}"));
                let prompt = Line {
                    uuid: Some(uuid),
                    parent: None,
                    body: Body::Note { text, attachment: false },
                    time: copy.line.time.clone(),
                    result_of_agent: None,
                    ..copy.line
                };
                self.push(prompt, None);
                last.insert(agent, uuid);
            }
            let uuid = copy.line.uuid.unwrap_or_else(|| self.names.intern(&format!("copy {number}")));
            if self.by_uuid.contains_key(&uuid) {
                continue;
            }
            copy.line.uuid = Some(uuid);
            copy.line.parent = last.insert(agent, uuid);
            self.push(copy.line, None);
        }
        started_by
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX)
    }

    fn count_unknown(&mut self, kind: String) {
        // A hostile file could name a new type on every line.
        if self.unknown_lines.len() < 256 || self.unknown_lines.contains_key(&kind) {
            *self.unknown_lines.entry(kind).or_default() += 1;
        }
    }
}
