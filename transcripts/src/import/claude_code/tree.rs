//! The tree of lines: whose chain each line belongs to, and the path from a line up to the root of what was sent.
//! Knows parents and boundaries, not what a line says.

use std::collections::{HashMap, HashSet};

use super::line::{Body, Preserved};
use super::load::{Loaded, Note};
use super::names::Name;
use crate::session::IssueKind;

/// The most lines that are walked to check kept messages.
const MAX_RELINK_STEPS: u64 = 1 << 26;

/// Whose chain of calls a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Chain {
    /// The agent the person talks to.
    Main,
    /// A sub-agent with an id.
    Agent(Name),
    /// A sub-agent inside the main file, named by its first line.
    Inline(u32),
}

/// A line whose parent is another one from some line on.
#[derive(Clone, Copy, Debug)]
struct Move {
    since: u32,
    parent: u32,
}

/// Messages kept behind an anchor: what hung on the anchor now hangs on the last of them.
#[derive(Clone, Copy, Debug)]
struct Kept {
    since: u32,
    first: u32,
    last: u32,
}

/// The tree over the lines of a family.
#[derive(Debug)]
pub(super) struct Tree {
    parents: Vec<Option<u32>>,
    chains: Vec<Chain>,
    moves: HashMap<u32, Vec<Move>>,
    kept: HashMap<u32, Vec<Kept>>,
    forks: HashMap<Name, u32>,
    /// Marks of the walk under way, one per line: the cycle guard.
    seen: Vec<u32>,
    walk: u32,
    relink_steps: u64,
    /// Preserved messages that could not be found.
    pub lost_relinks: u64,
    /// Lines whose parent was guessed.
    pub guessed: Vec<u32>,
}

/// A path from the root to a line, without the line itself.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Lines from the root on; lines of another chain only where the chain's history starts with them.
    pub lines: Vec<u32>,
    /// For a path that starts in another chain: the last line taken from it.
    pub foreign_last: Option<u32>,
    /// The parents ran in a circle.
    pub cycle: bool,
    /// Lines looked at.
    pub steps: u64,
}

impl Tree {
    /// Links the lines.
    pub fn link(loaded: &mut Loaded) -> Self {
        let count = loaded.lines.len();
        let mut tree = Self {
            parents: vec![None; count],
            chains: vec![Chain::Main; count],
            moves: HashMap::new(),
            kept: HashMap::new(),
            forks: HashMap::new(),
            seen: vec![0; count],
            walk: 0,
            relink_steps: 0,
            lost_relinks: 0,
            guessed: Vec::new(),
        };
        tree.link_parents(loaded);
        tree.name_chains(loaded);
        tree.link_forks(loaded);
        for (index, line) in loaded.lines.iter().enumerate() {
            if let Body::CompactBoundary(Some(preserved)) = &line.body {
                tree.relink(preserved, index as u32, loaded);
            }
        }
        tree
    }

    /// The chain of a line.
    pub fn chain(&self, line: u32) -> Chain {
        self.chains.get(line as usize).copied().unwrap_or(Chain::Main)
    }

    /// A parent that was never written is guessed: the line before, in the same chain. Where no line of a chain names a
    /// parent at all (an export without the tree), file order is the lineage.
    fn link_parents(&mut self, loaded: &mut Loaded) {
        let with_parents: HashSet<_> = loaded
            .lines
            .iter()
            .filter(|line| line.parent.is_some())
            .map(|line| (line.at.file, line.agent, line.session))
            .collect();
        let mut before: HashMap<(u32, Option<Name>), u32> = HashMap::new();
        for (index, line) in loaded.lines.iter().enumerate() {
            let inline = line.sidechain && line.agent.is_none();
            let previous = match inline {
                true => None,
                false => before.insert((line.at.file, line.agent), index as u32),
            };
            match line.parent.map(|name| loaded.by_uuid.get(&name).copied()) {
                Some(Some(parent)) => {
                    self.parents[index] = Some(parent);
                    continue;
                }
                Some(None) => {
                    loaded.notes.push(Note {
                        kind: IssueKind::DanglingParent,
                        at: line.at,
                        agent: line.agent,
                    });
                }
                None if with_parents.contains(&(line.at.file, line.agent, line.session)) => continue,
                None => {}
            }
            self.parents[index] = previous;
            if previous.is_some() && !matches!(line.body, Body::Silent) {
                self.guessed.push(index as u32);
            }
        }
    }

    /// Names the chain of every line. The root of an inline sidechain is its topmost line; in a circle, its first one.
    fn name_chains(&mut self, loaded: &Loaded) {
        let inline = |line: u32| {
            loaded.lines.get(line as usize).is_some_and(|line| line.sidechain && line.agent.is_none())
        };
        let mut roots: Vec<Option<u32>> = vec![None; loaded.lines.len()];
        for (index, line) in loaded.lines.iter().enumerate() {
            if let Some(agent) = line.agent {
                self.chains[index] = Chain::Agent(agent);
                continue;
            }
            if !line.sidechain {
                continue;
            }
            let mut climbed = Vec::new();
            let mut at = index as u32;
            self.walk += 1;
            let root = loop {
                if let Some(root) = roots[at as usize] {
                    break root;
                }
                if self.seen[at as usize] == self.walk {
                    break climbed.iter().copied().min().unwrap_or(at);
                }
                self.seen[at as usize] = self.walk;
                climbed.push(at);
                match self.parents[at as usize].filter(|&parent| inline(parent)) {
                    Some(parent) => at = parent,
                    None => break at,
                }
            };
            for climbed in climbed {
                roots[climbed as usize] = Some(root);
            }
            self.chains[index] = Chain::Inline(root);
        }
    }

    /// Hangs the first line of a forked agent on the parent's last line.
    fn link_forks(&mut self, loaded: &Loaded) {
        let mut roots: HashMap<Name, u32> = HashMap::new();
        for (index, line) in loaded.lines.iter().enumerate() {
            if let (Chain::Agent(agent), None) = (self.chains[index], line.parent) {
                roots.entry(agent).or_insert(index as u32);
            }
        }
        for (&agent, last) in &loaded.forks {
            let Some(&last) = loaded.by_uuid.get(last) else {
                self.lost_relinks += 1;
                continue;
            };
            self.forks.insert(agent, last);
            if let Some(&root) = roots.get(&agent) {
                self.parents[root as usize] = Some(last);
            }
        }
    }

    /// Applies the kept messages of one compaction to everything after its boundary.
    fn relink(&mut self, preserved: &Preserved, boundary: u32, loaded: &Loaded) {
        let find = |name: &Name| loaded.by_uuid.get(name).copied();
        let ends = (find(&preserved.anchor), find(&preserved.first), find(&preserved.last));
        let (Some(anchor), Some(first), Some(last)) = ends else {
            self.lost_relinks += 1;
            return;
        };
        let mut links = vec![(first, anchor)];
        if preserved.listed.is_empty() {
            if !self.leads_to(last, first, boundary, loaded) {
                self.lost_relinks += 1;
                return;
            }
        } else {
            let listed: Vec<u32> = preserved.listed.iter().filter_map(find).collect();
            links.extend(listed.windows(2).map(|pair| (pair[1], pair[0])));
        }
        for (line, parent) in links {
            self.moves.entry(line).or_default().push(Move { since: boundary, parent });
        }
        self.kept.entry(anchor).or_default().push(Kept { since: boundary, first, last });
    }

    /// True when the path to `last` goes through `first`. Many boundaries over a long file could walk it again and
    /// again: after [`MAX_RELINK_STEPS`] nothing leads anywhere.
    fn leads_to(&mut self, last: u32, first: u32, boundary: u32, loaded: &Loaded) -> bool {
        if first == last {
            return true;
        }
        if self.relink_steps > MAX_RELINK_STEPS {
            return false;
        }
        let path = self.path(last, boundary, loaded);
        self.relink_steps += path.steps;
        path.lines.contains(&first)
    }

    /// The parent of a line as seen by a request that was sent right before line `now` was written.
    fn parent_at(&self, line: u32, now: u32) -> Option<u32> {
        if let Some(moves) = self.moves.get(&line) {
            let past = moves.partition_point(|moved| moved.since < now);
            if let Some(moved) = past.checked_sub(1).and_then(|last| moves.get(last)) {
                return Some(moved.parent);
            }
        }
        let parent = self.parents.get(line as usize).copied().flatten()?;
        if let Some(kept) = self.kept.get(&parent) {
            let past = kept.partition_point(|kept| kept.since < now);
            if let Some(kept) = past.checked_sub(1).and_then(|last| kept.get(last))
                && line > kept.since
                && line != kept.first
            {
                return Some(kept.last);
            }
        }
        Some(parent)
    }

    /// The path to `line` for a request sent before line `now`: up to the root, or up to and including a compaction
    /// boundary.
    pub fn path(&mut self, line: u32, now: u32, loaded: &Loaded) -> Path {
        let mut chain = self.chain(line);
        let mut path = Path::default();
        self.walk += 1;
        self.seen[line as usize] = self.walk;
        let mut at = line;
        while let Some(parent) = self.parent_at(at, now) {
            path.steps += 1;
            if self.seen[parent as usize] == self.walk {
                path.cycle = true;
                break;
            }
            self.seen[parent as usize] = self.walk;
            at = parent;
            let parents_chain = self.chain(parent);
            if parents_chain != chain {
                match chain {
                    // A sidechain line between two lines of the main chain is another agent's: walk through it.
                    Chain::Main => continue,
                    Chain::Agent(agent) if self.starts_with(agent, parent, loaded) => {
                        path.foreign_last = Some(parent);
                        chain = parents_chain;
                    }
                    Chain::Inline(_) | Chain::Agent(_) => break,
                }
            }
            path.lines.push(parent);
            if matches!(loaded.lines[parent as usize].body, Body::CompactBoundary(_)) {
                break;
            }
        }
        path.lines.reverse();
        path
    }

    /// True when an agent's history starts with the chain that ends in this line.
    fn starts_with(&self, agent: Name, line: u32, loaded: &Loaded) -> bool {
        self.forks.get(&agent) == Some(&line) || loaded.repeated.contains(&(agent, line))
    }
}
