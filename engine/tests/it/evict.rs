//! Whole requests under eviction: aged tool messages lose rows in place, nothing behind them is computed again, and every
//! call equals the same plan run from an empty cache, bit for bit. `masked` checks what that plan means.

use std::num::NonZeroUsize;

use engine::engine::Engine;
use engine::model_source::ModelSource;
use engine::request::{CachePolicy, CompressionPolicy, EngineOptions, Response};
use proptest::prelude::*;
use transcripts::message::{Message, Role};

use crate::requests::{arm, ask, history, logits, prompt, replay};

const ROOMY: u64 = 64 << 20;
/// Bytes that a token takes in the target's KV.
const TOKEN: u64 = 2048;

fn open(kv_budget_bytes: u64) -> Engine {
    Engine::open(EngineOptions {
        drafter: Some(ModelSource::parse("synthetic:nano-drafter").unwrap()),
        threads: NonZeroUsize::new(2),
        kv_budget_bytes,
        ..EngineOptions::new(ModelSource::parse("synthetic:nano").unwrap())
    })
    .unwrap()
}

const fn evict(keep_verbatim_newest: usize) -> Option<CompressionPolicy> {
    Some(CompressionPolicy::Evict { keep_verbatim_newest })
}

#[test]
fn aged_messages_lose_rows_and_nothing_is_computed_again() {
    let mut engine = open(ROOMY);
    let whole = replay(&mut engine, arm(CachePolicy::On, None), 5);
    let frozen = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Freeze)), 5);
    let evicting = replay(&mut engine, arm(CachePolicy::On, evict(1)), 5);
    let messages = history(5);
    for (call, (evicting, whole)) in evicting.iter().zip(&whole).enumerate() {
        assert_eq!(evicting.exact, Some(true), "call {call}");
        assert_eq!(evicting.sent, messages[..2 + 2 * call], "sent as it came");
        assert_eq!(evicting.growth, whole.growth);
        assert_eq!(evicting.tokens_prefilled, whole.tokens_prefilled, "call {call}");
        assert_eq!(evicting.tokens_scored, frozen[call].tokens_scored);
        assert_eq!(evicting.messages_compressed, call.saturating_sub(1) as u64);
        // The answer right behind the first message sees all of it.
        assert_eq!(evicting.first_logits_digest == whole.first_logits_digest, call < 2, "call {call}");
        assert_eq!(evicting.tokens_removed > 0, call >= 2);
        assert_eq!(whole.kv_bytes - evicting.kv_bytes, TOKEN * evicting.tokens_removed as u64);
        let ratio = evicting.keep_ratio_realised;
        assert!(if call < 2 { ratio.is_none() } else { (0.2..0.35).contains(&ratio.unwrap()) }, "{ratio:?}");
    }
    assert!(evicting[4].kv_bytes < whole[4].kv_bytes * 3 / 4, "{}", evicting[4].kv_bytes);
    assert_ne!(evicting[4].first_logits_digest, frozen[4].first_logits_digest, "a function of its own");
    let seen = evicting[4].visible.as_ref().unwrap();
    for (index, (seen, raw)) in seen.iter().zip(&messages).enumerate() {
        let has_aged = raw.role == Role::Tool && index + 1 < messages.len();
        assert_eq!(seen.flat_text().len() < raw.flat_text().len(), has_aged, "message {index}");
    }
}

#[test]
fn keeping_all_messages_or_all_of_them_is_the_cache_alone() {
    let mut engine = open(ROOMY);
    let whole = replay(&mut engine, arm(CachePolicy::On, None), 3);
    let young = replay(&mut engine, arm(CachePolicy::On, evict(9)), 3);
    let mut all = arm(CachePolicy::On, evict(1));
    all.compression.as_mut().unwrap().keep_permille = 1000;
    let all = replay(&mut engine, all, 3);
    for same in [young, all] {
        assert_eq!(logits(&same), logits(&whole));
        assert!(same.iter().all(|call| call.tokens_removed == 0 && call.visible.is_none()));
    }
}

#[test]
fn without_a_cache_the_whole_plan_runs_anew_and_gives_the_same_bits() {
    let mut engine = open(ROOMY);
    let cached = replay(&mut engine, arm(CachePolicy::On, evict(1)), 4);
    let cold = replay(&mut engine, arm(CachePolicy::Off, evict(1)), 4);
    assert_eq!(logits(&cold), logits(&cached));
    for (cold, cached) in cold.iter().zip(&cached) {
        assert_eq!(cold.output_ids, cached.output_ids, "decode sees the same rows");
        assert_eq!((cold.tokens_removed, cold.tokens_prefix_hit), (0, 0), "what runs is not removed");
        assert_eq!(cold.evictions, cached.evictions);
    }
}

/// Parallel tool messages make each other old before any answer saw them; a turn without a tool message makes none old.
#[test]
fn every_answer_sees_the_whole_of_what_it_answers() {
    let history = history(4);
    let ask_again = Message::text(Role::User, "And the other one?");
    let parallel = [&history[..4], &history[5..6]].concat();
    let messages = [&parallel, &history[6..7], &[ask_again], &history[6..8]].concat();
    let roles: Vec<&str> = messages[2..].iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["assistant", "tool", "tool", "assistant", "user", "assistant", "tool"]);
    let calls = |engine: &mut Engine, policy| -> Vec<Response> {
        engine.start(arm(CachePolicy::On, policy)).unwrap();
        [2, 5, 7, 9].map(|n| ask(engine, &messages[..n].iter().collect::<Vec<_>>())).into()
    };
    let mut engine = open(ROOMY);
    let whole = calls(&mut engine, None);
    let evicting = calls(&mut engine, evict(1));
    let compressed: Vec<u64> = evicting.iter().map(|call| call.messages_compressed).collect();
    assert_eq!(compressed, [0, 0, 1, 2], "the older of the two goes once both were answered");
    assert_eq!(logits(&evicting[..2]), logits(&whole[..2]));
    assert!(evicting.iter().all(|call| call.exact == Some(true)));
}

/// Under a budget that holds one session and little else, every arm that keeps prefixes loses them whenever other sessions
/// run, and gives the bits of a roomy one.
#[test]
fn every_caching_arm_gives_the_same_bits_when_its_prefixes_are_lost() {
    let n_calls = 3;
    let sessions: Vec<Vec<Message>> = (0..3)
        .map(|voice| {
            let system = Message::text(Role::System, format!("You are assistant {voice} of three."));
            [&[system], &history(n_calls)[1..]].concat()
        })
        .collect();
    let calls = |engine: &mut Engine, policy| -> Vec<Response> {
        engine.start(arm(CachePolicy::On, policy)).unwrap();
        let turns = (0..n_calls).flat_map(|call| sessions.iter().map(move |session| (call, session)));
        let answer = |(call, session): (usize, &Vec<Message>)| {
            let answer = ask(engine, &prompt(session, call));
            engine.backfill().unwrap();
            answer
        };
        turns.map(answer).collect()
    };
    let mut roomy = open(ROOMY);
    let policies = [
        None,
        Some(CompressionPolicy::Freeze),
        Some(CompressionPolicy::Rescore),
        Some(CompressionPolicy::Rolling { keep_verbatim_newest: 1 }),
        Some(CompressionPolicy::LatencyOnly),
        evict(1),
    ];
    for policy in policies {
        let expected = calls(&mut roomy, policy);
        let holds_whole =
            matches!(policy, Some(CompressionPolicy::LatencyOnly | CompressionPolicy::Evict { .. }));
        let held = |call: &Response| match holds_whole {
            true => call.tokens_raw,
            false => call.tokens_prefilled + call.tokens_prefix_hit,
        };
        let longest = expected.iter().map(held).max().unwrap();
        let mut tight = open(TOKEN * (longest + 64));
        let got = calls(&mut tight, policy);
        assert_eq!(logits(&got), logits(&expected), "{policy:?}");
        assert!(got.iter().all(|call| call.exact == Some(true)), "{policy:?}");
        let hits = |calls: &[Response]| calls.iter().map(|call| call.tokens_prefix_hit).sum::<u64>();
        assert!(hits(&got) < hits(&expected), "{policy:?}: {} of {}", hits(&got), hits(&expected));
    }
}

/// A session of turns with up to three tool messages each, from a word to more than a launch.
fn sessions() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let lines = prop_oneof![2 => 1usize..4, 3 => 8usize..20, 1 => Just(45usize)];
    prop::collection::vec(prop::collection::vec(lines, 0..4), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn any_session_is_exact_and_append_only(turns in sessions(), newest in 0usize..3) {
        let mut messages = vec![Message::text(Role::User, "Where is it?")];
        let mut calls = vec![1];
        for (turn, tools) in turns.iter().enumerate() {
            messages.push(Message::text(Role::Assistant, format!("Turn {turn}.")));
            for n_lines in tools {
                let line = |line| format!("{line}: the value of {turn} is {}\n", line * 37 + turn);
                messages.push(Message::text(Role::Tool, (0..*n_lines).map(line).collect::<String>()));
            }
            if tools.is_empty() {
                messages.push(Message::text(Role::User, "Go on."));
            }
            calls.push(messages.len());
        }
        let mut engine = open(ROOMY);
        let mut run = |cache, policy| -> Vec<Response> {
            engine.start(arm(cache, policy)).unwrap();
            calls.iter().map(|&n| ask(&mut engine, &messages[..n].iter().collect::<Vec<_>>())).collect()
        };
        let whole = run(CachePolicy::On, None);
        let cached = run(CachePolicy::On, evict(newest));
        let cold = run(CachePolicy::Off, evict(newest));
        prop_assert_eq!(logits(&cached), logits(&cold));
        for (call, cached) in cached.iter().enumerate() {
            prop_assert_eq!(cached.exact, Some(true), "call {}", call);
            prop_assert_eq!(cached.tokens_prefilled, whole[call].tokens_prefilled, "call {}", call);
            prop_assert_eq!(whole[call].kv_bytes - cached.kv_bytes, TOKEN * cached.tokens_removed as u64);
            if let Some(before) = call.checked_sub(1) {
                let earlier = cold[before].evictions.evictions();
                let later = cold[call].evictions.evictions();
                prop_assert!(earlier.iter().all(|eviction| later.contains(eviction)), "a plan only grows");
            }
        }
    }
}
