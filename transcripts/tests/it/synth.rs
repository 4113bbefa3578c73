//! Generated sessions: any seed and size imports cleanly, has the calls asked for, and says truly what they need.

use proptest::prelude::*;
use serde_json::Value;
use transcripts::message::{Message, Role};
use transcripts::session::Session;
use transcripts::structure;
use transcripts::synth::{FactKind, Needle, Shape, Synthetic, generate};

/// The one session of a generated file, read as any recording is.
fn imported(synthetic: &Synthetic) -> Session {
    let mut import = synthetic.import("generated.jsonl").unwrap();
    assert!(
        import.files.iter().all(|file| file.warnings.is_empty() && file.bad_lines == 0),
        "{:?}",
        import.files
    );
    assert_eq!(import.sessions.len(), 1);
    import.sessions.swap_remove(0)
}

fn text(message: &Message) -> String {
    message.flat_text()
}

/// Every string and number of the arguments, joined.
fn written(session: &Session, call: usize) -> String {
    let turn = session.completion(call).unwrap();
    let arguments =
        turn.tool_calls.iter().map(|call| serde_json::from_str::<Value>(&call.arguments).unwrap());
    arguments.map(|arguments| arguments.to_string()).collect()
}

fn check_needle(session: &Session, needle: &Needle) {
    let (ask, holder) =
        (&session.messages[needle.ask_message_index], &session.messages[needle.message_index]);
    assert_eq!((ask.role, holder.role), (Role::User, Role::Tool));
    let (ask, output) = (text(ask), text(holder));
    assert_eq!(ask[needle.names[0].clone()], output[needle.key.clone()], "the key is the same in both");
    let prefix = &session.calls[needle.call_index].prefix;
    assert!(prefix.contains(&(needle.message_index as u32)), "the call can see its fact");
    let arguments = written(session, needle.call_index);
    let fact = needle.fact.clone();
    for value in &needle.values {
        assert!(fact.start <= value.start && value.end <= fact.end);
        assert!(arguments.contains(&output[value.clone()]), "{arguments} lacks {}", &output[value.clone()]);
    }
    let explored = session.completion(needle.call_index - 1).unwrap();
    let answers = |message: &Message| {
        explored.tool_calls.iter().any(|call| Some(&call.id) == message.tool_call_id.as_ref())
    };
    assert_eq!(answers(holder), !needle.delayed, "the call before shows it, unless it was shown earlier");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_session_is_whole_and_its_needles_are_true(
        seed: u64,
        calls in 1_usize..40,
        chars in proptest::option::of(0_usize..60_000),
    ) {
        let shape = Shape { seed, calls, chars };
        let synthetic = generate(&shape);
        prop_assert!(synthetic == generate(&shape), "the same shape is the same session");
        prop_assert!(synthetic.jsonl.is_ascii());
        let session = imported(&synthetic);
        prop_assert_eq!(session.calls.len(), calls);
        prop_assert!(session.issues.is_empty(), "{:?}", session.issues);
        prop_assert!(session.calls.iter().all(|call| call.prefix_break.is_none()));
        let findings = structure::check_session(&session);
        prop_assert!(findings.is_empty(), "{findings:?}");
        for needle in &synthetic.needles {
            check_needle(&session, needle);
            let beside = synthetic.needles.iter().filter(|other| other.message_index == needle.message_index);
            for other in beside.filter(|other| other.fact != needle.fact) {
                prop_assert!(needle.others.contains(&other.fact), "each is one of the others of the other");
            }
        }
    }
}

#[test]
fn the_size_asked_for_is_the_size_of_the_last_prompt() {
    for (calls, chars) in [(10, 20_000), (10, 71_000), (30, 200_000)] {
        for seed in 0..8 {
            let session = imported(&generate(&Shape { seed, calls, chars: Some(chars) }));
            let got: u64 = session.prefix(calls - 1).iter().map(|message| message.chars()).sum();
            let off = (got as f64 / chars as f64 - 1.0).abs();
            assert!(off < 0.15, "seed {seed}: {got} characters for {chars}");
        }
    }
}

#[test]
fn sessions_are_as_varied_as_recorded_ones() {
    let sessions: Vec<(Session, Vec<Needle>)> = (0..200)
        .map(|seed| {
            let synthetic = generate(&Shape { seed, calls: 12, chars: None });
            (imported(&synthetic), synthetic.needles)
        })
        .collect();
    let needles = || sessions.iter().flat_map(|(_, needles)| needles);
    for kind in FactKind::ALL {
        assert!(needles().any(|needle| needle.kind == kind), "{kind:?}");
    }
    assert!(needles().any(|needle| needle.delayed));
    let turns = || sessions.iter().flat_map(|(session, _)| &session.messages);
    assert!(turns().any(|message| message.tool_calls.len() == 2), "some calls are parallel");
    let mut outputs: Vec<u64> =
        turns().filter(|message| message.role == Role::Tool).map(Message::chars).collect();
    outputs.sort_unstable();
    let (median, largest) = (outputs[outputs.len() / 2], outputs[outputs.len() - 1]);
    assert!((100..2_000).contains(&median) && largest > 20_000, "median {median}, largest {largest}");
}

/// A change of the generator changes what the sample models were trained on and what the default run measures.
#[test]
fn the_sessions_of_a_seed_are_pinned() {
    let digest = |seed| {
        let session = generate(&Shape { seed, calls: 10, chars: Some(71_000) });
        blake3::hash(session.jsonl.as_bytes()).to_hex()[..16].to_owned()
    };
    assert_eq!([digest(0), digest(1)], ["9b685e25a9ebab65", "477fe02a10ed7466"]);
}
