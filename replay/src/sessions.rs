//! The sessions of a run: read from the paths the user gave or from those built in, with the system prompt and the
//! tools that were supplied. Chooses and decorates; what a session is, `transcripts` knows.

use std::path::Path;

use serde_json::Value;
use transcripts::bundled;
use transcripts::import::{Import, ImportOptions, import};
use transcripts::session::{Kind, Session};

use crate::error::ReplayError;
use crate::input;
use crate::settings::{Settings, Subagents};

/// Longest system prompt or tool list that is read, bytes.
pub const SUPPLIED_BYTES_MAX: u64 = 16 << 20;
/// Warnings of one file that are passed on; the rest is counted.
const WARNINGS_MAX: usize = 5;

/// A session and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcedSession {
    /// A path, or `bundled:<name>`.
    pub source: String,
    /// The session.
    pub session: Session,
}

/// Sessions ready to replay.
#[derive(Debug)]
pub struct Loaded {
    /// The sessions, main ones before their sub-agents.
    pub sessions: Vec<SourcedSession>,
    /// Lines that could not be read, by file and line, and what was left out.
    pub warnings: Vec<String>,
}

/// Loads the sessions that the settings name.
///
/// # Errors
/// A path or a supplied file cannot be read, or there is no session to replay.
pub fn load(settings: &Settings) -> Result<Loaded, ReplayError> {
    let mut loaded = if settings.is_bundled() { built_in()? } else { from_paths(settings)? };
    if let Some(path) = &settings.system_prompt {
        let text = input::read_text(&settings.working_dir.join(path), SUPPLIED_BYTES_MAX)?;
        map(&mut loaded, |session| session.with_system_prompt(text.clone()));
    }
    if let Some(path) = &settings.tools {
        let tools = read_tools(&settings.working_dir.join(path))?;
        map(&mut loaded, |session| session.with_tools(tools.clone()));
    }
    Ok(loaded)
}

/// Warnings of an import as lines for stderr.
pub fn warnings(import: &Import) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &import.files {
        for warning in file.warnings.iter().take(WARNINGS_MAX) {
            // Line 0 stands for the whole file.
            let line = if warning.line == 0 { String::new() } else { format!(":{}", warning.line) };
            lines.push(format!("{}{line}: {}", file.path, warning.message));
        }
        if file.warnings.len() > WARNINGS_MAX {
            lines.push(format!(
                "{}: {} more warnings, {} bad lines in all",
                file.path,
                file.warnings.len() - WARNINGS_MAX,
                file.bad_lines
            ));
        }
    }
    lines
}

fn map(loaded: &mut Loaded, change: impl Fn(Session) -> Session) {
    let sessions = std::mem::take(&mut loaded.sessions);
    let changed = sessions
        .into_iter()
        .map(|SourcedSession { source, session }| SourcedSession { source, session: change(session) });
    loaded.sessions = changed.collect();
}

/// The first bundled session: that of a run that names none.
fn built_in() -> Result<Loaded, ReplayError> {
    let Some(bundled) = bundled::ALL.first() else {
        let reason = "this build bundles none; name a session".to_owned();
        return Err(ReplayError::NoSession { paths: "bundled".to_owned(), reason });
    };
    let import = bundled.import()?;
    let source = format!("bundled:{}", bundled.name);
    let mains = import.sessions.into_iter().filter(|session| session.kind == Kind::Main);
    Ok(Loaded {
        sessions: mains.map(|session| SourcedSession { source: source.clone(), session }).collect(),
        warnings: Vec::new(),
    })
}

fn from_paths(settings: &Settings) -> Result<Loaded, ReplayError> {
    let paths: Vec<_> = settings.sessions.iter().map(|path| settings.working_dir.join(path)).collect();
    let import = import(&paths, &ImportOptions::default())?;
    let mut warnings = warnings(&import);
    let n_files = import.files.len();
    let n_mains = import.sessions.iter().filter(|session| session.kind == Kind::Main).count();
    // A sub-agent's file given by itself is meant; beside a main session it comes along uninvited.
    let keeps_all = settings.subagents == Subagents::Include || n_mains == 0;
    let (kept, left_out): (Vec<Session>, Vec<Session>) =
        import.sessions.into_iter().partition(|session| keeps_all || session.kind == Kind::Main);
    if !left_out.is_empty() {
        warnings.push(format!(
            "{} sub-agent sessions left out; --include-subagents replays them",
            left_out.len()
        ));
    }
    if kept.is_empty() {
        let paths: Vec<String> = settings.sessions.iter().map(|path| path.display().to_string()).collect();
        let reason = format!("{n_files} files were read and hold no recorded call; see `reprise inspect`");
        return Err(ReplayError::NoSession { paths: paths.join(", "), reason });
    }
    let sourced = |session: Session| SourcedSession {
        source: session.files.first().map_or_else(String::new, |file| file.path.clone()),
        session,
    };
    Ok(Loaded { sessions: kept.into_iter().map(sourced).collect(), warnings })
}

/// Tool definitions: a JSON list of objects.
fn read_tools(path: &Path) -> Result<Vec<Value>, ReplayError> {
    let bad = |reason: String| ReplayError::ToolsFile { path: path.to_owned(), reason };
    let text = input::read_text(path, SUPPLIED_BYTES_MAX)?;
    let tools: Vec<Value> = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    match tools.iter().position(|tool| !tool.is_object()) {
        Some(i) => Err(bad(format!("entry {i} is not an object"))),
        None => Ok(tools),
    }
}
