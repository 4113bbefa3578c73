//! Arms: one configuration of compression x cache x rewrite each. The built-in ones are rows of one table; a user names
//! more in a TOML file. An arm knows no backend, no session and no clock.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::compression::{
    CompressionSettings, FallbackChoice, Policy, ScoreBy, ScoreLayers, ScoreRope, Selection, WithTools,
};
use crate::error::ReplayError;

/// Most arms in one run, built-in and named by the user.
pub const ARMS_MAX: usize = 32;
/// Longest name of an arm, bytes.
pub const NAME_BYTES_MAX: usize = 48;
/// Longest arm file that is read, bytes.
pub const ARM_FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether prompt prefixes are kept and reused between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Every call prefills its whole prompt.
    Off,
    /// Prefixes are published at segment ends and reused.
    On,
}

/// Whether and when a tool message is compressed, as a row or a file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Never.
    None,
    /// As [`Policy::Rescore`].
    Rescore,
    /// As [`Policy::Freeze`].
    Freeze,
    /// As [`Policy::Rolling`].
    Rolling,
    /// As [`Policy::LatencyOnly`]; needs the cache.
    LatencyOnly,
    /// As [`Policy::Evict`].
    Evict,
}

impl Compression {
    const fn policy(self) -> Option<Policy> {
        match self {
            Self::None => None,
            Self::Rescore => Some(Policy::Rescore),
            Self::Freeze => Some(Policy::Freeze),
            Self::Rolling => Some(Policy::Rolling),
            Self::LatencyOnly => Some(Policy::LatencyOnly),
            Self::Evict => Some(Policy::Evict),
        }
    }
}

/// Message-level change of history before a call is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewrite {
    /// History is sent as it was recorded: the one policy of this version.
    #[default]
    None,
}

/// Which models hold memory while the drafter scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Residency {
    /// Target and drafter both stay loaded.
    Resident,
    /// The target's weights are dropped and read again around each batch of scoring.
    Parked,
}

/// One arm with everything resolved: what a backend is started with and what `run.json` keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Name, unique in the run.
    pub name: String,
    /// Compression; `None` sends the messages as they are.
    pub compression: Option<CompressionSettings>,
    /// Prefix cache.
    pub cache: Cache,
    /// Rewrite of history.
    pub rewrite: Rewrite,
    /// Residency of the two models.
    pub residency: Residency,
    /// What the arm stands for, one phrase.
    pub stands_for: String,
}

/// Values of the run that an arm takes where it names none of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmDefaults {
    /// Newest tool messages that stand as they came, where age decides.
    pub keep_verbatim_newest: u32,
    /// Share of chunks kept, in thousandths.
    pub keep_permille: u32,
    /// Threshold of compression, raw prompt tokens.
    pub threshold_tokens: u64,
    /// What chunks or lines are ranked by; the policy's own when absent.
    pub score_by: Option<ScoreBy>,
    /// Which layers of the drafter are scored; all when absent.
    pub score_layers: Option<ScoreLayers>,
    /// Scores before or after RoPE; as the layers ask when absent.
    pub score_rope: Option<ScoreRope>,
    /// What is kept of a message; as policy and score ask when absent.
    pub selection: Option<Selection>,
    /// Drafter tokens that a message may always keep.
    pub keep_floor_tokens: u64,
    /// Tools whose messages stay as they are.
    pub verbatim_tools: Vec<String>,
    /// Seed of random scores.
    pub seed: u64,
    /// Requests that carry tool definitions; as the score asks when absent.
    pub with_tools: Option<WithTools>,
    /// Prompts without a tool message.
    pub user_fallback: FallbackChoice,
    /// Residency of the two models.
    pub residency: Residency,
    /// File of frozen messages.
    pub freeze_store: Option<PathBuf>,
}

/// An arm before the run's values fill it: a row of the table, or an `[[arm]]` of a user's file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    /// Name, unique.
    pub name: String,
    /// Compression; none by default.
    #[serde(default = "no_compression")]
    pub compression: Compression,
    /// Prefix cache; off by default.
    #[serde(default = "cache_off")]
    pub cache: Cache,
    /// Rewrite; none by default.
    #[serde(default)]
    pub rewrite: Rewrite,
    /// Newest tool messages that stand as they came, where age decides; the run's by default.
    pub keep_verbatim_newest: Option<u32>,
    /// Share of chunks kept, above 0 and at most 1; the run's by default.
    pub keep_ratio: Option<f64>,
    /// What chunks or lines are ranked by; the run's by default.
    pub score_by: Option<ScoreBy>,
    /// Which layers of the drafter are scored; the run's by default.
    pub score_layers: Option<ScoreLayers>,
    /// Scores before or after RoPE; the run's by default.
    pub score_rope: Option<ScoreRope>,
    /// What is kept of a message; the run's by default.
    pub selection: Option<Selection>,
    /// Drafter tokens that a message may always keep; the run's by default.
    pub keep_floor: Option<u64>,
    /// Tools whose messages stay as they are; the run's by default.
    pub verbatim_tools: Option<Vec<String>>,
    /// Threshold in raw prompt tokens; the run's by default.
    pub compress_threshold: Option<u64>,
    /// Requests with tool definitions; the run's by default.
    pub with_tools: Option<WithTools>,
    /// Prompts without a tool message; the run's by default.
    pub user_fallback: Option<FallbackChoice>,
    /// Residency; the run's by default.
    pub residency: Option<Residency>,
    /// What the arm stands for.
    #[serde(default)]
    pub stands_for: String,
}

const fn no_compression() -> Compression {
    Compression::None
}

const fn cache_off() -> Cache {
    Cache::Off
}

/// A built-in arm: name, compression x cache x rewrite, a control's score, and what it stands for.
type Row = (&'static str, Compression, Cache, Rewrite, Option<ScoreBy>, &'static str);

/// The built-in arms.
const TABLE: [Row; 11] = [
    (
        "cold",
        Compression::None,
        Cache::Off,
        Rewrite::None,
        None,
        "the baseline: every call prefills its whole prompt",
    ),
    (
        "warm",
        Compression::Rescore,
        Cache::Off,
        Rewrite::None,
        None,
        "compression alone, every tool message scored on every call",
    ),
    ("cache-only", Compression::None, Cache::On, Rewrite::None, None, "prefix cache alone"),
    (
        "cache+compression",
        Compression::Freeze,
        Cache::On,
        Rewrite::None,
        None,
        "the stack: each tool message frozen at birth",
    ),
    (
        "cache+rescore",
        Compression::Rescore,
        Cache::On,
        Rewrite::None,
        None,
        "the anti-stack, kept as a control",
    ),
    (
        "freeze-only",
        Compression::Freeze,
        Cache::Off,
        Rewrite::None,
        None,
        "the memo of frozen messages without a cache",
    ),
    (
        "random",
        Compression::Freeze,
        Cache::On,
        Rewrite::None,
        Some(ScoreBy::Random),
        "control of the drafter: lines drawn by chance, same budget",
    ),
    (
        "head-tail",
        Compression::Freeze,
        Cache::On,
        Rewrite::None,
        Some(ScoreBy::HeadTail),
        "control of the drafter: first and last lines, same budget",
    ),
    (
        "rolling",
        Compression::Rolling,
        Cache::On,
        Rewrite::None,
        None,
        "control of freezing at birth: each tool message compressed once it has aged",
    ),
    (
        "latency-only",
        Compression::LatencyOnly,
        Cache::On,
        Rewrite::None,
        None,
        "new tool messages compressed for one call; history prefilled as it came between calls",
    ),
    (
        "evict",
        Compression::Evict,
        Cache::On,
        Rewrite::None,
        None,
        "each tool message whole until it was answered and has aged, then rows of its KV dropped in place",
    ),
];

/// Arms of a run that names none.
pub const DEFAULT_ARMS: [&str; 4] = ["cold", "warm", "cache-only", "cache+compression"];

/// The built-in arms in the order of the table.
pub fn built_in() -> Vec<ArmSpec> {
    TABLE
        .iter()
        .map(|&(name, compression, cache, rewrite, score_by, stands_for)| ArmSpec {
            name: name.to_owned(),
            compression,
            cache,
            rewrite,
            keep_verbatim_newest: None,
            keep_ratio: None,
            score_by,
            score_layers: None,
            score_rope: None,
            selection: None,
            keep_floor: None,
            verbatim_tools: None,
            compress_threshold: None,
            with_tools: None,
            user_fallback: None,
            residency: None,
            stands_for: stands_for.to_owned(),
        })
        .collect()
}

/// The arms that `names` ask for, in that order, out of the built-in ones and `own`.
///
/// # Errors
/// An unknown name (the error lists the known ones), a name given twice, no name, too many.
pub fn choose(names: &[String], own: &[ArmSpec], defaults: &ArmDefaults) -> Result<Vec<Arm>, ReplayError> {
    let known: Vec<ArmSpec> = built_in().into_iter().chain(own.iter().cloned()).collect();
    if names.is_empty() || names.len() > ARMS_MAX {
        return Err(ReplayError::ArmCount { got: names.len(), most: ARMS_MAX });
    }
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            if !seen.insert(name) {
                return Err(ReplayError::ArmTwice { name: name.clone() });
            }
            let spec =
                known.iter().find(|spec| spec.name == *name).ok_or_else(|| ReplayError::UnknownArm {
                    name: name.clone(),
                    known: known.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", "),
                })?;
            Ok(spec.resolve(defaults))
        })
        .collect()
}

/// Arms of a user's TOML file: a list of `[[arm]]` tables.
///
/// # Errors
/// The file cannot be read, is no TOML, has an unknown key or a value out of range, or names an arm that exists.
pub fn read_file(path: &Path) -> Result<Vec<ArmSpec>, ReplayError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ArmFile {
        #[serde(default)]
        arm: Vec<ArmSpec>,
    }
    let bad = |reason: String| ReplayError::ArmFile { path: path.to_owned(), reason };
    let text = crate::input::read_text(path, ARM_FILE_BYTES_MAX)?;
    let file: ArmFile =
        toml::from_str(&text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
    if file.arm.is_empty() {
        return Err(bad("it holds no [[arm]] table".to_owned()));
    }
    if file.arm.len() > ARMS_MAX {
        return Err(bad(format!("it holds {} arms, at most {ARMS_MAX} are taken", file.arm.len())));
    }
    let mut taken: BTreeSet<String> = built_in().into_iter().map(|spec| spec.name).collect();
    for spec in &file.arm {
        spec.check().map_err(bad)?;
        if !taken.insert(spec.name.clone()) {
            return Err(bad(format!("arm `{}` is built in or named twice", spec.name)));
        }
    }
    Ok(file.arm)
}

impl ArmSpec {
    fn check(&self) -> Result<(), String> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-_.".contains(c);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(word) {
            return Err(format!(
                "arm name {:?} is not 1 to {NAME_BYTES_MAX} of a-z, 0-9, '+', '-', '_', '.'",
                self.name
            ));
        }
        if let Some(ratio) = self.keep_ratio
            && permille(ratio).is_none()
        {
            return Err(format!("arm `{}`: keep_ratio is {ratio}, expected 0.001 to 1", self.name));
        }
        let set = [
            ("keep_ratio", self.keep_ratio.is_some()),
            ("score_by", self.score_by.is_some()),
            ("score_layers", self.score_layers.is_some()),
            ("score_rope", self.score_rope.is_some()),
            ("selection", self.selection.is_some()),
            ("keep_floor", self.keep_floor.is_some()),
            ("verbatim_tools", self.verbatim_tools.is_some()),
            ("compress_threshold", self.compress_threshold.is_some()),
            ("with_tools", self.with_tools.is_some()),
            ("user_fallback", self.user_fallback.is_some()),
        ];
        match set.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) if self.compression == Compression::None => {
                Err(format!("arm `{}`: {key} is set but compression is \"none\"", self.name))
            }
            _ if self.keep_verbatim_newest.is_some()
                && !self.compression.policy().is_some_and(Policy::ages) =>
            {
                Err(format!(
                    "arm `{}`: keep_verbatim_newest is set but compression is not \"rolling\" or \"evict\"",
                    self.name
                ))
            }
            _ if self.compression == Compression::LatencyOnly && self.cache == Cache::Off => Err(format!(
                "arm `{}`: compression \"latency-only\" fills a cache between calls, but cache is \"off\"",
                self.name
            )),
            _ => self.check_lines(),
        }
    }

    /// Line selection alone has a floor of tokens and tools that it leaves alone.
    fn check_lines(&self) -> Result<(), String> {
        let set =
            [("keep_floor", self.keep_floor.is_some()), ("verbatim_tools", self.verbatim_tools.is_some())];
        match set.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) if self.selection == Some(Selection::Compat) => {
                Err(format!("arm `{}`: {key} is set but selection is \"compat\"", self.name))
            }
            _ => Ok(()),
        }
    }

    fn resolve(&self, defaults: &ArmDefaults) -> Arm {
        Arm {
            name: self.name.clone(),
            compression: self.compression.policy().map(|policy| self.settings(policy, defaults)),
            cache: self.cache,
            rewrite: self.rewrite,
            residency: self.residency.unwrap_or(defaults.residency),
            stands_for: self.stands_for.clone(),
        }
    }

    /// The knobs: the arm's own, else the run's, else what the policy asks for.
    fn settings(&self, policy: Policy, defaults: &ArmDefaults) -> CompressionSettings {
        let score_by = self.score_by.or(defaults.score_by).unwrap_or(ScoreBy::under(policy));
        let score_layers = self.score_layers.or(defaults.score_layers).unwrap_or_default();
        let score_rope = self.score_rope.or(defaults.score_rope).unwrap_or(ScoreRope::under(score_layers));
        let selection = self.selection.or(defaults.selection).unwrap_or(Selection::under(policy, score_by));
        let has_lines = selection != Selection::Compat;
        let verbatim_tools = self.verbatim_tools.as_ref().unwrap_or(&defaults.verbatim_tools);
        let with_tools = self.with_tools.or(defaults.with_tools);
        CompressionSettings {
            policy,
            keep_verbatim_newest: policy
                .ages()
                .then_some(self.keep_verbatim_newest.unwrap_or(defaults.keep_verbatim_newest)),
            keep_permille: self.keep_ratio.and_then(permille).unwrap_or(defaults.keep_permille),
            score_by,
            score_seed: (score_by == ScoreBy::Random).then_some(defaults.seed),
            score_layers,
            score_rope,
            selection,
            keep_floor_tokens: has_lines.then_some(self.keep_floor.unwrap_or(defaults.keep_floor_tokens)),
            verbatim_tools: if has_lines { verbatim_tools.clone() } else { Vec::new() },
            threshold_tokens: self.compress_threshold.unwrap_or(defaults.threshold_tokens),
            with_tools: with_tools.unwrap_or(WithTools::under(score_by)),
            user_fallback: self.user_fallback.unwrap_or(defaults.user_fallback).under(policy),
            freeze_store: defaults.freeze_store.clone().filter(|_| policy.freezes()),
        }
    }
}

/// A keep ratio as thousandths; `None` outside 0.001 to 1.
pub fn permille(ratio: f64) -> Option<u32> {
    let permille = (ratio * 1000.0).round();
    // In range after the check, so the conversion is exact; NaN fails the comparison.
    (1.0..=1000.0).contains(&permille).then_some(permille as u32)
}
