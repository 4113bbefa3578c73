//! The compiled CUDA kernels against their sources and against what the compiler must have made of them.
//!
//! Needs no CUDA compiler: `kernels/prebuilt/manifest.json` says what each image was built from and what is in it, and
//! `just check-kernels` proves that it says so truly by building everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The first line of a source that is compiled for Hopper alone.
const HOPPER_MARK: &str = "// sm_90a only";

fn in_crate(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = in_crate(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// The modules of the manifest by name.
fn modules() -> BTreeMap<String, Value> {
    let manifest: Value = serde_json::from_slice(&read("prebuilt/manifest.json")).unwrap();
    let modules = manifest["modules"].as_array().unwrap();
    modules.iter().map(|module| (module["name"].as_str().unwrap().to_owned(), module.clone())).collect()
}

/// Every `.cu` file below `src/ops` as (module name, text).
fn sources() -> BTreeMap<String, String> {
    let ops = in_crate("src/ops");
    let mut folders = vec![ops.clone()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                let stem = path.strip_prefix(&ops).unwrap().with_extension("");
                let name = stem.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("_");
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The names behind `KERNEL(threads)` in a source.
fn declared(source: &str) -> BTreeSet<&str> {
    let kernels = source.lines().filter_map(|line| line.strip_prefix("KERNEL("));
    kernels.map(|rest| rest.split_once(')').unwrap().1.split('(').next().unwrap().trim()).collect()
}

/// Fails with one line per finding.
fn none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_has_a_module_and_every_module_a_source() {
    let modules: BTreeSet<_> = modules().into_keys().collect();
    let sources: BTreeSet<_> = sources().into_keys().collect();
    let entries = fs::read_dir(in_crate("prebuilt")).unwrap().map(|entry| entry.unwrap().path());
    let fatbins = entries.filter(|path| path.extension().is_some_and(|extension| extension == "fatbin"));
    let fatbins: BTreeSet<_> =
        fatbins.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(
        sources, modules,
        "sources on the left, modules of the manifest on the right: run `just kernels`"
    );
    assert_eq!(
        fatbins, modules,
        "fatbins on the left, modules of the manifest on the right: run `just kernels`"
    );
}

#[test]
fn no_source_changed_since_it_was_compiled() {
    let mut stale = Vec::new();
    for (name, module) in modules() {
        // As `sha256sum` prints the files: the source first, then the headers it includes.
        let listing: String = strings(&module["sources"])
            .iter()
            .filter(|path| in_crate(path).exists())
            .map(|path| format!("{}  {path}\n", sha256(&read(path))))
            .collect();
        if sha256(listing.as_bytes()) != module["source_sha256"] {
            stale.push(format!("{name}, made of {}", strings(&module["sources"]).join(", ")));
        }
    }
    none("these images are older than their sources; run `just kernels`", &stale);
}

#[test]
fn every_image_is_the_one_the_manifest_describes() {
    let mut other = Vec::new();
    for (name, module) in modules() {
        if sha256(&read(format!("prebuilt/{name}.fatbin"))) != module["fatbin_sha256"] {
            other.push(name);
        }
    }
    none("these images are not those of the manifest; run `just kernels`", &other);
}

#[test]
fn entry_points_are_those_of_the_source_and_named_once() {
    let sources = sources();
    let mut seen = BTreeSet::new();
    for (name, module) in modules() {
        let compiled: BTreeSet<_> = module["entry_points"].as_object().unwrap().keys().cloned().collect();
        let wanted: BTreeSet<_> = declared(&sources[&name]).into_iter().map(str::to_owned).collect();
        assert!(!wanted.is_empty(), "{name} has no line that begins with KERNEL(");
        assert_eq!(
            wanted, compiled,
            "{name}: KERNEL lines on the left, entry points of the image on the right"
        );
        for entry_point in compiled {
            assert!(seen.insert(entry_point.clone()), "{entry_point} stands in two modules");
        }
    }
}

#[test]
fn every_image_has_code_for_every_architecture() {
    let sources = sources();
    for (name, module) in modules() {
        let hopper = sources[&name].lines().next() == Some(HOPPER_MARK);
        let wanted: &[&str] = match hopper {
            true => &["sm_90a"],
            false => &["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_80"],
        };
        assert_eq!(strings(&module["targets"]), wanted, "{name}");
        let machine_code = wanted.iter().filter(|target| target.starts_with("sm_"));
        let machine_code: BTreeSet<_> = machine_code.map(|target| (*target).to_owned()).collect();
        for (entry_point, per_architecture) in module["entry_points"].as_object().unwrap() {
            let compiled: BTreeSet<_> = per_architecture.as_object().unwrap().keys().cloned().collect();
            assert_eq!(compiled, machine_code, "{entry_point}");
        }
    }
}

/// What one entry point breaks on one architecture.
fn broken(entry_point: &str, architecture: &str, compiled: &Value, row: Option<&toml::Table>) -> Vec<String> {
    let count = |name: &str| compiled.get(name).map_or(0, |count| count.as_u64().unwrap());
    let mut found = Vec::new();
    for name in ["stack_bytes", "local_bytes", "LDL", "STL"] {
        if count(name) > 0 {
            found.push(format!("{entry_point} on {architecture}: {name} is {}, not 0", count(name)));
        }
    }
    let Some(row) = row else {
        found.push(format!("{entry_point} has no row; it uses {compiled} on {architecture}"));
        return found;
    };
    let max_registers = row["max_registers"].as_integer().unwrap();
    let registers = compiled["registers"].as_i64().unwrap();
    if registers > max_registers {
        found
            .push(format!("{entry_point} on {architecture}: {registers} registers, {max_registers} allowed"));
    }
    for instruction in row["requires"].as_array().unwrap() {
        if count(instruction.as_str().unwrap()) == 0 {
            found.push(format!("{entry_point} on {architecture}: no {instruction}"));
        }
    }
    found
}

#[test]
fn the_compiler_kept_to_the_budget() {
    let text = String::from_utf8(read("prebuilt/budget.toml")).unwrap();
    let mut budget: toml::Table = text.parse().unwrap();
    let mut found = Vec::new();
    for module in modules().into_values() {
        for (entry_point, per_architecture) in module["entry_points"].as_object().unwrap() {
            let row = budget.remove(entry_point);
            let row = row.as_ref().map(|row| row.as_table().unwrap());
            for (architecture, compiled) in per_architecture.as_object().unwrap() {
                found.extend(broken(entry_point, architecture, compiled, row));
            }
        }
    }
    found.extend(budget.keys().map(|entry_point| format!("{entry_point} has a row but is no entry point")));
    none("kernels/prebuilt/budget.toml", &found);
}

#[test]
fn the_gates_see_what_they_are_there_for() {
    let row: toml::Table = r#"max_registers = 32
requires = ["HMMA"]"#
        .parse()
        .unwrap();
    let good = serde_json::json!({ "registers": 32, "stack_bytes": 0, "local_bytes": 0, "HMMA": 4 });
    assert!(broken("k", "sm_80", &good, Some(&row)).is_empty());
    assert_eq!(broken("k", "sm_80", &good, None).len(), 1);
    let changes =
        [("registers", 33), ("stack_bytes", 8), ("local_bytes", 8), ("LDL", 1), ("STL", 1), ("HMMA", 0)];
    for (name, value) in changes {
        let mut bad = good.clone();
        bad[name] = value.into();
        assert_eq!(broken("k", "sm_80", &bad, Some(&row)).len(), 1, "{name}");
    }
}
