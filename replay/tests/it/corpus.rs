//! Training text: every place that a row names holds what it says it holds.

use engine::chat::ChatTemplate;
use engine::compress::query::birth_query;
use proptest::prelude::*;
use replay::corpus::{Form, Row, Span, row};
use transcripts::synth::{Shape, generate};

fn at(row: &Row, span: Span) -> &str {
    &row.text[span[0]..span[1]]
}

fn check(row: &Row) {
    assert!(row.text.is_ascii(), "a byte is a character");
    for turn in &row.turns {
        assert!(row.text[..turn[0]].ends_with("<|im_start|>assistant\n"));
        assert!(at(row, *turn).ends_with("<|im_end|>") && at(row, *turn).matches("<|im_end|>").count() == 1);
    }
    for needle in &row.needles {
        assert_eq!(at(row, needle.ask), at(row, needle.key));
        assert!(at(row, needle.fact).contains(at(row, needle.key)));
        assert!(row.turns.contains(&needle.answer));
        for other in &needle.others {
            assert!(
                other[1] <= needle.fact[0] || needle.fact[1] <= other[0],
                "another fact is another place"
            );
            assert!(other[1] <= needle.tail[0] && at(row, *other) != at(row, needle.fact));
        }
        assert!(needle.fact[1] <= needle.tail[0] && needle.tail[1] == needle.answer[0]);
        let from_fact = needle.copies.iter().filter(|copy| {
            needle.fact[0] <= copy.source[0] && copy.source[1] <= needle.fact[1] && copy.in_call
        });
        assert!(from_fact.count() >= 1, "the answer copies from its fact");
        for copy in &needle.copies {
            assert_eq!(at(row, copy.source), at(row, copy.r#use));
            assert!(copy.source[1] <= copy.r#use[0], "what is copied stands before");
            assert_eq!(copy.in_call, {
                let turn = row.turns.iter().find(|turn| turn[0] <= copy.r#use[0] && copy.r#use[1] <= turn[1]);
                at(row, *turn.unwrap()).starts_with("<tool_call>")
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_row_of_a_session_names_its_places(seed: u64, chars in 300_usize..20_000) {
        let row = row(&ChatTemplate::built_in().unwrap(), Form::Session, seed, chars).unwrap();
        check(&row);
        prop_assert!(row.turns.len() >= 2 && row.text.starts_with("<|im_start|>user\n"));
    }

    #[test]
    fn a_row_for_scoring_is_an_output_its_query_and_its_answer(seed: u64, chars in 300_usize..20_000) {
        let row = row(&ChatTemplate::built_in().unwrap(), Form::Scoring, seed, chars).unwrap();
        check(&row);
        let [needle] = row.needles.as_slice() else { panic!("one needle") };
        let output_end = row.text.find("<|im_start|>user\n").unwrap();
        prop_assert!(needle.fact[1] <= output_end && output_end < needle.ask[0]);
        prop_assert!(needle.others.len() <= 6 && needle.others.iter().all(|other| other[1] <= output_end));
        prop_assert_eq!(row.turns.len(), 1);
    }
}

#[test]
fn the_query_of_a_scoring_row_is_the_one_that_the_engine_asks() {
    let chat = ChatTemplate::built_in().unwrap();
    for seed in 0..24 {
        let shape = Shape { seed, calls: 2, chars: Some(2_000) };
        let synthetic = generate(&shape);
        let session = synthetic.import("t.jsonl").unwrap().sessions.swap_remove(0);
        let needle = &synthetic.needles[0];
        let (goal, holder) =
            (&session.messages[needle.ask_message_index], &session.messages[needle.message_index]);
        let call =
            session.messages[1].tool_calls.iter().find(|call| Some(&call.id) == holder.tool_call_id.as_ref());
        let asked = birth_query(&chat, &goal.flat_text(), call);
        let row = row(&chat, Form::Scoring, seed, 2_000).unwrap();
        assert_eq!(row.text[..row.needles[0].answer[0]], holder.flat_text() + &asked, "seed {seed}");
    }
}
