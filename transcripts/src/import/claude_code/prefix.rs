//! The prefix of every call: walks the path of a response from the root and lists what a request carried, each message
//! once in the session's list. Knows the tree, the responses and the results; makes no session.

use std::collections::{HashMap, HashSet};

use super::content::Block;
use super::groups::{self, Groups};
use super::line::Body;
use super::load::{Loaded, Note};
use super::names::Name;
use super::results::{self, Form, Results};
use super::tree::{Chain, Path, Tree};
use crate::message::{Message, Origin, Part, Reasoning, Role};
use crate::session::IssueKind;

/// The most prefix entries the sessions of one family may hold together: 64 MiB of indices. The largest session that
/// was measured needs 0.1 million.
const MAX_PREFIX_ENTRIES: u64 = 1 << 24;
/// The most lines that may be walked for one family.
const MAX_STEPS: u64 = 1 << 28;

/// What a family has used of its limits. A file of any size cannot make an import hold or walk more.
#[derive(Debug, Default)]
pub(super) struct Budget {
    entries: u64,
    steps: u64,
    /// Calls that were left out once a limit was reached.
    pub left_out: u64,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.entries > MAX_PREFIX_ENTRIES || self.steps > MAX_STEPS
    }
}

/// What a message of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The first lines of a response.
    Turn { group: u32, lines: u32 },
    /// A tool result in one form; `called` names the tool.
    Result { line: u32, block: u32, form: Form },
    /// What a user line holds besides results, or a note.
    Line(u32),
}

/// A call's request, and what its path says about it.
#[derive(Debug)]
pub(super) struct Request {
    pub group: u32,
    pub prefix: Vec<u32>,
    pub completion: u32,
    /// The compaction boundary the path starts with.
    pub boundary: Option<u32>,
    /// The first line of the path.
    pub root: Option<u32>,
    /// Microcompaction boundaries on the path.
    pub microcompactions: u32,
    /// The path goes through the response of the request before.
    pub continues: bool,
    /// The latest line behind the messages that follow the last turn of the prefix: what the request waited for.
    pub last_line: Option<u32>,
}

/// What the rebuild of every chain of a family reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub loaded: &'a Loaded,
    pub groups: &'a Groups,
    pub results: &'a Results,
}

/// Builds the requests of one chain.
pub(super) struct Builder<'a> {
    pub loaded: &'a Loaded,
    pub tree: &'a mut Tree,
    pub groups: &'a Groups,
    pub results: &'a Results,
    pub messages: Vec<Message>,
    pub keys: Vec<Key>,
    pub notes: Vec<Note>,
    index: HashMap<Key, u32>,
    /// Per response, the request that listed it last: each response is listed once in a request.
    listed: HashMap<u32, u32>,
    requests: u32,
    previous: Option<u32>,
    pub budget: &'a mut Budget,
}

/// What one request could know: which lines were written, and what had been cleared.
struct Horizon {
    now: u32,
    chain: Chain,
    foreign_last: Option<u32>,
    cleared_results: HashSet<Name>,
    cleared_attachments: HashSet<Name>,
    microcompactions: u32,
}

impl Horizon {
    fn new(now: u32, chain: Chain, path: &Path, loaded: &Loaded) -> Self {
        let mut horizon = Self {
            now,
            chain,
            foreign_last: path.foreign_last,
            cleared_results: HashSet::new(),
            cleared_attachments: HashSet::new(),
            microcompactions: 0,
        };
        for &line in &path.lines {
            if let Body::Microcompact { results, attachments } = &loaded.lines[line as usize].body {
                horizon.cleared_results.extend(results);
                horizon.cleared_attachments.extend(attachments);
                horizon.microcompactions += 1;
            }
        }
        horizon
    }

    /// True when a line was there: of the own chain what stands before the response, of the chain it was forked from
    /// what stands up to the fork.
    fn knows(&self, line: u32, tree: &Tree) -> bool {
        match self.foreign_last {
            Some(last) if tree.chain(line) != self.chain => line <= last,
            _ => line < self.now,
        }
    }
}

impl<'a> Builder<'a> {
    pub fn new(parts: Parts<'a>, tree: &'a mut Tree, budget: &'a mut Budget) -> Self {
        Self {
            loaded: parts.loaded,
            tree,
            groups: parts.groups,
            results: parts.results,
            messages: Vec::new(),
            keys: Vec::new(),
            notes: Vec::new(),
            index: HashMap::new(),
            listed: HashMap::new(),
            requests: 0,
            previous: None,
            budget,
        }
    }

    /// The request behind a response; `None` when the family's budget is spent.
    pub fn request(&mut self, group: u32) -> Option<Request> {
        let call = self.groups.list.get(group as usize).filter(|_| !self.budget.is_spent())?;
        let now = call.first();
        let path = self.tree.path(now, now, self.loaded);
        self.budget.steps += path.steps;
        if path.cycle {
            self.note(IssueKind::ParentCycle, now);
        }
        let horizon = Horizon::new(now, call.chain, &path, self.loaded);
        let mut prefix: Vec<u32> = Vec::with_capacity(path.lines.len());
        self.requests += 1;
        for &line in &path.lines {
            match &self.loaded.lines[line as usize].body {
                Body::Assistant(_) => {
                    let Some(turn) = self.groups.of_line(line).filter(|&turn| turn != group) else {
                        continue;
                    };
                    if self.listed.insert(turn, self.requests) != Some(self.requests) {
                        self.push_turn(turn, &horizon, &mut prefix);
                    }
                }
                Body::User { blocks, .. } => {
                    if blocks.iter().any(|block| matches!(block, Block::Part(_))) {
                        prefix.push(self.message(Key::Line(line)));
                    }
                }
                Body::Note { .. } => {
                    let uuid = self.loaded.lines[line as usize].uuid;
                    if !uuid.is_some_and(|uuid| horizon.cleared_attachments.contains(&uuid)) {
                        prefix.push(self.message(Key::Line(line)));
                    }
                }
                Body::CompactBoundary(_) | Body::Microcompact { .. } | Body::Silent => {}
            }
        }
        prefix.shrink_to_fit();
        self.budget.entries += prefix.len() as u64;
        if self.budget.is_spent() {
            return None;
        }
        let is_boundary =
            |line: &&u32| matches!(self.loaded.lines[**line as usize].body, Body::CompactBoundary(_));
        let last_line = self.latest_line(&prefix);
        let previous = self.previous.replace(group);
        let lines = call.lines.len() as u32;
        Some(Request {
            group,
            completion: self.message(Key::Turn { group, lines }),
            prefix,
            boundary: path.lines.first().filter(is_boundary).copied(),
            root: path.lines.first().copied(),
            microcompactions: horizon.microcompactions,
            continues: previous.is_some_and(|previous| self.listed.get(&previous) == Some(&self.requests)),
            last_line,
        })
    }

    /// Of the messages after the last turn (of all, without a turn), the line that was written last by its time. Results
    /// of parallel calls stand in the order of the calls, not of their times.
    fn latest_line(&self, prefix: &[u32]) -> Option<u32> {
        let keys = prefix.iter().rev().map(|&index| self.keys[index as usize]);
        let waited_for = keys.take_while(|key| !matches!(key, Key::Turn { .. })).map(|key| self.line_of(key));
        waited_for.max_by_key(|&line| self.loaded.lines[line as usize].time.as_ref().map(|time| time.ms))
    }

    /// Adds an earlier response and, in the order of its calls, the results that were there.
    fn push_turn(&mut self, turn: u32, horizon: &Horizon, prefix: &mut Vec<u32>) {
        let group = &self.groups.list[turn as usize];
        let written = group.lines.iter().take_while(|&&line| horizon.knows(line, self.tree));
        let lines = written.count() as u32;
        if lines == 0 {
            return;
        }
        prefix.push(self.message(Key::Turn { group: turn, lines }));
        for at in group.blocks(lines) {
            let blocks = groups::response(self.loaded, at.line).map_or(&[][..], |response| &response.blocks);
            let Some(Block::ToolUse(id, tool)) = blocks.get(at.block as usize) else { continue };
            let known = |line| horizon.knows(line, self.tree);
            let Some(answer) = self.results.answer(group.chain, *id, at.line, known) else { continue };
            let Some((_, result)) = results::result(self.loaded, answer) else { continue };
            let form = match self.replacement(*id, horizon.now) {
                _ if horizon.cleared_results.contains(id) => Form::Cleared,
                Some(nth) => Form::Replaced(nth),
                None if self.results.is_preview(*id, result) => Form::Preview,
                None => Form::Raw,
            };
            let index = self.message(Key::Result { line: answer.line, block: answer.block, form });
            self.messages[index as usize].name.get_or_insert_with(|| tool.name.clone());
            prefix.push(index);
        }
    }

    /// The recorded replacement that holds for a result when line `now` is written.
    fn replacement(&self, id: Name, now: u32) -> Option<u32> {
        let texts = self.loaded.replacements.get(&id)?;
        (texts.partition_point(|(since, _)| *since <= now) as u32).checked_sub(1)
    }

    /// The index of a message in the session's list; made when it is new.
    fn message(&mut self, key: Key) -> u32 {
        if let Some(&index) = self.index.get(&key) {
            return index;
        }
        let message = self.make(key);
        let index = self.messages.len() as u32;
        self.messages.push(message);
        self.keys.push(key);
        self.index.insert(key, index);
        index
    }

    fn make(&self, key: Key) -> Message {
        let at = self.loaded.lines[self.line_of(key) as usize].at;
        match key {
            Key::Turn { group, lines } => self.turn(group, lines, at),
            Key::Result { line, block, form } => self.result(groups::At { line, block }, form, at),
            Key::Line(line) => self.user(line, at),
        }
    }

    /// The line a message stands on: for a response its first one.
    pub fn line_of(&self, key: Key) -> u32 {
        match key {
            Key::Turn { group, .. } => self.groups.list[group as usize].first(),
            Key::Result { line, .. } | Key::Line(line) => line,
        }
    }

    fn turn(&self, group: u32, lines: u32, at: Origin) -> Message {
        let mut message = empty(Role::Assistant, at);
        let mut reasoning: Option<String> = None;
        for at in self.groups.list[group as usize].blocks(lines) {
            let blocks = groups::response(self.loaded, at.line).map_or(&[][..], |response| &response.blocks);
            match blocks.get(at.block as usize) {
                Some(Block::Part(part)) => message.content.push(part.clone()),
                Some(Block::ToolUse(_, call)) => message.tool_calls.push(call.clone()),
                Some(Block::Thinking(text)) => {
                    let known = reasoning.get_or_insert_default();
                    if !known.is_empty() && !text.is_empty() {
                        known.push('\n');
                    }
                    known.push_str(text);
                }
                Some(Block::ToolResult(..)) | None => {}
            }
        }
        message.reasoning = reasoning.map(|text| match text.is_empty() {
            true => Reasoning::Hidden,
            false => Reasoning::Text { text },
        });
        message
    }

    fn result(&self, at: groups::At, form: Form, origin: Origin) -> Message {
        let mut message = empty(Role::Tool, origin);
        if let Some((id, result)) = results::result(self.loaded, at) {
            message.content = results::content(result, form, id, self.loaded);
            message.is_error = result.is_error;
            message.synthetic = form != Form::Raw;
            message.tool_call_id = Some(self.loaded.names.text(id).to_owned());
        }
        message
    }

    fn user(&self, line: u32, at: Origin) -> Message {
        let mut message = empty(Role::User, at);
        match &self.loaded.lines[line as usize].body {
            Body::User { blocks, synthetic } => {
                message.synthetic = *synthetic;
                let parts = blocks.iter().filter_map(|block| match block {
                    Block::Part(part) => Some(part.clone()),
                    Block::Thinking(_) | Block::ToolUse(..) | Block::ToolResult(..) => None,
                });
                message.content = parts.collect();
            }
            Body::Note { text, .. } => {
                message.synthetic = true;
                message.content = vec![Part::Text { text: text.clone() }];
            }
            Body::Assistant(_) | Body::CompactBoundary(_) | Body::Microcompact { .. } | Body::Silent => {}
        }
        message
    }

    /// Notes something about a line.
    pub fn note(&mut self, kind: IssueKind, line: u32) {
        let line = &self.loaded.lines[line as usize];
        self.notes.push(Note { kind, at: line.at, agent: line.agent });
    }
}

fn empty(role: Role, origin: Origin) -> Message {
    Message { content: Vec::new(), origin, ..Message::text(role, "") }
}
