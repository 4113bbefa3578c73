//! The prefix index behind evictions: KV that was written after rows were dropped is found under the same evictions alone,
//! and what was dropped is gone for everybody. `prefix_model` checks the same index over random prompts and plans.

use engine::kv::Slot;
use engine::kv::eviction::{Eviction, EvictionPlan, Rows};
use engine::kv::pool::SlotPool;
use engine::kv::prefix::{Identity, IdentityParts, PrefixCache, Prompt, RadixIndex};
use engine::schedule::Rules;

const BOUNDARY: u32 = 7;

struct Cache {
    index: RadixIndex,
    pool: SlotPool,
    identity: Identity,
}

impl Cache {
    fn new(n_slots: u32) -> Self {
        let rules = Rules::new(BOUNDARY);
        let parts = IdentityParts { model_digest: "model", kv_dtype: "bf16", kernels: "avx512", rules };
        Self { index: RadixIndex::new(), pool: SlotPool::new(n_slots), identity: Identity::new(&parts) }
    }

    /// One call from lookup to release; the tokens hit, and how many of them still have their rows.
    fn call(&mut self, tokens: &[u32], plan: &EvictionPlan) -> (usize, usize) {
        let prompt = Prompt::evicting(&self.identity, tokens, plan);
        let hit = self.index.lookup(&prompt);
        self.index.forget(&hit, &mut self.pool).unwrap();
        let own = self.pool.alloc(tokens.len() - hit.n_tokens).unwrap();
        let n_rows = hit.slots.iter().flatten().count();
        let slots: Vec<Option<Slot>> =
            hit.slots.iter().copied().chain(own.iter().copied().map(Some)).collect();
        self.index.publish(&prompt, &slots, &mut self.pool).unwrap();
        self.pool.release(&own).unwrap();
        self.index.release(hit.lease);
        self.index.check_invariants(&self.pool).unwrap();
        assert_eq!(self.index.held_slots(), self.pool.used_slots());
        (hit.n_tokens, n_rows)
    }

    /// Tokens that a call would hit now.
    fn peek(&mut self, tokens: &[u32], plan: &EvictionPlan) -> usize {
        let hit = self.index.lookup(&Prompt::evicting(&self.identity, tokens, plan));
        self.index.release(hit.lease);
        hit.n_tokens
    }
}

/// Five segments of 100 tokens and an open one.
fn tokens() -> Vec<u32> {
    (0..510).map(|at| if at % 100 == 0 { BOUNDARY } else { 1000 + at }).collect()
}

fn plan(evictions: &[(usize, usize, usize)]) -> EvictionPlan {
    EvictionPlan::new(
        evictions.iter().map(|&(start, end, from)| Eviction { rows: Rows { start, end }, from }),
    )
}

/// Calls of two, three, .. segments, each dropping what the plan drops by then.
fn replay(cache: &mut Cache, plan: &EvictionPlan) -> Vec<(usize, usize)> {
    (2..=5).map(|n_segments| cache.call(&tokens()[..100 * n_segments + 10], plan)).collect()
}

#[test]
fn a_growing_prompt_hits_all_that_came_before_without_the_rows_that_were_dropped() {
    let mut cache = Cache::new(2000);
    let plan = plan(&[(120, 180, 300), (210, 230, 400)]);
    assert_eq!(replay(&mut cache, &plan), [(0, 0), (200, 200), (300, 240), (400, 320)]);
    assert_eq!(cache.index.held_slots(), 500 - 80);
    assert_eq!(cache.pool.used_slots(), 500 - 80, "dropped rows are free again");
}

#[test]
fn any_change_of_tokens_rows_or_time_misses_what_lies_behind_the_eviction() {
    let evictions = [(120, 180, 300), (210, 230, 400)];
    let mut cache = Cache::new(2000);
    replay(&mut cache, &plan(&evictions));
    let whole = tokens();
    assert_eq!(cache.peek(&whole, &plan(&evictions)), 500);

    // Rows of the second and third segment are gone: only a prompt that drops them there can use what lies behind.
    for (changed, expected) in [
        (vec![], 100),
        (vec![(120, 179, 300), (210, 230, 400)], 100),
        (vec![(121, 180, 300), (210, 230, 400)], 100),
        (vec![(119, 180, 300), (210, 230, 400)], 100),
        (vec![(120, 181, 300), (210, 230, 400)], 100),
        (vec![(120, 180, 200), (210, 230, 400)], 200),
        (vec![(120, 180, 400), (210, 230, 400)], 100),
        (vec![(120, 180, 300)], 100),
        (vec![(120, 180, 300), (210, 229, 400)], 100),
        (vec![(120, 180, 300), (210, 231, 400)], 400),
        (vec![(120, 180, 300), (210, 230, 300)], 300),
        (vec![(120, 180, 300), (210, 230, 500)], 100),
        // Where no piece begins, an eviction waits for the next one: the same plan.
        (vec![(120, 180, 201), (210, 230, 399)], 500),
    ] {
        assert_eq!(cache.peek(&whole, &plan(&changed)), expected, "{changed:?}");
    }
    for at in (0..500).filter(|at| at % 100 != 0) {
        let mut changed = whole.clone();
        changed[at] += 1;
        // A prefix that ends between a hole and its eviction is of no use.
        let expected = match at / 100 {
            0 => 0,
            1..=3 => 100,
            _ => 400,
        };
        assert_eq!(cache.peek(&changed, &plan(&evictions)), expected, "token {at}");
    }
}

#[test]
fn a_prompt_that_needs_a_dropped_row_runs_it_again_and_never_publishes_over_the_hole() {
    let mut cache = Cache::new(2000);
    let evicting = plan(&[(120, 180, 300)]);
    replay(&mut cache, &evicting);
    let whole = EvictionPlan::default();
    assert_eq!(cache.call(&tokens(), &whole), (100, 100), "the second segment has a hole");
    // What ran again lies behind the hole, too, on a way of its own from the third segment's end on.
    assert_eq!(cache.peek(&tokens(), &evicting), 500);
    assert_eq!(cache.peek(&tokens(), &whole), 100);
}

#[test]
fn rows_that_another_call_still_sees_stay() {
    let mut cache = Cache::new(2000);
    let whole = EvictionPlan::default();
    cache.call(&tokens()[..310], &whole);
    let reading = cache.index.lookup(&Prompt::new(&cache.identity, &tokens()[..310]));
    assert_eq!(reading.n_tokens, 300);

    let evicting = plan(&[(120, 180, 300)]);
    let evicted = cache.index.lookup(&Prompt::evicting(&cache.identity, &tokens(), &evicting));
    assert_eq!(evicted.n_tokens, 300);
    assert!(evicted.slots[120..180].iter().all(Option::is_none));
    assert_eq!(cache.index.forget(&evicted, &mut cache.pool).unwrap(), 0, "the other call reads them");
    assert!(reading.slots.iter().all(|slot| cache.pool.references(slot.unwrap()) == 1));
    cache.index.release(reading.lease);
    assert_eq!(cache.index.forget(&evicted, &mut cache.pool).unwrap(), 60);
    cache.index.release(evicted.lease);
    cache.index.check_invariants(&cache.pool).unwrap();
    assert_eq!(cache.peek(&tokens(), &whole), 100);
}
