//! `reprise import`: recordings of other programs as session files, or as the input of other programs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use transcripts::canonical;
use transcripts::export::{self, ExportForm};
use transcripts::import::{FormatChoice, Import, ImportOptions};
use transcripts::inspect::inspect;
use transcripts::redact::{Found, Redactor};
use transcripts::session::SourceFormat;

use crate::cli::inspect_session::overview;
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::sessions;

/// Arguments of `reprise import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files and folders; a folder is walked, symbolic links in it are not followed
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Write each session into this folder as one session file; without it, nothing is written
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Write in the form of another program instead of session files
    #[arg(long, value_enum, value_name = "FORM", requires = "output")]
    pub export: Option<Export>,
    /// Replace keys, tokens, e-mail addresses, home paths and users' names by placeholders
    #[arg(long)]
    pub redact: bool,
    /// Format of the input
    #[arg(long, value_enum, default_value = "auto")]
    pub format: Format,
}

/// Formats by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Told by the content of each file
    Auto,
    /// Claude Code session files
    ClaudeCode,
    /// Codex rollouts
    Codex,
    /// OpenAI chat requests, message lists and runs; mini-swe-agent; OpenHands completions
    OpenaiChat,
    /// Requests and items of the OpenAI Responses API
    Responses,
    /// Requests of the Anthropic Messages API
    Anthropic,
    /// SWE-agent trajectories
    SweAgent,
    /// OpenHands events
    Openhands,
    /// Saved sessions of CodeWhale and DeepSeek-TUI
    Codewhale,
    /// Session stores of helexa
    Helexa,
    /// Session files of `reprise import`
    Canonical,
}

/// Forms by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// Requests with their answers, one a line, one file per session
    OpenaiChat,
    /// Request bodies, one a line, one file per session
    Requests,
    /// Multi-turn input of NVIDIA AIPerf, one file
    Aiperf,
    /// Data set of guidellm, one file
    Guidellm,
}

impl From<Export> for ExportForm {
    fn from(form: Export) -> Self {
        match form {
            Export::OpenaiChat => Self::OpenaiChat,
            Export::Requests => Self::Requests,
            Export::Aiperf => Self::Aiperf,
            Export::Guidellm => Self::Guidellm,
        }
    }
}

impl From<Format> for ImportOptions {
    fn from(format: Format) -> Self {
        let format = match format {
            Format::Auto => FormatChoice::Auto,
            Format::ClaudeCode => FormatChoice::Source(SourceFormat::ClaudeCode),
            Format::Codex => FormatChoice::Source(SourceFormat::Codex),
            Format::OpenaiChat => FormatChoice::Source(SourceFormat::OpenaiChat),
            Format::Responses => FormatChoice::Source(SourceFormat::Responses),
            Format::Anthropic => FormatChoice::Source(SourceFormat::Anthropic),
            Format::SweAgent => FormatChoice::Source(SourceFormat::SweAgent),
            Format::Openhands => FormatChoice::Source(SourceFormat::Openhands),
            Format::Codewhale => FormatChoice::Source(SourceFormat::Codewhale),
            Format::Helexa => FormatChoice::Source(SourceFormat::Helexa),
            Format::Canonical => FormatChoice::Canonical,
        };
        Self { format }
    }
}

/// Imports, prints what was found, and writes the sessions where asked.
///
/// # Errors
/// A path cannot be read or written, or nothing in it holds a recorded call.
pub fn import(args: &ImportArgs) -> Result<Outcome, ReplayError> {
    let mut found = sessions::read(&args.paths, Path::new(""), args.format.into())?;
    for warning in sessions::warnings(&found) {
        eprintln!("warning: {warning}");
    }
    if found.sessions.is_empty() {
        let paths: Vec<String> = args.paths.iter().map(|path| path.display().to_string()).collect();
        let reason = format!("{} files were read and hold no recorded call", found.files.len());
        return Err(ReplayError::NoSession { paths: paths.join(", "), reason });
    }
    if args.redact {
        redact(&mut found)?;
    } else {
        warn_of_secrets(&found)?;
    }
    output::text(&overview(&inspect(&found)))?;
    if let Some(folder) = &args.output {
        write(&found, folder, args.export)?;
    }
    Ok(Outcome::Pass)
}

/// Redacts every session and lists what was found, by kind.
fn redact(found: &mut Import) -> Result<(), ReplayError> {
    let redactor = Redactor::new(&found.sessions)?;
    let mut all = Found::default();
    for session in &mut found.sessions {
        all.add(&redactor.redact(session));
    }
    eprintln!("redacted: {}", listed(&all));
    Ok(())
}

/// Says which sessions hold what looks like a credential.
fn warn_of_secrets(found: &Import) -> Result<(), ReplayError> {
    let redactor = Redactor::new(&found.sessions)?;
    for session in &found.sessions {
        let secrets = redactor.scan(session);
        if secrets.credentials() > 0 {
            let id = &session.id;
            eprintln!("warning: {id}: likely secrets ({}); --redact replaces them", listed(&secrets));
        }
    }
    Ok(())
}

/// `2 GitHub token, 14 home path`.
fn listed(found: &Found) -> String {
    let counts: Vec<String> =
        found.counts().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
    if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") }
}

/// One session file each, or the files of another form. A name that is there already is replaced: importing again gives
/// the same files.
fn write(found: &Import, folder: &Path, form: Option<Export>) -> Result<(), ReplayError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| ReplayError::Unwritable { path: folder.to_owned(), source })?;
    if let Some(form) = form {
        export::write(&found.sessions, form.into(), folder)?;
    } else {
        for session in &found.sessions {
            canonical::write(session, &folder.join(canonical::file_name(session)))?;
        }
    }
    eprintln!("{} sessions written to {}", found.sessions.len(), folder.display());
    Ok(())
}
