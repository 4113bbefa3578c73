//! The flags of `reprise run`, and what they come to: settings and arms. Opens nothing but the arm file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::arm::{self, Arm, Residency};
use crate::backend::{FidelityCheck, Verify};
use crate::cli::size;
use crate::compression::{FallbackChoice, ScoreBy, ScoreLayers, ScoreRope, Selection, WithTools};
use crate::error::ReplayError;
use crate::settings::{self, CallRange, DeviceChoice, Settings, Subagents};

/// Arguments of `reprise run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Session files or folders: Claude Code .jsonl, session files of `reprise import`, or bundled:NAME [default:
    /// bundled:sample]
    pub session: Vec<PathBuf>,

    /// The model that answers: sample (the bundled one), a GGUF file, a safetensors folder, or synthetic:SHAPE
    #[arg(long, value_name = "M", default_value = settings::MODEL, help_heading = "Models")]
    pub model: String,
    /// The model that scores what compression keeps [default: sample beside the bundled target, synthetic:nano-drafter
    /// beside a synthetic one]
    #[arg(long, value_name = "D", help_heading = "Models")]
    pub drafter: Option<String>,
    /// Where the models run: cpu, cuda, cuda:N (the card of that number), or auto: the first card where one works, else
    /// the CPU
    #[arg(long, default_value = "auto", help_heading = "Models")]
    pub device: DeviceChoice,
    /// On a Hopper card, use the kernels written for it alone (wgmma); they are not covered by the emulator's tests
    #[arg(long, help_heading = "Models")]
    pub hopper_kernels: bool,
    /// Threads; results do not depend on it [default: every core]
    #[arg(long, value_name = "N", help_heading = "Models")]
    pub threads: Option<NonZeroUsize>,
    /// Most memory that the target's KV cache may take
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size::parse, help_heading = "Models")]
    pub kv_budget: u64,
    /// Which models hold memory while the drafter scores
    #[arg(long, value_enum, value_name = "CHOICE", default_value = "resident", help_heading = "Models")]
    pub residency: Residency,

    /// Arms, in this order [default: cold,warm,cache-only,cache+compression; with --arm-file: cold and those of the
    /// file]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What runs")]
    pub arms: Vec<String>,
    /// Arms of your own: a TOML file of [[arm]] tables with the keys name, compression (none, rescore, freeze, rolling,
    /// latency-only, evict), cache (on, off), keep_verbatim_newest, keep_ratio, score_by (own-tail, birth, random,
    /// head-tail), score_layers (all, mid), score_rope (rope, nope), selection (compat, lines, structural), keep_floor,
    /// verbatim_tools, compress_threshold, with_tools (bypass, compress), user_fallback, residency and stands_for; what a
    /// table leaves out takes the run's value
    #[arg(long, value_name = "FILE", help_heading = "What runs")]
    pub arm_file: Option<PathBuf>,
    /// Calls of each session, numbered from 1, both ends included: 1..10, 3.., or 5 [default: all]
    #[arg(long, value_name = "A..B", help_heading = "What runs")]
    pub calls: Option<CallRange>,
    /// Passes over all calls of each arm; their order alternates (ABBA)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count_to(settings::REPEATS_MAX))]
    #[arg(help_heading = "What runs")]
    pub repeats: u32,
    /// Most tokens generated per call; what is generated is measured and thrown away
    #[arg(long, value_name = "N", default_value_t = settings::MAX_NEW_TOKENS)]
    #[arg(value_parser = count_to(settings::NEW_TOKENS_MAX), help_heading = "What runs")]
    pub max_new_tokens: u32,
    /// 0 draws the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, help_heading = "What runs")]
    pub temperature: f64,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "What runs")]
    pub seed: u64,
    /// Check on every call that cached logits equal cold ones bit for bit (takes the time of a cold call each)
    #[arg(long, help_heading = "What runs")]
    pub verify: bool,
    /// Measure on every call how far the sent prompt's next-token distributions are from the recorded prompt's, over the
    /// recorded turn (takes the time of a cold call each, and of one more for each recorded prompt)
    #[arg(long, help_heading = "What runs")]
    pub fidelity: bool,

    /// System prompt to put in front of every call: recordings of Claude Code lack it
    #[arg(long, value_name = "FILE", help_heading = "Sessions")]
    pub system_prompt: Option<PathBuf>,
    /// Tool definitions to send with every call: a JSON list
    #[arg(long, value_name = "FILE", help_heading = "Sessions")]
    pub tools: Option<PathBuf>,
    /// Replay sub-agent sessions too, each as a session of its own [default: main sessions alone]
    #[arg(long, help_heading = "Sessions")]
    pub include_subagents: bool,

    /// Share of each compressed message to keep, of its 32-token chunks or, where lines are selected, of its tokens
    #[arg(long, value_name = "RATIO", default_value = "0.05", value_parser = keep_ratio, help_heading = "Compression")]
    pub keep_ratio: KeepRatio,
    /// Newest tool messages that stand as they came, in arms that compress or evict by age
    #[arg(long, value_name = "N", default_value_t = settings::KEEP_VERBATIM_NEWEST, help_heading = "Compression")]
    pub keep_verbatim_newest: u32,
    /// Raw prompt tokens under which a call is not compressed [default: 32000; 1 for the bundled session]
    #[arg(long, value_name = "TOKENS", help_heading = "Compression")]
    pub compress_threshold: Option<u64>,
    /// What chunks or lines are ranked by: the drafter, or a control without a model [default: birth where messages are frozen,
    /// own-tail where every call is scored anew]
    #[arg(long, value_enum, value_name = "CHOICE", help_heading = "Compression")]
    pub score_by: Option<ScoreBy>,
    /// Score every layer of the drafter, or the middle band alone, which spares running what is above it [default: all]
    #[arg(long, value_enum, value_name = "CHOICE", help_heading = "Compression")]
    pub score_layers: Option<ScoreLayers>,
    /// Take the drafter's scores after position rotation or before it [default: rope for all layers, nope for mid]
    #[arg(long, value_enum, value_name = "CHOICE", help_heading = "Compression")]
    pub score_rope: Option<ScoreRope>,
    /// What is kept of a message, by its scores [default: structural where messages are frozen, lines for controls,
    /// compat where every call is scored anew]
    #[arg(long, value_enum, value_name = "CHOICE", help_heading = "Compression")]
    pub selection: Option<Selection>,
    /// Drafter tokens that a message may always keep where lines are selected: one of no more stays as it is, and the
    /// share of a longer one falls with its length down to --keep-ratio
    #[arg(long, value_name = "TOKENS", default_value_t = settings::KEEP_FLOOR_TOKENS, help_heading = "Compression")]
    pub keep_floor: u64,
    /// Tools whose messages stay as they are where lines are selected, without regard to case
    #[arg(long, value_name = "NAME,...", default_value = settings::VERBATIM_TOOLS, value_delimiter = ',')]
    #[arg(help_heading = "Compression")]
    pub verbatim_tools: Vec<String>,
    /// Compress requests that carry tool definitions, too; the definitions are never touched (the default, save where
    /// chunks are ranked by own-tail)
    #[arg(long, conflicts_with = "bypass_tools", help_heading = "Compression")]
    pub compress_with_tools: bool,
    /// Send requests that carry tool definitions as they are (the default where chunks are ranked by own-tail)
    #[arg(long, help_heading = "Compression")]
    pub bypass_tools: bool,
    /// Compress the last user message where there is no tool message
    #[arg(long, value_enum, value_name = "CHOICE", default_value = "auto", help_heading = "Compression")]
    pub user_fallback: FallbackChoice,
    /// Keep frozen messages in this file across runs [default: in memory, for one pass]
    #[arg(long, value_name = "FILE", help_heading = "Compression")]
    pub freeze_store: Option<PathBuf>,

    /// Run directory [default: runs/TIME-ID]
    #[arg(short, long, value_name = "RUN", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Continue a run that was cut, with the settings it began with; takes no other argument
    #[arg(long, value_name = "RUN", exclusive = true, help_heading = "Output")]
    pub resume: Option<PathBuf>,
    /// Time between two samples of telemetry, milliseconds
    #[arg(long, value_name = "MS", default_value_t = settings::SAMPLE_PERIOD_MS)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(10..=10_000), help_heading = "Output")]
    pub sample_period_ms: u32,
    /// Print what would run, every default spelled out, and stop
    #[arg(long, help_heading = "Output")]
    pub plan: bool,
    /// Print the plan as JSON
    #[arg(long, requires = "plan", help_heading = "Output")]
    pub json: bool,
}

/// A keep ratio in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRatio(pub u32);

fn count_to(most: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

/// Reads a keep ratio.
///
/// # Errors
/// A sentence for the command line.
pub fn keep_ratio(text: &str) -> Result<KeepRatio, String> {
    text.parse::<f64>()
        .ok()
        .and_then(arm::permille)
        .map(KeepRatio)
        .ok_or_else(|| format!("expected a share from 0.001 to 1, got `{text}`"))
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err(format!("expected a number from 0 to 100, got `{text}`")),
    }
}

impl RunArgs {
    /// The settings that these flags and their defaults come to; `working_dir` anchors relative paths.
    pub fn settings(&self, working_dir: PathBuf) -> Settings {
        let threshold = if self.session.is_empty() {
            settings::THRESHOLD_TOKENS_BUNDLED
        } else {
            settings::THRESHOLD_TOKENS
        };
        let of_model = || settings::drafter_of(&self.model).map(str::to_owned);
        let drafter = self.drafter.clone().or_else(of_model);
        Settings {
            sessions: self.session.clone(),
            working_dir,
            subagents: if self.include_subagents { Subagents::Include } else { Subagents::LeaveOut },
            system_prompt: self.system_prompt.clone(),
            tools: self.tools.clone(),
            calls: self.calls.unwrap_or(CallRange::ALL),
            model: self.model.clone(),
            drafter,
            device: self.device,
            hopper_kernels: self.hopper_kernels,
            threads: self.threads,
            kv_budget_bytes: self.kv_budget,
            repeats: self.repeats,
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            seed: self.seed,
            verify: if self.verify { Verify::Bitwise } else { Verify::Off },
            fidelity: if self.fidelity { FidelityCheck::TeacherForced } else { FidelityCheck::Off },
            keep_verbatim_newest: self.keep_verbatim_newest,
            keep_permille: self.keep_ratio.0,
            compress_threshold_tokens: self.compress_threshold.unwrap_or(threshold),
            score_by: self.score_by,
            score_layers: self.score_layers,
            score_rope: self.score_rope,
            selection: self.selection,
            keep_floor_tokens: self.keep_floor,
            verbatim_tools: self.verbatim_tools.iter().filter(|name| !name.is_empty()).cloned().collect(),
            with_tools: match (self.compress_with_tools, self.bypass_tools) {
                (true, _) => Some(WithTools::Compress),
                (false, true) => Some(WithTools::Bypass),
                (false, false) => None,
            },
            user_fallback: self.user_fallback,
            residency: self.residency,
            freeze_store: self.freeze_store.clone(),
            sample_period_ms: self.sample_period_ms,
        }
    }

    /// The arms that these flags ask for, over the settings they come to.
    ///
    /// # Errors
    /// As [`arm::choose`] and [`arm::read_file`].
    pub fn chosen_arms(&self, settings: &Settings) -> Result<Vec<Arm>, ReplayError> {
        let own = match &self.arm_file {
            Some(path) => arm::read_file(path)?,
            None => Vec::new(),
        };
        let names: Vec<String> = match (self.arms.is_empty(), own.is_empty()) {
            (false, _) => self.arms.clone(),
            (true, true) => arm::DEFAULT_ARMS.map(str::to_owned).to_vec(),
            (true, false) => {
                let own_names = own.iter().map(|spec| spec.name.clone());
                std::iter::once("cold".to_owned()).chain(own_names).collect()
            }
        };
        arm::choose(&names, &own, &settings.arm_defaults())
    }
}
