//! What a caller says to the engine and what it gets back: settings of an arm, one request, one response. Plain
//! data; this module knows no device, no model and no clock.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use kernels::device::cuda::CudaOptions;
use transcripts::message::Message;

use crate::device::DeviceChoice;
use crate::kv::eviction::EvictionPlan;
use crate::model_source::ModelSource;
use crate::sample::Sampling;
use crate::spans::Spans;

/// What an engine is made of. Fixed for its life.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The model that answers.
    pub target: ModelSource,
    /// The model that scores; needed by arms that compress.
    pub drafter: Option<ModelSource>,
    /// Where the models run.
    pub device: DeviceChoice,
    /// What a card may use beyond its default kernels.
    pub cuda: CudaOptions,
    /// Threads of the CPU; all cores when absent. Results do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// Bytes that the target's KV cache may take.
    pub kv_budget_bytes: u64,
}

impl EngineOptions {
    /// A target alone on the CPU, with every core and 4 GiB of KV.
    pub const fn new(target: ModelSource) -> Self {
        Self {
            target,
            drafter: None,
            device: DeviceChoice::Cpu,
            cuda: CudaOptions::DEFAULT,
            threads: None,
            kv_budget_bytes: 4 << 30,
        }
    }
}

/// Whether prompt prefixes are kept and reused between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Every call prefills its whole prompt.
    Off,
    /// Prefixes are published at segment ends and reused.
    On,
}

/// When a tool message is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionPolicy {
    /// Every tool message is scored again on every call.
    Rescore,
    /// Each tool message is scored once, when first seen; its kept bytes are reused for ever.
    Freeze,
    /// As `Freeze`, but a message stands as it came while it is among the newest tool messages of the prompt. Not
    /// append-only: a message that ages breaks the prefix.
    Rolling {
        /// Tool messages that stand as they came.
        keep_verbatim_newest: usize,
    },
    /// As `Freeze`, but a message stands compressed in the call that first sees it alone: history is as it came. What
    /// that call leaves to be prefilled is for [`Engine::backfill`](crate::engine::Engine::backfill).
    LatencyOnly,
    /// As `Freeze`, but every message is sent and prefilled as it came. Once it has aged and was answered, the rows of what
    /// its frozen form leaves out are dropped from the KV, and nothing behind them is computed again.
    Evict {
        /// Tool messages that keep their rows.
        keep_verbatim_newest: usize,
    },
}

impl CompressionPolicy {
    /// Whether what a message became is remembered.
    pub const fn freezes(self) -> bool {
        !matches!(self, Self::Rescore)
    }

    /// The tool messages that keep their rows, where others lose them.
    pub const fn evicts(self) -> Option<usize> {
        match self {
            Self::Evict { keep_verbatim_newest } => Some(keep_verbatim_newest),
            Self::Rescore | Self::Freeze | Self::Rolling { .. } | Self::LatencyOnly => None,
        }
    }
}

/// Which queries and keys the drafter's tail scores are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreRope {
    /// After RoPE, as the first published version did.
    Rope,
    /// Before RoPE, so that distance does not decay the score.
    Nope,
}

/// Which layers of the drafter are scored. What stands above the last of them is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreLayers {
    /// Every layer, as the first published version did.
    All,
    /// The middle band: layers `n / 3` to `ceil(2 n / 3)` of `n`, the end excluded. Retrieval heads stand there; the
    /// maximum over all layers is ruled by heads that look at positions and sinks.
    Mid,
}

impl ScoreLayers {
    /// The scored layers of a model of `n_layers`; at least one.
    pub const fn of(self, n_layers: usize) -> Range<usize> {
        match self {
            Self::All => 0..n_layers,
            Self::Mid => n_layers / 3..(2 * n_layers).div_ceil(3),
        }
    }
}

/// Where in the drafter scores are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScorePlace {
    /// Which layers.
    pub layers: ScoreLayers,
    /// Before or after RoPE.
    pub rope: ScoreRope,
}

/// What the chunks or lines of a message are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreBy {
    /// The drafter, asked by the text's own last tokens, as the first published version did.
    OwnTail,
    /// The drafter, asked by the user's goal and the tool call that made the message; they are put after it for the
    /// score alone.
    Birth,
    /// Chance, without a model: a hash of the text.
    Random {
        /// Another seed draws others.
        seed: u64,
    },
    /// The distance from the ends, without a model.
    HeadTail,
}

/// What is kept of a message, by the scores of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The best chunks, joined with nothing between them, as the first published version did.
    Compat,
    /// The best lines, with a line that says how much was left out where something was.
    Lines(LineRules),
}

/// What line selection keeps beside the best lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRules {
    /// Places that are kept whatever their score.
    pub floor: Floor,
    /// Drafter tokens that a message may always keep: one of no more stays as it is.
    pub keep_floor_tokens: u64,
    /// Tools whose messages stay as they are, without regard to case.
    pub verbatim_tools: Vec<String>,
}

/// Places that are kept whatever their score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// None.
    None,
    /// First and last lines, failures, places in files, heads of hunks, keys of a JSON object, words of the call.
    Structural,
}

/// What happens to requests that carry tool definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithTools {
    /// They are sent as they are.
    Bypass,
    /// Their tool messages are compressed like any other; the definitions are never touched.
    Compress,
}

/// What happens when a prompt holds no tool message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserFallback {
    /// Nothing is compressed.
    Off,
    /// The last user message is compressed in its place.
    LastUser,
}

/// How an arm compresses.
#[derive(Clone, Debug, PartialEq)]
pub struct CompressionSettings {
    /// Score on every call, or once per message.
    pub policy: CompressionPolicy,
    /// Share kept, of 32-token chunks or of tokens as the selection has it, in thousandths (1 to 1000; 1000 keeps all).
    pub keep_permille: u32,
    /// What chunks or lines are ranked by.
    pub score_by: ScoreBy,
    /// Where scores are taken.
    pub score_place: ScorePlace,
    /// What is kept of a message.
    pub selection: Selection,
    /// Raw prompt tokens under which a call is not compressed.
    pub threshold_tokens: u64,
    /// Requests with tool definitions.
    pub with_tools: WithTools,
    /// Prompts without a tool message.
    pub user_fallback: UserFallback,
    /// File that keeps frozen messages across engines; memory alone when absent.
    pub freeze_file: Option<PathBuf>,
}

/// Which models hold memory while the drafter scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// Target and drafter both stay loaded.
    Resident,
    /// The target's weights are dropped and read again around each batch of scoring, as a 24 GB card must.
    Parked,
}

/// One arm as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmSettings {
    /// Prefix cache.
    pub cache: CachePolicy,
    /// Compression, if any.
    pub compression: Option<CompressionSettings>,
    /// Residency of the models.
    pub residency: Residency,
}

/// Whether cached logits are checked against a cold run of the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Not checked.
    Off,
    /// The prompt is prefilled again without the cache, after the call was timed, and the first logits compared. Where rows
    /// are dropped, the same rows are dropped at the same pieces.
    Bitwise,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The prompt, in order.
    pub messages: &'a [&'a Message],
    /// Tool definitions, as the chat template takes them.
    pub tools: &'a [serde_json::Value],
    /// Most tokens to generate; at least 1.
    pub max_new_tokens: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Exactness check.
    pub verify: Verify,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn.
    Stop,
    /// `max_new_tokens` was reached.
    Length,
}

impl FinishReason {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
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

impl CacheState {
    /// The state of a call that reused `n_reused` tokens, by whether prefixes are kept at all.
    pub(crate) const fn of(keeps_prefixes: bool, n_reused: usize) -> Self {
        match (keeps_prefixes, n_reused) {
            (false, _) => Self::Off,
            (true, 0) => Self::Miss,
            (true, _) => Self::Hit,
        }
    }
}

/// How a prompt stands to the one before it in the same arm, as history keeps that one. Under an append-only arm and
/// template the whole of the old prompt, without the opening of the model's turn, begins the new one:
/// `shared = previous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Tokens of the previous prompt, without the opening of the model's turn.
    pub previous: u64,
    /// Tokens that both begin with, at most `previous`.
    pub shared: u64,
    /// Turns that the previous prompt opened.
    pub turns_previous: u64,
    /// Turns that are opened within the shared tokens: where the prompts part, the last of these differs.
    pub turns_shared: u64,
}

/// Facts of one call. Token counts satisfy `raw = removed + prefix_hit + prefilled`.
#[derive(Clone, Debug)]
pub struct Response {
    /// Tokens of the prompt before compression.
    pub tokens_raw: u64,
    /// Tokens that compression took away; negative if re-tokenising the kept text made the prompt longer. Under eviction:
    /// tokens of the prompt whose rows were gone before the call's first piece ran, so that it neither ran nor saw them.
    pub tokens_removed: i64,
    /// Prompt tokens whose KV was reused.
    pub tokens_prefix_hit: u64,
    /// Prompt tokens that went through the target.
    pub tokens_prefilled: u64,
    /// Tokens generated, the ending token included.
    pub tokens_output: u64,
    /// Tokens that went through the drafter.
    pub tokens_scored: u64,
    /// Messages that went through the drafter.
    pub messages_scored: u64,
    /// Tool messages in the prompt.
    pub messages_tool: u64,
    /// Messages that stand compressed in the prompt, or have lost rows by its end.
    pub messages_compressed: u64,
    /// Messages whose frozen form came from the memo.
    pub messages_frozen_hit: u64,
    /// Kept over raw drafter tokens of the messages that stand compressed, or kept over all rows of those that have lost
    /// some; `None` if there are none.
    pub keep_ratio_realised: Option<f64>,
    /// State of the prefix cache.
    pub cache_state: CacheState,
    /// Against the prompt before it; `None` for the first call of an arm.
    pub growth: Option<Growth>,
    /// Stages of TTFT.
    pub spans: Spans,
    /// Arrival of the request to the first token.
    pub ttft: Duration,
    /// First to last token.
    pub decode: Duration,
    /// Arrival to last token.
    pub e2e: Duration,
    /// Bytes of KV in use when the call ended.
    pub kv_bytes: u64,
    /// The most device memory that was held at once during the call; `None` on the CPU.
    pub device_bytes_peak: Option<u64>,
    /// Why generation ended.
    pub finish_reason: FinishReason,
    /// Generated text, specials included, without the ending token.
    pub output_text: String,
    /// Generated token ids, the ending token included.
    pub output_ids: Vec<u32>,
    /// BLAKE3 of the bits of the first logits, hex.
    pub first_logits_digest: String,
    /// Cached equals cold, bit for bit; `None` when it was not checked or there is no cache.
    pub exact: Option<bool>,
    /// The messages as sent, after compression.
    pub sent: Vec<Message>,
    /// The messages as far as the answer could see them, where rows were dropped: what is left of the text of each. `None`
    /// where it saw all that was sent.
    pub visible: Option<Vec<Message>>,
    /// The rows that were dropped by the end of the prompt.
    pub evictions: EvictionPlan,
}
