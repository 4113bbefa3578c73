//! Latency-only compression: a call answers from compressed new messages, and the backfill leaves history as a cold run has
//! it. The twin is an arm that never compresses: what it holds and reuses is what the backfilled arm must hold and reuse.

use engine::engine::Engine;
use engine::error::EngineError;
use engine::request::{
    ArmSettings, CachePolicy, CompressionPolicy, Floor, LineRules, Response, ScoreBy, Selection,
};
use proptest::prelude::*;
use transcripts::message::{Message, Role};

use crate::append_only::history;
use crate::requests::{ROOMY, arm, ask, open, prompt, short};

/// Tokens that [`ask`] generates at most.
const NEW_TOKENS: u64 = 3;
/// Bytes of a token in the cache of the target of these tests.
const BYTES_PER_TOKEN: u64 = 2048;

fn latency_only() -> ArmSettings {
    arm(CachePolicy::On, Some(CompressionPolicy::LatencyOnly))
}

/// Ends of the prompts of a history: before each turn of the model, and after the last message.
fn calls(messages: &[Message]) -> Vec<usize> {
    let turns = (1..messages.len()).filter(|&index| messages[index].role == Role::Assistant);
    turns.chain([messages.len()]).collect()
}

/// Tokens that were published when a call began: those in use less its own.
fn held_before(response: &Response) -> u64 {
    let sent = response.tokens_prefix_hit + response.tokens_prefilled;
    response.kv_bytes / BYTES_PER_TOKEN - (sent + NEW_TOKENS - 1 - response.tokens_prefix_hit)
}

/// Every call of a history; between the calls what the arm left to be prefilled.
fn replay(engine: &mut Engine, settings: ArmSettings, messages: &[Message]) -> Vec<Response> {
    engine.start(settings).unwrap();
    let call = |end: usize| {
        let messages: Vec<&Message> = messages[..end].iter().collect();
        let response = ask(engine, &messages);
        engine.backfill().unwrap();
        engine.check_invariants().unwrap();
        response
    };
    calls(messages).into_iter().map(call).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn history_is_as_a_cold_run_has_it(messages in history()) {
        let mut messages = short(messages);
        let mut settings = latency_only();
        let compression = settings.compression.as_mut().unwrap();
        compression.score_by = ScoreBy::HeadTail;
        let rules = LineRules { floor: Floor::None, keep_floor_tokens: 24, verbatim_tools: Vec::new() };
        compression.selection = Selection::Lines(rules);
        // After this turn nothing is new: the prompt is the original one.
        messages.push(Message::text(Role::Assistant, "That is all."));

        let plain = replay(&mut open(2, ROOMY), arm(CachePolicy::On, None), &messages);
        let passing = replay(&mut open(2, ROOMY), settings, &messages);
        let mut engine = open(2, ROOMY);
        engine.start(arm(CachePolicy::Off, None)).unwrap();
        let cold = ask(&mut engine, &messages.iter().collect::<Vec<_>>());
        for (call, (passing, plain)) in passing.iter().zip(&plain).enumerate() {
            prop_assert_eq!(passing.exact, Some(true), "call {}", call);
            prop_assert_eq!(passing.tokens_prefix_hit, plain.tokens_prefix_hit, "call {}", call);
            prop_assert_eq!(held_before(passing), held_before(plain), "call {}", call);
            let extends = |response: &Response| response.growth.map(|growth| growth.shared == growth.previous);
            prop_assert_eq!(extends(passing), extends(plain), "call {}", call);
            let turn = passing.sent.iter().rposition(|message| message.role == Role::Assistant).unwrap_or(0);
            prop_assert_eq!(&passing.sent[..turn], &messages[..turn], "call {}", call);
        }
        let last = plain.len() - 1;
        prop_assert_eq!(passing[last].tokens_removed, 0);
        prop_assert_eq!(&passing[last].first_logits_digest, &cold.first_logits_digest);
        prop_assert_eq!(&passing[last].output_ids, &cold.output_ids);
    }
}

#[test]
fn a_message_stands_compressed_on_the_call_that_first_sees_it_and_the_gap_takes_the_rest() {
    let messages = crate::requests::history(4);
    let mut engine = open(2, ROOMY);
    engine.start(latency_only()).unwrap();
    let mut owed = 0;
    for call in 0..4 {
        let response = ask(&mut engine, &prompt(&messages, call));
        assert_eq!(response.messages_compressed, u64::from(call > 0));
        assert_eq!(response.messages_scored, u64::from(call > 0));
        assert!(response.growth.is_none_or(|growth| growth.shared == growth.previous), "call {call}");
        if call > 1 {
            assert!(response.tokens_prefix_hit > owed, "history was prefilled before call {call}");
        }
        let done = engine.backfill().unwrap();
        assert_eq!(done.is_some(), call > 0, "the first call compresses nothing");
        owed = done.map_or(0, |done| done.tokens);
        // More than was taken away: the kept part of a message in another form is prefilled again.
        assert!(call == 0 || owed as i64 > response.tokens_removed, "call {call}: {owed}");
        assert_eq!(engine.backfill().unwrap(), None, "once is enough");
    }
    // Asked again, the same message is known.
    let again = ask(&mut engine, &prompt(&messages, 3));
    assert_eq!((again.messages_frozen_hit, again.tokens_scored), (1, 0));
}

#[test]
fn without_its_backfill_a_call_finds_less_and_stays_exact() {
    let messages = crate::requests::history(4);
    let mut engine = open(2, ROOMY);
    let mut replay = |backfills: bool| -> Vec<Response> {
        engine.start(latency_only()).unwrap();
        let call = |call| {
            let response = ask(&mut engine, &prompt(&messages, call));
            if backfills {
                engine.backfill().unwrap();
            }
            response
        };
        (0..4).map(call).collect()
    };
    let (with, without) = (replay(true), replay(false));
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with.first_logits_digest, without.first_logits_digest);
        assert_eq!((with.exact, without.exact), (Some(true), Some(true)));
    }
    assert!(with[3].tokens_prefix_hit > without[3].tokens_prefix_hit);
}

#[test]
fn a_backfill_that_does_not_fit_says_so_and_leaves_the_arm_usable() {
    let messages = crate::requests::history(4);
    let mut roomy = open(2, ROOMY);
    roomy.start(latency_only()).unwrap();
    let sent = ask(&mut roomy, &prompt(&messages, 3));
    let raw = sent.tokens_raw;
    assert!(sent.tokens_removed > 64);
    // Room for the prompt as it is sent, and not for the one that history keeps.
    let mut engine = open(2, BYTES_PER_TOKEN * (raw - sent.tokens_removed as u64 + NEW_TOKENS));
    engine.start(latency_only()).unwrap();
    let tight = ask(&mut engine, &prompt(&messages, 3));
    assert_eq!(tight.first_logits_digest, sent.first_logits_digest);
    assert!(matches!(engine.backfill(), Err(EngineError::KvBudget { .. })));
    engine.check_invariants().unwrap();
    assert_eq!(ask(&mut engine, &prompt(&messages, 1)).exact, Some(true));
}
