//! The birth query: which goal and call a tool message is asked about, in what words, and that a score with it moves.

use std::num::NonZeroUsize;

use engine::chat::{ChatTemplate, TemplateOrigin};
use engine::compress::query::{GOAL_TOKENS_MAX, birth_query, births};
use engine::engine::Engine;
use engine::model_source::{Model, ModelSource};
use engine::request::{ArmSettings, CachePolicy, CompressionPolicy, EngineOptions, ScoreBy};
use proptest::prelude::*;
use transcripts::message::{Message, Role, ToolCall};

use crate::requests::{arm, ask, history, prompt};

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: "Read".to_owned(), arguments: arguments.to_owned() }
}

fn turn(calls: &[ToolCall]) -> Message {
    Message { tool_calls: calls.to_vec(), ..Message::text(Role::Assistant, "Looking.") }
}

fn result(id: &str, text: &str) -> Message {
    Message { tool_call_id: Some(id.to_owned()), ..Message::text(Role::Tool, text) }
}

fn drafter() -> Model {
    ModelSource::parse("synthetic:nano-drafter").unwrap().open().unwrap()
}

fn query_of(messages: &[Message], index: usize, model: &Model) -> Option<String> {
    let messages: Vec<&Message> = messages.iter().collect();
    births(&messages).swap_remove(index).map(|birth| birth.query(&model.chat, &model.tokenizer).unwrap())
}

#[test]
fn the_query_is_the_goal_and_the_call_in_the_drafters_words() {
    let chat = ChatTemplate::built_in().unwrap();
    let call = call("1", "{\"path\":\"src/a.rs\"}");
    assert_eq!(
        birth_query(&chat, "Find the limit.", Some(&call)),
        "<|im_start|>user\nFind the limit.<|im_end|>\n<|im_start|>assistant\n<tool_call>\n\
         {\"name\": \"Read\", \"arguments\": {\"path\": \"src/a.rs\"}}\n</tool_call><|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        birth_query(&chat, "Find the limit.", None),
        "<|im_start|>user\nFind the limit.<|im_end|>\n<|im_start|>assistant\n"
    );
    let picky =
        ChatTemplate::new("{{ raise_exception('no system message') }}", TemplateOrigin::BuiltIn).unwrap();
    assert_eq!(
        birth_query(&picky, "Find the limit.", Some(&call)),
        "\nFind the limit.\nRead {\"path\":\"src/a.rs\"}\n"
    );
}

#[test]
fn goal_and_call_are_the_nearest_before_the_message() {
    let (a, b, c) = (call("a", "{\"n\":1}"), call("b", "{\"n\":2}"), call("a", "{\"n\":3}"));
    let reminder = Message {
        synthetic: true,
        ..Message::text(Role::User, "<system-reminder>tidy up</system-reminder>")
    };
    let messages = [
        Message::text(Role::User, "First goal."),
        turn(&[a, b]),
        result("a", "one"),
        result("b", "two"),
        reminder.clone(),
        turn(&[c]),
        result("a", "three"),
        Message::text(Role::User, "Second goal."),
        result("a", "four"),
        result("unknown", "five"),
    ];
    let model = drafter();
    let query = |index| query_of(&messages, index, &model).unwrap();
    for (index, goal, argument) in [
        (2, "First", "\"n\": 1"),
        (3, "First", "\"n\": 2"),
        (6, "First", "\"n\": 3"),
        (8, "Second", "\"n\": 3"),
    ] {
        let text = query(index);
        assert!(text.contains(&format!("{goal} goal.")) && text.contains(argument), "{index}: {text}");
    }
    assert!(!query(6).contains("tidy up"), "a client is no user while a user spoke");
    assert!(query(9).contains("Second goal.") && !query(9).contains("tool_call"), "{}", query(9));

    assert!(query_of(&[reminder, result("x", "y")], 1, &model).unwrap().contains("tidy up"));
    assert_eq!(query_of(&[result("x", "y")], 0, &model), None);
    assert_eq!(query_of(&[Message::text(Role::User, " \n"), result("x", "y")], 1, &model), None);
}

#[test]
fn a_long_goal_is_cut_at_a_character_within_the_limit() {
    let model = drafter();
    for word in ["alpha beta ", "é€🦀", "\u{301}e "] {
        let messages =
            [Message::text(Role::User, word.repeat(4000)), turn(&[call("a", "{}")]), result("a", "x")];
        let query = query_of(&messages, 2, &model).unwrap();
        let goal = query.strip_prefix("<|im_start|>user\n").unwrap().split("<|im_end|>").next().unwrap();
        let n_tokens = model.tokenizer.encode(goal).unwrap().len();
        assert!(word.repeat(4000).starts_with(goal) && !goal.is_empty());
        assert!(n_tokens <= GOAL_TOKENS_MAX && n_tokens + 16 > GOAL_TOKENS_MAX, "{n_tokens} of {word:?}");
    }
}

#[test]
fn the_digest_changes_with_everything_that_the_query_says() {
    let digest = |goal: &str, arguments: &str, template: &str| {
        let messages = [Message::text(Role::User, goal), turn(&[call("a", arguments)]), result("a", "x")];
        births(&messages.iter().collect::<Vec<_>>())[2].as_ref().unwrap().digest(template)
    };
    let digests = [
        digest("goal", "{}", "template"),
        digest("goals", "{}", "template"),
        digest("goal", "{ }", "template"),
        digest("goal", "{}", "another template"),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(digests[i + 1..].iter().all(|other| other != digest));
    }
    assert_eq!(digests[0], digest("goal", "{}", "template"));
}

fn settings(policy: CompressionPolicy, query: ScoreBy) -> ArmSettings {
    let mut settings = arm(CachePolicy::On, Some(policy));
    settings.compression.as_mut().unwrap().score_by = query;
    settings
}

#[test]
fn the_query_is_read_with_the_output_and_another_goal_is_another_message() {
    let mut engine = Engine::open(EngineOptions {
        drafter: Some(ModelSource::parse("synthetic:nano-drafter").unwrap()),
        threads: NonZeroUsize::new(2),
        kv_budget_bytes: 64 << 20,
        ..EngineOptions::new(ModelSource::parse("synthetic:nano").unwrap())
    })
    .unwrap();
    let messages = history(3);
    let mut replay = |query, messages: &[Message]| {
        engine.start(settings(CompressionPolicy::Freeze, query)).unwrap();
        let first = ask(&mut engine, &prompt(messages, 1));
        let second = ask(&mut engine, &prompt(messages, 2));
        assert_eq!(second.sent[..first.sent.len()], first.sent[..]);
        (first, second)
    };
    let (own, _) = replay(ScoreBy::OwnTail, &messages);
    let (birth, _) = replay(ScoreBy::Birth, &messages);
    let model = drafter();
    let query = query_of(&messages, 3, &model).unwrap();
    let n_query = model.tokenizer.encode(&query).unwrap().len() as u64;
    assert_eq!(birth.tokens_scored, own.tokens_scored + n_query);
    assert_eq!(birth.keep_ratio_realised.unwrap(), own.keep_ratio_realised.unwrap());
    assert_ne!(birth.sent[3], own.sent[3], "random weights look elsewhere from another place");

    // The same output twice under one goal is one message; under another goal it is a new one.
    let mut twice = messages.clone();
    twice.truncate(4);
    twice.extend([twice[2].clone(), twice[3].clone()]);
    assert_eq!(replay(ScoreBy::Birth, &twice).1.messages_frozen_hit, 2);
    twice.insert(4, Message::text(Role::User, "And where is it used?"));
    engine.start(settings(CompressionPolicy::Freeze, ScoreBy::Birth)).unwrap();
    let all: Vec<&Message> = twice.iter().collect();
    ask(&mut engine, &all[..4]);
    let later = ask(&mut engine, &all);
    assert_eq!((later.messages_frozen_hit, later.messages_compressed), (1, 2));
    assert!(later.tokens_scored > 0);
}

proptest! {
    #[test]
    fn any_goal_and_call_make_a_query(goal in "\\PC{0,40}", name in "\\PC{0,8}", arguments in "\\PC{0,40}") {
        let chat = ChatTemplate::built_in().unwrap();
        let call = ToolCall { id: "a".to_owned(), name: name.clone(), arguments };
        let query = birth_query(&chat, &goal, Some(&call));
        prop_assert!(query.contains(&goal) && query.contains(&name), "{}", query);
        prop_assert!(query.ends_with("</tool_call><|im_end|>\n<|im_start|>assistant\n"), "{}", query);
    }
}
