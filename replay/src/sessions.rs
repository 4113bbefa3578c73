//! The sessions of a run: read from the paths the user gave or from those built in, with the system prompt and the
//! tools that were supplied. Chooses and decorates; what a session is, `transcripts` knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// A path, or `bundled:NAME`.
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

/// What names a bundled session where a path is expected: `bundled:NAME`.
pub const BUNDLED_PREFIX: &str = "bundled:";

/// Loads the sessions that the settings name; the first bundled one where they name none.
///
/// # Errors
/// A path or a supplied file cannot be read, or there is no session to replay.
pub fn load(settings: &Settings) -> Result<Loaded, ReplayError> {
    let default =
        bundled::ALL.first().map(|bundled| PathBuf::from(format!("{BUNDLED_PREFIX}{}", bundled.name)));
    let given = match settings.is_bundled() {
        true => default.into_iter().collect(),
        false => settings.sessions.clone(),
    };
    let found = read(&given, &settings.working_dir, ImportOptions::default())?;
    let mut loaded = choose(found, settings.subagents, &given)?;
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

/// Everything in the files, folders and bundled sessions given, sub-agents included; `base` anchors relative paths.
///
/// # Errors
/// A path cannot be read, a bundled session is unknown, or a session comes twice.
pub fn read(given: &[PathBuf], base: &Path, options: ImportOptions) -> Result<Import, ReplayError> {
    let mut paths = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for path in given {
        match path.to_str().and_then(|text| text.strip_prefix(BUNDLED_PREFIX)) {
            Some(name) if names.contains(&name) => {}
            Some(name) => names.push(name),
            None => paths.push(base.join(path)),
        }
    }
    let mut found = import(&paths, &options)?;
    for name in names {
        let import = import_bundled(name)?;
        found.sessions.extend(import.sessions);
        found.files.extend(import.files);
    }
    let mut ids = BTreeSet::new();
    match found.sessions.iter().find(|session| !ids.insert(session.id.as_str())) {
        Some(session) => Err(ReplayError::SessionTwice { session_id: session.id.clone() }),
        None => Ok(found),
    }
}

/// A bundled session, its files named `bundled:NAME`.
fn import_bundled(name: &str) -> Result<Import, ReplayError> {
    let Some(bundled) = bundled::find(name) else {
        let known: Vec<&str> = bundled::ALL.iter().map(|bundled| bundled.name).collect();
        return Err(ReplayError::UnknownBundled { name: name.to_owned(), known: known.join(", ") });
    };
    let mut import = bundled.import()?;
    let of_sessions =
        import.sessions.iter_mut().flat_map(|session| &mut session.files).map(|file| &mut file.path);
    let of_import = import.files.iter_mut().map(|file| &mut file.path);
    for path in of_sessions.chain(of_import) {
        *path = format!("{BUNDLED_PREFIX}{}", path.trim_end_matches(".jsonl"));
    }
    Ok(import)
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

/// The sessions of an import that are to be replayed.
fn choose(found: Import, subagents: Subagents, given: &[PathBuf]) -> Result<Loaded, ReplayError> {
    let mut warnings = warnings(&found);
    let n_files = found.files.len();
    let n_mains = found.sessions.iter().filter(|session| session.kind == Kind::Main).count();
    // A sub-agent's file given by itself is meant; beside a main session it comes along uninvited.
    let keeps_all = subagents == Subagents::Include || n_mains == 0;
    let (kept, left_out): (Vec<Session>, Vec<Session>) =
        found.sessions.into_iter().partition(|session| keeps_all || session.kind == Kind::Main);
    if !left_out.is_empty() {
        let n = left_out.len();
        warnings.push(format!("{n} sub-agent sessions left out; --include-subagents replays them"));
    }
    if kept.is_empty() {
        let paths: Vec<String> = given.iter().map(|path| path.display().to_string()).collect();
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
