//! How arms compress, as the manifest keeps it: which arms differ in their budget alone, and which in how they choose alone.

use serde_json::{Map, Value};

use crate::record::RunManifest;

/// An arm that compresses.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmSetup {
    /// Arm name.
    pub arm: String,
    /// What ranks the chunks.
    pub scorer: Scorer,
    /// Share of a message that is kept, thousandths.
    pub keep_permille: u64,
    /// Settings of the arm but its name and what it stands for.
    settings: Map<String, Value>,
}

/// What ranks the chunks of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scorer {
    /// A model.
    Drafter,
    /// Chance.
    Random,
    /// The distance from the ends.
    HeadTail,
}

impl Scorer {
    /// The word in tables and plots.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drafter => "drafter",
            Self::Random => "random",
            Self::HeadTail => "head-tail",
        }
    }
}

impl ArmSetup {
    fn new(arm: &Map<String, Value>) -> Option<Self> {
        let compression = arm.get("compression")?.as_object()?;
        let scorer = match compression.get("score_by").and_then(Value::as_str) {
            Some("random") => Scorer::Random,
            Some("head-tail") => Scorer::HeadTail,
            _ => Scorer::Drafter,
        };
        let mut settings = arm.clone();
        ["name", "stands_for"].iter().for_each(|key| drop(settings.shift_remove(*key)));
        Some(Self {
            arm: arm.get("name")?.as_str()?.to_owned(),
            scorer,
            keep_permille: compression.get("keep_permille")?.as_u64()?,
            settings,
        })
    }

    /// The settings without those of compression that `is_left_out` names.
    fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Map<String, Value> {
        let mut settings = self.settings.clone();
        if let Some(Value::Object(compression)) = settings.get_mut("compression") {
            compression.retain(|key, _| !is_left_out(key));
        }
        settings
    }

    /// Whether the two differ in how much they keep alone.
    pub fn differs_in_budget_alone(&self, other: &Self) -> bool {
        let rest = |setup: &Self| setup.without(|key| key == "keep_permille");
        rest(self) == rest(other)
    }

    /// Whether the two keep as much and differ in how they choose alone: the score, and the selection that goes with it.
    fn differs_in_choice_alone(&self, other: &Self) -> bool {
        let rest = |setup: &Self| setup.without(|key| key.starts_with("score_") || key == "selection");
        rest(self) == rest(other)
    }
}

/// Every arm of the manifest that compresses, in run order.
pub fn compressing(manifest: &RunManifest) -> Vec<ArmSetup> {
    manifest.arms.iter().filter_map(ArmSetup::new).collect()
}

/// The arm of the manifest that differs from `arm` in compressing nothing; `None` where that is `arm` itself.
pub(super) fn uncompressed(manifest: &RunManifest, arm: &str) -> Option<String> {
    let name = |spec: &Map<String, Value>| spec.get("name").and_then(Value::as_str).map(str::to_owned);
    let rest = |spec: &Map<String, Value>| {
        let is_kept = |key: &str| !["name", "stands_for", "compression"].contains(&key);
        spec.iter()
            .filter(|(key, _)| is_kept(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Map<_, _>>()
    };
    let is_plain = |spec: &Map<String, Value>| match spec.get("compression") {
        None | Some(Value::Null) => true,
        Some(word) => word.as_str() == Some("none"),
    };
    let own =
        manifest.arms.iter().find(|spec| name(spec).as_deref() == Some(arm)).filter(|own| !is_plain(own))?;
    manifest.arms.iter().find(|spec| is_plain(spec) && rest(spec) == rest(own)).and_then(name)
}

/// An arm with a drafter and a control of it.
pub(super) struct ControlPair {
    pub(super) arm: String,
    pub(super) control: String,
    pub(super) keep_permille: u64,
}

/// Every arm with a drafter beside every control that differs from it in how chunks are chosen alone.
pub(super) fn controls(manifest: &RunManifest) -> Vec<ControlPair> {
    let setups = compressing(manifest);
    let (drafters, controls): (Vec<_>, Vec<_>) =
        setups.iter().partition(|setup| setup.scorer == Scorer::Drafter);
    let pairs = drafters.iter().flat_map(|drafter| {
        let own = controls.iter().filter(|control| drafter.differs_in_choice_alone(control));
        own.map(|control| ControlPair {
            arm: drafter.arm.clone(),
            control: control.arm.clone(),
            keep_permille: drafter.keep_permille,
        })
    });
    pairs.collect()
}
