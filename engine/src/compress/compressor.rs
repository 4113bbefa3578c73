//! Which messages of a prompt stand compressed, and in what words. Holds the memo and the arm's settings; knows no
//! device and no time. Scores come from the caller.
//!
//! `rescore` asks for every candidate on every call. `freeze` decides once per message, when it is first seen: the
//! decision (compressed to these bytes, or verbatim) is kept for ever, so the prompt of call k stays a prefix of the
//! prompt of call k+1. `rolling` decides in the same way, but applies the decision only once the message has aged;
//! `latency-only` applies it only while the message is new. `evict` applies none: what its decisions leave out is dropped
//! from the KV (see [`crate::compress::evict`]).

use std::borrow::Cow;
use std::ops::Range;

use transcripts::message::{Message, Part, Role};

use crate::compress::age::{aged_before, new_from};
use crate::compress::freeze::{FreezeStore, OpenReport};
use crate::compress::frozen::{FreezeKey, Frozen, KeyParts};
use crate::compress::query::{Birth, births};
use crate::compress::select::SelectParams;
use crate::error::EngineError;
use crate::model_source::Model;
use crate::request::{
    CompressionPolicy, CompressionSettings, Floor, LineRules, ScoreBy, Selection, UserFallback, WithTools,
};

/// A message that has to be scored, with every place where the same message stands.
pub struct Candidate<'a> {
    /// The text to score.
    pub text: String,
    /// What it was made for, where score or selection looks at that and the history says it.
    pub birth: Option<Birth<'a>>,
    key: FreezeKey,
    indices: Vec<usize>,
}

/// What is known of a prompt's messages before scoring.
#[derive(Default)]
pub struct Plan<'a> {
    /// To be scored, in the order of the prompt.
    pub unseen: Vec<Candidate<'a>>,
    decided: Vec<(usize, Frozen)>,
    /// Messages whose frozen form came from the memo.
    pub frozen_hits: u64,
}

/// The messages as they are sent, and what compression did to them.
pub struct Compressed<'a> {
    /// The messages, in order.
    pub messages: Vec<Cow<'a, Message>>,
    /// Messages that stand compressed.
    pub n_compressed: u64,
    /// Drafter tokens of those messages, raw and kept.
    pub tokens_raw: u64,
    /// Kept drafter tokens of those messages.
    pub tokens_kept: u64,
}

impl<'a> Compressed<'a> {
    /// Messages that nothing was done to.
    pub fn verbatim(messages: &[&'a Message]) -> Self {
        let messages = messages.iter().map(|message| Cow::Borrowed(*message)).collect();
        Self { messages, n_compressed: 0, tokens_raw: 0, tokens_kept: 0 }
    }

    /// Kept over raw drafter tokens; `None` if nothing stands compressed.
    pub fn keep_ratio(&self) -> Option<f64> {
        (self.tokens_raw > 0).then(|| self.tokens_kept as f64 / self.tokens_raw as f64)
    }
}

/// The compression of one arm.
pub struct Compressor {
    settings: CompressionSettings,
    store: FreezeStore,
    opened: Option<OpenReport>,
    drafter_digest: String,
    tokenizer_digest: String,
    template: String,
}

impl Compressor {
    /// An empty memo, or the one of the settings' file.
    ///
    /// # Errors
    /// As [`FreezeStore::open`].
    pub fn new(settings: CompressionSettings, drafter: &Model) -> Result<Self, EngineError> {
        let (store, opened) = match &settings.freeze_file {
            Some(path) => FreezeStore::open(path).map(|(store, report)| (store, Some(report)))?,
            None => (FreezeStore::in_memory(), None),
        };
        Ok(Self {
            settings,
            store,
            opened,
            drafter_digest: drafter.digest.clone(),
            tokenizer_digest: drafter.tokenizer.digest().to_owned(),
            template: drafter.chat.source().to_owned(),
        })
    }

    /// What opening the memo's file found; `None` for a memo in memory.
    pub const fn opened(&self) -> Option<&OpenReport> {
        self.opened.as_ref()
    }

    /// Units and share of the selection.
    pub const fn select_params(&self) -> SelectParams {
        SelectParams::keep(self.settings.keep_permille)
    }

    /// The settings.
    pub const fn settings(&self) -> &CompressionSettings {
        &self.settings
    }

    /// The message at `index` as it would be scored.
    pub fn candidate<'a>(&self, messages: &[&'a Message], index: usize) -> Candidate<'a> {
        self.candidate_of(messages[index], index, births(messages)[index].take())
    }

    fn candidate_of<'a>(&self, message: &Message, index: usize, birth: Option<Birth<'a>>) -> Candidate<'a> {
        let text = message.flat_text();
        let birth = birth.filter(|_| self.looks_at_birth());
        let key = self.key(message, &text, birth.as_ref());
        Candidate { text, birth, key, indices: vec![index] }
    }

    /// Decides what can be decided without scores.
    ///
    /// # Errors
    /// The memo's file cannot be written.
    pub fn plan<'a>(
        &mut self,
        messages: &[&'a Message],
        tools: &[serde_json::Value],
        raw_tokens: usize,
    ) -> Result<Plan<'a>, EngineError> {
        let open = self.gate_is_open(tools, raw_tokens);
        let mut plan = Plan::default();
        let mut births = births(messages);
        let freezes = self.settings.policy.freezes();
        // What stands before is history that stays as it came; what stands behind is decided before it ages.
        let from = self.standing(messages).start;
        for index in self.candidates(messages, &births).into_iter().filter(|&index| index >= from) {
            let candidate = self.candidate_of(messages[index], index, births[index].take());
            let frozen = if freezes { self.store.get(&candidate.key).cloned() } else { None };
            match (frozen, freezes, open) {
                (Some(frozen), _, _) => {
                    plan.frozen_hits += 1;
                    plan.decided.push((index, frozen));
                }
                (None, true, true) => add(&mut plan.unseen, candidate),
                // Born while the gate was closed: verbatim for ever, or the prefix would break when it opens.
                (None, true, false) => self.store.insert(candidate.key, Frozen::Verbatim)?,
                (None, false, true) => plan.unseen.push(candidate),
                (None, false, false) => {}
            }
        }
        Ok(plan)
    }

    /// Waits until what was frozen is on the disk; for after the call.
    ///
    /// # Errors
    /// The memo's file cannot be written.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.store.sync()
    }

    /// Takes the scores' outcome, one per unseen candidate in order, and says what each candidate's message became, by
    /// its index.
    ///
    /// # Errors
    /// The memo's file cannot be written.
    pub fn decide(
        &mut self,
        plan: Plan<'_>,
        outcomes: Vec<Frozen>,
    ) -> Result<Vec<(usize, Frozen)>, EngineError> {
        assert_eq!(plan.unseen.len(), outcomes.len(), "one outcome per candidate");
        let mut decided = plan.decided;
        for (candidate, frozen) in plan.unseen.into_iter().zip(outcomes) {
            decided.extend(candidate.indices.iter().map(|&index| (index, frozen.clone())));
            if self.settings.policy.freezes() {
                self.store.insert(candidate.key, frozen)?;
            }
        }
        Ok(decided)
    }

    /// The messages as they are sent.
    ///
    /// # Errors
    /// [`EngineError::FrozenMismatch`] if a decision is not one about its message.
    pub fn apply<'a>(
        &self,
        messages: &[&'a Message],
        decided: &[(usize, Frozen)],
    ) -> Result<Compressed<'a>, EngineError> {
        let standing = self.standing(messages);
        let mut compressed = Compressed::verbatim(messages);
        for (index, frozen) in decided.iter().filter(|(index, _)| standing.contains(index)) {
            let Frozen::Compressed { tokens_raw, tokens_kept, .. } = frozen else { continue };
            let message = compressed.messages[*index].to_mut();
            let text = frozen.text(&message.flat_text())?.into_owned();
            message.content = vec![Part::Text { text }];
            compressed.n_compressed += 1;
            compressed.tokens_raw += tokens_raw;
            compressed.tokens_kept += tokens_kept;
        }
        Ok(compressed)
    }

    /// Where in a prompt messages may stand compressed, by their age.
    fn standing(&self, messages: &[&Message]) -> Range<usize> {
        match self.settings.policy {
            CompressionPolicy::Rescore | CompressionPolicy::Freeze => 0..messages.len(),
            CompressionPolicy::Rolling { keep_verbatim_newest } => {
                0..aged_before(messages, keep_verbatim_newest)
            }
            CompressionPolicy::LatencyOnly => new_from(messages)..messages.len(),
            CompressionPolicy::Evict { .. } => 0..0,
        }
    }

    /// The threshold, and the bypass for requests with tool definitions.
    fn gate_is_open(&self, tools: &[serde_json::Value], raw_tokens: usize) -> bool {
        let bypassed = self.settings.with_tools == WithTools::Bypass && !tools.is_empty();
        !bypassed && raw_tokens as u64 >= self.settings.threshold_tokens
    }

    /// Indices of the messages that may be compressed: those of tools, save the tools whose messages stay; else the last
    /// user message if so set.
    fn candidates(&self, messages: &[&Message], births: &[Option<Birth<'_>>]) -> Vec<usize> {
        let of_tools = (0..messages.len()).filter(|&index| messages[index].role == Role::Tool);
        if self.settings.user_fallback == UserFallback::LastUser && of_tools.clone().next().is_none() {
            return messages.iter().rposition(|message| message.role == Role::User).into_iter().collect();
        }
        let stays = |index: usize| match &self.settings.selection {
            Selection::Compat => false,
            Selection::Lines(rules) => {
                let of_call = || births[index].as_ref()?.call().map(|call| &call.name);
                let tool = messages[index].name.as_ref().or_else(of_call);
                tool.is_some_and(|tool| {
                    rules.verbatim_tools.iter().any(|stays| stays.eq_ignore_ascii_case(tool))
                })
            }
        };
        of_tools.filter(|&index| !stays(index)).collect()
    }

    /// Whether what a message was made for decides what is kept of it.
    fn looks_at_birth(&self) -> bool {
        let is_asked = self.settings.score_by == ScoreBy::Birth;
        is_asked
            || matches!(&self.settings.selection, Selection::Lines(rules) if rules.floor == Floor::Structural)
    }

    fn key(&self, message: &Message, text: &str, birth: Option<&Birth>) -> FreezeKey {
        FreezeKey::new(&KeyParts {
            drafter_digest: &self.drafter_digest,
            tokenizer_digest: &self.tokenizer_digest,
            settings: &written_out(&self.settings),
            select: self.select_params(),
            birth_query_digest: birth.map(|birth| birth.digest(&self.template)).as_ref().map_or(&[], |d| d),
            tool_name: message.name.as_deref().unwrap_or_default(),
            raw: text,
        })
    }
}

/// Adds a candidate, or another place of one that is there already.
fn add<'a>(unseen: &mut Vec<Candidate<'a>>, candidate: Candidate<'a>) {
    match unseen.iter_mut().find(|known| known.key == candidate.key) {
        Some(known) => known.indices.extend(candidate.indices),
        None => unseen.push(candidate),
    }
}

/// Every setting beside units and share that decides what is kept, as text for the key. Tools whose messages stay are not
/// among them: those never come to the memo.
fn written_out(settings: &CompressionSettings) -> String {
    let selection = match &settings.selection {
        Selection::Compat => "compat".to_owned(),
        Selection::Lines(LineRules { floor, keep_floor_tokens, .. }) => {
            format!("lines floor={floor:?} least={keep_floor_tokens}")
        }
    };
    format!(
        "by={:?} layers={:?} rope={:?} selection={selection} threshold={} tools={:?} fallback={:?}",
        settings.score_by,
        settings.score_place.layers,
        settings.score_place.rope,
        settings.threshold_tokens,
        settings.with_tools,
        settings.user_fallback,
    )
}
