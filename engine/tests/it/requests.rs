//! Whole requests on the synthetic pair: exactness of the cache, what compression does to a growing history, residency
//! and bad requests.

use std::num::NonZeroUsize;

use engine::engine::Engine;
use engine::error::EngineError;
use engine::model_source::ModelSource;
use engine::request::{
    ArmSettings, CachePolicy, CacheState, CompressionPolicy, CompressionSettings, EngineOptions,
    FinishReason, Request, Residency, Response, ScoreBy, ScoreLayers, ScorePlace, ScoreRope, Selection,
    UserFallback, Verify, WithTools,
};
use engine::sample::Sampling;
use engine::spans::Stage;
use transcripts::message::{Message, Role, ToolCall};

pub fn open(threads: usize, kv_budget_bytes: u64) -> Engine {
    Engine::open(EngineOptions {
        drafter: Some(ModelSource::parse("synthetic:nano-drafter").unwrap()),
        threads: NonZeroUsize::new(threads),
        kv_budget_bytes,
        ..EngineOptions::new(ModelSource::parse("synthetic:nano").unwrap())
    })
    .unwrap()
}

pub const ROOMY: u64 = 64 << 20;

/// A session of `n_calls` calls: each call's prompt extends the one before by a tool call and its result.
pub fn history(n_calls: usize) -> Vec<Message> {
    let mut messages = vec![
        Message::text(Role::System, "You answer questions about a repository, with the tools you have."),
        Message::text(Role::User, "Where is the retry limit set, and what is it?"),
    ];
    for call in 1..n_calls {
        let id = format!("call_{call}");
        let mut assistant = Message::text(Role::Assistant, format!("Reading part {call}."));
        assistant.tool_calls = vec![ToolCall {
            id: id.clone(),
            name: "Read".into(),
            arguments: format!("{{\"part\": {call}}}"),
        }];
        let listing: String = (0..24 * call)
            .map(|line| format!("{line:5}\tlet value_{line} = source.part({call}, {line})?;\n"))
            .collect();
        let mut result = Message::text(Role::Tool, listing);
        result.tool_call_id = Some(id);
        result.name = Some("Read".into());
        messages.extend([assistant, result]);
    }
    messages
}

/// Messages with no more than 600 characters each, where it is how they are handled that counts.
pub fn short(mut messages: Vec<Message>) -> Vec<Message> {
    for message in &mut messages {
        let text = message.flat_text().chars().take(600).collect::<String>();
        message.content = Message::text(message.role, text).content;
    }
    messages
}

/// The prompt of call `call` (from 0) of [`history`].
pub fn prompt(messages: &[Message], call: usize) -> Vec<&Message> {
    messages[..2 + 2 * call].iter().collect()
}

fn compression(policy: CompressionPolicy) -> CompressionSettings {
    CompressionSettings {
        policy,
        keep_permille: 250,
        score_by: ScoreBy::OwnTail,
        selection: Selection::Compat,
        score_place: ScorePlace { layers: ScoreLayers::All, rope: ScoreRope::Rope },
        threshold_tokens: 1,
        with_tools: WithTools::Compress,
        user_fallback: UserFallback::Off,
        freeze_file: None,
    }
}

pub fn arm(cache: CachePolicy, policy: Option<CompressionPolicy>) -> ArmSettings {
    ArmSettings { cache, compression: policy.map(compression), residency: Residency::Resident }
}

pub fn ask(engine: &mut Engine, messages: &[&Message]) -> Response {
    let request = Request {
        messages,
        tools: &[],
        max_new_tokens: 3,
        sampling: Sampling::Greedy,
        verify: Verify::Bitwise,
    };
    let response = engine.generate(&request).unwrap();
    engine.check_invariants().unwrap();
    assert_eq!(
        response.tokens_raw as i64,
        response.tokens_removed + (response.tokens_prefix_hit + response.tokens_prefilled) as i64
    );
    assert!(response.spans.total() <= response.ttft && response.ttft <= response.e2e);
    response
}

pub fn replay(engine: &mut Engine, settings: ArmSettings, n_calls: usize) -> Vec<Response> {
    let messages = history(n_calls);
    engine.start(settings).unwrap();
    (0..n_calls).map(|call| ask(engine, &prompt(&messages, call))).collect()
}

pub fn logits(responses: &[Response]) -> Vec<&str> {
    responses.iter().map(|response| response.first_logits_digest.as_str()).collect()
}

#[test]
fn cached_calls_give_the_bits_of_cold_calls() {
    let mut engine = open(2, ROOMY);
    let cold = replay(&mut engine, arm(CachePolicy::Off, None), 5);
    let cached = replay(&mut engine, arm(CachePolicy::On, None), 5);
    assert_eq!(logits(&cold), logits(&cached));
    for (index, (cold, cached)) in cold.iter().zip(&cached).enumerate() {
        assert_eq!((cold.exact, cached.exact), (None, Some(true)));
        assert_eq!((cold.cache_state, cold.tokens_prefix_hit), (CacheState::Off, 0));
        let expected = if index < 2 { CacheState::Miss } else { CacheState::Hit };
        assert!(index < 2 || cached.cache_state == expected, "call {index}: {:?}", cached.cache_state);
        assert_eq!(cold.output_ids, cached.output_ids);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_on_a_budget_that_evicts() {
    let wide = replay(&mut open(1, ROOMY), arm(CachePolicy::On, Some(CompressionPolicy::Freeze)), 5);
    // 2 KiB a token: room for the longest prompt and little else.
    let tight_budget = 2048 * (wide[4].tokens_raw + 64);
    for threads in [2, 3] {
        for budget in [ROOMY, tight_budget] {
            let mut engine = open(threads, budget);
            let again = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Freeze)), 5);
            assert_eq!(logits(&wide), logits(&again), "{threads} threads, {budget} bytes");
            assert!(again.iter().all(|response| response.exact == Some(true)));
        }
    }
}

#[test]
fn a_second_session_evicts_the_first_and_both_stay_exact() {
    let messages = history(4);
    let other: Vec<Message> = messages
        .iter()
        .cloned()
        .map(|mut m| {
            if m.role == Role::User {
                m = Message::text(Role::User, "What does the parser do with a bad line?");
            }
            m
        })
        .collect();
    let mut engine = open(2, ROOMY);
    let longest = replay(&mut engine, arm(CachePolicy::Off, None), 4)[3].tokens_raw;
    let mut engine = open(2, 2048 * (longest + 64));
    engine.start(arm(CachePolicy::On, None)).unwrap();
    for round in 0..2 {
        for session in [&messages, &other] {
            let response = ask(&mut engine, &prompt(session, 3));
            assert_eq!(response.exact, Some(true), "round {round}");
            assert!(response.tokens_prefix_hit < response.tokens_raw / 2, "the other session took its slots");
        }
    }
}

#[test]
fn frozen_compression_is_append_only_and_rescoring_scores_again() {
    let mut engine = open(2, ROOMY);
    let frozen = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Freeze)), 5);
    let rescored = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Rescore)), 5);
    for (earlier, later) in frozen.iter().zip(&frozen[1..]) {
        assert_eq!(later.sent[..earlier.sent.len()], earlier.sent[..], "what was sent stays");
    }
    for (call, (frozen, rescored)) in frozen.iter().zip(&rescored).enumerate() {
        assert_eq!(frozen.messages_tool, call as u64);
        assert_eq!(frozen.messages_frozen_hit, call.saturating_sub(1) as u64);
        assert_eq!((rescored.messages_frozen_hit, rescored.messages_compressed), (0, call as u64));
        // The tail of each text is its own query, so both policies keep the same bytes.
        assert_eq!(frozen.first_logits_digest, rescored.first_logits_digest);
        assert!(frozen.exact == Some(true) && rescored.exact == Some(true));
    }
    for (call, response) in rescored.iter().enumerate() {
        let every_message_so_far: u64 = frozen[..=call].iter().map(|r| r.tokens_scored).sum();
        assert_eq!(response.tokens_scored, every_message_so_far);
    }
    assert!(frozen[4].tokens_prefix_hit > 0 && frozen[4].tokens_removed > 0);
}

#[test]
fn rolling_sends_the_frozen_form_once_a_message_has_aged_and_breaks_the_prefix_there() {
    let mut engine = open(2, ROOMY);
    let frozen = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Freeze)), 4);
    let messages = history(4);
    for newest in [1, 2] {
        let policy = CompressionPolicy::Rolling { keep_verbatim_newest: newest };
        let rolling = replay(&mut engine, arm(CachePolicy::On, Some(policy)), 4);
        for (call, (rolling, frozen)) in rolling.iter().zip(&frozen).enumerate() {
            let tools = (0..rolling.sent.len()).filter(|&index| messages[index].role == Role::Tool);
            for (nth, index) in tools.enumerate() {
                let is_young = nth + newest >= call;
                let expected = if is_young { &messages[index] } else { &frozen.sent[index] };
                assert_eq!(&rolling.sent[index], expected, "call {call}, message {index}");
            }
            // Each message is scored once, when it is first seen.
            assert_eq!(
                (rolling.tokens_scored, rolling.messages_scored),
                (frozen.tokens_scored, u64::from(call > 0))
            );
            assert_eq!(rolling.messages_compressed, call.saturating_sub(newest) as u64);
            assert_eq!(rolling.exact, Some(true));
            let breaks = rolling.growth.is_some_and(|growth| growth.shared < growth.previous);
            assert_eq!(breaks, call > newest, "call {call}: {:?}", rolling.growth);
        }
        assert!(rolling[3].tokens_prefix_hit < frozen[3].tokens_prefix_hit);
    }
    let all = CompressionPolicy::Rolling { keep_verbatim_newest: 0 };
    assert_eq!(logits(&replay(&mut engine, arm(CachePolicy::On, Some(all)), 4)), logits(&frozen));
}

#[test]
fn compression_touches_tool_messages_alone_and_keeps_their_identity() {
    let messages = history(4);
    let mut engine = open(2, ROOMY);
    engine.start(arm(CachePolicy::Off, Some(CompressionPolicy::Freeze))).unwrap();
    let response = ask(&mut engine, &prompt(&messages, 3));
    for (sent, raw) in response.sent.iter().zip(&messages) {
        if raw.role != Role::Tool {
            assert_eq!(sent, raw);
            continue;
        }
        assert_eq!((sent.role, &sent.tool_call_id, &sent.name), (raw.role, &raw.tool_call_id, &raw.name));
        assert!(sent.flat_text().len() < raw.flat_text().len());
        let raw_text = raw.flat_text();
        let mut rest = raw_text.chars();
        assert!(sent.flat_text().chars().all(|kept| rest.any(|c| c == kept)), "what is kept is in order");
    }
    let ratio = response.keep_ratio_realised.unwrap();
    assert!((0.15..0.35).contains(&ratio), "{ratio}");
}

#[test]
fn keeping_everything_is_the_uncompressed_prompt() {
    let mut engine = open(2, ROOMY);
    let plain = replay(&mut engine, arm(CachePolicy::On, None), 3);
    let mut all = arm(CachePolicy::On, Some(CompressionPolicy::Freeze));
    all.compression.as_mut().unwrap().keep_permille = 1000;
    let kept = replay(&mut engine, all, 3);
    assert_eq!(logits(&plain), logits(&kept));
    assert!(kept.iter().all(|response| response.tokens_removed == 0 && response.messages_compressed == 0));
}

#[test]
fn the_gates_hold() {
    let messages = history(3);
    let mut engine = open(2, ROOMY);
    let tools = [serde_json::json!({"type": "function", "function": {"name": "Read", "parameters": {}}})];
    let mut settings = arm(CachePolicy::On, Some(CompressionPolicy::Freeze));
    settings.compression.as_mut().unwrap().with_tools = WithTools::Bypass;
    engine.start(settings.clone()).unwrap();
    let mut request = Request {
        messages: &prompt(&messages, 2),
        tools: &tools,
        max_new_tokens: 1,
        sampling: Sampling::Greedy,
        verify: Verify::Off,
    };
    assert_eq!(engine.generate(&request).unwrap().messages_compressed, 0);

    // Born while a gate was closed: verbatim for ever, so the prefix does not break when the gate opens.
    request.tools = &[];
    let later = engine.generate(&request).unwrap();
    assert_eq!((later.messages_compressed, later.messages_frozen_hit), (0, 2));

    settings.compression.as_mut().unwrap().threshold_tokens = 1_000_000;
    engine.start(settings).unwrap();
    assert_eq!(engine.generate(&request).unwrap().messages_compressed, 0);
}

#[test]
fn without_a_tool_message_the_fallback_compresses_the_last_user_message() {
    let long = "Explain why the build fails. ".repeat(60);
    let messages = [Message::text(Role::System, "Be short."), Message::text(Role::User, long)];
    let refs: Vec<&Message> = messages.iter().collect();
    let mut engine = open(2, ROOMY);
    for (fallback, expected) in [(UserFallback::Off, 0), (UserFallback::LastUser, 1)] {
        let mut settings = arm(CachePolicy::Off, Some(CompressionPolicy::Rescore));
        settings.compression.as_mut().unwrap().user_fallback = fallback;
        engine.start(settings).unwrap();
        let response = ask(&mut engine, &refs);
        assert_eq!(response.messages_compressed, expected);
        assert_eq!(response.sent[0], messages[0]);
        assert_eq!(response.sent[1] == messages[1], expected == 0);
    }
}

#[test]
fn parking_costs_loads_and_changes_no_bit() {
    let mut engine = open(2, ROOMY);
    let resident = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Rescore)), 3);
    let mut settings = arm(CachePolicy::On, Some(CompressionPolicy::Rescore));
    settings.residency = Residency::Parked;
    let parked = replay(&mut engine, settings, 3);
    assert_eq!(logits(&resident), logits(&parked));
    for (call, response) in parked.iter().enumerate() {
        let loads = [Stage::TargetPark, Stage::DrafterLoad, Stage::TargetLoad];
        let booked = loads.iter().filter(|stage| response.spans.get(**stage).is_some()).count();
        assert_eq!(booked, if call == 0 { 0 } else { 3 }, "nothing to score, nothing to move");
    }
    assert!(resident.iter().all(|response| response.spans.get(Stage::TargetLoad).is_none()));
}

#[test]
fn a_memo_file_carries_over_to_another_engine() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = arm(CachePolicy::On, Some(CompressionPolicy::Freeze));
    settings.compression.as_mut().unwrap().freeze_file = Some(folder.path().join("memo"));
    let first = replay(&mut open(2, ROOMY), settings.clone(), 3);
    let second = replay(&mut open(1, ROOMY), settings, 3);
    assert_eq!(logits(&first), logits(&second));
    assert!(second.iter().all(|response| response.tokens_scored == 0));
    assert_eq!(second[2].messages_frozen_hit, 2);
}

#[test]
fn seeded_sampling_repeats_and_length_is_respected() {
    let messages = history(2);
    let mut engine = open(2, ROOMY);
    let mut draw = |seed| {
        engine.start(arm(CachePolicy::Off, None)).unwrap();
        let sampling = Sampling::Seeded { temperature: 1.0, top_k: 0, top_p: 1.0, seed };
        let request = Request {
            messages: &prompt(&messages, 1),
            tools: &[],
            max_new_tokens: 12,
            sampling,
            verify: Verify::Off,
        };
        engine.generate(&request).unwrap()
    };
    let (one, again, other) = (draw(7), draw(7), draw(8));
    assert_eq!(one.output_ids, again.output_ids);
    assert_ne!(one.output_ids, other.output_ids);
    if one.finish_reason == FinishReason::Length {
        assert_eq!(one.tokens_output, 12);
    }
}

#[test]
fn requests_that_cannot_run_say_why_and_leave_the_arm_usable() {
    let messages = history(4);
    let mut engine = open(2, 2048 * 400);
    let refs = prompt(&messages, 3);
    let request = |messages, max_new_tokens| Request {
        messages,
        tools: &[],
        max_new_tokens,
        sampling: Sampling::Greedy,
        verify: Verify::Off,
    };
    assert!(matches!(engine.generate(&request(&refs, 1)), Err(EngineError::NotStarted)));
    engine.start(arm(CachePolicy::On, None)).unwrap();
    assert!(matches!(engine.generate(&request(&[], 1)), Err(EngineError::EmptyRequest { .. })));
    assert!(matches!(engine.generate(&request(&refs, 0)), Err(EngineError::EmptyRequest { .. })));
    assert!(matches!(engine.generate(&request(&refs, u32::MAX)), Err(EngineError::ContextLength { .. })));
    let error = engine.generate(&request(&refs, 1)).unwrap_err().to_string();
    assert!(error.contains("raise the KV budget"), "{error}");
    engine.check_invariants().unwrap();
    assert_eq!(ask(&mut engine, &prompt(&messages, 0)).exact, Some(true));

    let target = ModelSource::parse("synthetic:nano").unwrap();
    let alone = EngineOptions { kv_budget_bytes: ROOMY, ..EngineOptions::new(target) };
    let refused = Engine::open(alone).unwrap().start(arm(CachePolicy::Off, Some(CompressionPolicy::Freeze)));
    assert!(matches!(refused, Err(EngineError::NoDrafter)));
}
