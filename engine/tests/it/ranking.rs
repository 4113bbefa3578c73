//! The drafter's ranking of a message's chunks, against what compression keeps of that message.

use engine::engine::Engine;
use engine::error::EngineError;
use engine::model_source::ModelSource;
use engine::request::{CachePolicy, CompressionPolicy, EngineOptions};
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
