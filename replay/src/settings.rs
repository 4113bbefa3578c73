//! Every setting of a run in one serialisable place: what `--plan` prints, what `run.json` keeps and what `--resume`
//! reads back. Plain data; knows no command line and no backend.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arm::{ArmDefaults, Residency};
use crate::backend::{FidelityCheck, Sampling, Verify};
use crate::compression::{FallbackChoice, ScoreBy, ScoreLayers, ScoreRope, Selection, WithTools};

/// Compression threshold of a run over sessions that the user names, raw prompt tokens.
pub const THRESHOLD_TOKENS: u64 = 32_000;
/// Compression threshold of the default run over a bundled session: everything is compressed, however short.
pub const THRESHOLD_TOKENS_BUNDLED: u64 = 1;
/// Newest tool messages that stand as they came, where age decides.
pub const KEEP_VERBATIM_NEWEST: u32 = 1;
/// Share of chunks kept, in thousandths.
pub const KEEP_PERMILLE: u32 = 50;
/// Drafter tokens that a message may always keep where lines are selected.
pub const KEEP_FLOOR_TOKENS: u64 = 512;
/// Tools whose messages stay as they are where lines are selected: what they did is short, and told once.
pub const VERBATIM_TOOLS: &str = "Edit,MultiEdit,Write,NotebookEdit,apply_patch";
/// Most tokens generated per call.
pub const MAX_NEW_TOKENS: u32 = 128;
/// Most tokens that a call may be asked to generate.
pub const NEW_TOKENS_MAX: u32 = 1_000_000;
/// Budget of the target's KV cache.
pub const KV_BUDGET_BYTES: u64 = 4 << 30;
/// Time between two samples of telemetry.
pub const SAMPLE_PERIOD_MS: u32 = 50;
/// Most repeats of a run.
pub const REPEATS_MAX: u32 = 1000;
/// Target of a run that names none: the bundled one.
pub const MODEL: &str = "sample";

/// The drafter of a run that names none, by its target: the bundled pair and the synthetic models bring theirs, any other
/// target has none behind the user's back.
pub fn drafter_of(model: &str) -> Option<&'static str> {
    match model {
        "sample" | "sample:target" => Some("sample"),
        _ if model.starts_with("synthetic:") => Some("synthetic:nano-drafter"),
        _ => None,
    }
}

/// Which calls of each session are replayed: numbers from 1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallRange {
    /// First call, from 1.
    pub first: u32,
    /// Last call, from 1; to the end when absent.
    pub last: Option<u32>,
}

impl CallRange {
    /// Every call.
    pub const ALL: Self = Self { first: 1, last: None };

    /// The part of a session of `n_calls` calls that the range covers: start and end as indices from 0, end excluded.
    pub fn of_session(self, n_calls: u32) -> std::ops::Range<u32> {
        let end = self.last.unwrap_or(n_calls).min(n_calls);
        (self.first - 1).min(end)..end
    }
}

impl FromStr for CallRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected A..B, A.., ..B or A with 1 <= A <= B, got `{text}`");
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|&n| n > 0).ok_or_else(bad);
        let (first, last) = match text.split_once("..") {
            None => (number(text)?, Some(number(text)?)),
            Some((first, last)) => {
                let first = if first.trim().is_empty() { 1 } else { number(first)? };
                let last = if last.trim().is_empty() { None } else { Some(number(last)?) };
                (first, last)
            }
        };
        if last.is_some_and(|last| last < first) {
            return Err(bad());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for CallRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{}..{last}", self.first),
            None => write!(f, "{}..", self.first),
        }
    }
}

impl TryFrom<String> for CallRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CallRange> for String {
    fn from(range: CallRange) -> Self {
        range.to_string()
    }
}

/// Where the models run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// The first card where one works, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The card of this number, counted from 0.
    Cuda(u32),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => {
                let ordinal = other.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                ordinal
                    .map(Self::Cuda)
                    .ok_or_else(|| format!("expected auto, cpu, cuda or cuda:N, got `{other}`"))
            }
        }
    }
}

/// Whether sub-agent sessions are replayed beside the main ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subagents {
    /// Main sessions alone.
    LeaveOut,
    /// Every session found.
    Include,
}

/// The settings of a run, all but its arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Files and folders of sessions as given; none means a bundled session.
    pub sessions: Vec<PathBuf>,
    /// Folder that relative paths of this list start from.
    pub working_dir: PathBuf,
    /// Sub-agent sessions.
    pub subagents: Subagents,
    /// System prompt to put in front of every call.
    pub system_prompt: Option<PathBuf>,
    /// Tool definitions to send with every call.
    pub tools: Option<PathBuf>,
    /// Calls replayed of each session.
    pub calls: CallRange,
    /// The model that answers.
    pub model: String,
    /// The model that scores.
    pub drafter: Option<String>,
    /// Where the models run.
    pub device: DeviceChoice,
    /// Whether kernels that run on Hopper cards alone are used there.
    #[serde(default)]
    pub hopper_kernels: bool,
    /// Threads; every core when absent.
    pub threads: Option<NonZeroUsize>,
    /// Budget of the target's KV cache.
    pub kv_budget_bytes: u64,
    /// Passes over all calls of each arm.
    pub repeats: u32,
    /// Most tokens generated per call.
    pub max_new_tokens: u32,
    /// 0 draws the likeliest token.
    pub temperature: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Exactness check of every call.
    pub verify: Verify,
    /// Fidelity of every call.
    #[serde(default)]
    pub fidelity: FidelityCheck,
    /// Newest tool messages that stand as they came, where age decides.
    #[serde(default = "keep_verbatim_newest")]
    pub keep_verbatim_newest: u32,
    /// Share of chunks kept, in thousandths.
    pub keep_permille: u32,
    /// Raw prompt tokens under which a call is not compressed.
    pub compress_threshold_tokens: u64,
    /// What chunks are ranked by; each arm's own when absent.
    #[serde(default)]
    pub score_by: Option<ScoreBy>,
    /// Which layers of the drafter are scored; each arm's own when absent.
    #[serde(default)]
    pub score_layers: Option<ScoreLayers>,
    /// Scores before or after RoPE; each arm's own when absent.
    #[serde(default)]
    pub score_rope: Option<ScoreRope>,
    /// What is kept of a message; each arm's own when absent.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// Drafter tokens that a message may always keep where lines are selected.
    #[serde(default)]
    pub keep_floor_tokens: u64,
    /// Tools whose messages stay as they are where lines are selected.
    #[serde(default)]
    pub verbatim_tools: Vec<String>,
    /// Requests that carry tool definitions; each arm's own when absent.
    pub with_tools: Option<WithTools>,
    /// Prompts without a tool message.
    pub user_fallback: FallbackChoice,
    /// Residency of the two models.
    pub residency: Residency,
    /// File that keeps frozen messages across runs.
    pub freeze_store: Option<PathBuf>,
    /// Time between two samples of telemetry; runs of before it was a setting took 100 ms.
    #[serde(default = "sample_period_ms_before")]
    pub sample_period_ms: u32,
}

const fn keep_verbatim_newest() -> u32 {
    KEEP_VERBATIM_NEWEST
}

const fn sample_period_ms_before() -> u32 {
    100
}

impl Settings {
    /// Time between two samples of telemetry.
    pub fn sample_period(&self) -> Duration {
        Duration::from_millis(self.sample_period_ms.into())
    }

    /// What an arm takes where it names nothing of its own.
    pub fn arm_defaults(&self) -> ArmDefaults {
        ArmDefaults {
            keep_verbatim_newest: self.keep_verbatim_newest,
            keep_permille: self.keep_permille,
            threshold_tokens: self.compress_threshold_tokens,
            score_by: self.score_by,
            score_layers: self.score_layers,
            score_rope: self.score_rope,
            selection: self.selection,
            keep_floor_tokens: self.keep_floor_tokens,
            verbatim_tools: self.verbatim_tools.clone(),
            seed: self.seed,
            with_tools: self.with_tools,
            user_fallback: self.user_fallback,
            residency: self.residency,
            freeze_store: self.freeze_store.clone(),
        }
    }

    /// How tokens are drawn.
    pub const fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature as f32, seed: self.seed }
    }

    /// Whether the run replays a bundled session.
    pub fn is_bundled(&self) -> bool {
        self.sessions.is_empty()
    }
}
