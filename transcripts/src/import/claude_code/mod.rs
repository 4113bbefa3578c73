//! Claude Code session files (`~/.claude/projects/<folder>/<session>.jsonl`): one API response is all assistant lines
//! of one message id; a request is the path from its first line to the root, with tool results stitched in. Knows this
//! format and no other; what came over the wire and is not in the file is named in the fidelity block.
//!
//! Reading order: [`line`] (what a line is), [`load`] (files to lines), [`tree`] (paths), [`groups`] (responses),
//! [`results`] (tool results), [`prefix`] (requests), [`chain`] (calls), [`links`] (who started whom), and this file,
//! which puts the sessions of one family together.

mod attachment;
mod chain;
pub(super) mod content;
mod groups;

mod line;
mod links;
mod load;
pub(super) mod names;
mod prefix;
mod results;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, BufRead};

use self::chain::ChainCalls;
use self::groups::Groups;
use self::links::Start;
use self::load::{Loaded, Note};
use self::names::Name;
use self::prefix::{Budget, Parts};
use self::results::Results;
use self::tree::{Chain, Tree};
use super::records::Layout;
use super::{ImportedFile, Warning, WarningKind};
use crate::fidelity::{Fidelity, Reason};
use crate::session::{Issue, IssueKind, Kind, Session, SourceFile, SourceFormat, System};

pub(super) use self::line::is_recognised;

/// One file of a family.
pub(super) struct FamilyFile<'a> {
    /// Path, as reported.
    pub path: String,
    /// File name without folder and extension.
    pub stem: String,
    /// For a sub-agent's file: the agent's id and what its side file says it does.
    pub agent: Option<AgentFile>,
    /// How its lines lie in it.
    pub layout: Layout,
    /// Opens the lines. Called when the file's turn comes: a family may have more files than a process may hold open.
    pub open: Open<'a>,
}

/// Opens a file.
pub(super) type Open<'a> = Box<dyn FnOnce() -> io::Result<Box<dyn BufRead + 'a>> + 'a>;

/// What is known of a sub-agent's file before it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentFile {
    /// The agent's id, from the file name.
    pub id: String,
    /// `description` of `agent-<id>.meta.json`.
    pub description: Option<String>,
}

/// What has been taken by sessions of this import so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Responses that are calls of a session.
    responses: HashSet<String>,
    /// Session ids.
    ids: HashSet<String>,
}

/// Sessions and files of one family: main first, then sub-agents in the order of their first lines.
#[derive(Debug, Default)]
pub(super) struct FamilyImport {
    pub sessions: Vec<Session>,
    pub files: Vec<ImportedFile>,
}

/// Imports a main file with its sub-agents' files; the main file comes first where there is one. `saved_results` names
/// the tool calls whose full result lies in a file beside the session.
///
/// # Errors
/// The path of a file that cannot be read, and why.
pub(super) fn import(
    files: Vec<FamilyFile<'_>>,
    saved_results: &[String],
    taken: &mut Taken,
) -> Result<FamilyImport, (String, io::Error)> {
    let mut loaded = Loaded::default();
    let main_stem = files.iter().find(|file| file.agent.is_none()).map(|file| file.stem.clone());
    let mut descriptions = HashMap::new();
    for file in files {
        let agent = file.agent.as_ref().map(|agent| agent.id.as_str());
        let read =
            (file.open)().and_then(|reader| loaded.read(reader, file.path.clone(), file.layout, agent));
        read.map_err(|error| (file.path, error))?;
        if let Some(AgentFile { id, description: Some(description) }) = file.agent {
            descriptions.insert(loaded.names.intern(&id), description);
        }
    }
    let started_by = started_by(&mut loaded);
    let mut tree = Tree::link(&mut loaded);
    let groups = Groups::collect(&mut loaded, &tree);
    let results = Results::collect(&mut loaded, &tree, saved_results);
    let parts = Parts { loaded: &loaded, groups: &groups, results: &results };
    let mut budget = Budget::default();
    let mut chains: Vec<ChainCalls> = Vec::new();
    for chain in groups.chains() {
        chains.extend(chain::rebuild(chain, parts, &mut tree, &mut budget, &mut taken.responses));
    }
    let family = Family::new(&loaded, &tree, results.unpaired(&loaded, &groups));
    let main_id = family.main_session_id(main_stem.as_deref());
    let mut sessions = Vec::new();
    let mut starts = Vec::new();
    for chain in chains {
        let agent = if let Chain::Agent(agent) = chain.chain { Some(agent) } else { None };
        starts.push(Start {
            tool_use: agent
                .and_then(|agent| started_by.get(&agent))
                .map(|id| loaded.names.text(*id).to_owned()),
            description: agent.and_then(|agent| descriptions.get(&agent).cloned()),
        });
        // The types of unknown lines are told once: by the first session of the family.
        let unknown_lines = if sessions.is_empty() { loaded.unknown_lines.clone() } else { BTreeMap::new() };
        sessions.push(Session { unknown_lines, ..family.session(chain, &main_id, taken) });
    }
    link(&mut sessions, &starts);
    let mut files = std::mem::take(&mut loaded.files);
    note_unused(&mut files, &sessions);
    if let (Some(file), 1..) = (files.first_mut(), budget.left_out) {
        let message = format!("{} calls of this family were left out: it is too large", budget.left_out);
        file.warnings.push(Warning { line: 0, kind: WarningKind::LeftOut, message });
    }
    Ok(FamilyImport { sessions, files })
}

/// Says of every file with lines that no session came out of it.
fn note_unused(files: &mut [ImportedFile], sessions: &[Session]) {
    let used: HashSet<&str> =
        sessions.iter().flat_map(|session| &session.files).map(|file| file.path.as_str()).collect();
    for file in files.iter_mut().filter(|file| file.lines > 0 && !used.contains(file.path.as_str())) {
        let message = "no model call of its own: no session".to_owned();
        file.warnings.push(Warning { line: 0, kind: WarningKind::NoCalls, message });
    }
}

/// The tool call that started each agent, from progress copies and from the results that name an agent.
fn started_by(loaded: &mut Loaded) -> HashMap<Name, Name> {
    let mut started_by = loaded.adopt_copies();
    for line in &loaded.lines {
        let (Some(agent), line::Body::User { blocks, .. }) = (line.result_of_agent, &line.body) else {
            continue;
        };
        let tool_use = blocks.iter().find_map(|block| match block {
            content::Block::ToolResult(id, _) => Some(*id),
            _ => None,
        });
        if let Some(tool_use) = tool_use {
            started_by.entry(agent).or_insert(tool_use);
        }
    }
    started_by
}

/// Names the parent session and call of every sub-agent that was started by a recorded call.
fn link(sessions: &mut [Session], starts: &[Start]) {
    for (index, parent) in links::parents(sessions, starts).into_iter().enumerate() {
        let Some((parent, call)) = parent.filter(|(parent, _)| *parent != index) else { continue };
        let parent_session_id = sessions[parent].id.clone();
        if let kind @ Kind::Subagent { .. } = &mut sessions[index].kind {
            *kind = Kind::Subagent { parent_session_id, parent_call_index: Some(call) };
        }
    }
}

/// A family whose lines are loaded and linked.
struct Family<'a> {
    loaded: &'a Loaded,
    unknown_projections: u64,
    guessed: HashMap<Chain, u64>,
    notes: HashMap<Option<Name>, Vec<Note>>,
    unpaired: HashMap<Chain, Vec<Note>>,
}

impl<'a> Family<'a> {
    fn new(loaded: &'a Loaded, tree: &Tree, unpaired: HashMap<Chain, Vec<Note>>) -> Self {
        let mut guessed: HashMap<Chain, u64> = HashMap::new();
        for &line in &tree.guessed {
            *guessed.entry(tree.chain(line)).or_default() += 1;
        }
        let mut notes: HashMap<Option<Name>, Vec<Note>> = HashMap::new();
        for &note in &loaded.notes {
            notes.entry(note.agent).or_default().push(note);
        }
        let unknown_projections = loaded.unknown_projections + tree.lost_relinks;
        Self { loaded, unknown_projections, guessed, notes, unpaired }
    }

    /// The session id of the main chain: the file's name if a line of the file says the same, else the last one that
    /// its lines name (a resumed file starts with the lines of the session before), else the file's name.
    fn main_session_id(&self, stem: Option<&str>) -> String {
        let main = self.loaded.lines.iter().filter(|line| !line.sidechain);
        let named: Vec<&str> =
            main.filter_map(|line| line.session).map(|id| self.loaded.names.text(id)).collect();
        let any = self.loaded.lines.iter().find_map(|line| line.session).map(|id| self.loaded.names.text(id));
        let stem_is_named = stem.filter(|stem| named.contains(stem));
        stem_is_named.or(named.last().copied()).or(any).or(stem).unwrap_or("session").to_owned()
    }

    fn session(&self, chain: ChainCalls, main_id: &str, taken: &mut Taken) -> Session {
        let parent = || Kind::Subagent { parent_session_id: main_id.to_owned(), parent_call_index: None };
        let (id, kind) = match chain.chain {
            Chain::Main => (main_id.to_owned(), Kind::Main),
            Chain::Agent(agent) => (format!("agent-{}", self.loaded.names.text(agent)), parent()),
            Chain::Inline(root) => (self.inline_id(root), parent()),
        };
        let reasons = self.family_reasons(&chain);
        let issues = self.issues(&chain);
        let ChainCalls { mut messages, calls, first_line, .. } = chain;
        let first_file = self.loaded.lines[first_line as usize].at.file;
        let mut used: BTreeSet<u32> = messages.iter().map(|message| message.origin.file).collect();
        used.insert(first_file);
        let renumbered: BTreeMap<u32, u32> = used.iter().copied().zip(0..).collect();
        for message in &mut messages {
            message.origin.file = renumbered.get(&message.origin.file).copied().unwrap_or(0);
        }
        let files: Vec<SourceFile> = used.iter().map(|&file| self.source_file(file)).collect();
        let bad_lines = files.iter().map(|file| file.bad_lines).sum();
        let mut versions: Vec<&str> = Vec::new();
        for version in used.iter().flat_map(|&file| &self.loaded.versions[file as usize]) {
            if !versions.contains(&version.as_str()) {
                versions.push(version);
            }
        }
        Session {
            id: taken.unique(id),
            format: SourceFormat::ClaudeCode,
            source_version: (!versions.is_empty()).then(|| versions.join(", ")),
            kind,
            started_at: calls.first().and_then(|call| call.started_at.clone()),
            system: System::Missing,
            tools: Vec::new(),
            messages,
            calls,
            fidelity: Fidelity::from_reasons(
                reasons.into_iter().chain([Reason::LinesUnreadable { count: bad_lines }]),
            ),
            issues: renumber(issues, &renumbered),
            files,
            unknown_lines: BTreeMap::new(),
        }
    }

    /// An inline sidechain has no id: its first line's uuid, or its line number, stands in.
    fn inline_id(&self, root: u32) -> String {
        let line = &self.loaded.lines[root as usize];
        match line.uuid {
            Some(uuid) => format!("sidechain-{}", self.loaded.names.text(uuid)),
            None => format!("sidechain-{}", line.at.line),
        }
    }

    fn source_file(&self, file: u32) -> SourceFile {
        let report = &self.loaded.files[file as usize];
        SourceFile { path: report.path.clone(), lines: report.lines, bad_lines: report.bad_lines }
    }

    fn family_reasons(&self, chain: &ChainCalls) -> Vec<Reason> {
        let guessed = self.guessed.get(&chain.chain).copied().unwrap_or(0);
        let own = [
            Reason::ParentsGuessed { count: guessed },
            Reason::ProjectionsUnknown { count: self.unknown_projections },
        ];
        chain.reasons.iter().copied().chain(own).collect()
    }

    /// The chain's issues by kind. What cannot be told apart by agent is the main chain's.
    fn issues(&self, chain: &ChainCalls) -> Vec<Issue> {
        let agent = match chain.chain {
            Chain::Agent(agent) => Some(Some(agent)),
            Chain::Main => Some(None),
            Chain::Inline(_) => None,
        };
        let of_agent = agent.and_then(|agent| self.notes.get(&agent)).into_iter().flatten();
        let unpaired = self.unpaired.get(&chain.chain).into_iter().flatten();
        let mut issues: BTreeMap<IssueKind, Issue> = BTreeMap::new();
        for note in of_agent.chain(&chain.notes).chain(unpaired) {
            let issue = Issue { kind: note.kind, count: 0, first: note.at };
            issues.entry(note.kind).or_insert(issue).count += 1;
        }
        issues.into_values().collect()
    }
}

impl Taken {
    /// An id that no session of this import has; a second one gets a number.
    pub fn unique(&mut self, id: String) -> String {
        let numbered = (2..).map(|number| format!("{id}~{number}"));
        let free =
            std::iter::once(id.clone()).chain(numbered).find(|id| !self.ids.contains(id)).unwrap_or(id);
        self.ids.insert(free.clone());
        free
    }
}

/// Issues may point at lines of files that gave no message: they keep the family's first file then.
fn renumber(mut issues: Vec<Issue>, renumbered: &BTreeMap<u32, u32>) -> Vec<Issue> {
    for issue in &mut issues {
        issue.first.file = renumbered.get(&issue.first.file).copied().unwrap_or(0);
    }
    issues
}
