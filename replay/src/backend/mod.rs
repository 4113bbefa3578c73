//! What answers a call: a trait and the plain facts that go in and out. A backend sees messages and an arm; it never
//! sees a session, a record, telemetry or the order of a run.

pub mod engine;
pub mod mock;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use transcripts::message::Message;

use crate::arm::Arm;
use crate::validity::{Finish, Thinking};

/// Something that answers calls.
pub trait Backend {
    /// What it is: written into `run.json` before the first call.
    fn identity(&self) -> Identity;

    /// Takes on an arm with fresh state: nothing of earlier calls is left.
    ///
    /// # Errors
    /// The arm needs what the backend lacks, or state cannot be set up.
    fn start(&mut self, arm: &Arm) -> Result<(), BackendError>;

    /// Answers one call. A call that fails leaves the backend able to answer the next one.
    ///
    /// # Errors
    /// The call failed; the error says what to do.
    fn call(&mut self, input: &CallInput<'_>) -> Result<CallFacts, BackendError>;

    /// Prefills what the last call left to be prefilled before the next call of its session; `None` if it left nothing.
    ///
    /// # Errors
    /// The work failed; the next call can be answered all the same, and finds less to reuse.
    fn backfill(&mut self) -> Result<Option<Backfill>, BackendError>;
}

/// What was prefilled between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Tokens that went through the target.
    pub tokens: u64,
    /// How long it took.
    pub time: Duration,
}

/// Where the models run; telemetry of another device says nothing about a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// The CUDA device of this index.
    Cuda(u32),
}

/// What a backend is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Where the models run.
    pub device: Device,
    /// Facts of the device, for `run.json`.
    pub device_facts: BTreeMap<String, Value>,
    /// Facts of each model (`target`, `drafter`), for `run.json`.
    pub models: BTreeMap<String, Value>,
    /// Whether outputs may hold reasoning.
    pub thinking: Thinking,
}

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 draws the likeliest token.
    pub temperature: f32,
    /// Seed of the draws.
    pub seed: u64,
}

/// Whether cached logits are checked against a cold run of the same tokens, outside of the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Not checked.
    Off,
    /// The first logits are compared bit for bit.
    Bitwise,
}

/// Whether a changed prompt is held against the original one, outside of the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FidelityCheck {
    /// It is not.
    #[default]
    Off,
    /// Next-token distributions under both are compared over the recorded turn.
    TeacherForced,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct CallInput<'a> {
    /// The prompt, in order.
    pub messages: &'a [&'a Message],
    /// Tool definitions.
    pub tools: &'a [Value],
    /// Most tokens to generate, at least 1.
    pub max_new_tokens: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Exactness check.
    pub verify: Verify,
    /// The recorded turn, where fidelity is measured over it.
    pub action: Option<&'a Message>,
}

/// Time of each stage of TTFT; `None` where the stage did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Chat template.
    pub render: Option<Duration>,
    /// Text to token ids.
    pub tokenize: Option<Duration>,
    /// Dropping the target's weights.
    pub target_park: Option<Duration>,
    /// Reading the drafter's weights.
    pub drafter_load: Option<Duration>,
    /// Drafter forward pass and scores.
    pub score: Option<Duration>,
    /// Choosing what is kept, and cutting the text.
    pub select: Option<Duration>,
    /// Reading the target's weights again.
    pub target_load: Option<Duration>,
    /// Search of the prefix index.
    pub lookup: Option<Duration>,
    /// Making the found prefix usable.
    pub restore: Option<Duration>,
    /// Target forward pass over what was not reused.
    pub prefill: Option<Duration>,
    /// Logits of the last position and the first sample.
    pub first_token: Option<Duration>,
}

impl StageTimes {
    /// Sum of the stages that ran.
    pub fn total(&self) -> Duration {
        let stages = [
            self.render,
            self.tokenize,
            self.target_park,
            self.drafter_load,
            self.score,
            self.select,
            self.target_load,
            self.lookup,
            self.restore,
            self.prefill,
            self.first_token,
        ];
        stages.iter().flatten().sum()
    }
}

/// Whether prompt tokens were reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheState {
    /// The arm has no cache.
    Off,
    /// Nothing usable was found.
    Miss,
    /// Some prompt tokens were reused.
    Hit,
}

/// Facts of one call, `tokens_raw = tokens_removed + tokens_prefix_hit + tokens_prefilled`.
#[derive(Clone, Debug)]
pub struct CallFacts {
    /// Tokens of the prompt before compression.
    pub tokens_raw: u64,
    /// Tokens that compression took away, or whose rows were dropped before the call.
    pub tokens_removed: i64,
    /// Prompt tokens whose KV was reused.
    pub tokens_prefix_hit: u64,
    /// Prompt tokens that went through the target.
    pub tokens_prefilled: u64,
    /// Tokens generated.
    pub tokens_output: u64,
    /// Tokens that went through the drafter.
    pub tokens_scored: u64,
    /// Messages that went through the drafter.
    pub messages_scored: u64,
    /// Tool messages in the prompt.
    pub messages_tool: u64,
    /// Messages that stand compressed in the prompt.
    pub messages_compressed: u64,
    /// Messages whose frozen form was found in the memo.
    pub messages_frozen_hit: u64,
    /// Kept over raw drafter tokens of the messages that stand compressed.
    pub keep_ratio_realised: Option<f64>,
    /// State of the prefix cache.
    pub cache_state: CacheState,
    /// Against the prompt before it in the same arm; `None` for the first, and where the backend does not know.
    pub growth: Option<Growth>,
    /// Stages of TTFT.
    pub stages: StageTimes,
    /// The part of each stage in which a card worked, on the card's clock; empty where there is none.
    pub device_stages: StageTimes,
    /// Arrival of the request to the first token.
    pub ttft: Duration,
    /// First to last token.
    pub decode: Duration,
    /// Arrival to last token.
    pub e2e: Duration,
    /// Bytes of KV in use when the call ended.
    pub kv_bytes: u64,
    /// The most device memory that the backend held during the call.
    pub device_bytes_peak: Option<u64>,
    /// Why generation ended.
    pub finish: Finish,
    /// Generated text.
    pub output_text: String,
    /// Generated token ids.
    pub output_ids: Vec<u32>,
    /// BLAKE3 of the bits of the first logits, hex.
    pub first_logits_digest: Option<String>,
    /// Cached equals cold, bit for bit; `None` where it was not checked.
    pub exact: Option<bool>,
    /// Distance to the original prompt over the recorded turn; `None` where it was not measured.
    pub fidelity: Option<ActionFidelity>,
    /// The messages as sent, after compression.
    pub sent: Vec<Message>,
    /// The messages as far as the answer could see them, where rows of their KV were dropped; `None` where it saw all that
    /// was sent.
    pub visible: Option<Vec<Message>>,
}

impl CallFacts {
    /// The messages as far as the answer could see them.
    pub fn seen(&self) -> &[Message] {
        self.visible.as_ref().unwrap_or(&self.sent)
    }
}

/// How a prompt stands to the one before it in the same arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Tokens of the previous prompt, without the opening of the model's turn.
    pub previous: u64,
    /// Tokens that both begin with.
    pub shared: u64,
    /// Turns that the previous prompt opened.
    pub turns_previous: u64,
    /// Turns that are opened within the shared tokens.
    pub turns_shared: u64,
}

/// How far the sent prompt's next-token distributions are from the original's, over the recorded turn.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFidelity {
    /// KL divergence at each token, nats; never empty.
    pub kl: Vec<f64>,
    /// Share of tokens at which both have the same likeliest next token.
    pub argmax_agreement: f64,
}

/// Why a backend could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// Stable word for the kind: `context_length`, `out_of_memory`, `backend`, ...
    pub kind: &'static str,
    /// What happened and what to do next.
    pub message: String,
}
