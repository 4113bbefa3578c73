//! Freezing is append-only, whatever scores and selects: over random sessions, what was sent for a message stays, the
//! tokens of a call are a prefix of those of the next, and a memo built call by call is the memo of the last call alone.

use std::path::Path;

use engine::chat::{Generation, Thinking};
use engine::compress::compressor::Compressor;
use engine::compress::floor::forced;
use engine::compress::lines::LINE_TOKENS_MAX;
use engine::compress::scorer::Scorer;
use engine::device::{CudaOptions, Device, DeviceChoice};
use engine::model_source::ModelSource;
use engine::request::{
    CompressionPolicy, CompressionSettings, Floor, LineRules, Residency, ScoreBy, ScoreLayers, ScorePlace,
    ScoreRope, Selection, UserFallback, WithTools,
};
use engine::residency::Resident;
use engine::spans::StageClock;
use proptest::collection::vec;
use proptest::prelude::*;
use transcripts::message::{Message, Role, ToolCall};

const ALL_LAYERS: ScorePlace = ScorePlace { layers: ScoreLayers::All, rope: ScoreRope::Rope };

fn lines(floor: Floor) -> Selection {
    Selection::Lines(LineRules { floor, keep_floor_tokens: 24, verbatim_tools: vec!["Edit".to_owned()] })
}

fn settings(score_by: ScoreBy, selection: Selection) -> CompressionSettings {
    CompressionSettings {
        policy: CompressionPolicy::Freeze,
        keep_permille: 200,
        score_by,
        score_place: ALL_LAYERS,
        selection,
        threshold_tokens: 1,
        with_tools: WithTools::Compress,
        user_fallback: UserFallback::Off,
        freeze_file: None,
    }
}

/// Every way to score and to select under freezing.
fn freezing() -> Vec<CompressionSettings> {
    let scores = [ScoreBy::OwnTail, ScoreBy::Birth, ScoreBy::Random { seed: 7 }, ScoreBy::HeadTail];
    let selections = || [Selection::Compat, lines(Floor::None), lines(Floor::Structural)];
    scores.iter().flat_map(|by| selections().map(|selection| settings(*by, selection))).collect()
}

/// The drafter; the target is never run here.
struct Models {
    device: Device,
    target: Resident,
    drafter: Resident,
}

impl Models {
    fn open() -> Self {
        let open = || Resident::open(&ModelSource::parse("synthetic:nano-drafter").unwrap()).unwrap();
        let device = Device::open(&DeviceChoice::Cpu, None, CudaOptions::DEFAULT).unwrap();
        let mut drafter = open();
        drafter.load(&device).unwrap();
        Self { device, target: open(), drafter }
    }

    fn compressor(&self, settings: CompressionSettings) -> Compressor {
        Compressor::new(settings, self.drafter.model()).unwrap()
    }

    /// What is sent for a prompt, with the number of messages that the memo knew.
    fn send(&mut self, compressor: &mut Compressor, messages: &[&Message]) -> (Vec<Message>, u64) {
        let plan = compressor.plan(messages, &[], 1_000).unwrap();
        let hits = plan.frozen_hits;
        let mut scorer = Scorer {
            device: &self.device,
            target: &mut self.target,
            drafter: &mut self.drafter,
            residency: Residency::Resident,
            settings: compressor.settings(),
        };
        let scored = scorer.score(&plan.unseen, &mut StageClock::start()).unwrap();
        let decided = compressor.decide(plan, scored.outcomes).unwrap();
        let sent = compressor.apply(messages, &decided).unwrap();
        assert!(sent.tokens_kept <= sent.tokens_raw);
        (sent.messages.into_iter().map(std::borrow::Cow::into_owned).collect(), hits)
    }

    fn tokens(&self, messages: &[Message]) -> Vec<u32> {
        let model = self.drafter.model();
        let messages: Vec<&Message> = messages.iter().collect();
        let text = model.chat.render(&messages, &[], Generation::None, Thinking::Default).unwrap();
        model.tokenizer.encode(&text).unwrap()
    }
}

fn output() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        1 => "\\PC{0,80}",
        1 => "[ \n\t]{0,40}",
        3 => vec("[a-zé€🦀 .:/0-9]{0,24}", 0..60).prop_map(|lines| lines.join("\n")),
        2 => vec("[a-z]{1,8}: [0-9]{1,5}", 20..60).prop_map(|lines| lines.join("\r\n")),
        1 => "[a-z0-9,{}\"]{400,900}",
        1 => Just("error[E0425]: no `x`\n  --> src/a.rs:12:5\n".repeat(30)),
        1 => (0u32..3).prop_map(|seed| (0..300).map(|i| format!("{i}\tvalue {}\n", i * 37 + seed)).collect()),
    ]
}

/// A user's message, or a turn of one to three parallel calls with their results.
#[derive(Clone, Debug)]
enum Event {
    Ask(String),
    Calls(Vec<(String, String, String)>),
}

pub fn history() -> impl Strategy<Value = Vec<Message>> {
    let tool = prop_oneof![Just("Read"), Just("Bash"), Just("Edit"), Just("")].prop_map(str::to_owned);
    let event = prop_oneof![
        1 => "\\PC{0,30}".prop_map(Event::Ask),
        3 => vec((tool, "\\PC{0,20}", output()), 1..4).prop_map(Event::Calls),
    ];
    vec(event, 1..6).prop_map(|events| {
        let mut messages = vec![Message::text(Role::System, "You work in a repository.")];
        for (turn, event) in events.into_iter().enumerate() {
            match event {
                Event::Ask(text) => messages.push(Message::text(Role::User, text)),
                Event::Calls(calls) => {
                    let mut said = Message::text(Role::Assistant, "");
                    let mut results = Vec::new();
                    for (at, (name, arguments, text)) in calls.into_iter().enumerate() {
                        let id = format!("{turn}/{at}");
                        said.tool_calls.push(ToolCall { id: id.clone(), name: name.clone(), arguments });
                        let name = Some(name).filter(|name| !name.is_empty());
                        results.push(Message {
                            tool_call_id: Some(id),
                            name,
                            ..Message::text(Role::Tool, text)
                        });
                    }
                    messages.push(said);
                    messages.extend(results);
                }
            }
        }
        messages
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn what_was_sent_stays(messages in history()) {
        let mut models = Models::open();
        let all: Vec<&Message> = messages.iter().collect();
        for settings in freezing() {
            let mut memo = models.compressor(settings.clone());
            let mut before: (Vec<Message>, Vec<u32>) = Default::default();
            for n in 1..=all.len() {
                let (sent, _) = models.send(&mut memo, &all[..n]);
                let tokens = models.tokens(&sent);
                prop_assert_eq!(&sent[..n - 1], &before.0[..], "{:?}", settings);
                // Results of one turn stand in one block, whose end moves on with each.
                let is_open = all[n - 1].role == Role::Tool;
                let is_prefix = tokens.starts_with(&before.1);
                prop_assert!(is_prefix || is_open && all[n - 2].role == Role::Tool, "call {}: {:?}", n, settings);
                before = (sent, tokens);
            }
            for (sent, raw) in before.0.iter().zip(&messages) {
                let stays = raw.role != Role::Tool
                    || settings.selection != Selection::Compat && raw.name.as_deref() == Some("Edit");
                prop_assert!(!stays || sent == raw);
                prop_assert_eq!((&sent.tool_call_id, &sent.name), (&raw.tool_call_id, &raw.name));
                if settings.selection == lines(Floor::Structural) {
                    let (raw, sent) = (raw.flat_text(), sent.flat_text());
                    for byte in forced(&raw, None) {
                        let start = raw[..byte].rfind('\n').map_or(0, |at| at + 1);
                        let line = raw[start..].lines().next().unwrap_or_default();
                        // Longer ones may have more tokens than a line that is kept whole.
                        let is_kept = line.len() + 2 > LINE_TOKENS_MAX || sent.contains(line);
                        prop_assert!(is_kept, "{line:?} is forced and not in {sent:?}");
                    }
                }
            }
            let (at_once, _) = models.send(&mut models.compressor(settings.clone()), &all);
            prop_assert_eq!(at_once, before.0, "call by call or at once");
        }
    }
}

/// Two hundred lines of a tool after a goal and a call.
fn listing() -> Vec<Message> {
    let call = ToolCall { id: "1".to_owned(), name: "Bash".to_owned(), arguments: "{\"c\":1}".to_owned() };
    let text: String = (0..200).map(|line| format!("{line}\tplain text of {}\n", line * 7)).collect();
    vec![
        Message::text(Role::User, "Find the line."),
        Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") },
        Message {
            tool_call_id: Some("1".to_owned()),
            name: Some("Bash".to_owned()),
            ..Message::text(Role::Tool, text)
        },
    ]
}

/// Messages of [`listing`] changed by `change` that a memo file knows which was filled under `filled`.
fn hits(
    models: &mut Models,
    file: &Path,
    settings: CompressionSettings,
    change: impl FnOnce(&mut Vec<Message>),
) -> u64 {
    let mut messages = listing();
    change(&mut messages);
    let messages: Vec<&Message> = messages.iter().collect();
    let settings = CompressionSettings { freeze_file: Some(file.to_owned()), ..settings };
    models.send(&mut models.compressor(settings), &messages).1
}

#[test]
fn a_change_of_one_setting_or_word_misses_and_the_same_again_hits() {
    let folder = tempfile::tempdir().unwrap();
    let mut models = Models::open();
    let base = settings(ScoreBy::Birth, lines(Floor::Structural));
    let at = |layers, rope| ScorePlace { layers, rope };
    let rules = |floor, keep_floor_tokens| {
        Selection::Lines(LineRules { floor, keep_floor_tokens, verbatim_tools: Vec::new() })
    };
    let changed = [
        CompressionSettings { keep_permille: 201, ..base.clone() },
        CompressionSettings { score_by: ScoreBy::OwnTail, ..base.clone() },
        CompressionSettings { score_by: ScoreBy::HeadTail, ..base.clone() },
        CompressionSettings { score_by: ScoreBy::Random { seed: 1 }, ..base.clone() },
        CompressionSettings { score_by: ScoreBy::Random { seed: 2 }, ..base.clone() },
        CompressionSettings { score_place: at(ScoreLayers::Mid, ScoreRope::Rope), ..base.clone() },
        CompressionSettings { score_place: at(ScoreLayers::All, ScoreRope::Nope), ..base.clone() },
        CompressionSettings { selection: Selection::Compat, ..base.clone() },
        CompressionSettings { selection: rules(Floor::None, 24), ..base.clone() },
        CompressionSettings { selection: rules(Floor::Structural, 25), ..base.clone() },
        CompressionSettings { threshold_tokens: 2, ..base.clone() },
        CompressionSettings { with_tools: WithTools::Bypass, ..base.clone() },
    ];
    let file = folder.path().join("memo");
    let same = |_: &mut Vec<Message>| {};
    assert_eq!(hits(&mut models, &file, base.clone(), same), 0);
    assert_eq!(hits(&mut models, &file, base.clone(), same), 1);
    for settings in &changed {
        assert_eq!(hits(&mut models, &file, settings.clone(), same), 0, "{settings:?}");
        assert_eq!(hits(&mut models, &file, settings.clone(), same), 1, "{settings:?}");
    }
    let other_tools = CompressionSettings { selection: rules(Floor::Structural, 24), ..base.clone() };
    assert_eq!(
        hits(&mut models, &file, other_tools, same),
        1,
        "which tools are left alone is no part of a message"
    );

    let mutations: [fn(&mut Vec<Message>); 4] = [
        |messages| messages[0] = Message::text(Role::User, "Find the lines."),
        |messages| messages[1].tool_calls[0].arguments = "{\"c\":2}".to_owned(),
        |messages| messages[2].name = Some("bash".to_owned()),
        |messages| {
            messages[2] = Message { content: Message::text(Role::Tool, "one").content, ..messages[2].clone() }
        },
    ];
    for mutation in mutations {
        assert_eq!(hits(&mut models, &file, base.clone(), mutation), 0);
    }
    // Nothing that comes later is part of a message.
    let later = |messages: &mut Vec<Message>| messages.push(Message::text(Role::User, "And then?"));
    assert_eq!(hits(&mut models, &file, base, later), 1);
}

#[test]
fn a_text_within_its_least_budget_is_not_read_and_controls_read_nothing() {
    let mut models = Models::open();
    let messages = listing();
    let messages: Vec<&Message> = messages.iter().collect();
    let n_tokens = models.drafter.model().tokenizer.encode(&messages[2].flat_text()).unwrap().len() as u64;
    let scored = |models: &mut Models, settings: CompressionSettings| {
        let mut compressor = models.compressor(settings);
        let plan = compressor.plan(&messages, &[], 1_000).unwrap();
        let mut scorer = Scorer {
            device: &models.device,
            target: &mut models.target,
            drafter: &mut models.drafter,
            // Parking would drop the drafter, and say so by failing to find it loaded.
            residency: Residency::Resident,
            settings: compressor.settings(),
        };
        let scored = scorer.score(&plan.unseen, &mut StageClock::start()).unwrap();
        let decided = compressor.decide(plan, scored.outcomes).unwrap();
        let sent = compressor.apply(&messages, &decided).unwrap();
        (scored.tokens, sent.n_compressed, sent.tokens_kept)
    };
    let with_least = |keep_floor_tokens| {
        let rules = LineRules { floor: Floor::None, keep_floor_tokens, verbatim_tools: Vec::new() };
        settings(ScoreBy::Birth, Selection::Lines(rules))
    };
    assert_eq!(scored(&mut models, with_least(n_tokens)), (0, 0, 0));
    let (read, n_compressed, kept) = scored(&mut models, with_least(n_tokens - 1));
    assert!(read > n_tokens && n_compressed == 1 && kept < n_tokens, "{read} {n_compressed} {kept}");
    let whole = CompressionSettings { keep_permille: 1000, ..with_least(1) };
    assert_eq!(scored(&mut models, whole), (0, 0, 0), "all is kept whatever the score");
    for by in [ScoreBy::Random { seed: 1 }, ScoreBy::HeadTail] {
        let (read, n_compressed, kept) = scored(&mut models, settings(by, lines(Floor::None)));
        assert_eq!((read, n_compressed), (0, 1));
        assert!(kept <= (n_tokens / 5).max(24), "{kept} of {n_tokens}");
    }
}
