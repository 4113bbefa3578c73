//! A backend without a model: words for tokens, a cost model for time. Everything about it is a function of its input,
//! so that the whole pipeline, spans and TTFT included, can be checked to the last digit. It injects faults on named
//! calls. It knows prefix reuse and compression in their simplest form: whole messages, first words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::compress::age::{aged_before, new_from};
use transcripts::message::{Message, Part, Role};

use crate::arm::{Arm, Cache};
use crate::backend::{
    Backend, BackendError, Backfill, CacheState, CallFacts, CallInput, Device, Identity, StageTimes, Verify,
};
use crate::compression::{CompressionSettings, Policy, UserFallback, WithTools};
use crate::validity::{Finish, Thinking};

/// Words that the frame of a message costs.
pub const FRAME_TOKENS: u64 = 2;
/// Words that open the answer: never reused, so a hit never covers the end of a prompt.
pub const OPENER_TOKENS: u64 = 1;
/// Time of the chat template per message.
pub const RENDER_PER_MESSAGE: Duration = Duration::from_micros(1);
/// Time of tokenizing per raw token.
pub const TOKENIZE_PER_TOKEN: Duration = Duration::from_nanos(500);
/// Time of scoring per token.
pub const SCORE_PER_TOKEN: Duration = Duration::from_micros(20);
/// Time of choosing per scored message.
pub const SELECT_PER_MESSAGE: Duration = Duration::from_micros(4);
/// Time of one lookup.
pub const LOOKUP: Duration = Duration::from_micros(3);
/// Time of the target per prefilled token.
pub const PREFILL_PER_TOKEN: Duration = Duration::from_micros(100);
/// Time of the first sample.
pub const FIRST_TOKEN: Duration = Duration::from_micros(50);
/// What no stage claims.
pub const UNEXPLAINED: Duration = Duration::from_micros(2);
/// Time per generated token after the first.
pub const DECODE_PER_TOKEN: Duration = Duration::from_micros(200);
/// Bytes of KV per token held.
pub const KV_BYTES_PER_TOKEN: u64 = 64;

/// What goes wrong on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails.
    Error,
    /// Reuse is reported although the arm has no cache.
    HitWithoutCache,
    /// A prompt token is unaccounted for.
    TokenLost,
    /// Cached logits differ from cold ones.
    NotExact,
    /// The stages add up to more than TTFT.
    StagesOverlap,
}

/// What the mock says, and what goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Outputs in turn, by the number of the call; `ok` when empty.
    pub outputs: Vec<String>,
    /// Faults by the number of the call over the life of the mock, from 0.
    pub faults: BTreeMap<u64, Fault>,
    /// Where the mock says its models run.
    pub device: Device,
}

/// The mock and the state of its arm.
#[derive(Clone, Debug, Default)]
pub struct MockBackend {
    /// Calls answered or failed so far.
    pub n_calls: u64,
    /// Names of the arms started, in order.
    pub started: Vec<String>,
    script: Script,
    arm: Option<Arm>,
    published: BTreeSet<Vec<String>>,
    frozen: BTreeSet<String>,
    /// The last call's messages, where history keeps them otherwise than they were sent.
    owed: Option<Vec<Message>>,
}

#[derive(Default)]
struct Compressed {
    messages: Vec<Message>,
    tokens_scored: u64,
    n_scored: u64,
    n_compressed: u64,
    n_frozen_hit: u64,
    words_raw: u64,
    words_kept: u64,
}

impl Backend for MockBackend {
    fn identity(&self) -> Identity {
        let model = |name: &str| serde_json::json!({ "name": name, "architecture": "mock" });
        Identity {
            device: self.script.device,
            device_facts: BTreeMap::from([("name".to_owned(), "mock".into())]),
            models: BTreeMap::from([
                ("target".to_owned(), model("mock-target")),
                ("drafter".to_owned(), model("mock-drafter")),
            ]),
            thinking: Thinking::Allowed,
        }
    }

    fn start(&mut self, arm: &Arm) -> Result<(), BackendError> {
        self.started.push(arm.name.clone());
        self.arm = Some(arm.clone());
        self.published.clear();
        self.frozen.clear();
        self.owed = None;
        Ok(())
    }

    fn call(&mut self, input: &CallInput<'_>) -> Result<CallFacts, BackendError> {
        let number = self.n_calls;
        self.n_calls += 1;
        let fault = self.script.faults.get(&number).copied();
        if fault == Some(Fault::Error) {
            let message = format!("call {number} of the mock: a fault was asked for; ask for none");
            return Err(BackendError { kind: "backend", message });
        }
        let arm = self.arm.clone().ok_or_else(|| BackendError {
            kind: "backend",
            message: "the mock was called before an arm was started; call start first".to_owned(),
        })?;
        let mut facts = self.answer(input, &arm, number);
        match fault {
            Some(Fault::HitWithoutCache) => {
                facts.tokens_prefix_hit += 1;
                facts.tokens_prefilled -= 1;
            }
            Some(Fault::TokenLost) => facts.tokens_prefilled -= 1,
            Some(Fault::NotExact) => facts.exact = Some(false),
            Some(Fault::StagesOverlap) => facts.ttft /= 2,
            Some(Fault::Error) | None => {}
        }
        Ok(facts)
    }

    fn backfill(&mut self) -> Result<Option<Backfill>, BackendError> {
        let Some(history) = self.owed.take() else { return Ok(None) };
        let prefixes = prefixes(&history);
        let n_held = prefixes.iter().take_while(|prefix| self.published.contains(*prefix)).count();
        self.published.extend(prefixes);
        let tokens = history[n_held..].iter().map(message_tokens).sum();
        Ok(Some(Backfill { tokens, time: times(PREFILL_PER_TOKEN, tokens) }))
    }
}

impl MockBackend {
    /// A mock that follows a script.
    pub fn scripted(script: Script) -> Self {
        Self { script, ..Self::default() }
    }

    fn answer(&mut self, input: &CallInput<'_>, arm: &Arm, number: u64) -> CallFacts {
        let tokens_raw = prompt_tokens(input.messages.iter().copied());
        let compressed = self.compress(input, arm, tokens_raw);
        let sent_tokens = prompt_tokens(compressed.messages.iter());
        let hit = match arm.cache {
            Cache::Off => 0,
            Cache::On => self.reuse(&compressed.messages),
        };
        self.keep(input, arm, &compressed.messages);
        let prefilled = sent_tokens - hit;

        let did_score = compressed.n_scored > 0;
        let stages = StageTimes {
            render: Some(times(RENDER_PER_MESSAGE, input.messages.len() as u64)),
            tokenize: Some(times(TOKENIZE_PER_TOKEN, tokens_raw)),
            score: did_score.then(|| times(SCORE_PER_TOKEN, compressed.tokens_scored)),
            select: did_score.then(|| times(SELECT_PER_MESSAGE, compressed.n_scored)),
            lookup: (arm.cache == Cache::On).then_some(LOOKUP),
            prefill: Some(times(PREFILL_PER_TOKEN, prefilled)),
            first_token: Some(FIRST_TOKEN),
            ..StageTimes::default()
        };
        let ttft = stages.total() + UNEXPLAINED;
        let (output_text, tokens_output, finish) = self.output(number, input.max_new_tokens);
        let decode = times(DECODE_PER_TOKEN, tokens_output - 1);
        CallFacts {
            tokens_raw,
            tokens_removed: tokens_raw as i64 - sent_tokens as i64,
            tokens_prefix_hit: hit,
            tokens_prefilled: prefilled,
            tokens_output,
            tokens_scored: compressed.tokens_scored,
            messages_scored: compressed.n_scored,
            messages_tool: input.messages.iter().filter(|message| message.role == Role::Tool).count() as u64,
            messages_compressed: compressed.n_compressed,
            messages_frozen_hit: compressed.n_frozen_hit,
            keep_ratio_realised: (compressed.words_raw > 0)
                .then(|| compressed.words_kept as f64 / compressed.words_raw as f64),
            cache_state: match (arm.cache, hit) {
                (Cache::Off, _) => CacheState::Off,
                (Cache::On, 0) => CacheState::Miss,
                (Cache::On, _) => CacheState::Hit,
            },
            stages,
            device_stages: StageTimes::default(),
            ttft,
            decode,
            e2e: ttft + decode,
            kv_bytes: sent_tokens * KV_BYTES_PER_TOKEN,
            device_bytes_peak: None,
            finish,
            output_ids: (1..=tokens_output as u32).collect(),
            output_text,
            first_logits_digest: Some(format!("{sent_tokens:064x}")),
            growth: None,
            fidelity: None,
            exact: (input.verify == Verify::Bitwise && arm.cache == Cache::On).then_some(true),
            sent: compressed.messages,
            visible: None,
        }
    }

    fn compress(&mut self, input: &CallInput<'_>, arm: &Arm, tokens_raw: u64) -> Compressed {
        let mut out = Compressed::default();
        let settings = arm.compression.as_ref().filter(|settings| applies(settings, input, tokens_raw));
        let has_tool = input.messages.iter().any(|message| message.role == Role::Tool);
        let last_user = input.messages.iter().rposition(|message| message.role == Role::User);
        let newest = settings.and_then(|settings| settings.keep_verbatim_newest).unwrap_or(0);
        let policy = settings.map(|settings| settings.policy);
        let young_from =
            if policy == Some(Policy::Evict) { 0 } else { aged_before(input.messages, newest as usize) };
        let old_before = if policy == Some(Policy::LatencyOnly) { new_from(input.messages) } else { 0 };
        for (i, message) in input.messages.iter().enumerate() {
            let falls_back = !has_tool && Some(i) == last_user;
            match settings {
                Some(settings)
                    if i >= old_before
                        && (message.role == Role::Tool
                            || (falls_back && settings.user_fallback == UserFallback::On)) =>
                {
                    self.freeze(message, settings, &mut out);
                    let sent = match i < young_from {
                        true => shortened(message, settings, &mut out),
                        false => (*message).clone(),
                    };
                    out.messages.push(sent);
                }
                _ => out.messages.push((*message).clone()),
            }
        }
        out
    }

    /// Scores a message, unless it was met before by an arm that freezes.
    fn freeze(&mut self, message: &Message, settings: &CompressionSettings, out: &mut Compressed) {
        let text = message.flat_text();
        let n_words = text.split_whitespace().count() as u64;
        if settings.policy.freezes() && !self.frozen.insert(text) {
            out.n_frozen_hit += 1;
        } else {
            out.tokens_scored += n_words;
            out.n_scored += 1;
        }
    }

    /// Tokens of the longest run of leading messages that an earlier prompt shared.
    fn reuse(&self, sent: &[Message]) -> u64 {
        let n_shared = prefixes(sent).iter().take_while(|prefix| self.published.contains(*prefix)).count();
        sent[..n_shared].iter().map(message_tokens).sum()
    }

    /// Publishes what history keeps of this prompt, and notes what of it is still to be prefilled.
    fn keep(&mut self, input: &CallInput<'_>, arm: &Arm, sent: &[Message]) {
        let policy = arm.compression.as_ref().map(|settings| settings.policy);
        let n_kept = match policy {
            Some(Policy::LatencyOnly) => {
                sent.iter().zip(input.messages).take_while(|(sent, raw)| *sent == **raw).count()
            }
            _ => sent.len(),
        };
        let history = || input.messages.iter().map(|message| (*message).clone()).collect();
        self.owed = (n_kept < sent.len()).then(history);
        self.published.extend(prefixes(&sent[..n_kept]));
    }

    fn output(&self, number: u64, max_new_tokens: u32) -> (String, u64, Finish) {
        let text = match self.script.outputs.len() {
            0 => "ok",
            n => self.script.outputs[(number % n as u64) as usize].as_str(),
        };
        let n_words = (text.split_whitespace().count() as u64).max(1);
        match u64::from(max_new_tokens) {
            most if most < n_words => {
                let cut: Vec<&str> = text.split_whitespace().take(max_new_tokens as usize).collect();
                (cut.join(" "), most, Finish::Length)
            }
            _ => (text.to_owned(), n_words, Finish::EndToken),
        }
    }
}

/// The first words of a message.
fn shortened(message: &Message, settings: &CompressionSettings, out: &mut Compressed) -> Message {
    let text = message.flat_text();
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept = (words.len() * settings.keep_permille as usize).div_ceil(1000);
    out.n_compressed += 1;
    out.words_raw += words.len() as u64;
    out.words_kept += kept as u64;
    Message { content: vec![Part::Text { text: words[..kept].join(" ") }], ..message.clone() }
}

fn applies(settings: &CompressionSettings, input: &CallInput<'_>, tokens_raw: u64) -> bool {
    let bypassed = settings.with_tools == WithTools::Bypass && !input.tools.is_empty();
    !bypassed && tokens_raw >= settings.threshold_tokens
}

fn message_tokens(message: &Message) -> u64 {
    let words = |text: &str| text.split_whitespace().count() as u64;
    let calls: u64 = message.tool_calls.iter().map(|call| 1 + words(&call.arguments)).sum();
    FRAME_TOKENS + words(&message.flat_text()) + calls
}

/// Every run of leading messages, shortest first.
fn prefixes(messages: &[Message]) -> Vec<Vec<String>> {
    let written = |n| messages[..n].iter().map(|message| format!("{message:?}")).collect();
    (1..=messages.len()).map(written).collect()
}

fn prompt_tokens<'a>(messages: impl Iterator<Item = &'a Message>) -> u64 {
    messages.map(message_tokens).sum::<u64>() + OPENER_TOKENS
}

fn times(unit: Duration, n: u64) -> Duration {
    Duration::from_nanos(unit.as_nanos() as u64 * n)
}
