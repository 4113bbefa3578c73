//! The `reprise` command: arguments in, one outcome out. Data goes to stdout, everything else to stderr. Each
//! subcommand is one file; this one holds the door and the exit codes.

pub mod bench_sample;
pub mod doctor;
pub mod forecast_text;
pub mod import;
pub mod inspect;
pub mod inspect_session;
pub mod logits;
pub mod output;
pub mod plan;
pub mod plan_text;
pub mod report;
pub mod run;
pub mod run_args;
pub mod size;
pub mod synth;
pub mod table;
pub mod tokenize;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::error::ReplayError;

/// How a command ended. The only exit codes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: it did what it was asked.
    Pass,
    /// 1: it ran, and a check failed: a call failed, or cached logits were not equal to cold ones.
    Failed,
    /// 3: invalid input, usage or run, or a run that was stopped before its end.
    Invalid,
}

impl Outcome {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Failed => 1,
            Self::Invalid => 3,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

/// Replays recorded agent sessions through an LLM engine and shows what prefix caching and prompt compression buy, call
/// by call.
#[derive(Debug, Parser)]
#[command(
    name = "reprise",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 pass, 1 failed check, 2 inconclusive, 3 invalid input, usage or run."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read recordings of other programs as sessions
    Import(import::ImportArgs),
    /// Show what is in a session, a model or a run
    Inspect(inspect::InspectArgs),
    /// Replay sessions through the arms and leave a report
    Run(Box<run_args::RunArgs>),
    /// Forecast the arms on a session from given rates: which wins, and when compression pays
    Plan(plan::PlanArgs),
    /// Write the report of runs again: summary, CSV, HTML and plots
    Report(report::ReportArgs),
    /// Generate a session, or training text for the sample models
    Synth(synth::SynthArgs),
    /// Show what this machine offers, and what a missing part costs you
    Doctor(doctor::DoctorArgs),
    /// Measure what a pair of models can do on held-out generated sessions
    BenchSample(bench_sample::BenchSampleArgs),
    /// Print the token ids of a text as a JSON array
    Tokenize(tokenize::TokenizeArgs),
    /// Print the logits of a token sequence as JSON
    Logits(logits::LogitsArgs),
}

/// Parses the arguments and runs the command. Errors are printed here and nowhere else. `end_at_once` ends the process
/// as [`Outcome::Invalid`] without unwinding: for a second interrupt while a call is in flight.
pub fn main(args: impl IntoIterator<Item = OsString>, end_at_once: fn()) -> Outcome {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe must not turn help into a failure.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Outcome::Pass,
                _ => Outcome::Invalid,
            };
        }
    };
    match dispatch(cli.command, &args, end_at_once) {
        Ok(outcome) => outcome,
        // Whoever read the output has had enough of it (`reprise ... | head`).
        Err(ReplayError::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            Outcome::Pass
        }
        Err(error) => {
            eprintln!("reprise: {error}");
            Outcome::Invalid
        }
    }
}

fn dispatch(command: Command, args: &[OsString], end_at_once: fn()) -> Result<Outcome, ReplayError> {
    match command {
        Command::Import(args) => import::import(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Run(run_args) => run::run(&run_args, args, end_at_once),
        Command::Plan(args) => plan::plan(&args),
        Command::Report(args) => report::report(&args),
        Command::Synth(args) => synth::synth(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::BenchSample(args) => bench_sample::bench_sample(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Logits(args) => logits::logits(&args),
    }
}
