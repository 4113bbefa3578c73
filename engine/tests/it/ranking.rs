//! The drafter's ranking of a message's chunks, against what compression keeps of that message.

use std::collections::BTreeSet;

use engine::engine::Engine;
use engine::error::EngineError;
use engine::model_source::ModelSource;
use engine::request::{CachePolicy, CompressionPolicy, EngineOptions, Floor, LineRules, ScoreBy, Selection};
use transcripts::message::{Message, Role};

use crate::requests::{arm, ask, history, prompt};

fn open() -> Engine {
    let drafter = ModelSource::parse("synthetic:nano-drafter").unwrap();
    let target = ModelSource::parse("synthetic:nano").unwrap();
    Engine::open(EngineOptions { drafter: Some(drafter), ..EngineOptions::new(target) }).unwrap()
}

#[test]
fn the_best_chunks_are_those_that_compression_keeps() {
    let messages = history(3);
    let prompt = prompt(&messages, 2);
    let mut engine = open();
    engine.start(arm(CachePolicy::Off, Some(CompressionPolicy::Freeze))).unwrap();
    let sent = ask(&mut engine, &prompt).sent;
    let tools = prompt.iter().enumerate().filter(|(_, message)| message.role == Role::Tool);
    for (index, text) in tools.map(|(index, message)| (index, message.flat_text())) {
        let chunks = engine.ranked_chunks(&prompt, index).unwrap().unwrap();
        let mut ranks: Vec<usize> = chunks.iter().map(|chunk| chunk.rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, (0..chunks.len()).collect::<Vec<_>>(), "each rank once");
        assert_eq!(chunks.iter().map(|chunk| &text[chunk.bytes.clone()]).collect::<String>(), text);
        // The arm of these tests keeps a quarter.
        let n_keep = (chunks.len() / 4).max(1);
        let best = chunks.iter().filter(|chunk| chunk.rank < n_keep);
        let best: String = best.map(|chunk| &text[chunk.bytes.clone()]).collect();
        assert_eq!(sent[index].flat_text(), best);
        assert!(best.len() < text.len());
    }
}

#[test]
fn only_an_arm_that_compresses_ranks_and_short_messages_are_not_ranked() {
    let tool = Message::text(Role::Tool, "ok");
    let mut engine = open();
    assert!(matches!(engine.ranked_chunks(&[&tool], 0), Err(EngineError::NotStarted)));
    engine.start(arm(CachePolicy::On, None)).unwrap();
    assert_eq!(engine.ranked_chunks(&[&tool], 0).unwrap(), None);
    engine.start(arm(CachePolicy::On, Some(CompressionPolicy::Freeze))).unwrap();
    assert_eq!(engine.ranked_chunks(&[&tool], 0).unwrap(), None);
}

/// Under a budget of one token the best line is what is left of a message, whatever ranks it.
#[test]
fn the_line_that_is_kept_is_the_best_of_its_ranking() {
    // Longer than a marker: a shorter gap would be kept beside the line.
    let said = "and there is nothing else that it could say";
    let raw: Vec<String> =
        (0..60).map(|line| format!("line {line} of a plain listing holds {} {said}", line * 7)).collect();
    let messages = [
        Message::text(Role::User, "Find the line."),
        Message::text(Role::Assistant, ""),
        Message::text(Role::Tool, raw.join("\n")),
    ];
    let mut engine = open();
    let mut kept_by = |score_by| -> usize {
        let mut settings = arm(CachePolicy::Off, Some(CompressionPolicy::Freeze));
        let compression = settings.compression.as_mut().unwrap();
        compression.keep_permille = 1;
        compression.score_by = score_by;
        let rules = LineRules { floor: Floor::None, keep_floor_tokens: 1, verbatim_tools: Vec::new() };
        compression.selection = Selection::Lines(rules);
        engine.start(settings).unwrap();
        let sent = ask(&mut engine, &messages.iter().collect::<Vec<_>>()).sent[2].flat_text();
        let kept: Vec<&str> = sent.lines().filter(|line| !line.ends_with(" elided ...]")).collect();
        let [kept] = kept.as_slice() else { panic!("{score_by:?}: {sent}") };
        raw.iter().position(|line| line == kept).unwrap()
    };
    assert!([0, 59].contains(&kept_by(ScoreBy::HeadTail)));
    let drawn: BTreeSet<usize> = (0..8).map(|seed| kept_by(ScoreBy::Random { seed })).collect();
    assert!(drawn.len() > 4, "{drawn:?}");
    // Whichever it is, the drafter's is one whole line.
    kept_by(ScoreBy::OwnTail);
    kept_by(ScoreBy::Birth);
}
