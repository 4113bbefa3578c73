//! Which messages of a prompt stand compressed, and in what words. Holds the memo and the arm's settings; knows no
//! device and no time. Scores come from the caller.
//!
//! `rescore` asks for every candidate on every call. `freeze` decides once per message, when it is first seen: the
//! decision (compressed to these bytes, or verbatim) is kept for ever, so the prompt of call k stays a prefix of the
//! prompt of call k+1.

use std::borrow::Cow;

use transcripts::message::{Message, Part, Role};

use crate::compress::freeze::{FreezeKey, FreezeStore, Frozen, KeyParts, OpenReport};
use crate::compress::query::Birth;
use crate::compress::select::SelectParams;
use crate::error::EngineError;
use crate::model_source::Model;
use crate::request::{CompressionPolicy, CompressionSettings, ScoreBy, UserFallback, WithTools};

/// A message that has to be scored, with every place where the same message stands.
pub struct Candidate {
    /// The text to score.
    pub text: String,
    /// What the score asks about; `None` asks about the text's own tail.
    pub birth: Option<Birth>,
    key: FreezeKey,
    indices: Vec<usize>,
}

/// What is known of a prompt's messages before scoring.
#[derive(Default)]
pub struct Plan {
    /// To be scored, in the order of the prompt.
    pub unseen: Vec<Candidate>,
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

    /// Decides what can be decided without scores.
    ///
    /// # Errors
    /// The memo's file cannot be written.
    pub fn plan(
        &mut self,
        messages: &[&Message],
        tools: &[serde_json::Value],
        raw_tokens: usize,
    ) -> Result<Plan, EngineError> {
        let open = self.gate_is_open(tools, raw_tokens);
        let mut plan = Plan::default();
        for index in self.candidates(messages) {
            let text = messages[index].flat_text();
            let birth = self.birth(messages, index);
            let key = self.key(messages[index], &text, birth.as_ref());
            let frozen = match self.settings.policy {
                CompressionPolicy::Rescore => None,
                CompressionPolicy::Freeze => self.store.get(&key).cloned(),
            };
            match (frozen, self.settings.policy) {
                (Some(frozen), _) => {
                    plan.frozen_hits += 1;
                    plan.decided.push((index, frozen));
                }
                (None, CompressionPolicy::Rescore) if open => {
                    plan.unseen.push(Candidate { text, birth, key, indices: vec![index] });
                }
                (None, CompressionPolicy::Rescore) => {}
                (None, CompressionPolicy::Freeze) if open => {
                    add(&mut plan.unseen, Candidate { text, birth, key, indices: vec![index] });
                }
                // Born while the gate was closed: verbatim for ever, or the prefix would break when it opens.
                (None, CompressionPolicy::Freeze) => self.store.insert(key, Frozen::Verbatim)?,
            }
        }
        Ok(plan)
    }

    /// Takes the scores' outcome, one per unseen candidate in order, and writes the messages as they are sent.
    ///
    /// # Errors
    /// The memo's file cannot be written.
    pub fn apply<'a>(
        &mut self,
        messages: &[&'a Message],
        plan: Plan,
        outcomes: Vec<Frozen>,
    ) -> Result<Compressed<'a>, EngineError> {
        assert_eq!(plan.unseen.len(), outcomes.len(), "one outcome per candidate");
        let mut decided = plan.decided;
        for (candidate, frozen) in plan.unseen.into_iter().zip(outcomes) {
            decided.extend(candidate.indices.iter().map(|&index| (index, frozen.clone())));
            if self.settings.policy == CompressionPolicy::Freeze {
                self.store.insert(candidate.key, frozen)?;
            }
        }
        let mut compressed = Compressed::verbatim(messages);
        for (index, frozen) in decided {
            let Frozen::Compressed { tokens_raw, tokens_kept, .. } = frozen else { continue };
            let message = compressed.messages[index].to_mut();
            let text = frozen.text(&message.flat_text())?.into_owned();
            message.content = vec![Part::Text { text }];
            compressed.n_compressed += 1;
            compressed.tokens_raw += tokens_raw;
            compressed.tokens_kept += tokens_kept;
        }
        Ok(compressed)
    }

    /// The threshold, and the bypass for requests with tool definitions.
    fn gate_is_open(&self, tools: &[serde_json::Value], raw_tokens: usize) -> bool {
        let bypassed = self.settings.with_tools == WithTools::Bypass && !tools.is_empty();
        !bypassed && raw_tokens as u64 >= self.settings.threshold_tokens
    }

    /// Indices of the messages that may be compressed: tool messages, else the last user message if so set.
    fn candidates(&self, messages: &[&Message]) -> Vec<usize> {
        let tools: Vec<usize> = (0..messages.len()).filter(|&i| messages[i].role == Role::Tool).collect();
        if !tools.is_empty() || self.settings.user_fallback == UserFallback::Off {
            return tools;
        }
        messages.iter().rposition(|message| message.role == Role::User).into_iter().collect()
    }

    /// What the message was made for, where the score asks about that.
    fn birth(&self, messages: &[&Message], index: usize) -> Option<Birth> {
        match self.settings.score_by {
            ScoreBy::Birth if messages[index].role == Role::Tool => Birth::of(messages, index),
            ScoreBy::Birth | ScoreBy::OwnTail => None,
        }
    }

    fn key(&self, message: &Message, text: &str, birth: Option<&Birth>) -> FreezeKey {
        FreezeKey::new(&KeyParts {
            drafter_digest: &self.drafter_digest,
            tokenizer_digest: &self.tokenizer_digest,
            scoring: &scoring(&self.settings),
            select: self.select_params(),
            birth_query_digest: birth.map(|birth| birth.digest(&self.template)).as_ref().map_or(&[], |d| d),
            tool_name: message.name.as_deref().unwrap_or_default(),
            raw: text,
        })
    }
}

/// Adds a candidate, or another place of one that is there already.
fn add(unseen: &mut Vec<Candidate>, candidate: Candidate) {
    match unseen.iter_mut().find(|known| known.key == candidate.key) {
        Some(known) => known.indices.extend(candidate.indices),
        None => unseen.push(candidate),
    }
}

/// Every setting beside the selection that decides what is kept, as text for the key.
fn scoring(settings: &CompressionSettings) -> String {
    format!(
        "by={:?} rope={:?} threshold={} tools={:?} fallback={:?}",
        settings.score_by,
        settings.score_rope,
        settings.threshold_tokens,
        settings.with_tools,
        settings.user_fallback
    )
}
