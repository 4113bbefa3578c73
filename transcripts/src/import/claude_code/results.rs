//! Tool results: which one answers a tool call, and in which form a request carries it. A result is stitched in by the
//! id of its call, because parallel calls leave results beside the path.

use std::collections::{HashMap, HashSet};

use super::content::{Block, ToolResult};
use super::groups::{self, At, Groups};
use super::line::Body;
use super::load::{Loaded, Note};
use super::names::Name;
use super::tree::{Chain, Tree};
use crate::message::Part;
use crate::session::IssueKind;

/// What a cleared tool result reads as, word for word.
pub(super) const CLEARED: &str = "[Old tool result content cleared]";
/// Results with more chars than this are sent as a preview when the client saved the full text beside the session.
pub(super) const PREVIEW_ABOVE_CHARS: usize = 50_000;
/// Chars of a preview.
const PREVIEW_CHARS: usize = 2_000;

/// The form in which a request carries a tool result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As it was recorded.
    Raw,
    /// Cleared by a microcompaction.
    Cleared,
    /// Replaced by the nth recorded text for its call.
    Replaced(u32),
    /// A preview of a text that the client saved as a file.
    Preview,
}

/// The results of a family, by chain and call id, in file order.
#[derive(Debug)]
pub(super) struct Results {
    by_call: HashMap<(Chain, Name), Vec<At>>,
    saved: HashSet<Name>,
}

impl Results {
    /// Collects the results. `saved` names the calls whose full result lies in a file beside the session.
    pub fn collect(loaded: &mut Loaded, tree: &Tree, saved: &[String]) -> Self {
        let saved = saved.iter().map(|id| loaded.names.intern(id)).collect();
        let mut by_call: HashMap<(Chain, Name), Vec<At>> = HashMap::new();
        for (index, line) in loaded.lines.iter().enumerate() {
            let Body::User { blocks, .. } = &line.body else { continue };
            for (position, block) in blocks.iter().enumerate() {
                if let Block::ToolResult(id, _) = block {
                    let at = At { line: index as u32, block: position as u32 };
                    by_call.entry((tree.chain(at.line), *id)).or_default().push(at);
                }
            }
        }
        Self { by_call, saved }
    }

    /// The result of a call made on line `called`, as far as `known` says that its line was written: the first one
    /// after the call, so that an id that is used again keeps its own result; else the first at all.
    pub fn answer(&self, chain: Chain, id: Name, called: u32, known: impl Fn(u32) -> bool) -> Option<At> {
        let all = self.by_call.get(&(chain, id))?;
        let after = all.partition_point(|at| at.line <= called);
        all.get(after).or_else(|| all.first()).copied().filter(|at| known(at.line))
    }

    /// Calls without a result (the last response of a chain may still wait for its own) and results without a call,
    /// for each chain.
    pub fn unpaired(&self, loaded: &Loaded, groups: &Groups) -> HashMap<Chain, Vec<Note>> {
        let mut notes: HashMap<Chain, Vec<Note>> = HashMap::new();
        let mut called: HashSet<(Chain, Name)> = HashSet::new();
        let note = |kind: IssueKind, line: u32| {
            let line = &loaded.lines[line as usize];
            Note { kind, at: line.at, agent: line.agent }
        };
        for (&chain, members) in &groups.by_chain {
            let last = members.last();
            for group in members {
                for at in groups.list[*group as usize].blocks(u32::MAX) {
                    let blocks =
                        groups::response(loaded, at.line).map_or(&[][..], |response| &response.blocks);
                    let Some(Block::ToolUse(id, _)) = blocks.get(at.block as usize) else { continue };
                    called.insert((chain, *id));
                    if last != Some(group) && !self.by_call.contains_key(&(chain, *id)) {
                        notes.entry(chain).or_default().push(note(IssueKind::MissingResult, at.line));
                    }
                }
            }
        }
        let orphans = self.by_call.iter().filter(|(key, _)| !called.contains(key));
        let mut orphans: Vec<(Chain, At)> =
            orphans.flat_map(|((chain, _), results)| results.iter().map(|at| (*chain, *at))).collect();
        orphans.sort_by_key(|(_, at)| (at.line, at.block));
        for (chain, at) in orphans {
            notes.entry(chain).or_default().push(note(IssueKind::OrphanResult, at.line));
        }
        notes
    }

    /// True when the full text of a result was saved beside the session and is too long to be sent.
    pub fn is_preview(&self, id: Name, result: &ToolResult) -> bool {
        self.saved.contains(&id) && text_chars(&result.content) > PREVIEW_ABOVE_CHARS
    }
}

/// A result block.
pub(super) fn result(loaded: &Loaded, at: At) -> Option<(Name, &ToolResult)> {
    match &loaded.lines.get(at.line as usize)?.body {
        Body::User { blocks, .. } => match blocks.get(at.block as usize)? {
            Block::ToolResult(id, result) => Some((*id, result)),
            _ => None,
        },
        _ => None,
    }
}

/// The content of a result in the form it is sent in.
pub(super) fn content(result: &ToolResult, form: Form, id: Name, loaded: &Loaded) -> Vec<Part> {
    let text = match form {
        Form::Raw => return result.content.clone(),
        Form::Cleared => CLEARED.to_owned(),
        Form::Replaced(nth) => {
            let texts = loaded.replacements.get(&id);
            texts.and_then(|texts| texts.get(nth as usize)).map(|(_, text)| text.clone()).unwrap_or_default()
        }
        Form::Preview => preview(&result.content, loaded.names.text(id)),
    };
    vec![Part::Text { text }]
}

/// The client's form of a result that it saved as a file. The path it names is not recorded: the file name stands in.
fn preview(content: &[Part], id: &str) -> String {
    let texts = content.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        Part::Image { .. } => None,
    });
    let full: String = texts.collect();
    let start: String = full.chars().take(PREVIEW_CHARS).collect();
    format!(
        "<persisted-output>\nOutput too large ({:.1}KB). Full output saved to: tool-results/{id}.txt\n\n\
         Preview (first 2KB):\n{start}\n...\n</persisted-output>",
        full.len() as f64 / 1024.0
    )
}

fn text_chars(content: &[Part]) -> usize {
    let count = |part: &Part| match part {
        Part::Text { text } => text.chars().count(),
        Part::Image { .. } => 0,
    };
    content.iter().map(count).sum()
}
