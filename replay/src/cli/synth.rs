//! `reprise synth`: generated sessions as files, and training text for the sample models.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use engine::chat::ChatTemplate;
use transcripts::synth::{self, Shape, generate};

use crate::backend::BackendError;
use crate::cli::{Outcome, output};
use crate::corpus::{self, Form};
use crate::error::ReplayError;

/// Arguments of `reprise synth`.
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// Which session: the same seed and sizes give the same file
    #[arg(long, value_name = "S", default_value_t = synth::DEFAULT_SEED)]
    pub seed: u64,
    /// Model calls of the session
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=synth::CALLS_MAX as u64))]
    pub calls: u64,
    /// Characters of the session, about [default: tool outputs as long as those of recorded sessions]
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u64).range(1..=synth::CHARS_MAX as u64))]
    pub chars: Option<u64>,
    /// Write the session to this file, and what its calls need to FILE.needles.json [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "corpus")]
    pub output: Option<PathBuf>,
    /// Print N rows of training text instead, of C characters each, from the seeds S, S + 1, ...
    #[arg(long, value_name = "N", requires = "chars", conflicts_with = "calls")]
    pub corpus: Option<u64>,
    /// What a row of training text holds
    #[arg(long, value_enum, default_value = "session", requires = "corpus")]
    pub form: FormArg,
}

/// Forms of training text by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormArg {
    /// A whole session
    Session,
    /// A session of one request, whose tool output fills the row
    Single,
    /// A tool output with its birth query, as the drafter scores it
    Scoring,
}

/// Generates a session, or rows of training text.
///
/// # Errors
/// A file cannot be written.
pub fn synth(args: &SynthArgs) -> Result<Outcome, ReplayError> {
    match args.corpus {
        Some(rows) => print_corpus(args, rows)?,
        None => write_session(args)?,
    }
    Ok(Outcome::Pass)
}

fn write_session(args: &SynthArgs) -> Result<(), ReplayError> {
    let chars = args.chars.map(|chars| chars as usize);
    let synthetic = generate(&Shape { seed: args.seed, calls: args.calls as usize, chars });
    let Some(path) = &args.output else { return output::text(&synthetic.jsonl) };
    write(path, &synthetic.jsonl)?;
    let mut side = path.clone().into_os_string();
    side.push(".needles.json");
    write(Path::new(&side), &(serde_json::to_string_pretty(&synthetic.needles)? + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), ReplayError> {
    std::fs::write(path, text).map_err(|source| ReplayError::Unwritable { path: path.to_owned(), source })
}

fn print_corpus(args: &SynthArgs, rows: u64) -> Result<(), ReplayError> {
    let chat = ChatTemplate::built_in().map_err(BackendError::from)?;
    let form = match args.form {
        FormArg::Session => Form::Session,
        FormArg::Single => Form::Single,
        FormArg::Scoring => Form::Scoring,
    };
    let chars = args.chars.unwrap_or(synth::CHARS_MAX as u64) as usize;
    for row in 0..rows {
        output::json_line(&corpus::row(&chat, form, args.seed.wrapping_add(row), chars)?)?;
    }
    Ok(())
}
