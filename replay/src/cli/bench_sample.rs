//! `reprise bench-sample`: what a pair of models can do on held-out generated sessions. Reads flags, lays out tables; what is
//! measured, `abilities` knows.

use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;
use transcripts::synth::TRAINING_SEEDS;

use crate::abilities::{self, ArmTally, Ask, Count, Outcome as Probed, Plan};
use crate::arm::{self, Arm};
use crate::backend::engine::EngineBackend;
use crate::cli::run_args::{KeepRatio, keep_ratio};
use crate::cli::table::{Align, Table};
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::settings::{self, DeviceChoice};

/// Arms that answer: the prompt as it is, as the drafter compresses it, and as chance does.
const ARMS: [&str; 3] = ["cold", "cache+compression", "random"];
/// The arm whose scoring ranks chunks.
const RANKED_BY: &str = "cache+compression";
/// Longest prompts that can be asked for: beyond it, generating them is the work.
const LENGTH_MAX: u64 = 1 << 20;

/// Arguments of `reprise bench-sample`.
#[derive(Debug, Args)]
pub struct BenchSampleArgs {
    /// The model that answers: sample, a GGUF file, a safetensors folder, or synthetic:SHAPE
    #[arg(long, value_name = "M", default_value = settings::MODEL)]
    pub model: String,
    /// The model that scores [default: sample beside the bundled target, synthetic:nano-drafter beside a synthetic one]
    #[arg(long, value_name = "D")]
    pub drafter: Option<String>,
    /// Prompt lengths in the target's tokens
    #[arg(
        long,
        value_name = "TOKENS,...",
        value_delimiter = ',',
        default_value = "512,1024,2048,4096,8192,16384"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(64..=LENGTH_MAX))]
    pub lengths: Vec<u64>,
    /// Prompts of each length and way to ask
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub prompts: u64,
    /// How the fact came into sight of the call that needs it
    #[arg(
        long,
        value_enum,
        value_name = "WAY,...",
        value_delimiter = ',',
        default_value = "first,later,delayed"
    )]
    pub asks: Vec<Ask>,
    /// Share of each tool output's tokens to keep in arms that compress
    #[arg(long, value_name = "RATIO", default_value = "0.125", value_parser = keep_ratio)]
    pub keep_ratio: KeepRatio,
    /// Outputs of so many drafter tokens or fewer stay whole, and longer ones keep at least as many
    #[arg(long, value_name = "TOKENS", default_value_t = 1)]
    pub keep_floor: u64,
    /// Seed of the first prompt; seeds under 2^32 are training's
    #[arg(long, value_name = "S", default_value_t = abilities::FIRST_SEED)]
    #[arg(value_parser = clap::value_parser!(u64).range(TRAINING_SEEDS.end() + 1..))]
    pub seed: u64,
    /// Where the models run: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Threads; results do not depend on it [default: every core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print JSON: the rows, and every answer
    #[arg(long)]
    pub json: bool,
}

/// Measures and prints.
///
/// # Errors
/// A model cannot be opened, or a prompt not be made or answered.
pub fn bench_sample(args: &BenchSampleArgs) -> Result<Outcome, ReplayError> {
    let drafter = args.drafter.clone().or_else(|| settings::drafter_of(&args.model).map(str::to_owned));
    let mut backend = EngineBackend::of_models(&args.model, drafter.as_deref(), args.device, args.threads)?;
    let arms = arms(args, drafter.is_some())?;
    let plan = Plan {
        lengths: args.lengths.iter().map(|&tokens| tokens as usize).collect(),
        asks: args.asks.clone(),
        prompts: args.prompts,
        first_seed: args.seed,
        ranked_by: arms.iter().find(|arm| arm.name == RANKED_BY).cloned(),
        arms,
    };
    let n_planned = plan.lengths.len() * plan.asks.len() * plan.prompts as usize;
    let mut n_done = 0;
    let outcomes = abilities::measure(&plan, &mut backend, &mut |outcome| {
        n_done += 1;
        eprintln!("{}", progress(n_done, n_planned, outcome));
    })?;
    if args.json {
        output::json(&json!({
            "models": crate::backend::Backend::identity(&backend).models,
            "first_seed": args.seed,
            "prompts": args.prompts,
            "arms": plan.arms,
            "by_length": abilities::by_length(&outcomes),
            "by_kind": abilities::by_kind(&outcomes),
            "outcomes": outcomes,
        }))?;
    } else {
        output::text(&to_text(args, &outcomes))?;
    }
    Ok(Outcome::Pass)
}

/// The arms that this build knows and these models can run.
fn arms(args: &BenchSampleArgs, has_drafter: bool) -> Result<Vec<Arm>, ReplayError> {
    let known = arm::built_in();
    let can_run = |name: &str| known.iter().any(|spec| spec.name == name) && (has_drafter || name == ARMS[0]);
    let names: Vec<String> = ARMS.into_iter().filter(|name| can_run(name)).map(str::to_owned).collect();
    arm::choose(&names, &[], &abilities::arm_defaults(args.keep_ratio.0, args.keep_floor))
}

fn progress(n_done: usize, n_planned: usize, outcome: &Probed) -> String {
    let exact: Vec<String> = outcome
        .answers
        .iter()
        .map(|answer| format!("{} {}", answer.arm, if answer.exact { "exact" } else { "differs" }))
        .collect();
    format!(
        "{n_done}/{n_planned}: {} tokens, {}: {}",
        outcome.prompt_tokens,
        outcome.kind.as_str(),
        exact.join(", ")
    )
}

/// Two tables for each way to ask: by length, and by kind of fact.
fn to_text(args: &BenchSampleArgs, outcomes: &[Probed]) -> String {
    let share = f64::from(args.keep_ratio.0) / 1000.0;
    let mut text = format!(
        "Greedy answers on held-out generated sessions (seeds from {}), 95 % intervals in brackets (Wilson).\n\
         exact: the tool calls equal the recorded ones. kept: the prompt as sent holds all that they need. Arms that \
         compress keep {share} of each output, {} tokens at least.\n\
         recall: the drafter ranks every chunk that holds a value of the fact in the best tenth of its output's chunks.\n",
        args.seed, args.keep_floor
    );
    let (lengths, kinds) = (abilities::by_length(outcomes), abilities::by_kind(outcomes));
    for ask in Ask::ALL.into_iter().filter(|ask| args.asks.contains(ask)) {
        text += &format!("\n{}\n", ask.about());
        let rows = lengths.iter().filter(|row| row.ask == ask);
        let rows = rows.map(|row| {
            let tokens = row.prompt_tokens_mean.map_or_else(String::new, |tokens| format!("{tokens:.0}"));
            (tokens, row.arms.as_slice(), row.recalled)
        });
        text += &table("tokens", rows.collect());
        let rows = kinds.iter().filter(|row| row.ask == ask);
        let rows = rows.map(|row| (row.kind.as_str().to_owned(), row.arms.as_slice(), row.recalled));
        text += &format!("\n{}", table("fact", rows.collect()));
    }
    text
}

/// One row per label; columns of the first row's arms.
fn table(label: &str, rows: Vec<(String, &[ArmTally], Count)>) -> String {
    let Some((_, arms, _)) = rows.first() else { return String::new() };
    let mut columns = vec![label.to_owned(), "valid".to_owned()];
    for (index, arm) in arms.iter().enumerate() {
        columns.push(format!("exact {}", arm.arm));
        if index > 0 {
            columns.extend(["kept".to_owned(), "removed".to_owned()]);
        }
    }
    columns.push("recall".to_owned());
    let columns: Vec<(&str, Align)> = columns.iter().map(|title| (title.as_str(), Align::Right)).collect();
    let mut table = Table::new(&columns);
    for (name, arms, recalled) in &rows {
        let valid = arms.first().map(|arm| arm.valid).unwrap_or_default();
        let mut cells = vec![name.clone(), share(valid)];
        for (index, arm) in arms.iter().enumerate() {
            cells.push(share(arm.exact));
            if index > 0 {
                cells.extend([percent(arm.kept.share()), percent(Some(arm.removed_ratio))]);
            }
        }
        cells.push(share(*recalled));
        table.row(cells);
    }
    table.render()
}

/// `31/32 97 % [84-99]`.
fn share(count: Count) -> String {
    let Some((low, high)) = count.interval() else { return "-".to_owned() };
    let bounds = format!("[{:.0}-{:.0}]", 100.0 * low, 100.0 * high);
    format!("{}/{} {} {bounds}", count.hits, count.of, percent(count.share()))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_shows_its_counts_and_its_interval() {
        assert_eq!(share(Count { hits: 31, of: 32 }), "31/32 97 % [84-99]");
        assert_eq!(share(Count { hits: 0, of: 20 }), "0/20 0 % [0-16]");
        assert_eq!(share(Count::default()), "-");
    }
}
