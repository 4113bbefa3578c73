//! Recordings to sessions: finds the files, tells the formats apart by content, and hands each to its importer. Knows
//! formats by name only.

mod anthropic;
mod chat;
mod claude_code;
mod codewhale;
mod codex;
mod detect;
mod discover;
mod draft;
mod exchange;
mod family;
mod group;
mod helexa;
mod image;
mod items;
mod lines;
mod number;
mod openai_chat;
mod openhands;
mod records;
mod requests;
mod responses;
mod salvage;
mod stamp;
mod stream;
mod swe_agent;
mod tools;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::claude_code::{AgentFile, FamilyFile, Taken};
use self::discover::Source;
use self::family::Family;
use self::group::{GroupFile, GroupImport};
pub use self::lines::{MAX_LINE_BYTES, WarningKind};
use self::records::Layout;
use crate::canonical;
use crate::error::TranscriptError;
use crate::session::{Kind, Session, SourceFormat};

/// What the input is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormatChoice {
    /// Told by the content of each file.
    #[default]
    Auto,
    /// Recordings of one format. Of a folder, the files that look like it.
    Source(SourceFormat),
    /// Session files of `reprise import`.
    Canonical,
}

/// How to import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// The format of the input.
    pub format: FormatChoice,
}

/// A problem of one line of a file, or of the whole file (line 0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub kind: WarningKind,
    /// Details for a person.
    pub message: String,
}

/// One file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFile {
    /// Path as it was given or found.
    pub path: String,
    /// Lines, blank ones included. A canonical file counts as one.
    pub lines: u64,
    /// Lines that were lost, as a whole or in part.
    pub bad_lines: u64,
    /// What was wrong, in file order; the first thousand of a file.
    pub warnings: Vec<Warning>,
}

/// What an import gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// Sessions with at least one call: each main session, then its sub-agents; families in the order of the paths.
    pub sessions: Vec<Session>,
    /// Every file that was read, in the same order.
    pub files: Vec<ImportedFile>,
}

/// Imports files and folders. Folders are walked in sorted order; symbolic links inside them are not followed. A main
/// Claude Code file brings the sub-agents' files that belong to it; no file is read twice. A response that several
/// files hold is a call of one session only: of the parent's before a sub-agent's, of the earliest session's first.
///
/// # Errors
/// When a path cannot be read, or a file that was named itself is of no known format. Malformed lines are no errors:
/// they are counted and described in [`Import::files`].
pub fn import<P: AsRef<Path>>(paths: &[P], options: &ImportOptions) -> Result<Import, TranscriptError> {
    let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    let found = discover::discover(&paths, options.format)?;
    let mut taken = Taken::default();
    let mut imported: Vec<(usize, Import)> =
        vec![(usize::MAX, Import { sessions: Vec::new(), files: found.skipped })];
    for source in found.sources {
        let order = source.order;
        let part = match source.source {
            Source::Canonical(path) => import_canonical(&path, &mut taken)?,
            Source::ClaudeCode(family) => import_family(family, &mut taken)?,
            Source::Group { format, name, files } => import_group(format, &name, files, &mut taken)?,
        };
        imported.push((order, part));
    }
    imported.sort_by_key(|(order, _)| *order);
    let mut import = Import::default();
    for (_, part) in imported {
        import.sessions.extend(part.sessions);
        import.files.extend(part.files);
    }
    Ok(import)
}

/// A file of a recording that is held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextFile<'a> {
    /// File name; a sub-agent's file is `agent-<id>.jsonl`.
    pub name: &'a str,
    /// Its lines.
    pub text: &'a str,
}

/// Imports one Claude Code session from memory: its main file and its sub-agents' files.
///
/// # Errors
/// None in practice: reading from memory does not fail.
pub fn import_texts(files: &[TextFile<'_>]) -> Result<Import, TranscriptError> {
    let mut family: Vec<FamilyFile<'_>> = files
        .iter()
        .map(|file| {
            let stem = file.name.strip_suffix(".jsonl").unwrap_or(file.name).to_owned();
            let id = stem.strip_prefix("agent-").map(str::to_owned);
            let agent = id.map(|id| AgentFile { id, description: None });
            let text = file.text.as_bytes();
            let open = Box::new(move || Ok(Box::new(text) as Box<dyn BufRead>));
            FamilyFile { path: file.name.to_owned(), stem, agent, layout: Layout::Lines, open }
        })
        .collect();
    family.sort_by_key(|file| file.agent.is_some());
    finish(claude_code::import(family, &[], &mut Taken::default()))
}

fn import_canonical(path: &Path, taken: &mut Taken) -> Result<Import, TranscriptError> {
    let mut session = canonical::read(path)?;
    session.id = taken.unique(session.id);
    let file =
        ImportedFile { path: path.display().to_string(), lines: 1, bad_lines: 0, warnings: Vec::new() };
    Ok(Import { sessions: vec![session], files: vec![file] })
}

/// Ids that other sessions of the import have are numbered, and so are the links to them.
fn import_group(
    format: SourceFormat,
    name: &str,
    files: Vec<GroupFile>,
    taken: &mut Taken,
) -> Result<Import, TranscriptError> {
    let imported = match format {
        SourceFormat::Codex => codex::import(files),
        SourceFormat::OpenaiChat => openai_chat::import(files, name),
        SourceFormat::Responses => responses::import(files, name),
        SourceFormat::Anthropic => anthropic::import(files, name),
        SourceFormat::SweAgent => swe_agent::import(files),
        SourceFormat::Openhands => openhands::import(files, name),
        SourceFormat::Codewhale => codewhale::import(files),
        SourceFormat::Helexa => helexa::import(files),
        // Its files are a family, which carries more than a group does.
        SourceFormat::ClaudeCode => Ok(GroupImport::new(Vec::new(), Vec::new())),
    };
    let GroupImport { mut sessions, files } =
        imported.map_err(|(path, source)| TranscriptError::Io { path, source })?;
    let mut renamed: HashMap<String, String> = HashMap::new();
    for session in &mut sessions {
        let id = taken.unique(session.id.clone());
        renamed.entry(std::mem::replace(&mut session.id, id.clone())).or_insert(id);
    }
    for session in &mut sessions {
        if let Kind::Subagent { parent_session_id, .. } = &mut session.kind
            && let Some(id) = renamed.get(parent_session_id)
        {
            id.clone_into(parent_session_id);
        }
    }
    Ok(Import { sessions, files })
}

fn import_family(family: Family, taken: &mut Taken) -> Result<Import, TranscriptError> {
    let saved_results = family::saved_results(&family);
    let mut files = Vec::new();
    let agents = family.agents.into_iter().map(|agent| (agent.path, Some(agent.agent)));
    for (path, agent) in family.main.into_iter().map(|main| (main, None)).chain(agents) {
        let (stem, shown) = (stem(&path), path.display().to_string());
        let layout = records::layout(&path).map_err(|source| TranscriptError::io(&path, source))?;
        let open = Box::new(move || Ok(Box::new(BufReader::new(File::open(path)?)) as Box<dyn BufRead>));
        files.push(FamilyFile { path: shown, stem, agent, layout, open });
    }
    finish(claude_code::import(files, &saved_results, taken))
}

fn finish(
    result: Result<claude_code::FamilyImport, (String, std::io::Error)>,
) -> Result<Import, TranscriptError> {
    let imported = result.map_err(|(path, source)| TranscriptError::Io { path, source })?;
    Ok(Import { sessions: imported.sessions, files: imported.files })
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
