//! The prefix index: which prompt prefixes have their KV in which slots. Knows token ids, the schedule and slots; it
//! owns no device memory and knows no model.
//!
//! A radix tree over token ids in which every edge is one reusable [`Piece`](crate::schedule::Piece) of the schedule,
//! so every node ends at a reuse point and no node is ever split. Two prompts share a node only if they agree on every
//! token up to its end *and* were launched in the same pieces: that is the condition for equal bits. A hit is the
//! longest such path, so it is always rounded down to a reuse point and never up. Token ids are compared in full on
//! the way down; there is no hash to collide and no entry that can outlive its slots.
//!
//! Rows that an eviction plan drops are part of the way, too: an edge holds the rows that were dropped right before its
//! piece ran, and they are compared like the tokens. So KV behind an eviction is found by prompts with the same
//! evictions alone. The dropped rows themselves leave the nodes that held them; a path with such holes answers only
//! where the prompt's own plan has dropped every one of them by then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::digest;
use crate::error::EngineError;
use crate::kv::Slot;
use crate::kv::eviction::{EvictionPlan, Rows};
use crate::kv::pool::SlotPool;
use crate::schedule::{Rules, Schedule, schedule};

/// Everything beside the tokens that decides the bits of a KV entry.
#[derive(Clone, Copy, Debug)]
pub struct IdentityParts<'a> {
    /// Digest of the weights and of the model's configuration.
    pub model_digest: &'a str,
    /// Element type of the stored keys and values.
    pub kv_dtype: &'a str,
    /// Set of kernels, instruction set or device, and split sizes of attention.
    pub kernels: &'a str,
    /// Segmentation: it fixes the shapes of the launches.
    pub rules: Rules,
}

/// The namespace of a cache entry. Prompts of different identities never share an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    digest: [u8; 32],
    rules: Rules,
}

impl Identity {
    /// The identity of these parts; a change of any of them gives another.
    pub fn new(parts: &IdentityParts<'_>) -> Self {
        let Rules { boundary, min_segment, piece } = parts.rules;
        let fields: [&[u8]; 6] = [
            parts.model_digest.as_bytes(),
            parts.kv_dtype.as_bytes(),
            parts.kernels.as_bytes(),
            &boundary.to_le_bytes(),
            &(min_segment as u64).to_le_bytes(),
            &(piece as u64).to_le_bytes(),
        ];
        Self {
            digest: digest::of_fields("reprise engine 2026 kv cache identity", &fields),
            rules: parts.rules,
        }
    }
}

/// A prompt as the cache sees it: an identity, tokens, the schedule that the identity's rules give them, and the rows that
/// are dropped on the way.
#[derive(Clone, Debug)]
pub struct Prompt<'a> {
    identity: Identity,
    tokens: &'a [u32],
    schedule: Schedule,
    evictions: EvictionPlan,
}

impl<'a> Prompt<'a> {
    /// Schedules `tokens` under the rules of `identity`.
    pub fn new(identity: &Identity, tokens: &'a [u32]) -> Self {
        Self::evicting(identity, tokens, &EvictionPlan::default())
    }

    /// The same with rows dropped on the way, each before the first piece at or behind the place that `plan` says.
    pub fn evicting(identity: &Identity, tokens: &'a [u32], plan: &EvictionPlan) -> Self {
        let schedule = schedule(tokens, &identity.rules);
        let evictions = plan.settled(&schedule);
        Self { identity: *identity, tokens, schedule, evictions }
    }

    /// The prompt's token ids.
    pub const fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// The launches of a cold prefill of this prompt.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What is dropped, each before the piece that the schedule has there.
    pub const fn evictions(&self) -> &EvictionPlan {
        &self.evictions
    }

    /// The edge of each piece that ends at a reuse point no later than `limit`, with the piece's start.
    fn edges(&self, limit: usize) -> impl Iterator<Item = (usize, Edge<'_>)> {
        let pieces =
            self.schedule.pieces.iter().take_while(move |piece| piece.reusable && piece.end <= limit);
        pieces.map(|piece| {
            let tokens = &self.tokens[piece.start..piece.end];
            (piece.start, Edge { dropped: self.evictions.dropped_at(piece.start), tokens })
        })
    }
}

/// What leads from one node to the next: everything that decides the bits of the piece between them, given the way so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge<'a> {
    /// Rows dropped right before the piece runs.
    dropped: &'a [Rows],
    /// The piece.
    tokens: &'a [u32],
}

/// What a lookup found: the KV of the first `n_tokens` tokens lies in `slots`, and stays there until `lease` is
/// released.
#[derive(Debug)]
pub struct Hit {
    /// Prompt tokens that need not run: 0 or a reuse point, and never the whole prompt.
    pub n_tokens: usize,
    /// Slot of each of them, `None` where the row is dropped by the end of the hit. The index holds them; the caller must
    /// not release them.
    pub slots: Vec<Option<Slot>>,
    /// Keeps them from eviction; give it back with [`PrefixCache::release`].
    pub lease: Lease,
}

/// A pin on a prefix, from a lookup until its release. Not cloneable: one pin, one release.
#[derive(Debug)]
#[must_use = "a lease that is not released pins its prefix for ever"]
pub struct Lease {
    node: NodeId,
}

/// A cache of prompt prefixes. A lookup restores the longest *boundary* at or below the match, a boundary being a
/// length at which the implementation can restore everything the model needs. For attention-only models every reuse
/// point is one; a model with recurrent state has one only where a checkpoint of that state was kept, and fits behind
/// the same trait. The order of a call is lookup, evict (if the pool is short), prefill, publish, release.
pub trait PrefixCache {
    /// The longest restorable prefix of the prompt that leaves at least its last token to be computed. Pins it.
    fn lookup(&mut self, prompt: &Prompt<'_>) -> Hit;

    /// Makes the prompt's KV reusable up to the last reuse point whose KV is written. `slots` are the slots of the
    /// tokens written so far, from the first, `None` for rows that a hit no longer had; a call that was stopped passes
    /// fewer than the prompt has tokens. Call it after the write, never before. Prefixes that are there already stay in
    /// their own slots. The cache takes a reference to each slot it keeps. Returns the number of tokens that became
    /// reusable.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] if there are more slots than tokens, or a slot that nobody holds.
    fn publish(
        &mut self,
        prompt: &Prompt<'_>,
        slots: &[Option<Slot>],
        pool: &mut SlotPool,
    ) -> Result<usize, EngineError>;

    /// Lets go of the rows that are dropped by the end of a hit, where no other lease holds the prefix that they belong
    /// to. Returns the number of slots that became free.
    ///
    /// # Errors
    /// As [`PrefixCache::evict`].
    fn forget(&mut self, hit: &Hit, pool: &mut SlotPool) -> Result<usize, EngineError>;

    /// Lets a looked-up prefix be evicted again.
    ///
    /// # Panics
    /// If the lease came from another cache.
    fn release(&mut self, lease: Lease);

    /// Drops prefixes until `pool` has `n_free` free slots or nothing more may go: least recently used first, ends
    /// before beginnings, pinned prefixes never. Returns the number of slots that became free.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] if `pool` is not the pool of the published slots.
    fn evict(&mut self, n_free: usize, pool: &mut SlotPool) -> Result<usize, EngineError>;

    /// Drops every prefix that is not pinned. Returns the number of slots that became free.
    ///
    /// # Errors
    /// As [`PrefixCache::evict`].
    fn clear(&mut self, pool: &mut SlotPool) -> Result<usize, EngineError> {
        self.evict(usize::MAX, pool)
    }
}

/// Index into [`RadixIndex::nodes`].
type NodeId = usize;

#[derive(Debug, Default)]
struct Node {
    /// `None` for the root of an identity.
    parent: Option<NodeId>,
    /// Rows dropped between the parent's end and the piece.
    dropped: Vec<Rows>,
    /// The piece between the parent's end and this node's; empty for a root.
    tokens: Vec<u32>,
    /// Slot of each token of the piece; `None` once its row was dropped.
    slots: Vec<Option<Slot>>,
    /// Ascending by their edges.
    children: Vec<NodeId>,
    /// Leases whose hit ends here or below.
    pins: u32,
    /// Clock of the last lookup or publication that passed here.
    last_used: u64,
}

impl Node {
    fn evictable(&self) -> bool {
        self.parent.is_some() && self.children.is_empty() && self.pins == 0
    }

    /// What leads here from the parent.
    fn edge(&self) -> Edge<'_> {
        Edge { dropped: &self.dropped, tokens: &self.tokens }
    }
}

/// The radix tree. Its clock counts operations, so the same calls evict the same prefixes in every run.
#[derive(Debug, Default)]
pub struct RadixIndex {
    nodes: Vec<Node>,
    /// Places in `nodes` that may be used again.
    vacant: Vec<NodeId>,
    roots: Vec<(Identity, NodeId)>,
    clock: u64,
    held_slots: usize,
}

impl RadixIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Slots that published prefixes lie in.
    pub const fn held_slots(&self) -> usize {
        self.held_slots
    }

    /// The root of an identity, made on first sight.
    fn root(&mut self, identity: &Identity) -> NodeId {
        if let Some((_, root)) = self.roots.iter().find(|(known, _)| known == identity) {
            return *root;
        }
        let root = self.insert(Node::default());
        self.roots.push((*identity, root));
        root
    }

    fn insert(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.vacant.pop() {
            self.nodes[id] = node;
            return id;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn touch(&mut self, id: NodeId) {
        self.nodes[id].last_used = self.clock;
    }

    /// Place of the child behind `edge` among the children of `at`, or the place where it would stand.
    fn child(&self, at: NodeId, edge: Edge<'_>) -> Result<usize, usize> {
        self.nodes[at].children.binary_search_by(|&child| self.nodes[child].edge().cmp(&edge))
    }

    /// Takes an evictable node out of the tree and returns its parent.
    fn remove(&mut self, id: NodeId, pool: &mut SlotPool) -> Result<Option<NodeId>, EngineError> {
        let node = std::mem::take(&mut self.nodes[id]);
        let slots: Vec<Slot> = node.slots.into_iter().flatten().collect();
        self.held_slots -= slots.len();
        self.vacant.push(id);
        if let Some(parent) = node.parent {
            self.nodes[parent].children.retain(|&child| child != id);
        }
        pool.release(&slots)?;
        Ok(node.parent)
    }
}

impl PrefixCache for RadixIndex {
    fn lookup(&mut self, prompt: &Prompt<'_>) -> Hit {
        self.clock += 1;
        let mut at = self.root(&prompt.identity);
        let mut slots = Vec::new();
        let mut found = Lease { node: at };
        let mut n_tokens = 0;
        // Where the prompt has dropped every row that the way so far no longer has.
        let mut whole_from = 0;
        self.touch(at);
        // The last token is always computed: its logits are what the call is for.
        for (start, edge) in prompt.edges(prompt.tokens.len().saturating_sub(1)) {
            let Ok(child) = self.child(at, edge) else { break };
            at = self.nodes[at].children[child];
            self.touch(at);
            let own = &self.nodes[at].slots;
            for (position, _) in (start..).zip(own).filter(|(_, slot)| slot.is_none()) {
                whole_from = whole_from.max(prompt.evictions.dropped_from(position).unwrap_or(usize::MAX));
            }
            slots.extend_from_slice(own);
            if whole_from <= slots.len() {
                found.node = at;
                n_tokens = slots.len();
            }
        }
        slots.truncate(n_tokens);
        prompt.evictions.gone(n_tokens).for_each(|rows| slots[rows.positions()].fill(None));
        self.pin(&found, |pins| *pins += 1);
        Hit { n_tokens, slots, lease: found }
    }

    fn publish(
        &mut self,
        prompt: &Prompt<'_>,
        slots: &[Option<Slot>],
        pool: &mut SlotPool,
    ) -> Result<usize, EngineError> {
        if slots.len() > prompt.tokens.len() {
            let detail = format!("{} slots for a prompt of {} tokens", slots.len(), prompt.tokens.len());
            return Err(EngineError::KvBookkeeping { subject: "prefix index", detail });
        }
        self.clock += 1;
        let mut at = self.root(&prompt.identity);
        let mut published = 0;
        self.touch(at);
        for (start, edge) in prompt.edges(slots.len()) {
            at = match self.child(at, edge) {
                Ok(child) => self.nodes[at].children[child],
                Err(place) => {
                    let own = slots[start..start + edge.tokens.len()].to_vec();
                    let held: Vec<Slot> = own.iter().copied().flatten().collect();
                    pool.retain(&held)?;
                    self.held_slots += held.len();
                    published += own.len();
                    let child = self.insert(Node {
                        parent: Some(at),
                        dropped: edge.dropped.to_vec(),
                        tokens: edge.tokens.to_vec(),
                        slots: own,
                        ..Node::default()
                    });
                    self.nodes[at].children.insert(place, child);
                    child
                }
            };
            self.touch(at);
        }
        Ok(published)
    }

    fn forget(&mut self, hit: &Hit, pool: &mut SlotPool) -> Result<usize, EngineError> {
        let mut dropped = Vec::new();
        let (mut at, mut end) = (hit.lease.node, hit.n_tokens);
        while let Some(parent) = self.nodes[at].parent {
            let node = &mut self.nodes[at];
            let start = end - node.tokens.len();
            if node.pins == 1 {
                let rows = node.slots.iter_mut().zip(&hit.slots[start..end]);
                dropped.extend(rows.filter_map(|(own, kept)| if kept.is_none() { own.take() } else { None }));
            }
            (at, end) = (parent, start);
        }
        let before = pool.free_slots();
        self.held_slots -= dropped.len();
        pool.release(&dropped)?;
        Ok(pool.free_slots() - before)
    }

    fn release(&mut self, lease: Lease) {
        self.pin(&lease, |pins| *pins -= 1);
    }

    fn evict(&mut self, n_free: usize, pool: &mut SlotPool) -> Result<usize, EngineError> {
        let before = pool.free_slots();
        if before >= n_free {
            return Ok(0);
        }
        // One operation touches one path, so no two leaves share a clock value and the order is total.
        let leaves = self.nodes.iter().enumerate().filter(|(_, node)| node.evictable());
        let mut oldest: BinaryHeap<_> = leaves.map(|(id, node)| Reverse((node.last_used, id))).collect();
        while pool.free_slots() < n_free {
            let Some(Reverse((_, id))) = oldest.pop() else { break };
            if let Some(parent) = self.remove(id, pool)?
                && self.nodes[parent].evictable()
            {
                oldest.push(Reverse((self.nodes[parent].last_used, parent)));
            }
        }
        Ok(pool.free_slots() - before)
    }
}

impl RadixIndex {
    /// Changes the pins of every node from the root to the end of a lease.
    fn pin(&mut self, lease: &Lease, change: impl Fn(&mut u32)) {
        let mut at = Some(lease.node);
        while let Some(id) = at {
            change(&mut self.nodes[id].pins);
            at = self.nodes[id].parent;
        }
    }

    /// Walks the whole tree: every live node hangs from a live parent under its own edge, is no younger than it and has
    /// no pin that the parent lacks; every slot is held by the pool and stands in the tree once; the counts agree with
    /// `pool`, where free slots, slots of the index and slots that running calls alone hold make up all slots.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] naming the first node or count that is wrong.
    pub fn check_invariants(&self, pool: &SlotPool) -> Result<(), EngineError> {
        pool.check_invariants()?;
        let mut in_tree = vec![false; pool.n_slots()];
        let mut live = 0;
        let mut pending: Vec<NodeId> = self.roots.iter().map(|&(_, root)| root).collect();
        while let Some(id) = pending.pop() {
            live += 1;
            self.check_node(id)?;
            for &slot in self.nodes[id].slots.iter().flatten() {
                match in_tree.get_mut(slot.0 as usize) {
                    Some(seen) if !*seen && pool.references(slot) > 0 => *seen = true,
                    _ => return broken(format!("slot {} of node {id} is free or stands twice", slot.0)),
                }
            }
            pending.extend(&self.nodes[id].children);
        }
        let held = in_tree.iter().filter(|&&seen| seen).count();
        if live + self.vacant.len() != self.nodes.len() {
            return broken(format!(
                "{live} live and {} vacant of {} nodes",
                self.vacant.len(),
                self.nodes.len()
            ));
        }
        if held != self.held_slots || held > pool.used_slots() {
            let used = pool.used_slots();
            return broken(format!("{held} slots in the tree, {} counted, {used} in use", self.held_slots));
        }
        Ok(())
    }

    fn check_node(&self, id: NodeId) -> Result<(), EngineError> {
        let node = &self.nodes[id];
        if node.slots.len() != node.tokens.len() || node.parent.is_some() == node.tokens.is_empty() {
            return broken(format!("node {id}: {} slots, {} tokens", node.slots.len(), node.tokens.len()));
        }
        let mut pins = 0;
        for (place, &child) in node.children.iter().enumerate() {
            let linked = self
                .nodes
                .get(child)
                .filter(|found| found.parent == Some(id) && self.child(id, found.edge()) == Ok(place));
            match linked {
                Some(found) if found.last_used <= node.last_used => pins += found.pins,
                _ => return broken(format!("node {child} under node {id}: wrong link or older parent")),
            }
        }
        if pins > node.pins {
            return broken(format!("node {id}: {} pins, {pins} below it", node.pins));
        }
        Ok(())
    }
}

fn broken<T>(detail: String) -> Result<T, EngineError> {
    Err(EngineError::KvBookkeeping { subject: "prefix index", detail })
}
