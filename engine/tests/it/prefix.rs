//! The prefix index: one case per way in which a cache has gone wrong before, and what a call sees of it.
//! `prefix_model` checks the same index against a plain model.

use engine::kv::Slot;
use engine::kv::pool::SlotPool;
use engine::kv::prefix::{Identity, IdentityParts, PrefixCache, Prompt, RadixIndex};
use engine::schedule::Rules;

const BOUNDARY: u32 = 7;
const PARTS: IdentityParts<'static> =
    IdentityParts { model_digest: "model", kv_dtype: "bf16", kernels: "avx512", rules: Rules::new(BOUNDARY) };

/// A pool, an index and an identity: what an engine has between calls.
struct Cache {
    index: RadixIndex,
    pool: SlotPool,
    identity: Identity,
}

impl Cache {
    fn new(n_slots: u32) -> Self {
        Self { index: RadixIndex::new(), pool: SlotPool::new(n_slots), identity: Identity::new(&PARTS) }
    }

    /// One call from lookup to release; returns the tokens hit.
    fn call(&mut self, tokens: &[u32]) -> usize {
        self.call_written(tokens, tokens.len())
    }

    /// One call that stops after `written` tokens.
    fn call_written(&mut self, tokens: &[u32], written: usize) -> usize {
        let prompt = Prompt::new(&self.identity, tokens);
        let hit = self.index.lookup(&prompt);
        self.index.evict(tokens.len() - hit.n_tokens, &mut self.pool).unwrap();
        let own = self.pool.alloc(tokens.len() - hit.n_tokens).unwrap();
        let mut slots = [hit.slots, held(&own)].concat();
        slots.truncate(written);
        self.index.publish(&prompt, &slots, &mut self.pool).unwrap();
        self.pool.release(&own).unwrap();
        self.index.release(hit.lease);
        self.index.check_invariants(&self.pool).unwrap();
        assert_eq!(self.index.held_slots(), self.pool.used_slots());
        hit.n_tokens
    }

    /// Tokens that a call would hit now. Counts as a use.
    fn peek(&mut self, tokens: &[u32]) -> usize {
        let hit = self.index.lookup(&Prompt::new(&self.identity, tokens));
        assert_eq!(hit.slots.len(), hit.n_tokens);
        self.index.release(hit.lease);
        hit.n_tokens
    }
}

/// Slots as a sequence that dropped nothing lists them.
fn held(slots: &[Slot]) -> Vec<Option<Slot>> {
    slots.iter().copied().map(Some).collect()
}

/// Messages of these lengths; `voice` makes their content unlike that of other voices.
fn messages(voice: u32, lengths: &[usize]) -> Vec<u32> {
    let message = |&n: &usize| (0..n).map(move |i| if i == 0 { BOUNDARY } else { 1000 * voice + i as u32 });
    lengths.iter().flat_map(message).collect()
}

#[test]
fn a_hit_never_covers_the_last_token() {
    for n in 1..=130 {
        for open in [false, true] {
            let mut tokens = messages(1, &[n]);
            if !open {
                tokens.push(BOUNDARY);
            }
            let mut cache = Cache::new(200);
            cache.identity =
                Identity::new(&IdentityParts { rules: Rules { piece: 10, ..PARTS.rules }, ..PARTS });
            assert_eq!(cache.call(&tokens), 0);
            let segment_end = if !open && n >= 64 { n } else { 0 };
            assert_eq!(cache.call(&tokens), segment_end.max((tokens.len() - 1) / 10 * 10), "{n} {open}");
        }
    }
}

#[test]
fn a_full_prompt_at_a_reuse_point_keeps_its_last_piece_to_compute() {
    let mut cache = Cache::new(4000);
    let tokens = messages(1, &[1024]);
    cache.call(&tokens);
    assert_eq!(cache.call(&tokens), 512);
    assert_eq!(cache.peek(&[&tokens[..], &[5]].concat()), 1024);
}

#[test]
fn empty_and_one_token_prompts_miss() {
    let mut cache = Cache::new(4);
    for tokens in [&[][..], &[BOUNDARY], &[5]] {
        assert_eq!((cache.call(tokens), cache.call(tokens)), (0, 0));
    }
    assert_eq!(cache.index.held_slots(), 0);
}

/// A history that shrank or was rewritten: the reply once came back empty, because the snapshot was longer.
#[test]
fn a_shorter_or_rewritten_history_is_a_shorter_hit() {
    let mut cache = Cache::new(4000);
    let tokens = messages(1, &[100, 200, 300, 70]);
    cache.call(&tokens);
    assert_eq!(cache.peek(&tokens), 600);
    assert_eq!(cache.peek(&tokens[..600]), 300);
    assert_eq!(cache.peek(&tokens[..301]), 300);
    assert_eq!(cache.peek(&tokens[..300]), 100);
    assert_eq!(cache.peek(&tokens[..100]), 0);
    let rewritten = [messages(1, &[100]), messages(2, &[150]), messages(1, &[300, 70])].concat();
    assert_eq!(cache.peek(&rewritten), 100);
    assert_eq!(cache.peek(&[&tokens[..300], &[BOUNDARY]].concat()), 300);
}

/// The tokens of a prefix count, not its place or a digest of it; and a match is rounded down, never up.
#[test]
fn one_changed_token_anywhere_cuts_the_hit_before_it() {
    let mut cache = Cache::new(4000);
    let tokens = messages(1, &[100, 64, 600, 90]);
    cache.call(&tokens);
    let points: Vec<usize> = Prompt::new(&cache.identity, &tokens).schedule().reuse_points().collect();
    assert_eq!(points, [100, 164, 676, 764]);
    for at in (0..tokens.len()).filter(|&at| tokens[at] != BOUNDARY) {
        let mut changed = tokens.clone();
        changed[at] += 1;
        let expected = points.iter().copied().filter(|&point| point <= at).max().unwrap_or(0);
        assert_eq!(cache.peek(&changed), expected, "token {at}");
    }
}

/// The same tokens launched in other shapes have other bits.
#[test]
fn equal_tokens_in_other_pieces_are_a_miss() {
    let mut cache = Cache::new(4000);
    let closed = messages(1, &[100, 80]);
    cache.call(&closed);
    let mut longer = closed.clone();
    longer[100] = 4;
    assert_eq!(cache.peek(&longer), 0);
    assert_eq!(cache.peek(&closed), 100);
}

/// A stale entry once pointed at slots that held another prompt by then.
#[test]
fn reused_slots_do_not_answer_for_their_former_prompt() {
    let mut cache = Cache::new(300);
    let first = messages(1, &[100, 100, 10]);
    let second = messages(2, &[100, 100, 10]);
    cache.call(&first);
    assert_eq!(cache.peek(&first), 200);
    cache.call(&second);
    assert!(cache.peek(&first) < 200, "the pool of 300 cannot hold both");
    assert_eq!(cache.peek(&second), 200);
    cache.index.clear(&mut cache.pool).unwrap();
    assert_eq!((cache.peek(&first), cache.peek(&second), cache.pool.free_slots()), (0, 0, 300));
}

/// An entry was once confirmed although nothing had been saved.
#[test]
fn only_what_was_written_is_published() {
    let tokens = messages(1, &[100, 64, 600, 90]);
    for (written, expected) in [(0, 0), (99, 0), (100, 100), (163, 100), (675, 164), (676, 676), (854, 764)] {
        let mut cache = Cache::new(4000);
        assert_eq!(cache.call_written(&tokens, written), 0);
        assert_eq!(cache.peek(&tokens), expected, "{written} tokens were written");
        assert_eq!(cache.index.held_slots(), expected);
    }
}

/// A restore point once stood still for a whole session, and every call prefilled more.
#[test]
fn the_hit_grows_with_the_session_in_a_pool_of_two_prompts() {
    let lengths: Vec<usize> = (0..21).flat_map(|call| [80 + 7 * call, 300 + 41 * call, 3]).collect();
    let longest: usize = lengths.iter().sum();
    let mut cache = Cache::new(2 * longest as u32);
    let mut others = 0;
    let mut last_point = 0;
    for call in 1..=20 {
        let tokens = messages(1, &lengths[..3 * call]);
        assert_eq!(cache.call(&tokens), last_point, "call {call}");
        last_point = Prompt::new(&cache.identity, &tokens).schedule().reuse_points().last().unwrap();
        // Another session takes what is left, so that every call has to evict.
        others += 1;
        cache.call(&messages(1 + others, &[500, longest - 700, 9]));
    }
    assert!(last_point > longest * 9 / 10);
}

/// A boundary token inside a tool's text, or a stray end marker, is content: it may cut pieces, it cannot mislead.
#[test]
fn markers_inside_text_are_content() {
    let end_marker = 8;
    for at in 1..300 {
        for marker in [BOUNDARY, end_marker] {
            let mut cache = Cache::new(4000);
            let mut tokens = messages(1, &[100, 200, 90]);
            tokens[at] = marker;
            cache.call(&tokens);
            let grown = [tokens.clone(), messages(3, &[70, 5])].concat();
            let points: Vec<usize> =
                Prompt::new(&cache.identity, &tokens).schedule().reuse_points().collect();
            assert_eq!(cache.peek(&grown), points.last().copied().unwrap(), "marker {marker} at {at}");
            assert!(cache.peek(&grown) > 300 - 64, "at most one short segment is lost");
        }
    }
}

#[test]
fn a_change_of_any_part_of_the_identity_is_a_miss() {
    let rules = |rules| IdentityParts { rules, ..PARTS };
    let changed = [
        IdentityParts { model_digest: "model2", ..PARTS },
        IdentityParts { kv_dtype: "f32", ..PARTS },
        IdentityParts { kernels: "avx2", ..PARTS },
        IdentityParts { model_digest: "modelbf16", kv_dtype: "", ..PARTS },
        rules(Rules { boundary: 6, ..PARTS.rules }),
        rules(Rules { min_segment: 65, ..PARTS.rules }),
        rules(Rules { piece: 511, ..PARTS.rules }),
    ];
    let mut cache = Cache::new(4000);
    let tokens = messages(1, &[100, 70, 600]);
    cache.call(&tokens);
    for parts in &changed {
        cache.identity = Identity::new(parts);
        assert_eq!(cache.peek(&tokens), 0, "{parts:?}");
    }
    cache.identity = Identity::new(&PARTS);
    assert_eq!(cache.peek(&tokens), 682);
}

#[test]
fn users_with_one_system_prompt_share_it_and_nothing_else() {
    let mut cache = Cache::new(4000);
    let user = |voice| [messages(1, &[200]), messages(voice, &[300, 80])].concat();
    cache.call(&user(2));
    assert_eq!(cache.call(&user(3)), 200);
    assert_eq!(cache.index.held_slots(), 800);
    assert_eq!((cache.peek(&user(2)), cache.peek(&user(3)), cache.peek(&user(4))), (500, 500, 200));
}

#[test]
fn the_oldest_ends_go_first_and_only_as_many_as_needed() {
    let mut cache = Cache::new(1000);
    let (a, b) = (messages(1, &[100, 100, 100, 1]), messages(2, &[100, 100, 100, 1]));
    cache.call(&a);
    cache.call(&b);
    assert_eq!(cache.index.evict(400, &mut cache.pool).unwrap(), 0);
    assert_eq!(cache.index.evict(401, &mut cache.pool).unwrap(), 100);
    assert_eq!((cache.peek(&b), cache.peek(&a)), (300, 200));
    // `a` was used last: `b` goes now, from its end.
    assert_eq!(cache.index.evict(700, &mut cache.pool).unwrap(), 200);
    assert_eq!((cache.peek(&b), cache.peek(&a)), (100, 200));
    assert_eq!(cache.index.evict(5000, &mut cache.pool).unwrap(), 300);
    assert_eq!(cache.pool.free_slots(), 1000);
}

#[test]
fn a_pinned_prefix_outlives_eviction_until_its_last_lease_ends() {
    let mut cache = Cache::new(1000);
    let tokens = messages(1, &[100, 100, 100, 1]);
    cache.call(&tokens);
    let first = cache.index.lookup(&Prompt::new(&cache.identity, &tokens[..250]));
    let second = cache.index.lookup(&Prompt::new(&cache.identity, &tokens[..250]));
    assert_eq!((first.n_tokens, second.n_tokens), (200, 200));
    assert_eq!(cache.index.clear(&mut cache.pool).unwrap(), 100);
    cache.index.release(first.lease);
    assert_eq!(cache.index.clear(&mut cache.pool).unwrap(), 0);
    assert!(first.slots.iter().all(|slot| cache.pool.references(slot.unwrap()) == 1));
    cache.index.release(second.lease);
    assert_eq!(cache.index.clear(&mut cache.pool).unwrap(), 200);
    cache.index.check_invariants(&cache.pool).unwrap();
}

#[test]
fn of_two_calls_that_wrote_the_same_prefix_the_first_stays() {
    let mut cache = Cache::new(1000);
    let tokens = messages(1, &[100, 100, 1]);
    let prompt = Prompt::new(&cache.identity, &tokens);
    let leases = [cache.index.lookup(&prompt).lease, cache.index.lookup(&prompt).lease];
    let slots = [cache.pool.alloc(201).unwrap(), cache.pool.alloc(201).unwrap()];
    let published: Vec<usize> = slots
        .iter()
        .map(|slots| cache.index.publish(&prompt, &held(slots), &mut cache.pool).unwrap())
        .collect();
    assert_eq!(published, [200, 0]);
    slots.iter().for_each(|slots| cache.pool.release(slots).unwrap());
    leases.into_iter().for_each(|lease| cache.index.release(lease));
    assert_eq!(cache.pool.used_slots(), 200);
    let hit = cache.index.lookup(&prompt);
    assert_eq!(hit.slots, held(&slots[0][..200]));
    cache.index.release(hit.lease);
    cache.index.check_invariants(&cache.pool).unwrap();
}

#[test]
fn publishing_what_cannot_be_is_refused() {
    let mut cache = Cache::new(200);
    let tokens = messages(1, &[100, 1]);
    let prompt = Prompt::new(&cache.identity, &tokens);
    let slots = cache.pool.alloc(102).unwrap();
    let error = cache.index.publish(&prompt, &held(&slots), &mut cache.pool).unwrap_err().to_string();
    assert!(error.contains("102 slots for a prompt of 101 tokens"), "{error}");
    cache.pool.release(&slots).unwrap();
    assert!(cache.index.publish(&prompt, &held(&slots[..101]), &mut cache.pool).is_err());
    assert_eq!(cache.index.held_slots(), 0);
    cache.index.check_invariants(&cache.pool).unwrap();
}

#[test]
fn broken_books_are_found() {
    let broken = |cache: &Cache| cache.index.check_invariants(&cache.pool).unwrap_err().to_string();
    let tokens = messages(1, &[100, 1]);
    let mut cache = Cache::new(200);
    cache.call(&tokens);
    cache.pool.release(&[Slot(3)]).unwrap();
    assert!(broken(&cache).contains("slot 3 "), "freed behind the index's back");

    let mut cache = Cache::new(200);
    let slots = cache.pool.alloc(101).unwrap();
    for voice in [1, 2] {
        let tokens = messages(voice, &[100, 1]);
        let prompt = Prompt::new(&cache.identity, &tokens);
        cache.index.publish(&prompt, &held(&slots), &mut cache.pool).unwrap();
    }
    assert!(broken(&cache).contains("stands twice"), "one slot for two prompts");
}
