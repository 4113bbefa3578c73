//! Recorded requests to sessions: a request belongs to the chain whose last request and answer it shares most with.
//! Ids are not asked: logs of different clients have none in common. Knows messages and prefixes, no format.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use super::draft::{Draft, DraftCall, Incoming, Store, shared};
use super::stamp::Stamp;
use super::{ImportedFile, Warning, WarningKind};
use crate::call::{BreakCause, Usage};
use crate::fidelity::Reason;
use crate::message::{Message, Origin, Role};
use crate::session::{IssueKind, Kind, Session, SourceFormat};

/// One recorded request.
#[derive(Debug)]
pub(super) struct Request {
    /// The system prompt, where it stands beside the messages.
    pub instructions: Option<Incoming>,
    pub messages: Vec<Incoming>,
    /// The answer; where it is not recorded, the next request of the chain may hold it.
    pub completion: Option<Incoming>,
    /// Tool definitions in the form of chat completions; `None` when the log does not hold them.
    pub tools: Option<Vec<Value>>,
    pub model: Option<String>,
    pub usage: Option<Usage>,
    pub started: Option<Stamp>,
    pub ended: Option<Stamp>,
    pub at: Origin,
    /// The request whose answer this one names as its past.
    pub parent: Option<Place>,
    /// It names a past that is not recorded.
    pub lost_past: bool,
    /// Events of the answer are missing or cannot be read.
    pub is_incomplete: bool,
}

/// A call of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    chain: usize,
    /// The request without its instructions, and its answer.
    messages: Vec<u32>,
}

/// The chains of a group of files.
#[derive(Debug)]
pub(super) struct Requests {
    format: SourceFormat,
    pub store: Store,
    chains: Vec<Chain>,
    /// Chains by their first messages, up to the first that is not by the system.
    by_start: HashMap<Vec<u32>, Vec<usize>>,
}

#[derive(Debug)]
struct Chain {
    draft: Draft,
    /// The last request and its answer.
    last: Vec<u32>,
    /// Length of the last request.
    last_prefix: usize,
    /// The last request, while its answer is not known.
    waiting: Option<(DraftCall, Origin)>,
    tools: Option<Vec<Value>>,
    other_tools: u64,
    lost_pasts: u64,
    incomplete: u64,
}

impl Requests {
    pub fn new(format: SourceFormat) -> Self {
        Self { format, store: Store::default(), chains: Vec::new(), by_start: HashMap::new() }
    }

    /// Adds a request to the chain it continues, or begins a new one. Returns where it went.
    pub fn add(&mut self, request: Request) -> Place {
        let Request { instructions, messages, completion, tools, model, usage, at, parent, .. } = request;
        let (started, ended, lost_past) = (request.started, request.ended, request.lost_past);
        let is_incomplete = request.is_incomplete && completion.is_some();
        let past = parent.as_ref().map_or(&[][..], |parent| &parent.messages);
        let mut seen = self.store.occurrences(past);
        let mut prefix: Vec<u32> = Vec::new();
        prefix.extend(instructions.map(|message| self.store.intern(message, &mut seen)));
        let own = prefix.len();
        prefix.extend(past);
        prefix.extend(messages.into_iter().map(|message| self.store.intern(message, &mut seen)));
        let completion = completion.map(|completion| self.store.intern(completion, &mut seen));
        let at_chain = match parent {
            Some(parent) => parent.chain,
            None => self.chain_of(&prefix).unwrap_or_else(|| self.begin(&prefix)),
        };
        let Self { store, chains, .. } = self;
        let chain = &mut chains[at_chain];
        chain.resolve(&prefix, store);
        let cause = cause(&chain.last, chain.last_prefix, &prefix, store);
        let call = DraftCall { model, usage, started, ended, cause: Some(cause), ..DraftCall::default() };
        chain.last_prefix = prefix.len();
        chain.last = prefix;
        chain.draft.files.insert(at.file);
        chain.lost_pasts += u64::from(lost_past);
        chain.incomplete += u64::from(is_incomplete);
        match &chain.tools {
            None => chain.tools = tools,
            Some(known) => chain.other_tools += u64::from(tools.is_some_and(|tools| tools != *known)),
        }
        match completion {
            Some(completion) => {
                chain.draft.push(&chain.last, DraftCall { completion, ..call }, store);
                chain.last.push(completion);
            }
            None => chain.waiting = Some((call, at)),
        }
        Place { chain: at_chain, messages: chain.last[own..].to_vec() }
    }

    /// The chain that shares most with a request. A request without a turn of the assistant begins one, unless it
    /// repeats or extends a request that has no answer yet.
    fn chain_of(&self, prefix: &[u32]) -> Option<usize> {
        let candidates = self.by_start.get(self.start(prefix))?;
        let has_turn = prefix.iter().any(|&index| self.store.role(index) == Some(Role::Assistant));
        let fits = |chain: &&usize| has_turn || self.chains[**chain].waiting.is_some();
        candidates.iter().filter(fits).copied().max_by_key(|&chain| {
            let last = &self.chains[chain].last;
            let shared = shared(last, prefix);
            (shared, shared == last.len(), chain)
        })
    }

    fn begin(&mut self, prefix: &[u32]) -> usize {
        let draft = Draft::new(String::new(), self.format);
        let chain = self.chains.len();
        self.by_start.entry(self.start(prefix).to_vec()).or_default().push(chain);
        self.chains.push(Chain {
            draft,
            last: Vec::new(),
            last_prefix: 0,
            waiting: None,
            tools: None,
            other_tools: 0,
            lost_pasts: 0,
            incomplete: 0,
        });
        chain
    }

    fn start<'a>(&self, prefix: &'a [u32]) -> &'a [u32] {
        let first = prefix.iter().position(|&index| self.store.role(index) != Some(Role::System));
        &prefix[..first.map_or(prefix.len(), |first| first + 1)]
    }

    /// The sessions, `name` with a number for each where there are several; `drafts` of the same store come first.
    pub fn finish(self, name: &str, drafts: Vec<Draft>, files: &mut [ImportedFile]) -> Vec<Session> {
        let Self { mut store, chains, .. } = self;
        let several = chains.len() > 1;
        let mut sessions: Vec<Session> =
            drafts.into_iter().filter_map(|draft| draft.finish(&store, files)).collect();
        for (number, mut chain) in chains.into_iter().enumerate() {
            chain.resolve(&[], &mut store);
            let mut draft = chain.draft;
            draft.id = if several { format!("{name}-{number}") } else { name.to_owned() };
            draft.tools_known = chain.tools.is_some();
            draft.tools = chain.tools.unwrap_or_default();
            draft.reasons.push(Reason::ToolsChanged { count: chain.other_tools });
            draft.reasons.push(Reason::PastMissing { count: chain.lost_pasts });
            draft.reasons.push(Reason::AnswersIncomplete { count: chain.incomplete });
            let unanswered = draft.issues.get(&IssueKind::NoCompletion).cloned();
            if let Some((issue, file)) =
                unanswered.and_then(|issue| Some((issue.clone(), files.get_mut(issue.first.file as usize)?)))
            {
                let message = format!("{} requests have no recorded answer: no calls", issue.count);
                let (line, kind) = (u64::from(issue.first.line), WarningKind::NoCompletion);
                file.warnings.push(Warning { line, kind, message });
            }
            sessions.extend(draft.finish(&store, files));
        }
        link(&mut sessions);
        sessions
    }
}

impl Chain {
    /// Settles a request that waits for its answer: the next request holds it, or nothing does.
    fn resolve(&mut self, next: &[u32], store: &mut Store) {
        let Some((call, at)) = self.waiting.take() else { return };
        let completion = next.get(self.last.len()).copied();
        let is_answer = shared(&self.last, next) == self.last.len()
            && completion.and_then(|index| store.role(index)) == Some(Role::Assistant);
        match completion.filter(|_| is_answer) {
            Some(completion) => {
                self.draft.push(&self.last, DraftCall { completion, ..call }, store);
                self.last.push(completion);
            }
            None => self.draft.issue(IssueKind::NoCompletion, at),
        }
    }
}

/// Why a request leaves the one before, as far as the messages themselves say.
fn cause(last: &[u32], last_prefix: usize, prefix: &[u32], store: &Store) -> BreakCause {
    let shared = shared(last, prefix);
    let message = |list: &[u32]| list.get(shared).and_then(|&index| store.messages.get(index as usize));
    if shared >= last_prefix {
        // The answer itself came back in another form.
        return BreakCause::Projection;
    }
    match (message(last), message(prefix)) {
        (Some(old), Some(new)) if old.role == new.role && old.tool_call_id.is_some() => {
            if old.tool_call_id == new.tool_call_id { BreakCause::Projection } else { BreakCause::Unknown }
        }
        (Some(_), Some(new)) if new.role == Role::User && shared > 1 => {
            let turns = |list: &[u32]| list.iter().any(|&index| store.role(index) == Some(Role::Assistant));
            let rewound = turns(&prefix[..shared]) && !turns(&prefix[shared..]);
            if rewound { BreakCause::Rewind } else { BreakCause::Unknown }
        }
        (Some(_), None) => BreakCause::Rewind,
        _ => BreakCause::Unknown,
    }
}

/// Names the parent of every session whose first request asks what a tool call of another session says: that call
/// started it. Each tool call starts one session, which comes after its own.
pub(super) fn link(sessions: &mut [Session]) {
    let mut asked: HashMap<String, VecDeque<(usize, u32)>> = HashMap::new();
    for (index, session) in sessions.iter().enumerate() {
        for call in 0..session.calls.len() {
            let tool_calls = session.completion(call).map_or(&[][..], |turn| &turn.tool_calls);
            for tool_call in tool_calls {
                let Ok(Value::Object(arguments)) = serde_json::from_str(&tool_call.arguments) else {
                    continue;
                };
                for text in arguments.values().filter_map(Value::as_str).map(str::trim) {
                    if !text.is_empty() {
                        asked.entry(text.to_owned()).or_default().push_back((index, call as u32));
                    }
                }
            }
        }
    }
    for child in 0..sessions.len() {
        let prefix = sessions[child].prefix(0);
        let first_has_turn = prefix.iter().any(|message| message.role == Role::Assistant);
        let users = prefix.iter().filter(|message| message.role == Role::User);
        let texts: Vec<String> = users.map(|message| Message::flat_text(message).trim().to_owned()).collect();
        let Some(found) = texts.iter().filter(|_| !first_has_turn).find_map(|text| {
            let waiting = asked.get_mut(text)?;
            waiting.front().is_some_and(|(parent, _)| *parent < child).then(|| waiting.pop_front())?
        }) else {
            continue;
        };
        let parent_session_id = sessions[found.0].id.clone();
        sessions[child].kind = Kind::Subagent { parent_session_id, parent_call_index: Some(found.1) };
    }
}
