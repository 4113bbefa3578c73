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
}

/// What the chunks of a message are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreBy {
    /// The drafter, asked by the message's own last tokens, as the first published version did.
    #[default]
    OwnTail,
    /// The drafter, asked by the user's goal and the tool call that made the message.
    Birth,
}

impl ScoreBy {
    /// Where nobody says it: the first published version where every call is scored anew, the goal where messages are
    /// frozen at birth.
    pub const fn under(policy: Policy) -> Self {
        match policy {
            Policy::Rescore => Self::OwnTail,
            Policy::Freeze => Self::Birth,
        }
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
    /// drop what the next tool call needs. A score that is asked by the task has no such reason.
    pub const fn under(score_by: ScoreBy) -> Self {
        match score_by {
            ScoreBy::OwnTail => Self::Bypass,
            ScoreBy::Birth => Self::Compress,
        }
    }
}

/// Whether a prompt without a tool message has its last user message compressed in its place, as the user says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FallbackChoice {
    /// `on` where every call is scored anew, `off` where messages are frozen: a user message that is compressed on
    /// one call and whole on the next would break the append-only rule.
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
            (Self::On, _) | (Self::Auto, Policy::Rescore) => UserFallback::On,
            (Self::Off, _) | (Self::Auto, Policy::Freeze) => UserFallback::Off,
        }
    }
}

/// How an arm compresses, every value resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompressionSettings {
    /// Score on every call, or once per message.
    pub policy: Policy,
    /// Share of 32-token chunks kept, in thousandths (1 to 1000).
    pub keep_permille: u32,
    /// What the chunks are ranked by.
    #[serde(default)]
    pub score_by: ScoreBy,
    /// Scores before or after RoPE.
    pub score_rope: ScoreRope,
    /// Raw prompt tokens under which a call is not compressed.
    pub threshold_tokens: u64,
    /// Requests that carry tool definitions.
    pub with_tools: WithTools,
    /// Prompts without a tool message.
    pub user_fallback: UserFallback,
    /// File that keeps frozen messages across runs; memory alone when absent.
    pub freeze_store: Option<PathBuf>,
}
