//! Finds the files of an import, tells what each one is, and puts together those that are read together. Knows names
//! and folders; reads no session.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::claude_code::AgentFile;
use super::detect::{self, Peek};
use super::family::{self, Family, Main};
use super::group::GroupFile;
use super::{FormatChoice, ImportedFile, Warning, WarningKind, stem};
use crate::error::TranscriptError;
use crate::session::SourceFormat;

/// Endings of the files that are read in a folder.
const ENDINGS: [&str; 4] = ["jsonl", "json", "traj", "ndjson"];

/// One thing to import, and its place in the order of the paths.
#[derive(Debug)]
pub(super) struct Ordered {
    pub order: usize,
    pub source: Source,
}

/// One thing to import.
#[derive(Debug)]
pub(super) enum Source {
    /// A session file of `reprise import`.
    Canonical(PathBuf),
    /// A Claude Code session with its sub-agents.
    ClaudeCode(Family),
    /// Files of another format that are read together, and a name for what has none of its own.
    Group { format: SourceFormat, name: String, files: Vec<GroupFile> },
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order in which they must be imported: earliest session first.
    pub sources: Vec<Ordered>,
    /// Files of folders that look like recordings and are none.
    pub skipped: Vec<ImportedFile>,
}

/// A file that may be a recording.
struct Candidate {
    path: PathBuf,
    named: bool,
}

/// Files that are read together, by format and place.
type Groups = BTreeMap<(SourceFormat, PathBuf), (usize, Vec<GroupFile>)>;

/// What the candidates have become so far.
#[derive(Default)]
struct Sorted {
    found: Found,
    mains: Vec<Main>,
    agents: Vec<(usize, PathBuf, AgentFile, Option<String>)>,
    groups: Groups,
}

/// Finds everything behind the paths.
pub(super) fn discover(paths: &[&Path], format: FormatChoice) -> Result<Found, TranscriptError> {
    let mut candidates = candidates(paths)?;
    let mut seen: HashSet<PathBuf> = candidates.iter().map(|candidate| identity(&candidate.path)).collect();
    let mut sorted = Sorted::default();
    let mut at = 0;
    while at < candidates.len() {
        let Candidate { path, named } = &candidates[at];
        let (path, named, order) = (path.clone(), *named, at);
        at += 1;
        let peek = detect::peek(&path).map_err(|source| TranscriptError::io(&path, source))?;
        match choose(&path, &peek, named, format) {
            Choice::Canonical => {
                sorted.found.sources.push(Ordered { order, source: Source::Canonical(path) });
            }
            Choice::Format(SourceFormat::ClaudeCode) => {
                for companion in sorted.claude_code(path, peek, named, order) {
                    if seen.insert(identity(&companion)) {
                        candidates.push(Candidate { path: companion, named: false });
                    }
                }
            }
            Choice::Format(format) => sorted.group(format, path, peek, order),
            Choice::Unknown if named => {
                let got = peek.describe();
                return Err(TranscriptError::UnknownFormat { path: path.display().to_string(), got });
            }
            // Folders hold many a JSON file that is no recording; one that is damaged may have been.
            Choice::Unknown if peek.damaged || !has_ending(&path, &["json"]) => {
                sorted.found.skipped.push(skipped(&path, &peek));
            }
            Choice::Unknown => {}
        }
    }
    Ok(sorted.finish())
}

/// What a file is taken for.
enum Choice {
    Canonical,
    Format(SourceFormat),
    Unknown,
}

fn choose(path: &Path, peek: &Peek, named: bool, wanted: FormatChoice) -> Choice {
    let is_jsonl = has_ending(path, &["jsonl"]);
    match wanted {
        FormatChoice::Auto | FormatChoice::Canonical if peek.canonical => Choice::Canonical,
        FormatChoice::Canonical if named => Choice::Canonical,
        FormatChoice::Canonical => Choice::Unknown,
        FormatChoice::Auto => match peek.format {
            Some(format) => Choice::Format(format),
            None if is_event_file(path) => Choice::Format(SourceFormat::Openhands),
            None if peek.empty && is_jsonl => Choice::Format(SourceFormat::ClaudeCode),
            None => Choice::Unknown,
        },
        FormatChoice::Source(SourceFormat::ClaudeCode) if named || is_jsonl => {
            Choice::Format(SourceFormat::ClaudeCode)
        }
        FormatChoice::Source(format) if named || peek.format == Some(format) => Choice::Format(format),
        FormatChoice::Source(_) => Choice::Unknown,
    }
}

impl Sorted {
    /// Takes a Claude Code file; gives the files that belong to one that was named itself.
    fn claude_code(&mut self, path: PathBuf, peek: Peek, named: bool, order: usize) -> Vec<PathBuf> {
        let id = stem(&path).strip_prefix("agent-").map(str::to_owned).or(peek.only_agent);
        if let Some(id) = id {
            let description = family::description(&path);
            self.agents.push((order, path, AgentFile { id, description }, peek.session_id));
            return Vec::new();
        }
        let bytes = fs::metadata(&path).map_or(0, |file| file.len());
        let family = Family { main: Some(path), agents: Vec::new(), session_id: peek.session_id };
        let companions = if named { family::companions(&family) } else { Vec::new() };
        self.mains.push(Main { family, order, first_time: peek.first_time, bytes });
        companions
    }

    /// Takes a file of another format. Request logs of one folder are read together, for a log may be a file a request;
    /// so are all rollouts, for one may be the fork of another.
    fn group(&mut self, format: SourceFormat, path: PathBuf, peek: Peek, order: usize) {
        let folder = || path.parent().map(Path::to_path_buf).unwrap_or_default();
        let place = match format {
            SourceFormat::Codex => PathBuf::new(),
            SourceFormat::OpenaiChat | SourceFormat::Anthropic | SourceFormat::Responses => folder(),
            // Events lie a file each in a folder beside their state.
            SourceFormat::Openhands if is_event_file(&path) => {
                folder().parent().map(Path::to_path_buf).unwrap_or_default()
            }
            SourceFormat::Openhands if stem(&path) == "base_state" => folder(),
            _ => path.clone(),
        };
        let file = GroupFile { stem: plain_stem(&path), path, layout: peek.layout };
        self.groups.entry((format, place)).or_insert((order, Vec::new())).1.push(file);
    }

    fn finish(mut self) -> Found {
        self.found.sources.extend(family::families(self.mains, self.agents));
        for ((format, place), (order, files)) in self.groups {
            let name = match files.as_slice() {
                [only] => only.stem.clone(),
                _ => stem(&place),
            };
            let source = Source::Group { format, name, files };
            self.found.sources.push(Ordered { order, source });
        }
        self.found
    }
}

/// The files named and the files of the folders named, each once.
fn candidates(paths: &[&Path]) -> Result<Vec<Candidate>, TranscriptError> {
    let mut candidates = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| TranscriptError::io(path, source))?;
        let (files, named) = match metadata.is_dir() {
            true => (walk(path)?, false),
            false => (vec![path.to_path_buf()], true),
        };
        for path in files {
            if seen.insert(identity(&path)) {
                candidates.push(Candidate { path, named });
            }
        }
    }
    Ok(candidates)
}

/// All files under a folder that may be recordings, in sorted order of their paths; symbolic links are not followed.
pub(super) fn walk(folder: &Path) -> Result<Vec<PathBuf>, TranscriptError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|source| TranscriptError::io(&folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| TranscriptError::io(&folder, source))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| TranscriptError::io(&path, source))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && has_ending(&path, &ENDINGS) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// True for `events/event-*.json`: whatever it holds, it belongs to the events beside it.
fn is_event_file(path: &Path) -> bool {
    let in_events =
        path.parent().is_some_and(|folder| folder.file_name().is_some_and(|name| name == "events"));
    in_events && stem(path).starts_with("event-")
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
}

fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The file's name without folder and without the endings of recordings: `a.traj.json` is `a`.
fn plain_stem(path: &Path) -> String {
    let name = stem(path);
    name.strip_suffix(".traj").map(str::to_owned).unwrap_or(name)
}

fn skipped(path: &Path, peek: &Peek) -> ImportedFile {
    let warning = Warning { line: 0, kind: WarningKind::UnknownFormat, message: peek.describe() };
    let bad_lines = u64::from(peek.damaged);
    ImportedFile { bad_lines, warnings: vec![warning], ..ImportedFile::new(path.display().to_string()) }
}
