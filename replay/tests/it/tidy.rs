//! The house rules that a machine can check. Each test names what broke the rule and where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 5] = ["kernels", "engine", "transcripts", "replay", "reports"];

/// Every edge between crates of the house that may exist.
const ALLOWED_EDGES: [(&str, &[&str]); 5] = [
    ("kernels", &[]),
    ("transcripts", &[]),
    ("reports", &[]),
    ("engine", &["kernels", "transcripts"]),
    ("replay", &["engine", "reports", "transcripts"]),
];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_BLOB_BYTES: u64 = 128 * 1024;

/// Files that may be larger than [`MAX_BLOB_BYTES`], by path prefix, each with its reason.
const LARGE_FILES: [(&str, &str); 8] = [
    ("Cargo.lock", "written by cargo"),
    ("engine/data/tokenizer.json", "vocabulary of the synthetic models"),
    ("engine/sample/", "the trained models that are part of the program"),
    ("kernels/prebuilt/", "the compiled CUDA kernels"),
    ("engine/tests/golden/", "a random model with its float64 truth"),
    ("transcripts/data/", "the bundled sessions"),
    ("reports/assets/", "the font of the bitmap plots"),
    ("reports/records/", "the measured calls that the documentation quotes"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_path_buf()
}

/// Every file of the project, as a path relative to the root; build outputs and hidden folders left out.
fn files() -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() && !matches!(name.as_str(), "target" | "runs" | ".git" | ".venv" | "__pycache__")
            {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path.strip_prefix(&root).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with one line per finding.
fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = with_extension("rs").into_iter().filter_map(|path| {
        let lines = read(&path).lines().count();
        (lines > MAX_FILE_LINES).then(|| format!("{} has {lines} lines", path.display()))
    });
    none("a file holds at most 500 lines", long.collect());
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for path in with_extension("rs") {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let signature_end = lines[start..].iter().find(|l| l.ends_with('{') || l.ends_with(';'));
            if !is_function_head(line) || signature_end.is_some_and(|l| l.ends_with(';')) {
                continue;
            }
            // rustfmt puts the closing brace of a function alone, at the indent of its head.
            let close = format!("{}}}", " ".repeat(indent));
            let end =
                lines[start..].iter().position(|l| *l == close || (l.ends_with("}") && l.contains("fn ")));
            let length = end.map_or(0, |end| end + 1);
            if length > MAX_FUNCTION_LINES {
                long.push(format!("{}:{} has {length} lines", path.display(), start + 1));
            }
        }
    }
    none("a function holds at most 70 lines", long);
}

fn is_function_head(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "unsafe" | "extern" | "\"C\"" | "async")
    });
    words.next() == Some("fn")
}

#[test]
fn every_module_says_what_it_is() {
    let silent = with_extension("rs").into_iter().filter(|path| !read(path).starts_with("//!"));
    none("a module opens with //!", silent.map(|path| path.display().to_string()).collect());
}

#[test]
fn no_file_is_named_for_nothing() {
    const EMPTY_NAMES: [&str; 8] =
        ["util", "utils", "common", "helper", "helpers", "misc", "types", "shared"];
    let named = files().into_iter().filter(|path| {
        path.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            EMPTY_NAMES.contains(&name.split('.').next().unwrap_or_default())
        })
    });
    none("a file is named for what it holds", named.map(|path| path.display().to_string()).collect());
}

#[test]
fn crates_depend_on_allowed_edges_only() {
    let allowed: BTreeMap<_, _> = ALLOWED_EDGES.into_iter().collect();
    let mut wrong = Vec::new();
    for name in CRATES {
        let manifest: toml::Table =
            read(Path::new(name).join("Cargo.toml").as_path()).parse().expect("a Cargo.toml parses");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(|table| table.as_table()) else {
                continue;
            };
            for dependency in dependencies.keys().filter(|key| CRATES.contains(&key.as_str())) {
                if !allowed[name].contains(&dependency.as_str()) {
                    wrong.push(format!("{name} -> {dependency}"));
                }
            }
        }
    }
    none("crates of the house depend on each other along these edges only", wrong);
}

#[test]
fn the_engine_knows_messages_and_nothing_else_of_transcripts() {
    let mut wrong = Vec::new();
    for path in with_extension("rs").into_iter().filter(|path| path.starts_with("engine/src")) {
        for (number, line) in read(&path).lines().enumerate() {
            if line.replace("transcripts::message", "").contains("transcripts::") {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    none("engine uses transcripts::message alone", wrong);
}

#[test]
fn unsafe_stands_in_kernels_and_the_mmap_reader_only() {
    let mut wrong = Vec::new();
    for path in with_extension("rs") {
        if path.starts_with("kernels") || path.ends_with("engine/src/mapped.rs") || path.ends_with("tidy.rs")
        {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe ") && !code.contains("unsafe_code") {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    none("unsafe code outside kernels and engine/src/mapped.rs", wrong);
}

#[test]
fn every_cuda_file_has_its_rust_twin() {
    let mut wrong = Vec::new();
    // The emulator's test kernels stand together, their tests in kernels/tests/it/emulation.rs.
    for path in with_extension("cu").into_iter().filter(|path| !path.starts_with("kernels/emu/tests")) {
        let twin = path.with_extension("rs");
        if !root().join(&twin).exists() {
            wrong.push(format!("{} has no {}", path.display(), twin.display()));
        }
    }
    none("one op is a pair of files", wrong);
}

#[test]
fn every_op_has_spec_fast_version_cost_and_parity_bound() {
    // An op is `ops/<op>.rs`, or `ops/<op>/mod.rs` with its parts beside it.
    let is_op = |path: &PathBuf| {
        let below = path.strip_prefix("kernels/src/ops").map(Path::to_path_buf).unwrap_or_default();
        match below.components().count() {
            1 => !below.ends_with("mod.rs"),
            2 => below.ends_with("mod.rs"),
            _ => false,
        }
    };
    let mut wrong = Vec::new();
    for path in with_extension("rs").into_iter().filter(is_op) {
        let folder = path.parent().filter(|_| path.ends_with("mod.rs"));
        let is_part =
            |other: &PathBuf| *other == path || folder.is_some_and(|folder| other.starts_with(folder));
        let parts: Vec<PathBuf> = files().into_iter().filter(is_part).collect();
        let is_rust = |part: &&PathBuf| part.extension().is_some_and(|e| e == "rs");
        let text: String =
            parts.iter().filter(is_rust).map(|part| read(part).replace("const fn", "fn")).collect();
        let is_kernel = |part: &PathBuf| part.extension().is_some_and(|e| e == "cu");
        let on_a_card = root().join(path.with_extension("cu")).exists() || parts.iter().any(is_kernel);
        let cuda: &[&str] = if on_a_card { &["pub fn cuda"] } else { &[] };
        for part in ["pub fn spec", "pub fn cpu", "pub fn cost"].iter().chain(cuda) {
            if !text.contains(part) {
                wrong.push(format!("{} lacks `{part}`", path.display()));
            }
        }
    }
    none("an op holds its spec, its fast versions, its cost and the bounds between them", wrong);
}

#[test]
fn one_word_per_thing() {
    const BANNED: [&str; 5] = ["conversation", "prompt eval", "draft model", "pruning", "benchmark trial"];
    let mut wrong = Vec::new();
    for path in with_extension("rs").into_iter().chain(with_extension("md")) {
        if path.ends_with("tidy.rs") || path.to_string_lossy().contains("fixtures") {
            continue;
        }
        for (number, line) in read(&path).to_lowercase().lines().enumerate() {
            wrong.extend(
                BANNED
                    .iter()
                    .filter(|word| holds_word(line, word))
                    .map(|word| format!("{}:{}: {word}", path.display(), number + 1)),
            );
        }
    }
    none("the vocabulary of ARCHITECTURE.md has another word", wrong);
}

/// Whether `word` stands in `line` by itself: the names of other programs may contain it.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
        !is_letter(line[..at].chars().next_back()) && !is_letter(line[at + word.len()..].chars().next())
    })
}

#[test]
fn each_crate_reads_the_clock_in_one_place() {
    const CLOCKS: [&str; 4] =
        ["kernels/src/peak.rs", "engine/src/spans.rs", "replay/src/clock.rs", "replay/tests/it/tidy.rs"];
    let mut wrong = Vec::new();
    for path in with_extension("rs") {
        let is_clock = CLOCKS.iter().any(|clock| path == Path::new(clock));
        if !is_clock && !path.to_string_lossy().contains("/benches/") && read(&path).contains("Instant::now")
        {
            wrong.push(path.display().to_string());
        }
    }
    none("Instant::now outside the crate's clock", wrong);
}

#[test]
fn environment_variables_are_the_listed_ones() {
    // OUT_DIR is cargo's, for build scripts.
    const KNOWN: [&str; 4] = ["NO_COLOR", "UPDATE_GOLDEN", "REQUIRE_GPU", "OUT_DIR"];
    let mut wrong = Vec::new();
    for path in with_extension("rs").into_iter().filter(|path| !path.ends_with("tidy.rs")) {
        for (number, line) in read(&path).lines().enumerate() {
            let asks = line.contains("env::var");
            if asks && !KNOWN.iter().any(|name| line.contains(name)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none("an environment variable that the documents do not name", wrong);
}

#[test]
fn statistics_live_in_reports() {
    let mut wrong = Vec::new();
    for path in with_extension("rs").into_iter().filter(|path| !path.starts_with("reports")) {
        for (number, line) in read(&path).lines().enumerate() {
            let computes =
                ["fn percentile", "fn median", "fn quantile"].iter().any(|name| line.contains(name));
            if computes && !path.ends_with("tidy.rs") {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    none("percentiles are computed in reports alone", wrong);
}

#[test]
fn large_files_are_listed_with_a_reason() {
    let mut wrong = Vec::new();
    for path in files() {
        let bytes = fs::metadata(root().join(&path)).expect("a file").len();
        let listed = LARGE_FILES.iter().any(|(prefix, _)| path.to_string_lossy().starts_with(prefix));
        if bytes > MAX_BLOB_BYTES && !listed {
            wrong.push(format!("{} has {bytes} bytes", path.display()));
        }
    }
    none("a file over 128 KiB without a reason", wrong);
}
