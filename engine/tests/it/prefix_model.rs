//! The prefix index against a plain model of it: a list of published prefixes, searched from end to end. Calls begin,
//! overlap, stop half way and finish in any order, in a pool too small for them, and drop rows on the way; a slot
//! remembers what was written to it, so that a hit on another prompt's KV, or on KV behind other evictions, cannot pass.

use std::collections::{BTreeMap, BTreeSet};

use engine::kv::Slot;
use engine::kv::eviction::{Eviction, EvictionPlan, Rows};
use engine::kv::pool::SlotPool;
use engine::kv::prefix::{Hit, Identity, IdentityParts, PrefixCache, Prompt, RadixIndex};
use engine::schedule::Rules;
use proptest::collection::vec;
use proptest::prelude::*;

const BOUNDARY: u32 = 2;
const N_SLOTS: u32 = 24;

/// What fixes the bits of a prefix: identity, tokens, the ends of the launches that wrote them, and the rows that were
/// dropped before the last of these began.
type Content = (usize, Vec<u32>, Vec<usize>, Vec<(usize, Rows)>);

#[derive(Clone, Debug)]
enum Operation {
    Begin { identity: usize, tokens: Vec<u32>, plan: EvictionPlan },
    Finish { which: usize, written_permille: usize },
    Evict { n_free: usize },
    Clear,
}

/// A published prefix of the model; `slots` are those of its last piece.
struct Entry {
    content: Content,
    slots: Vec<Option<Slot>>,
    used: u64,
    pins: usize,
}

struct Running {
    identity: usize,
    tokens: Vec<u32>,
    plan: EvictionPlan,
    hit: Hit,
    own: Vec<Slot>,
    /// The model's pinned prefix, if the lookup hit.
    pinned: Option<Content>,
}

struct World {
    identities: Vec<Identity>,
    index: RadixIndex,
    pool: SlotPool,
    entries: Vec<Entry>,
    running: Vec<Running>,
    written: BTreeMap<Slot, (Content, usize)>,
    clock: u64,
}

impl World {
    fn new() -> Self {
        let identity = |(boundary, piece)| {
            let rules = Rules { boundary, min_segment: 2, piece };
            Identity::new(&IdentityParts { model_digest: "m", kv_dtype: "f32", kernels: "k", rules })
        };
        Self {
            identities: [(BOUNDARY, 3), (BOUNDARY, 4)].map(identity).to_vec(),
            index: RadixIndex::new(),
            pool: SlotPool::new(N_SLOTS),
            entries: Vec::new(),
            running: Vec::new(),
            written: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Prefixes of the prompt that end at its reuse points, up to `limit` tokens.
    fn prefixes(&self, identity: usize, tokens: &[u32], plan: &EvictionPlan, limit: usize) -> Vec<Content> {
        let prompt = Prompt::evicting(&self.identities[identity], tokens, plan);
        let pieces = &prompt.schedule().pieces;
        let ends: Vec<usize> = prompt.schedule().reuse_points().filter(|&end| end <= limit).collect();
        let dropped = |i: usize| {
            let settled = prompt.evictions().evictions().iter();
            let mut dropped: Vec<(usize, Rows)> =
                settled.filter(|e| e.from <= pieces[i].start).map(|e| (e.from, e.rows)).collect();
            dropped.sort_unstable();
            dropped
        };
        let content = |i: usize| (identity, tokens[..ends[i]].to_vec(), ends[..=i].to_vec(), dropped(i));
        (0..ends.len()).map(content).collect()
    }

    fn entry(&mut self, content: &Content) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.content == *content)
    }

    fn begin(&mut self, identity: usize, tokens: Vec<u32>, plan: EvictionPlan) {
        self.clock += 1;
        let found: Vec<Content> = self.prefixes(identity, &tokens, &plan, tokens.len().saturating_sub(1));
        let found: Vec<Content> = found.into_iter().filter(|content| self.entry(content).is_some()).collect();
        let prompt = Prompt::evicting(&self.identities[identity], &tokens, &plan);
        let is_gone = |position, at| prompt.evictions().dropped_from(position).is_some_and(|from| from <= at);
        let clock = self.clock;
        let mut missing = Vec::new();
        let mut pinned = None;
        for content in &found {
            let entry = self.entry(content).unwrap();
            entry.used = clock;
            let end = content.1.len();
            let holes = (end - entry.slots.len()..end).zip(&entry.slots).filter(|(_, slot)| slot.is_none());
            missing.extend(holes.map(|(position, _)| position));
            if missing.iter().all(|&position| is_gone(position, end)) {
                pinned = Some(content.clone());
            }
        }
        if let Some(content) = &pinned {
            self.entry(content).unwrap().pins += 1;
        }

        let hit = self.index.lookup(&prompt);
        let n_hit = hit.n_tokens;
        assert_eq!(n_hit, pinned.as_ref().map_or(0, |content| content.1.len()));
        assert_eq!(hit.slots.len(), n_hit);
        for (position, slot) in hit.slots.iter().enumerate() {
            assert_eq!(slot.is_none(), is_gone(position, n_hit), "row {position} of {n_hit}");
            let expected = found.iter().find(|content| content.1.len() > position).unwrap();
            let Some(slot) = slot else { continue };
            assert_eq!(self.written[slot], (expected.clone(), position), "the KV of another prefix");
        }

        let mut forgotten = 0;
        for content in found.iter().filter(|content| content.1.len() <= n_hit) {
            let is_held = self.entries.iter().filter(|entry| extends(&entry.content, content));
            let is_shared = is_held.map(|entry| entry.pins).sum::<usize>() > 1;
            let entry = self.entry(content).unwrap();
            let start = content.1.len() - entry.slots.len();
            for (position, slot) in (start..).zip(&mut entry.slots) {
                let goes = !is_shared && is_gone(position, n_hit);
                forgotten += usize::from(goes && slot.take().is_some());
            }
        }
        assert_eq!(self.index.forget(&hit, &mut self.pool).unwrap(), forgotten);

        let need = tokens.len() - hit.n_tokens;
        self.evict(need);
        match self.pool.alloc(need) {
            Some(own) => self.running.push(Running { identity, tokens, plan, hit, own, pinned }),
            None => self.unpin(hit, pinned),
        }
    }

    fn unpin(&mut self, hit: Hit, pinned: Option<Content>) {
        self.index.release(hit.lease);
        if let Some(content) = pinned {
            self.entry(&content).expect("a pinned prefix is never evicted").pins -= 1;
        }
    }

    fn finish(&mut self, which: usize, written_permille: usize) {
        if self.running.is_empty() {
            return;
        }
        let call = self.running.swap_remove(which % self.running.len());
        let n_written = call.hit.n_tokens + call.own.len() * written_permille / 1000;
        let own: Vec<Option<Slot>> = call.own.iter().copied().map(Some).collect();
        let slots = [&call.hit.slots[..], &own[..]].concat();
        self.clock += 1;
        let mut expected = 0;
        for content in self.prefixes(call.identity, &call.tokens, &call.plan, n_written) {
            let start = content.2.iter().rev().nth(1).copied().unwrap_or(0);
            let (clock, own) = (self.clock, &slots[start..content.1.len()]);
            match self.entry(&content) {
                Some(entry) => entry.used = clock,
                None => {
                    expected += own.len();
                    for (position, slot) in (start..).zip(own) {
                        self.written.extend(slot.map(|slot| (slot, (content.clone(), position))));
                    }
                    self.entries.push(Entry { content, slots: own.to_vec(), used: clock, pins: 0 });
                }
            }
        }
        let prompt = Prompt::evicting(&self.identities[call.identity], &call.tokens, &call.plan);
        let published = self.index.publish(&prompt, &slots[..n_written], &mut self.pool).unwrap();
        assert_eq!(published, expected);
        self.pool.release(&call.own).unwrap();
        self.unpin(call.hit, call.pinned);
    }

    fn used(&self) -> BTreeSet<Slot> {
        let entries = self.entries.iter().flat_map(|entry| entry.slots.iter().flatten());
        entries.chain(self.running.iter().flat_map(|call| &call.own)).copied().collect()
    }

    fn evict(&mut self, n_free: usize) {
        let before = self.used().len();
        while N_SLOTS as usize - self.used().len() < n_free {
            let extended =
                |a: &Content| self.entries.iter().any(|b| b.content != *a && extends(&b.content, a));
            let free_ends = self.entries.iter().filter(|entry| entry.pins == 0 && !extended(&entry.content));
            let Some(oldest) = free_ends.map(|entry| entry.used).min() else { break };
            let gone =
                self.entries.iter().rposition(|entry| entry.used == oldest && !extended(&entry.content));
            self.entries.remove(gone.unwrap());
        }
        let freed = self.index.evict(n_free, &mut self.pool).unwrap();
        assert_eq!(freed, before - self.used().len());
    }

    fn check(&self) {
        self.index.check_invariants(&self.pool).unwrap();
        assert_eq!(
            self.index.held_slots(),
            self.entries.iter().map(|entry| entry.slots.iter().flatten().count()).sum::<usize>()
        );
        assert_eq!(self.pool.used_slots(), self.used().len());
    }
}

/// Whether `longer` begins with `prefix`, in the same launches and behind the same evictions.
fn extends(longer: &Content, prefix: &Content) -> bool {
    let last_start = prefix.2.iter().rev().nth(1).copied().unwrap_or(0);
    let by_then: Vec<(usize, Rows)> =
        longer.3.iter().copied().filter(|(from, _)| *from <= last_start).collect();
    longer.0 == prefix.0
        && longer.1.starts_with(&prefix.1)
        && longer.2.starts_with(&prefix.2)
        && by_then == prefix.3
}

/// A few rows, each dropped a little behind it; often none, or one of few plans that differ by little, so that prompts meet
/// behind the same evictions.
fn plans() -> impl Strategy<Value = EvictionPlan> {
    let near = [vec![], vec![(1, 1, 1)], vec![(1, 2, 0)], vec![(1, 1, 3)], vec![(1, 1, 1), (4, 2, 0)]];
    let any = vec((0usize..10, 1usize..3, 0usize..6), 0..3);
    prop_oneof![3 => prop::sample::select(near.to_vec()), 1 => any].prop_map(|wanted| {
        let mut evictions: Vec<Eviction> = Vec::new();
        for (start, n, delay) in wanted {
            let rows = Rows { start, end: start + n };
            if evictions.iter().all(|other| other.rows.end <= start || rows.end <= other.rows.start) {
                evictions.push(Eviction { rows, from: rows.end + delay });
            }
        }
        EvictionPlan::new(evictions)
    })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let tokens = vec(prop_oneof![3 => 0u32..2, 2 => Just(BOUNDARY)], 0..16);
    let operation = prop_oneof![
        4 => (0usize..2, tokens, plans())
            .prop_map(|(identity, tokens, plan)| Operation::Begin { identity, tokens, plan }),
        4 => (0usize..4, prop_oneof![3 => Just(1000usize), 1 => 0usize..1000])
            .prop_map(|(which, written_permille)| Operation::Finish { which, written_permille }),
        1 => (0usize..30).prop_map(|n_free| Operation::Evict { n_free }),
        1 => Just(Operation::Clear),
    ];
    vec(operation, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn equals_a_list_of_published_prefixes(operations in operations()) {
        let mut world = World::new();
        for operation in operations {
            match operation {
                Operation::Begin { identity, tokens, plan } => world.begin(identity, tokens, plan),
                Operation::Finish { which, written_permille } => world.finish(which, written_permille),
                Operation::Evict { n_free } => world.evict(n_free),
                Operation::Clear => world.evict(usize::MAX),
            }
            world.check();
        }
        while !world.running.is_empty() {
            world.finish(0, 1000);
            world.check();
        }
        world.evict(usize::MAX);
        prop_assert_eq!((world.pool.free_slots(), world.index.held_slots()), (N_SLOTS as usize, 0));
    }
}
