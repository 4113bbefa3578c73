//! How an arm compresses: the knobs, and what each comes to where nobody turned it. Plain data; knows no arm, no backend
//! and no command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// When a tool message is compressed, in an arm that compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Scored again on every call.
    Rescore,
    /// Scored once, when first seen; the kept bytes are reused for ever.
    Freeze,
    /// Scored once, when first seen, and sent as it came while it is among the newest tool messages.
    Rolling,
    /// Scored once, when first seen, and sent compressed on that call alone: history is prefilled as it came between the
    /// calls.
    LatencyOnly,
    /// Scored once, when first seen, and always sent as it came; once it has aged and was answered, the rows of what is not
    /// kept are dropped from the KV.
    Evict,
}

impl Policy {
    /// Whether what a message became is remembered.
    pub const fn freezes(self) -> bool {
        !matches!(self, Self::Rescore)
    }

    /// Whether the newest tool messages are left alone.
    pub const fn ages(self) -> bool {
        matches!(self, Self::Rolling | Self::Evict)
    }
}

/// What the chunks or lines of a message are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreBy {
    /// The drafter, asked by the message's own last tokens, as the first published version did.
    #[default]
    OwnTail,
    /// The drafter, asked by the user's goal and the tool call that made the message.
    Birth,
    /// Chance, without a model: a control.
    Random,
    /// The distance from the ends, without a model: a control.
    HeadTail,
}

impl ScoreBy {
    /// Where nobody says it: the first published version where every call is scored anew, the goal where messages are
    /// frozen at birth.
    pub const fn under(policy: Policy) -> Self {
        if policy.freezes() { Self::Birth } else { Self::OwnTail }
    }
}

/// Where the drafter's scores are taken: after or before position rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreRope {
    /// After RoPE, as the first published version did.
    Rope,
    /// Before RoPE, so that distance does not decay the score.
    Nope,
}

/// What is kept of a message, by the scores of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The best chunks, joined with nothing between them, as the first published version did.
    #[default]
    Compat,
    /// The best whole lines, with a marker line where something was left out.
    Lines,
    /// As lines, and whatever their score: ends, failures, places in files, heads of hunks, keys of a JSON object, words
    /// of the tool call.
    Structural,
}

impl Selection {
    /// Where nobody says it: the first published version where every call is scored anew, else lines with their floor;
    /// without it where the score is a control, since the floor would keep what chance does not.
    pub const fn under(policy: Policy, score_by: ScoreBy) -> Self {
        match (policy.freezes(), score_by) {
            (false, _) => Self::Compat,
            (true, ScoreBy::OwnTail | ScoreBy::Birth) => Self::Structural,
            (true, ScoreBy::Random | ScoreBy::HeadTail) => Self::Lines,
        }
    }
}

/// Which layers of the drafter are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreLayers {
    /// Every layer, as the first published version did.
    #[default]
    All,
    /// The middle band, a third of the layers; those above it are not run.
    Mid,
}

impl ScoreRope {
    /// Where nobody says it: a middle band was found to retrieve before RoPE.
    pub const fn under(layers: ScoreLayers) -> Self {
        match layers {
            ScoreLayers::All => Self::Rope,
            ScoreLayers::Mid => Self::Nope,
        }
    }
}

/// What happens to requests that carry tool definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithTools {
    /// Sent as they are.
    Bypass,
    /// Compressed like any other; the definitions are never touched.
    Compress,
}

impl WithTools {
    /// Where nobody says it: the first published version left such requests alone, since a score that knows no task may
    /// drop what the next tool call needs. A score that is asked by the task has no such reason, and controls are read
    /// beside it.
    pub const fn under(score_by: ScoreBy) -> Self {
        match score_by {
            ScoreBy::OwnTail => Self::Bypass,
            ScoreBy::Birth | ScoreBy::Random | ScoreBy::HeadTail => Self::Compress,
        }
    }
}

/// Whether a prompt without a tool message has its last user message compressed in its place, as the user says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FallbackChoice {
    /// `on` where every call is scored anew, `off` where messages are frozen: a user message that is compressed on
    /// one call and whole on the next would break the append-only rule. Always off where rows are dropped: user messages
    /// do not age.
    Auto,
    /// The last user message is compressed.
    On,
    /// Nothing is compressed.
    Off,
}

/// What a [`FallbackChoice`] comes to in an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserFallback {
    /// The last user message is compressed.
    On,
    /// Nothing is compressed.
    Off,
}

impl FallbackChoice {
    /// What it comes to.
    pub const fn under(self, policy: Policy) -> UserFallback {
        match (self, policy) {
            (Self::Off, _) | (_, Policy::Evict) => UserFallback::Off,
            (Self::Auto, _) if policy.freezes() => UserFallback::Off,
            (Self::On | Self::Auto, _) => UserFallback::On,
        }
    }
}

/// How an arm compresses, every value resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompressionSettings {
    /// Score on every call, or once per message.
    pub policy: Policy,
    /// Newest tool messages that stand as they came; absent where age decides nothing.
    #[serde(default)]
    pub keep_verbatim_newest: Option<u32>,
    /// Share kept, of 32-token chunks or of tokens as the selection has it, in thousandths (1 to 1000).
    pub keep_permille: u32,
    /// What chunks or lines are ranked by.
    #[serde(default)]
    pub score_by: ScoreBy,
    /// Seed of random scores; absent for others.
    #[serde(default)]
    pub score_seed: Option<u64>,
    /// Which layers of the drafter are scored.
    #[serde(default)]
    pub score_layers: ScoreLayers,
    /// Scores before or after RoPE.
    pub score_rope: ScoreRope,
    /// What is kept of a message.
    #[serde(default)]
    pub selection: Selection,
    /// Drafter tokens that a message may always keep; absent under the compat selection, which has no such floor.
    #[serde(default)]
    pub keep_floor_tokens: Option<u64>,
    /// Tools whose messages stay as they are; none under the compat selection.
    #[serde(default)]
    pub verbatim_tools: Vec<String>,
    /// Raw prompt tokens under which a call is not compressed.
    pub threshold_tokens: u64,
    /// Requests that carry tool definitions.
    pub with_tools: WithTools,
    /// Prompts without a tool message.
    pub user_fallback: UserFallback,
    /// File that keeps frozen messages across runs; memory alone when absent.
    pub freeze_store: Option<PathBuf>,
}
