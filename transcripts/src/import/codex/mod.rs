//! Codex rollouts (`$CODEX_HOME/sessions/**/rollout-*.jsonl`), from the flat oldest form on. Only items count: events
//! repeat them for the screen. Knows this format and no other.
//!
//! Reading order: [`line`] (what a line is), [`rollout`] (lines to calls), and this file, which links threads.

mod line;
mod rollout;

use std::collections::HashMap;

pub(super) use self::line::{is_recognised, usage};
use self::rollout::Rollout;
use super::draft::Store;
use super::group::{GroupFile, GroupImport};
use crate::message::Role;
use crate::session::{Kind, Session};

/// Imports rollouts, each a session of its own.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(mut files: Vec<GroupFile>) -> Result<GroupImport, (String, std::io::Error)> {
    // A file's name begins with its time: a thread comes before its forks.
    files.sort_by(|a, b| a.stem.cmp(&b.stem));
    let mut store = Store::default();
    let mut drafts = Vec::new();
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut rollout = Rollout::new(&file.stem, number);
        imported.push(file.read(|record, report| rollout.take(record, &mut store, report))?);
        drafts.push(rollout.finish(&mut store));
    }
    let finished = drafts.into_iter().filter_map(|draft| draft.finish(&store, &mut imported));
    let mut sessions: Vec<Session> = finished.collect();
    link(&mut sessions);
    Ok(GroupImport::new(sessions, imported))
}

/// Names the call that started each sub-agent's thread: the one whose result names the thread.
fn link(sessions: &mut [Session]) {
    let by_id: HashMap<String, usize> =
        sessions.iter().enumerate().map(|(index, session)| (session.id.clone(), index)).collect();
    for child in 0..sessions.len() {
        let parent = sessions[child].kind.parent_session_id().and_then(|id| by_id.get(id)).copied();
        let Some(parent) = parent.filter(|&parent| parent != child) else { continue };
        let found = starting_call(&sessions[parent], &sessions[child].id);
        if let Kind::Subagent { parent_call_index, .. } = &mut sessions[child].kind {
            *parent_call_index = found;
        }
    }
}

fn starting_call(parent: &Session, child: &str) -> Option<u32> {
    let mut results = parent.messages.iter().filter(|message| message.role == Role::Tool);
    let result = results.find(|message| message.flat_text().contains(child))?;
    let id = result.tool_call_id.as_deref()?;
    let starts = |call: &usize| {
        let calls = parent.completion(*call).map_or(&[][..], |turn| &turn.tool_calls);
        calls.iter().any(|call| call.id == id)
    };
    (0..parent.calls.len()).find(starts).and_then(|call| u32::try_from(call).ok())
}
