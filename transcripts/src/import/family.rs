//! The files of one Claude Code session: its main file, the sub-agents' files in every layout, and the results the
//! client saved beside it. Knows names and folders; reads no session.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::claude_code::AgentFile;
use super::discover::{Ordered, Source, walk};
use super::{detect, lines, stem};

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

/// A main Claude Code file.
pub(super) struct Main {
    pub family: Family,
    pub order: usize,
    pub first_time: Option<String>,
    pub bytes: u64,
}

/// `description` of the side file `agent-<id>.meta.json`.
pub(super) fn description(path: &Path) -> Option<String> {
    let side = path.with_extension("meta.json");
    if fs::metadata(&side).ok()?.len() > 1 << 20 {
        return None;
    }
    let value: Value = serde_json::from_slice(lines::trim(&fs::read(side).ok()?)).ok()?;
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
pub(super) fn companions(family: &Family) -> Vec<PathBuf> {
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
            && detect::peek(path)
                .is_ok_and(|peek| peek.session_id.is_some() && peek.session_id == family.session_id)
    }));
    found
}

/// Gives each sub-agent's file to its main file; those without one form families of their own, by folder and session.
pub(super) fn families(
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
