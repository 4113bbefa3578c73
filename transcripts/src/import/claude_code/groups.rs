//! Responses: all assistant lines of one `message.id` in one chain are one model call. Knows how a response is spread
//! over lines, not what was sent before it.

use std::collections::HashMap;

use super::content::Block;
use super::line::{Body, Response};
use super::load::{Loaded, Note};
use super::names::Name;
use super::tree::{Chain, Tree};
use crate::message::Part;
use crate::session::IssueKind;

/// Where a block stands: line, position in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub line: u32,
    pub block: u32,
}

/// One content block of a response, and its final form when the client wrote it more than once: `(ordinal of the line
/// in the response, place)`, in order.
#[derive(Debug)]
struct Slot {
    forms: Vec<(u32, At)>,
}

/// One response.
#[derive(Debug)]
pub(super) struct Group {
    pub chain: Chain,
    /// Its lines, in file order; never empty.
    pub lines: Vec<u32>,
    slots: Vec<Slot>,
}

impl Group {
    /// The first line.
    pub fn first(&self) -> u32 {
        self.lines.first().copied().unwrap_or(0)
    }

    /// The last line.
    pub fn last(&self) -> u32 {
        self.lines.last().copied().unwrap_or(0)
    }

    /// The blocks that the first `lines` lines give, in order, each in its latest form.
    pub fn blocks(&self, lines: u32) -> impl Iterator<Item = At> + '_ {
        self.slots.iter().filter_map(move |slot| {
            let written = slot.forms.iter().take_while(|(ordinal, _)| *ordinal < lines);
            written.last().map(|&(_, at)| at)
        })
    }
}

/// All responses of a family.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// In the order of their first lines.
    pub list: Vec<Group>,
    /// The responses of each chain, in the same order.
    pub by_chain: HashMap<Chain, Vec<u32>>,
    of_line: HashMap<u32, u32>,
}

impl Groups {
    /// Collects the responses. Blocks that were written again count once; each is noted.
    pub fn collect(loaded: &mut Loaded, tree: &Tree) -> Self {
        let mut groups = Self::default();
        let mut by_id: HashMap<(Chain, Name), u32> = HashMap::new();
        for (index, line) in loaded.lines.iter().enumerate() {
            let Body::Assistant(response) = &line.body else { continue };
            let index = index as u32;
            let chain = tree.chain(index);
            let group = *by_id.entry((chain, response.id)).or_insert_with(|| {
                let group = groups.list.len() as u32;
                groups.list.push(Group { chain, lines: Vec::new(), slots: Vec::new() });
                groups.by_chain.entry(chain).or_default().push(group);
                group
            });
            groups.of_line.insert(index, group);
            groups.list[group as usize].lines.push(index);
        }
        let mut notes = Vec::new();
        for group in &mut groups.list {
            merge(group, loaded, &mut notes);
        }
        loaded.notes.append(&mut notes);
        groups
    }

    /// The chains: the main one, then the others in the order of their first responses.
    pub fn chains(&self) -> Vec<Chain> {
        let mut chains: Vec<(u32, Chain)> =
            self.by_chain.iter().filter_map(|(chain, groups)| Some((*groups.first()?, *chain))).collect();
        chains.sort_unstable_by_key(|(first, chain)| (*chain != Chain::Main, *first));
        chains.into_iter().map(|(_, chain)| chain).collect()
    }

    /// The response a line belongs to.
    pub fn of_line(&self, line: u32) -> Option<u32> {
        self.of_line.get(&line).copied()
    }
}

/// The response share of a line.
pub(super) fn response(loaded: &Loaded, line: u32) -> Option<&Response> {
    match &loaded.lines.get(line as usize)?.body {
        Body::Assistant(response) => Some(response),
        _ => None,
    }
}

/// Puts the blocks of all lines into slots. A tool call with a known id takes the slot of the first; a text that goes
/// on where the one before it stopped is its finished form; an equal block is a repetition.
fn merge(group: &mut Group, loaded: &Loaded, notes: &mut Vec<Note>) {
    let mut known: HashMap<&Block, usize> = HashMap::new();
    let mut tools: HashMap<Name, usize> = HashMap::new();
    let mut previous: Option<(usize, &Block)> = None;
    for (ordinal, &line) in group.lines.iter().enumerate() {
        let blocks = response(loaded, line).map_or(&[][..], |response| &response.blocks);
        for (position, block) in blocks.iter().enumerate() {
            let at = At { line, block: position as u32 };
            let again = known.contains_key(block) && *block != Block::Thinking(String::new());
            let replaced = match block {
                Block::ToolUse(id, _) => tools.get(id).copied(),
                Block::Part(Part::Text { text }) => previous.and_then(|(slot, before)| match before {
                    Block::Part(Part::Text { text: start }) if position == 0 && text.starts_with(start) => {
                        Some(slot)
                    }
                    _ => None,
                }),
                _ => None,
            };
            if again || replaced.is_some() {
                let source = &loaded.lines[line as usize];
                notes.push(Note { kind: IssueKind::DuplicateBlock, at: source.at, agent: source.agent });
            }
            let slot = match (again, replaced) {
                (true, _) => continue,
                (false, Some(slot)) => slot,
                (false, None) => {
                    group.slots.push(Slot { forms: Vec::new() });
                    group.slots.len() - 1
                }
            };
            group.slots[slot].forms.push((ordinal as u32, at));
            known.insert(block, slot);
            if let Block::ToolUse(id, _) = block {
                tools.insert(*id, slot);
            }
            previous = Some((slot, block));
        }
    }
}
