//! What the fuzz targets do, without a fuzzer: thousands of damaged fixtures, the same ones on every run, go through
//! each importer and through the reader of session files. None may panic or give a session that breaks an invariant.

use std::fs;
use std::path::{Path, PathBuf};

use transcripts::canonical;
use transcripts::import::{FormatChoice, ImportOptions, import};
use transcripts::session::SourceFormat;

use crate::{golden, invariants};

/// Damaged files for each importer.
const PER_FORMAT: usize = 300;

/// Formats with the folder of their fixtures.
const FORMATS: [(SourceFormat, &str); 9] = [
    (SourceFormat::ClaudeCode, ""),
    (SourceFormat::Codex, "formats/codex"),
    (SourceFormat::OpenaiChat, "formats/openai_chat"),
    (SourceFormat::SweAgent, "formats/swe_agent"),
    (SourceFormat::Openhands, "formats/openhands"),
    (SourceFormat::Responses, "formats/responses"),
    (SourceFormat::Anthropic, "formats/anthropic"),
    (SourceFormat::Codewhale, "formats/codewhale"),
    (SourceFormat::Helexa, "formats/helexa"),
];

/// What stands in place of a stretch of JSON: other kinds, limits, halves of things.
const PIECES: [&str; 16] = [
    "null",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\"",
    "{}",
    "[]",
    "[[[[[[[[",
    "}",
    "\\",
    "\\ud800",
    "\n",
    "\u{feff}",
    "\"role\":\"assistant\",",
    "\"2026-13-45T99:99:99Z\"",
];

/// Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The recordings in a folder; below it too, unless it holds the other formats.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "formats" {
                folders.push(path);
            } else if path.is_file() && !name.ends_with(".golden.json") && !name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// One to four injuries.
fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut SplitMix) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let until = (at + random.below(60)).min(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            1 => drop(bytes.drain(at..until)),
            2 => {
                let again = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, again));
            }
            3 => {
                let from = random.below(other.len());
                let piece = other[from..(from + random.below(400)).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            4 => {
                // A whole value becomes another: from a colon to the next comma.
                let start = bytes[at..].iter().position(|b| *b == b':').map_or(at, |offset| at + offset + 1);
                let end =
                    bytes[start..].iter().position(|b| *b == b',').map_or(start, |offset| start + offset);
                drop(bytes.splice(start..end, PIECES[random.below(PIECES.len())].bytes()));
            }
            5 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            6 => {
                // A line moves to the end.
                let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
                let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |o| at + o + 1);
                let line: Vec<u8> = bytes.drain(start..end).collect();
                bytes.extend(line);
            }
            _ if random.below(6) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
}

#[test]
fn damaged_fixtures_give_sound_sessions_or_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix(20);
    for (format, fixtures) in FORMATS {
        let seeds: Vec<Vec<u8>> = recordings(&golden::fixtures().join(fixtures))
            .into_iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        let mut sessions = 0;
        for number in 0..PER_FORMAT {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            let other = &seeds[random.below(seeds.len())];
            damage(&mut bytes, other, &mut random);
            let path = folder.path().join("damaged.jsonl");
            fs::write(&path, &bytes).unwrap();
            // One in four is told by its content, which may be an error.
            let format = if number % 4 == 0 { FormatChoice::Auto } else { FormatChoice::Source(format) };
            let imported = import(&[&path], &ImportOptions { format });
            assert!(imported.is_ok() || format == FormatChoice::Auto, "{imported:?}");
            if let Ok(import) = imported {
                invariants::sound(&import);
                sessions += import.sessions.len();
            }
        }
        assert!(sessions > PER_FORMAT / 8, "{format:?}: only {sessions} sessions were left to check");
    }
}

#[test]
fn damaged_session_files_are_refused_or_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.session.json");
    let mut random = SplitMix(21);
    let mut seeds = Vec::new();
    for input in golden::inputs() {
        for session in import(&[&input], &ImportOptions::default()).unwrap().sessions {
            canonical::write(&session, &path).unwrap();
            seeds.push(fs::read(&path).unwrap());
        }
    }
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3 * PER_FORMAT {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        damage(&mut bytes, other, &mut random);
        match canonical::parse(&bytes, "damaged") {
            Ok(session) => {
                canonical::check(&session, "damaged").unwrap();
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}
