//! Finds the files of an import, tells what each one is, and puts a session's files together. Knows names, folders and
//! the first lines of a file; reads no session.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::claude_code::{self, AgentFile};
use super::lines::{self, MAX_LINE_BYTES, WarningKind};
use super::{FormatChoice, ImportedFile, Warning, stem};
use crate::canonical;
use crate::error::TranscriptError;

/// Lines that are looked at to tell what a file is.
const PEEK_LINES: u32 = 64;
/// Bytes after which looking stops.
const PEEK_BYTES: usize = 16 << 20;

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
}

/// The files of one Claude Code session.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub main: Option<PathBuf>,
    pub agents: Vec<AgentPath>,
    /// The session id that the first lines name.
    pub session_id: Option<String>,
}

/// A sub-agent's file.
#[derive(Debug)]
pub(super) struct AgentPath {
    pub path: PathBuf,
    pub agent: AgentFile,
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

/// What the first lines of a file say.
#[derive(Default)]
struct Peek {
    canonical: bool,
    recognised: bool,
    empty: bool,
    session_id: Option<String>,
    first_time: Option<String>,
    /// Every line so far is of this sub-agent.
    only_agent: Option<String>,
}

/// A main Claude Code file.
struct Main {
    family: Family,
    order: usize,
    first_time: Option<String>,
    bytes: u64,
}

/// Finds everything behind the paths.
pub(super) fn discover(paths: &[&Path], format: FormatChoice) -> Result<Found, TranscriptError> {
    let mut candidates = candidates(paths)?;
    let mut seen: HashSet<PathBuf> = candidates.iter().map(|candidate| identity(&candidate.path)).collect();
    let mut found = Found::default();
    let mut mains: Vec<Main> = Vec::new();
    let mut agents: Vec<(usize, PathBuf, AgentFile, Option<String>)> = Vec::new();
    let mut at = 0;
    while at < candidates.len() {
        let Candidate { path, named } = &candidates[at];
        let (path, named, order) = (path.clone(), *named, at);
        at += 1;
        let peek = peek(&path)?;
        let canonical = match format {
            FormatChoice::Auto => peek.canonical,
            FormatChoice::Canonical => peek.canonical || named,
            FormatChoice::ClaudeCode => false,
        };
        if canonical {
            found.sources.push(Ordered { order, source: Source::Canonical(path) });
            continue;
        }
        let is_jsonl = path.extension().is_some_and(|extension| extension == "jsonl");
        let claude_code = match format {
            FormatChoice::Auto => peek.recognised || (peek.empty && is_jsonl),
            FormatChoice::ClaudeCode => named || is_jsonl,
            FormatChoice::Canonical => false,
        };
        if !claude_code {
            if named {
                let got = describe(&peek);
                return Err(TranscriptError::UnknownFormat { path: path.display().to_string(), got });
            }
            if is_jsonl {
                found.skipped.push(skipped(&path, &peek));
            }
            continue;
        }
        let id = stem(&path).strip_prefix("agent-").map(str::to_owned).or(peek.only_agent);
        if let Some(id) = id {
            let description = description(&path);
            agents.push((order, path, AgentFile { id, description }, peek.session_id));
            continue;
        }
        let family = Family { main: Some(path), agents: Vec::new(), session_id: peek.session_id };
        if named {
            for companion in companions(&family) {
                if seen.insert(identity(&companion)) {
                    candidates.push(Candidate { path: companion, named: false });
                }
            }
        }
        let bytes =
            family.main.as_deref().and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len());
        mains.push(Main { family, order, first_time: peek.first_time, bytes });
    }
    found.sources.extend(families(mains, agents));
    Ok(found)
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

/// All `.jsonl` and `.json` files under a folder, in sorted order of their paths; symbolic links are not followed.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, TranscriptError> {
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
            } else if kind.is_file() && path.extension().is_some_and(|ext| ext == "jsonl" || ext == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

fn peek(path: &Path) -> Result<Peek, TranscriptError> {
    let io = |source| TranscriptError::io(path, source);
    let file = fs::File::open(path).map_err(io)?;
    let mut peek = Peek { empty: true, ..Peek::default() };
    let mut bytes = 0;
    let mut agent: Option<Option<String>> = None;
    lines::for_each_line(BufReader::new(file), MAX_LINE_BYTES, |number, line| {
        let line = line.unwrap_or_default();
        bytes += line.len();
        peek.empty &= line.iter().all(|byte| byte.is_ascii_whitespace());
        if number == 1 && canonical::looks_canonical(line) {
            peek.canonical = true;
            return ControlFlow::Break(());
        }
        for object in lines::parse_line(line).objects {
            let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
            peek.recognised |= claude_code::is_recognised(&object);
            peek.session_id = peek.session_id.take().or_else(|| text("sessionId"));
            peek.first_time = peek.first_time.take().or_else(|| text("timestamp"));
            if object.contains_key("uuid") {
                let sidechain = object.get("isSidechain").and_then(Value::as_bool).unwrap_or(false);
                let this = text("agentId").filter(|_| sidechain);
                agent = Some(
                    agent
                        .take()
                        .map_or(this.clone(), |known| known.filter(|known| Some(known) == this.as_ref())),
                );
            }
        }
        match number >= PEEK_LINES || bytes >= PEEK_BYTES {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .map_err(io)?;
    peek.only_agent = agent.flatten();
    Ok(peek)
}

fn describe(peek: &Peek) -> String {
    let got = if peek.empty { "an empty file" } else { "a file whose first lines are neither" };
    got.to_owned()
}

fn skipped(path: &Path, peek: &Peek) -> ImportedFile {
    let warning = Warning { line: 0, kind: WarningKind::UnknownFormat, message: describe(peek) };
    ImportedFile { path: path.display().to_string(), lines: 0, bad_lines: 0, warnings: vec![warning] }
}

/// `description` of the side file `agent-<id>.meta.json`.
fn description(path: &Path) -> Option<String> {
    let side = path.with_extension("meta.json");
    if fs::metadata(&side).ok()?.len() > 1 << 20 {
        return None;
    }
    let value: Value = serde_json::from_slice(&fs::read(side).ok()?).ok()?;
    Some(value.get("description")?.as_str()?.trim().to_owned())
}

/// The folders that belong to a main file: `<its name>/` and `<its session id>/` beside it.
fn folders(family: &Family) -> Vec<PathBuf> {
    let Some(main) = family.main.as_deref() else { return Vec::new() };
    let mut names = vec![stem(main)];
    names.extend(
        family.session_id.clone().filter(|id| *id != names[0] && !id.contains(['/', '\\']) && id != ".."),
    );
    names.into_iter().filter(|name| !name.is_empty()).map(|name| main.with_file_name(name)).collect()
}

/// Sub-agents' files of a main file that was named itself: `<session>/subagents/**/*.jsonl` and sibling
/// `agent-*.jsonl` of the same session. A folder that cannot be listed has none.
fn companions(family: &Family) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders(family) {
        let files = walk(&folder.join("subagents")).unwrap_or_default();
        found.extend(
            files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")),
        );
    }
    let Some(main) = family.main.as_deref() else { return found };
    let beside = main.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut siblings: Vec<PathBuf> = fs::read_dir(beside)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    siblings.sort();
    found.extend(siblings.into_iter().filter(|path| {
        let is_agent = stem(path).starts_with("agent-") && path.extension().is_some_and(|ext| ext == "jsonl");
        is_agent
            && peek(path).is_ok_and(|peek| peek.session_id.is_some() && peek.session_id == family.session_id)
    }));
    found
}

/// Gives each sub-agent's file to its main file; those without one form families of their own, by folder and session.
fn families(
    mut mains: Vec<Main>,
    agents: Vec<(usize, PathBuf, AgentFile, Option<String>)>,
) -> impl Iterator<Item = Ordered> {
    let mut owners: HashMap<PathBuf, usize> = HashMap::new();
    for (index, main) in mains.iter().enumerate() {
        for folder in folders(&main.family) {
            owners.entry(folder).or_insert(index);
        }
    }
    let mut orphans: BTreeMap<PathBuf, Main> = BTreeMap::new();
    for (order, path, agent, session_id) in agents {
        let owner = session_folder(&path, session_id.as_deref());
        let family = match owners.get(&owner) {
            Some(&main) => &mut mains[main].family,
            None => {
                let new = || Main { family: Family::default(), order, first_time: None, bytes: 0 };
                &mut orphans.entry(owner).or_insert_with(new).family
            }
        };
        family.session_id = family.session_id.take().or(session_id);
        family.agents.push(AgentPath { path, agent });
    }
    // Of sessions that share responses the earliest owns them; a copy that went on is longer than its source.
    mains.sort_by(|a, b| {
        let key = |main: &Main| (main.first_time.clone(), main.bytes, main.order);
        key(a).cmp(&key(b))
    });
    mains
        .into_iter()
        .chain(orphans.into_values())
        .map(|main| Ordered { order: main.order, source: Source::ClaudeCode(main.family) })
}

/// The folder a sub-agent's file says it belongs to: what holds its `subagents` folder, or its session's name beside
/// it. That folder need not exist.
fn session_folder(path: &Path, session_id: Option<&str>) -> PathBuf {
    let above = path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "subagents"));
    match above.and_then(Path::parent) {
        Some(folder) => folder.to_path_buf(),
        None => path.with_file_name(session_id.unwrap_or("")),
    }
}

/// Ids of the tool calls whose full result was saved as `<session>/tool-results/<id>.txt`.
pub(super) fn saved_results(family: &Family) -> Vec<String> {
    let mut ids = Vec::new();
    for folder in folders(family) {
        let Ok(entries) = fs::read_dir(folder.join("tool-results")) else { continue };
        let texts = entries.flatten().map(|entry| entry.path());
        ids.extend(
            texts.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).map(|path| stem(&path)),
        );
    }
    ids
}
