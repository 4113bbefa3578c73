//! Exactness where state crosses a border: sessions that take turns in one arm, and a session whose second half another engine
//! answers from the memo's file. Every policy of compression, with a cache.

use engine::engine::Engine;
use engine::request::{ArmSettings, CachePolicy, CompressionPolicy, Response};
use transcripts::message::{Message, Role};

use crate::requests::{ROOMY, arm, ask, history, logits, open, prompt, short};

const N_CALLS: usize = 4;

/// Every way to compress beside a cache, none included.
fn caching_arms() -> Vec<ArmSettings> {
    let policies = [
        None,
        Some(CompressionPolicy::Rescore),
        Some(CompressionPolicy::Freeze),
        Some(CompressionPolicy::Rolling { keep_verbatim_newest: 1 }),
        Some(CompressionPolicy::LatencyOnly),
        Some(CompressionPolicy::Evict { keep_verbatim_newest: 1 }),
    ];
    policies.map(|policy| arm(CachePolicy::On, policy)).to_vec()
}

/// One call, and what it leaves to be prefilled.
fn call(engine: &mut Engine, messages: &[Message], index: usize) -> Response {
    let response = ask(engine, &prompt(messages, index));
    engine.backfill().unwrap();
    response
}

fn outputs(responses: &[Response]) -> Vec<&[u32]> {
    responses.iter().map(|response| response.output_ids.as_slice()).collect()
}

#[test]
fn sessions_that_take_turns_answer_as_if_each_were_alone() {
    let first = short(history(N_CALLS));
    // The same system prompt and the same tools, asked by another user.
    let mut second = first.clone();
    second[1] = Message::text(Role::User, "What does the parser do with a bad line?");
    let mut engine = open(2, ROOMY);
    for settings in caching_arms() {
        let alone = |engine: &mut Engine, messages: &[Message]| -> Vec<Response> {
            engine.start(settings.clone()).unwrap();
            (0..N_CALLS).map(|index| call(engine, messages, index)).collect()
        };
        let expected = [alone(&mut engine, &first), alone(&mut engine, &second)];
        engine.start(settings.clone()).unwrap();
        let mut in_turns: [Vec<Response>; 2] = Default::default();
        for index in 0..N_CALLS {
            for (messages, responses) in [&first, &second].into_iter().zip(&mut in_turns) {
                responses.push(call(&mut engine, messages, index));
            }
        }
        for (expected, got) in expected.iter().zip(&in_turns) {
            assert_eq!(logits(expected), logits(got), "{settings:?}");
            assert_eq!(outputs(expected), outputs(got), "{settings:?}");
            assert!(got.iter().all(|response| response.exact == Some(true)), "{settings:?}");
        }
    }
}

#[test]
fn the_second_half_of_a_session_goes_on_from_the_memo_file_in_another_engine() {
    let messages = short(history(N_CALLS));
    let folder = tempfile::tempdir().unwrap();
    for (at, mut settings) in caching_arms().into_iter().enumerate() {
        let Some(compression) = settings.compression.as_mut() else { continue };
        compression.freeze_file =
            compression.policy.freezes().then(|| folder.path().join(format!("whole {at}")));
        let mut engine = open(2, ROOMY);
        engine.start(settings.clone()).unwrap();
        let whole: Vec<Response> = (0..N_CALLS).map(|index| call(&mut engine, &messages, index)).collect();
        drop(engine);

        let compression = settings.compression.as_mut().unwrap();
        compression.freeze_file =
            compression.freeze_file.as_ref().map(|_| folder.path().join(format!("half {at}")));
        let mut halves = Vec::new();
        for calls in [0..N_CALLS / 2, N_CALLS / 2..N_CALLS] {
            let mut engine = open(1 + calls.start, ROOMY);
            engine.start(settings.clone()).unwrap();
            halves.extend(calls.map(|index| call(&mut engine, &messages, index)));
        }
        assert_eq!(logits(&whole), logits(&halves), "{settings:?}");
        assert_eq!(outputs(&whole), outputs(&halves), "{settings:?}");
        for (whole, half) in whole.iter().zip(&halves) {
            assert_eq!(whole.sent, half.sent);
            assert_eq!(
                whole.messages_scored, half.messages_scored,
                "the file knows what the first half scored"
            );
        }
        let path = |name: &str| folder.path().join(format!("{name} {at}"));
        if settings.compression.as_ref().is_some_and(|compression| compression.policy.freezes()) {
            assert_eq!(std::fs::read(path("whole")).unwrap(), std::fs::read(path("half")).unwrap());
        }
    }
}
