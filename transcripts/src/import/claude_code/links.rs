//! Which call of which session started a sub-agent. Knows finished sessions and the ids the client left, no lines.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use crate::message::{Message, Role};
use crate::session::{Kind, Session};

/// Names of the tools that start a sub-agent.
const STARTING_TOOLS: [&str; 2] = ["Task", "Agent"];

/// What is known of a sub-agent's start.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// Id of the tool call, where a line names it.
    pub tool_use: Option<String>,
    /// Short description from the agent's side file.
    pub description: Option<String>,
}

/// One tool call that starts an agent.
struct Starter {
    id: String,
    prompt: Option<String>,
    description: Option<String>,
    session: usize,
    call: u32,
}

/// For each session, the session and the call that started it. Tried in this order: the recorded id of the tool call;
/// its prompt, which the agent's first request holds; its description. Each tool call starts one agent.
pub(super) fn parents(sessions: &[Session], starts: &[Start]) -> Vec<Option<(usize, u32)>> {
    let starters = starters(sessions);
    let by_id: HashMap<&str, usize> =
        starters.iter().enumerate().map(|(index, starter)| (starter.id.as_str(), index)).collect();
    let mut found: Vec<Option<usize>> =
        starts.iter().map(|start| start.tool_use.as_deref().and_then(|id| by_id.get(id).copied())).collect();
    let mut taken: HashSet<usize> = found.iter().flatten().copied().collect();
    for by_prompt in [true, false] {
        let mut waiting: HashMap<&str, VecDeque<usize>> = HashMap::new();
        for (index, starter) in starters.iter().enumerate().filter(|(index, _)| !taken.contains(index)) {
            let text = if by_prompt { &starter.prompt } else { &starter.description };
            if let Some(text) = text {
                waiting.entry(text).or_default().push_back(index);
            }
        }
        let subagents = (0..sessions.len()).filter(|&session| sessions[session].kind != Kind::Main);
        for session in subagents {
            if found[session].is_some() {
                continue;
            }
            let wanted = match by_prompt {
                true => prompts(&sessions[session]),
                false => starts[session].description.iter().cloned().collect(),
            };
            for text in wanted {
                let Some(queue) = waiting.get_mut(text.trim()) else { continue };
                if queue.front().is_some_and(|&index| starters[index].session != session) {
                    found[session] = queue.pop_front();
                    taken.extend(found[session]);
                    break;
                }
            }
        }
    }
    let link = |index: usize| starters.get(index).map(|starter| (starter.session, starter.call));
    found.into_iter().map(|found| found.and_then(link)).collect()
}

fn starters(sessions: &[Session]) -> Vec<Starter> {
    let mut starters = Vec::new();
    for (session, recorded) in sessions.iter().enumerate() {
        for (call, _) in recorded.calls.iter().enumerate() {
            let tool_calls = recorded.completion(call).map_or(&[][..], |turn| &turn.tool_calls);
            for tool_call in tool_calls.iter().filter(|call| STARTING_TOOLS.contains(&call.name.as_str())) {
                let input: Value = serde_json::from_str(&tool_call.arguments).unwrap_or_default();
                let field =
                    |name: &str| input.get(name).and_then(Value::as_str).map(|text| text.trim().to_owned());
                starters.push(Starter {
                    id: tool_call.id.clone(),
                    prompt: field("prompt"),
                    description: field("description"),
                    session,
                    call: call as u32,
                });
            }
        }
    }
    starters
}

/// What the person's side of an agent's first request says, the latest first: a forked agent's own prompt follows the
/// history it was given.
fn prompts(session: &Session) -> Vec<String> {
    let users = session.prefix(0).into_iter().rev().filter(|message| message.role == Role::User);
    users.map(Message::flat_text).filter(|text| !text.trim().is_empty()).collect()
}
