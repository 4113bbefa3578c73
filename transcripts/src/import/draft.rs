//! A session while it is put together: one list of messages for all sessions of a group, calls as indices into it, and
//! the finished session with gaps, prefix breaks, fidelity and only the messages it uses. Knows no format.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::stamp::Stamp;
use super::{ImportedFile, Warning, WarningKind};
use crate::call::{BreakCause, Call, PrefixBreak, Usage};
use crate::fidelity::{Fidelity, Reason};
use crate::message::{Message, Origin, Part, Reasoning, Role};
use crate::session::{Issue, IssueKind, Kind, Session, SourceFile, SourceFormat, System};

/// The most prefix entries the sessions of one group may hold together: 64 MiB of indices.
const MAX_PREFIX_ENTRIES: usize = 1 << 24;
/// The most types of unknown lines that are counted by name.
const MAX_UNKNOWN_TYPES: usize = 256;

/// All messages of a group of files, and when each was recorded. Memory is that of the distinct messages, however often
/// requests repeat them.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub messages: Vec<Message>,
    pub times: Vec<Option<Stamp>>,
    digests: Vec<u64>,
    /// Tool calls of a message whose arguments were recorded parsed.
    reserialised: HashMap<u32, u64>,
    by_content: HashMap<(u64, u32), Vec<u32>>,
    entries: usize,
}

/// A message as a reader hands it over.
#[derive(Debug)]
pub(super) struct Incoming {
    pub message: Message,
    pub time: Option<Stamp>,
    /// Its tool calls whose arguments were recorded parsed: their original bytes are lost.
    pub reserialised: u64,
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self { message, time: None, reserialised: 0 }
    }
}

/// Counts how often each content has come in one request, so that equal messages of a request stay two messages while
/// equal requests share all of theirs.
#[derive(Debug, Default)]
pub(super) struct Occurrences(HashMap<u64, u32>);

impl Store {
    /// A new message.
    pub fn push(&mut self, incoming: Incoming) -> u32 {
        let digest = digest(&incoming.message);
        self.push_digested(incoming, digest)
    }

    fn push_digested(&mut self, incoming: Incoming, digest: u64) -> u32 {
        let index = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        if incoming.reserialised > 0 {
            self.reserialised.insert(index, incoming.reserialised);
        }
        self.messages.push(incoming.message);
        self.times.push(incoming.time);
        self.digests.push(digest);
        index
    }

    /// The nth message of this content in a request: the one known from another request, or a new one.
    pub fn intern(&mut self, incoming: Incoming, seen: &mut Occurrences) -> u32 {
        let digest = digest(&incoming.message);
        let nth = seen.0.entry(digest).or_default();
        *nth += 1;
        let key = (digest, *nth);
        let same = |index: &u32| {
            let known = self.messages.get(*index as usize);
            known.is_some_and(|known| content(known) == content(&incoming.message))
        };
        if let Some(index) = self.by_content.get(&key).and_then(|known| known.iter().copied().find(same)) {
            return index;
        }
        let index = self.push_digested(incoming, digest);
        self.by_content.entry(key).or_default().push(index);
        index
    }

    /// The messages behind the indices have been seen.
    pub fn occurrences(&self, prefix: &[u32]) -> Occurrences {
        let mut seen = Occurrences::default();
        for digest in prefix.iter().filter_map(|&index| self.digests.get(index as usize)) {
            *seen.0.entry(*digest).or_default() += 1;
        }
        seen
    }

    /// The digest of a message's content, to find equal ones by.
    pub fn digest(&self, index: u32) -> Option<u64> {
        self.digests.get(index as usize).copied()
    }

    /// Who speaks in a message.
    pub fn role(&self, index: u32) -> Option<Role> {
        self.messages.get(index as usize).map(|message| message.role)
    }

    fn chars(&self, indices: &[u32]) -> u64 {
        indices.iter().filter_map(|&index| self.messages.get(index as usize)).map(Message::chars).sum()
    }

    fn time(&self, index: u32) -> Option<&Stamp> {
        self.times.get(index as usize)?.as_ref()
    }
}

/// What two messages must share to be the same message of a request.
type Content<'a> =
    (Role, &'a [Part], Option<&'a str>, &'a [crate::message::ToolCall], Option<&'a str>, Option<&'a str>);

fn content(message: &Message) -> Content<'_> {
    let id = message.tool_call_id.as_deref();
    let reasoning = match &message.reasoning {
        Some(Reasoning::Text { text }) => Some(text.as_str()),
        Some(Reasoning::Hidden) => Some(""),
        None => None,
    };
    (message.role, &message.content, reasoning, &message.tool_calls, id, message.name.as_deref())
}

/// A digest of what makes a message the same as another one.
pub(super) fn digest(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    content(message).hash(&mut hasher);
    hasher.finish()
}

/// A call while it is put together.
#[derive(Debug, Default)]
pub(super) struct DraftCall {
    /// The request; `Draft::push` fills it in.
    pub prefix: Vec<u32>,
    pub completion: u32,
    pub model: Option<String>,
    pub usage: Option<Usage>,
    /// When the request was sent, where a record says so; else it follows from the times of the messages.
    pub started: Option<Stamp>,
    /// When the answer was complete; else the time of the completion.
    pub ended: Option<Stamp>,
    /// Why the prefix breaks, if it does.
    pub cause: Option<BreakCause>,
}

/// A session while it is put together.
#[derive(Debug)]
pub(super) struct Draft {
    pub id: String,
    pub format: SourceFormat,
    pub source_version: Option<String>,
    pub kind: Kind,
    /// Tool definitions in the form of chat completions.
    pub tools: Vec<Value>,
    /// The source holds all of them.
    pub tools_known: bool,
    pub calls: Vec<DraftCall>,
    pub reasons: Vec<Reason>,
    pub issues: BTreeMap<IssueKind, Issue>,
    /// Line types the importer does not know.
    pub unknown_lines: BTreeMap<String, u64>,
    /// Files it was read from besides those of its messages.
    pub files: BTreeSet<u32>,
    left_out: u64,
}

impl Draft {
    /// A session without calls.
    pub fn new(id: String, format: SourceFormat) -> Self {
        Self {
            id,
            format,
            source_version: None,
            kind: Kind::Main,
            tools: Vec::new(),
            tools_known: false,
            calls: Vec::new(),
            reasons: Vec::new(),
            issues: BTreeMap::new(),
            unknown_lines: BTreeMap::new(),
            files: BTreeSet::new(),
            left_out: 0,
        }
    }

    /// Appends a call, unless the group holds as much as it may: then this call and every later one are left out. The
    /// prefix is copied only where it is kept.
    pub fn push(&mut self, prefix: &[u32], call: DraftCall, store: &mut Store) {
        if self.left_out > 0 || store.entries + prefix.len() > MAX_PREFIX_ENTRIES {
            let at = store.messages.get(call.completion as usize).map_or_else(Origin::default, |m| m.origin);
            self.left_out += 1;
            self.issue(IssueKind::LeftOut, at);
            return;
        }
        store.entries += prefix.len();
        self.calls.push(DraftCall { prefix: prefix.to_vec(), ..call });
    }

    /// Notes something about a place.
    pub fn issue(&mut self, kind: IssueKind, at: Origin) {
        self.issues.entry(kind).or_insert(Issue { kind, count: 0, first: at }).count += 1;
    }

    /// Counts a line of a type that the importer does not know.
    pub fn unknown_line(&mut self, kind: String) {
        // A hostile file could name a new type on every line.
        if self.unknown_lines.len() < MAX_UNKNOWN_TYPES || self.unknown_lines.contains_key(&kind) {
            *self.unknown_lines.entry(kind).or_default() += 1;
        }
    }

    /// The session; `None` without calls. `files` are those of the group; calls that were left out are told there.
    pub fn finish(mut self, store: &Store, files: &mut [ImportedFile]) -> Option<Session> {
        let left_out_of = self.issues.get(&IssueKind::LeftOut).map_or(0, |issue| issue.first.file as usize);
        if let (Some(file), 1..) = (files.get_mut(left_out_of), self.left_out) {
            let message = format!("{} calls were left out: the session is too large", self.left_out);
            file.warnings.push(Warning { line: 0, kind: WarningKind::LeftOut, message });
        }
        let calls = std::mem::take(&mut self.calls);
        let first = calls.first()?;
        let recorded = first.prefix.first().and_then(|&index| store.role(index)) == Some(Role::System);
        let finished = finish_calls(calls, store);
        let (messages, calls, used_files, reserialised) = own_messages(finished, store, &self.files);
        let source_files: Vec<SourceFile> =
            used_files.iter().filter_map(|&file| files.get(file as usize)).map(SourceFile::from).collect();
        let bad_lines = source_files.iter().map(|file| file.bad_lines).sum();
        let images = messages.iter().flat_map(|message| &message.content);
        let images = images.filter(|part| matches!(part, Part::Image { .. })).count() as u64;
        let hidden =
            messages.iter().filter(|message| message.reasoning == Some(Reasoning::Hidden)).count() as u64;
        self.reasons.extend([
            Reason::ArgumentsReserialised { count: reserialised },
            Reason::ImagesAsPlaceholders { count: images },
            Reason::ReasoningHidden { count: hidden },
            Reason::LinesUnreadable { count: bad_lines },
            Reason::CallsLeftOut { count: self.left_out },
        ]);
        self.reasons.extend((!recorded).then_some(Reason::SystemMissing));
        self.reasons.extend((!self.tools_known).then_some(Reason::ToolsMissing));
        let renumbered: BTreeMap<u32, u32> = used_files.iter().copied().zip(0..).collect();
        let mut issues: Vec<Issue> = self.issues.into_values().collect();
        for issue in &mut issues {
            issue.first.file = renumbered.get(&issue.first.file).copied().unwrap_or(0);
        }
        Some(Session {
            id: self.id,
            format: self.format,
            source_version: self.source_version,
            kind: self.kind,
            started_at: calls.first().and_then(|call| call.started_at.clone()),
            system: if recorded { System::Recorded } else { System::Missing },
            tools: self.tools,
            messages,
            calls,
            fidelity: Fidelity::from_reasons(self.reasons),
            issues,
            files: source_files,
            unknown_lines: self.unknown_lines,
        })
    }
}

impl From<&ImportedFile> for SourceFile {
    fn from(file: &ImportedFile) -> Self {
        Self { path: file.path.clone(), lines: file.lines, bad_lines: file.bad_lines }
    }
}

/// Gaps, start times and breaks of the calls, indices still the group's.
fn finish_calls(drafts: Vec<DraftCall>, store: &Store) -> Vec<Call> {
    let mut found = Vec::with_capacity(drafts.len());
    let mut previous: Option<&DraftCall> = None;
    for draft in &drafts {
        let started = draft.started.as_ref().or_else(|| waited_for(draft, store));
        let ended = previous.and_then(|call| call.ended.as_ref().or_else(|| store.time(call.completion)));
        let gap_ms = started.zip(ended).and_then(|(start, end)| u64::try_from(start.ms - end.ms).ok());
        let broken = previous.and_then(|previous| prefix_break(draft, previous, store));
        found.push((started.map(|stamp| stamp.text.to_string()), gap_ms, broken));
        previous = Some(draft);
    }
    let finish = |(draft, (started_at, gap_ms, prefix_break)): (DraftCall, _)| {
        let DraftCall { prefix, completion, model, usage, .. } = draft;
        Call { prefix, completion, model, usage, started_at, gap_ms, prefix_break }
    };
    drafts.into_iter().zip(found).map(finish).collect()
}

/// The latest time of the messages behind the last turn of the prefix; without one, the time of the completion.
fn waited_for<'a>(draft: &DraftCall, store: &'a Store) -> Option<&'a Stamp> {
    let behind = draft.prefix.iter().rev().take_while(|&&index| store.role(index) != Some(Role::Assistant));
    let latest = behind.filter_map(|&index| store.time(index)).max_by_key(|stamp| stamp.ms);
    latest.or_else(|| store.time(draft.completion))
}

fn prefix_break(draft: &DraftCall, previous: &DraftCall, store: &Store) -> Option<PrefixBreak> {
    let left: Vec<u32> = previous.prefix.iter().copied().chain([previous.completion]).collect();
    let shared = shared(&left, &draft.prefix);
    (shared < left.len()).then(|| PrefixBreak {
        cause: draft.cause.unwrap_or(BreakCause::Unknown),
        shared_messages: u32::try_from(shared).unwrap_or(u32::MAX),
        message: draft.prefix.get(shared).copied(),
        shared_chars: store.chars(&left[..shared]),
        previous_chars: store.chars(&left),
    })
}

/// Messages that two lists share from the start.
pub(super) fn shared(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The messages that the calls use, in the group's order, the calls with their indices into them, the files, and how
/// many tool calls have lost the bytes of their arguments.
fn own_messages(
    mut calls: Vec<Call>,
    store: &Store,
    extra: &BTreeSet<u32>,
) -> (Vec<Message>, Vec<Call>, BTreeSet<u32>, u64) {
    let mut own: BTreeMap<u32, u32> = BTreeMap::new();
    for call in &calls {
        own.extend(call.prefix.iter().chain([&call.completion]).map(|&index| (index, 0)));
    }
    for (index, place) in own.values_mut().enumerate() {
        *place = u32::try_from(index).unwrap_or(u32::MAX);
    }
    let place = |index: u32| own.get(&index).copied().unwrap_or(u32::MAX);
    for call in &mut calls {
        call.prefix.iter_mut().for_each(|index| *index = place(*index));
        call.completion = place(call.completion);
        if let Some(message) = call.prefix_break.as_mut().and_then(|record| record.message.as_mut()) {
            *message = place(*message);
        }
    }
    let mut messages: Vec<Message> =
        own.keys().filter_map(|&index| store.messages.get(index as usize)).cloned().collect();
    let mut files: BTreeSet<u32> = messages.iter().map(|message| message.origin.file).collect();
    files.extend(extra);
    let renumbered: BTreeMap<u32, u32> = files.iter().copied().zip(0..).collect();
    for message in &mut messages {
        message.origin.file = renumbered.get(&message.origin.file).copied().unwrap_or(0);
    }
    let reserialised = own.keys().filter_map(|index| store.reserialised.get(index)).sum();
    (messages, calls, files, reserialised)
}
