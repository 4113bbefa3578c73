//! Checks of the order of messages: who may stand where (R01 to R03, R19), and which result answers which call (R07 to
//! R11). A result belongs to the nearest assistant message before it, never to an id seen anywhere.

use std::collections::{HashMap, HashSet};

use super::{Code, Finding};
use crate::message::{Message, Role};

/// R01, R02, R03, R19.
pub(super) fn check_roles(messages: &[&Message], findings: &mut Vec<Finding>) {
    let Some(last) = messages.last() else {
        findings.push(Finding::new(Code::R01, None, "the request has no messages"));
        return;
    };
    if !messages.iter().any(|message| message.role == Role::User) {
        findings.push(Finding::new(Code::R01, None, "no message is by the user"));
    }
    for (index, _) in messages.iter().enumerate().skip(1).filter(|(_, message)| message.role == Role::System)
    {
        findings.push(Finding::new(Code::R02, Some(index), "a system message after the first message"));
    }
    for (index, pair) in messages.windows(2).enumerate() {
        let role = pair[1].role;
        if pair[0].role == role && matches!(role, Role::User | Role::Assistant) {
            let detail = format!("follows another message by {}", role.as_str());
            findings.push(Finding::new(Code::R19, Some(index + 1), detail));
        }
    }
    if !matches!(last.role, Role::User | Role::Tool) {
        let detail = format!("the prefix ends in a message by {}", last.role.as_str());
        findings.push(Finding::new(Code::R03, Some(messages.len() - 1), detail));
    }
}

/// R07 to R11.
pub(super) fn check_pairing(messages: &[&Message], findings: &mut Vec<Finding>) {
    let mut used: HashMap<&str, usize> = HashMap::new();
    let mut at = 0;
    while at < messages.len() && messages[at].role != Role::Assistant {
        orphan(messages, at, "no assistant message stands before it", findings);
        at += 1;
    }
    while at < messages.len() {
        for call in &messages[at].tool_calls {
            if used.insert(&call.id, at).is_some_and(|earlier| earlier != at) {
                findings.push(Finding::new(Code::R07, Some(at), format!("id {:?} was used before", call.id)));
            }
        }
        let next = messages[at + 1..].iter().position(|message| message.role == Role::Assistant);
        let end = next.map_or(messages.len(), |next| at + 1 + next);
        check_turn(messages, at, end, findings);
        at = end;
    }
}

/// One assistant message at `turn` and everything up to the next one at `end`.
fn check_turn(messages: &[&Message], turn: usize, end: usize, findings: &mut Vec<Finding>) {
    let calls = &messages[turn].tool_calls;
    let order: HashMap<&str, usize> =
        calls.iter().enumerate().map(|(nth, call)| (call.id.as_str(), nth)).collect();
    let mut in_run = true;
    let mut answered: HashSet<&str> = HashSet::new();
    let mut latest = 0;
    for (index, message) in messages.iter().enumerate().take(end).skip(turn + 1) {
        if message.role != Role::Tool {
            in_run = false;
            continue;
        }
        let Some((id, &nth)) = message.tool_call_id.as_deref().and_then(|id| order.get_key_value(id)) else {
            orphan(messages, index, "the assistant message before it has no such call", findings);
            continue;
        };
        if !answered.insert(id) {
            findings.push(Finding::new(Code::R08, Some(index), format!("{id:?} is answered again")));
            continue;
        }
        if !in_run {
            let detail =
                format!("the result of {id:?} does not follow its call: another message stands between");
            findings.push(Finding::new(Code::R10, Some(index), detail));
            continue;
        }
        if nth < latest {
            findings.push(Finding::new(
                Code::R11,
                Some(index),
                format!("{id:?} comes after a later call's result"),
            ));
        }
        latest = latest.max(nth);
    }
    for call in calls.iter().filter(|call| !answered.contains(call.id.as_str())) {
        findings.push(Finding::new(
            Code::R08,
            Some(turn),
            format!("{:?} of {:?} has no result", call.id, call.name),
        ));
    }
}

/// R09 for a tool message; nothing for any other.
fn orphan(messages: &[&Message], index: usize, why: &str, findings: &mut Vec<Finding>) {
    if messages[index].role == Role::Tool {
        let id = messages[index].tool_call_id.as_deref().unwrap_or("(no id)");
        findings.push(Finding::new(Code::R09, Some(index), format!("{id:?}: {why}")));
    }
}
