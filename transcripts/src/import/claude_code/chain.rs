//! One chain's calls: requests in file order, the gap before each and where it leaves the one before. Knows requests
//! and times; makes no session.

use std::collections::HashSet;

use super::groups::{self, Group};
use super::line::Body;
use super::load::Note;
use super::prefix::{Budget, Builder, Key, Parts, Request};
use super::results::Form;
use super::tree::{Chain, Tree};
use crate::call::{BreakCause, Call, PrefixBreak};
use crate::fidelity::Reason;
use crate::message::{Message, Part, Reasoning};
use crate::session::IssueKind;

/// What one chain gives.
#[derive(Debug)]
pub(super) struct ChainCalls {
    pub chain: Chain,
    pub messages: Vec<Message>,
    pub calls: Vec<Call>,
    pub reasons: Vec<Reason>,
    pub notes: Vec<Note>,
    /// The line of the first call's response.
    pub first_line: u32,
}

/// Rebuilds the calls of a chain. A response that another session owns is history, not a call. `None` without calls.
pub(super) fn rebuild(
    chain: Chain,
    parts: Parts<'_>,
    tree: &mut Tree,
    budget: &mut Budget,
    owned: &mut HashSet<String>,
) -> Option<ChainCalls> {
    let Parts { loaded, groups, .. } = parts;
    let members = groups.by_chain.get(&chain)?;
    let mut builder = Builder::new(parts, tree, budget);
    let mut requests: Vec<Request> = Vec::new();
    let mut left_out = 0;
    for (position, &group) in members.iter().enumerate() {
        let response = groups::response(loaded, groups.list[group as usize].first());
        let wire_id = response.and_then(|response| response.wire_id);
        if wire_id.is_some_and(|id| !owned.insert(loaded.names.text(id).to_owned())) {
            builder.note(IssueKind::ForeignResponse, groups.list[group as usize].first());
            continue;
        }
        let Some(request) = builder.request(group) else {
            left_out = (members.len() - position) as u64;
            builder.note(IssueKind::LeftOut, groups.list[group as usize].first());
            break;
        };
        requests.push(request);
    }
    builder.budget.left_out += left_out;
    let first_line = groups.list[requests.first()?.group as usize].first();
    let notes = std::mem::take(&mut builder.notes);
    let mut reasons = reasons(&builder, &requests);
    reasons.push(Reason::CallsLeftOut { count: left_out });
    let mut calls = Vec::with_capacity(requests.len());
    let mut previous: Option<&Request> = None;
    for request in &requests {
        calls.push(call(request, previous, &builder));
        previous = Some(request);
    }
    for (call, request) in calls.iter_mut().zip(requests) {
        call.prefix = request.prefix;
    }
    Some(ChainCalls { chain, messages: builder.messages, calls, reasons, notes, first_line })
}

/// The call without its prefix, which the caller moves in.
fn call(request: &Request, previous: Option<&Request>, builder: &Builder<'_>) -> Call {
    let loaded = builder.loaded;
    let group = &builder.groups.list[request.group as usize];
    let time = |line: u32| loaded.lines.get(line as usize).and_then(|line| line.time.as_ref());
    let started = request.last_line.and_then(time).or_else(|| time(group.first()));
    let ended = previous.and_then(|previous| time(builder.groups.list[previous.group as usize].last()));
    let gap_ms = started.zip(ended).and_then(|(started, ended)| u64::try_from(started.ms - ended.ms).ok());
    let responses = || group.lines.iter().filter_map(|&line| groups::response(loaded, line));
    Call {
        prefix: Vec::new(),
        completion: request.completion,
        model: responses()
            .find_map(|response| response.model)
            .map(|model| loaded.names.text(model).to_owned()),
        // Of equals the last one counts: early lines carry partial counts.
        usage: responses()
            .filter_map(|response| Some((response.block_index, response.usage?)))
            .max_by_key(|(block_index, _)| *block_index)
            .map(|(_, usage)| usage),
        started_at: started.map(|started| started.text.to_string()),
        gap_ms,
        prefix_break: previous.and_then(|previous| prefix_break(request, previous, builder)),
    }
}

/// The break record of a request that does not start with the previous request and its completion.
fn prefix_break(request: &Request, previous: &Request, builder: &Builder<'_>) -> Option<PrefixBreak> {
    let left: Vec<u32> = previous.prefix.iter().copied().chain([previous.completion]).collect();
    let shared = left.iter().zip(&request.prefix).take_while(|(left, right)| left == right).count();
    if shared == left.len() {
        return None;
    }
    let chars = |indices: &[u32]| -> u64 {
        indices.iter().filter_map(|&index| builder.messages.get(index as usize)).map(Message::chars).sum()
    };
    Some(PrefixBreak {
        cause: cause(request, previous, builder),
        shared_messages: shared as u32,
        message: request.prefix.get(shared).copied(),
        shared_chars: chars(&left[..shared]),
        previous_chars: chars(&left),
    })
}

fn cause(request: &Request, previous: &Request, builder: &Builder<'_>) -> BreakCause {
    let session = |request: &Request| {
        let line = builder.groups.list.get(request.group as usize).map(Group::first)?;
        builder.loaded.lines.get(line as usize)?.session
    };
    if request.boundary.is_some() && request.boundary != previous.boundary {
        BreakCause::Compaction
    } else if request.microcompactions > previous.microcompactions {
        BreakCause::Microcompact
    } else if session(request) != session(previous) {
        BreakCause::Resume
    } else if request.continues {
        BreakCause::Projection
    } else if request.root.is_some() && request.root == previous.root {
        BreakCause::Rewind
    } else {
        BreakCause::Unknown
    }
}

/// Why the requests are not exact, as far as the chain's own messages say.
fn reasons(builder: &Builder<'_>, requests: &[Request]) -> Vec<Reason> {
    let messages = &builder.messages;
    let turn_calls: u64 = messages.iter().map(|message| message.tool_calls.len() as u64).sum();
    let images = messages.iter().flat_map(|message| &message.content);
    let images = images.filter(|part| matches!(part, Part::Image { .. })).count() as u64;
    let hidden =
        messages.iter().filter(|message| message.reasoning == Some(Reasoning::Hidden)).count() as u64;
    let in_form = |wanted: fn(&Form) -> bool| {
        let of_form = |key: &&Key| matches!(key, Key::Result { form, .. } if wanted(form));
        builder.keys.iter().filter(of_form).count() as u64
    };
    let attached = |key: &&Key| match key {
        Key::Line(line) => {
            matches!(builder.loaded.lines[*line as usize].body, Body::Note { attachment: true, .. })
        }
        Key::Turn { .. } | Key::Result { .. } => false,
    };
    let boundaries: HashSet<u32> = requests.iter().filter_map(|request| request.boundary).collect();
    vec![
        Reason::SystemMissing,
        Reason::ToolsMissing,
        Reason::RebuiltFromLog,
        Reason::ArgumentsReserialised { count: turn_calls },
        Reason::ReasoningHidden { count: hidden },
        Reason::ImagesAsPlaceholders { count: images },
        Reason::ResultsCleared { count: in_form(|form| *form == Form::Cleared) },
        Reason::ResultsReplaced { count: in_form(|form| matches!(form, Form::Replaced(_))) },
        Reason::Compacted { count: boundaries.len() as u64 },
        Reason::AttachmentsRendered { count: builder.keys.iter().filter(attached).count() as u64 },
        Reason::ResultsPreviewed { count: in_form(|form| *form == Form::Preview) },
    ]
}
