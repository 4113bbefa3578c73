//! The memo of frozen messages: keys, first value wins, and a file that survives crashes and refuses garbage.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use engine::compress::elision::Form;
use engine::compress::freeze::{FreezeStore, OpenReport};
use engine::compress::frozen::{FreezeKey, Frozen, KeyParts, SCHEMA};
use engine::compress::select::SelectParams;
use engine::error::EngineError;
use proptest::collection::vec;
use proptest::prelude::*;

const PARTS: KeyParts<'static> = KeyParts {
    drafter_digest: "drafter",
    tokenizer_digest: "tokenizer",
    settings: "rope, all layers",
    select: SelectParams::keep(50),
    birth_query_digest: b"",
    tool_name: "read",
    raw: "some output",
};

fn key(raw: &str) -> FreezeKey {
    FreezeKey::new(&KeyParts { raw, ..PARTS })
}

/// A frozen form that keeps the bytes from each first to each second number.
fn compressed(ranges: &[(usize, usize)]) -> Frozen {
    let ranges = ranges.iter().map(|&(start, end)| start..end).collect();
    Frozen::Compressed { ranges, form: Form::Joined, text_digest: [3; 16], tokens_raw: 100, tokens_kept: 7 }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memo");
    (folder, path)
}

/// Three entries, the size of the file after each, and its bytes.
fn written(path: &Path) -> (Vec<(FreezeKey, Frozen)>, Vec<u64>, Vec<u8>) {
    let entries = vec![
        (key("a"), compressed(&[(0, 4), (9, 12)])),
        (key("b"), Frozen::Verbatim),
        (key("c"), compressed(&[])),
    ];
    let (mut store, report) = FreezeStore::open(path).unwrap();
    assert_eq!(report, OpenReport::default());
    let mut sizes = vec![std::fs::metadata(path).unwrap().len()];
    for (key, frozen) in &entries {
        store.insert(*key, frozen.clone()).unwrap();
        sizes.push(std::fs::metadata(path).unwrap().len());
    }
    (entries, sizes, std::fs::read(path).unwrap())
}

#[test]
fn a_message_stays_what_it_first_became() {
    let mut store = FreezeStore::in_memory();
    assert!(store.is_empty());
    store.insert(key("a"), compressed(&[(0, 4)])).unwrap();
    store.insert(key("a"), Frozen::Verbatim).unwrap();
    assert_eq!(store.get(&key("a")), Some(&compressed(&[(0, 4)])));
    assert_eq!(store.get(&key("b")), None);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_change_of_any_part_is_a_miss() {
    let select = |select| KeyParts { select, ..PARTS };
    let changed = [
        KeyParts { drafter_digest: "Drafter", ..PARTS },
        KeyParts { tokenizer_digest: "Tokenizer", ..PARTS },
        KeyParts { settings: "nope, all layers", ..PARTS },
        select(SelectParams { keep_permille: 51, ..PARTS.select }),
        select(SelectParams { chunk: 31, ..PARTS.select }),
        select(SelectParams { pool: 5, ..PARTS.select }),
        KeyParts { birth_query_digest: b"goal", ..PARTS },
        KeyParts { tool_name: "rea", ..PARTS },
        KeyParts { tool_name: "reads", raw: "ome output", ..PARTS },
        KeyParts { tool_name: "", raw: "readsome output", ..PARTS },
        KeyParts { drafter_digest: "tokenizer", tokenizer_digest: "drafter", ..PARTS },
        KeyParts { raw: "some output ", ..PARTS },
        KeyParts { raw: "", ..PARTS },
    ];
    let mut store = FreezeStore::in_memory();
    store.insert(FreezeKey::new(&PARTS), Frozen::Verbatim).unwrap();
    for (index, parts) in changed.iter().enumerate() {
        assert_eq!(store.get(&FreezeKey::new(parts)), None, "{parts:?}");
        for other in &changed[index + 1..] {
            assert_ne!(FreezeKey::new(parts), FreezeKey::new(other));
        }
    }
    assert!(store.get(&FreezeKey::new(&PARTS)).is_some());
}

#[test]
fn the_frozen_text_is_the_kept_parts_in_their_form() {
    let raw = "aé€🦀";
    let frozen = |ranges: &[(usize, usize)], form| {
        let ranges = ranges.iter().map(|&(start, end)| start..end).collect();
        Frozen::compressed(raw, ranges, form, [100, 7])
    };
    assert_eq!(Frozen::Verbatim.text("abc").unwrap(), Cow::Borrowed("abc"));
    let kept = frozen(&[(0, 3), (6, 10)], Form::Joined).unwrap();
    assert_eq!(kept.text(raw).unwrap(), "aé🦀");
    assert_eq!(frozen(&[], Form::Joined).unwrap().text(raw).unwrap(), "");
    assert_eq!(
        frozen(&[(0, 3), (6, 10)], Form::Marked).unwrap().text(raw).unwrap(),
        "aé\n[... 1 character elided ...]\n🦀"
    );
    let cut = frozen(&[(0, 2), (6, 10)], Form::Joined).unwrap_err().to_string();
    assert!(cut.contains("0..2"), "{cut}");

    for other in ["aé€🦀 and more", "bé€🦀", "aé", ""] {
        let refused = kept.text(other);
        let is_prefix = other.starts_with(raw);
        assert_eq!(refused.is_ok(), is_prefix, "the digest is of what is sent: {other}");
        assert!(is_prefix || matches!(refused, Err(EngineError::FrozenMismatch { .. })));
    }
}

#[test]
fn what_is_no_frozen_form_is_not_stored() {
    let (_folder, path) = folder();
    let (mut store, _) = FreezeStore::open(&path).unwrap();
    let more_than_all = Frozen::Compressed {
        ranges: vec![],
        form: Form::Marked,
        text_digest: [0; 16],
        tokens_raw: 1,
        tokens_kept: 2,
    };
    for wrong in [compressed(&[(3, 3)]), compressed(&[(4, 2)]), compressed(&[(0, 4), (3, 9)]), more_than_all]
    {
        assert!(matches!(store.insert(key("a"), wrong), Err(EngineError::FrozenMismatch { .. })));
    }
    assert!(store.is_empty());
    drop(store);
    assert_eq!(FreezeStore::open(&path).unwrap().1, OpenReport::default());
}

#[test]
fn a_file_gives_back_what_was_written_and_takes_more() {
    let (_folder, path) = folder();
    let (entries, _, _) = written(&path);
    for round in 0..2 {
        let (mut store, report) = FreezeStore::open(&path).unwrap();
        assert_eq!(report, OpenReport { records: 3 + round, ..OpenReport::default() });
        for (key, frozen) in &entries {
            assert_eq!(store.get(key), Some(frozen));
        }
        store.insert(key(&round.to_string()), compressed(&[(1, 2)])).unwrap();
        store.insert(entries[0].0, Frozen::Verbatim).unwrap();
    }
}

#[test]
fn a_crash_at_any_byte_loses_the_unfinished_record_alone() {
    let (_folder, path) = folder();
    let (entries, sizes, bytes) = written(&path);
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = sizes.iter().filter(|&&size| size <= cut as u64).count().saturating_sub(1);
        let (mut store, report) = FreezeStore::open(&path).unwrap();
        let kept = if cut < sizes[0] as usize { cut as u64 } else { sizes[whole] };
        let expected =
            OpenReport { records: whole, unfinished_bytes: cut as u64 - kept, ..OpenReport::default() };
        assert_eq!(report, expected, "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), sizes[whole]);
        for (index, (key, frozen)) in entries.iter().enumerate() {
            assert_eq!(store.get(key), (index < whole).then_some(frozen));
        }
        store.insert(key("after the crash"), compressed(&[(5, 6)])).unwrap();
        drop(store);
        let (store, report) = FreezeStore::open(&path).unwrap();
        assert_eq!(report, OpenReport { records: whole + 1, ..OpenReport::default() });
        assert_eq!(store.get(&key("after the crash")), Some(&compressed(&[(5, 6)])));
    }
}

#[test]
fn a_damaged_record_ends_the_reading_and_is_set_aside() {
    let (_folder, path) = folder();
    let (entries, sizes, bytes) = written(&path);
    let damaged_path = path.with_file_name("memo.damaged");
    for at in sizes[0] as usize..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let before = sizes.iter().filter(|&&size| size <= at as u64).count() - 1;
        let (store, report) = FreezeStore::open(&path).unwrap();
        let expected = OpenReport {
            records: before,
            unfinished_bytes: 0,
            damaged_bytes: bytes.len() as u64 - sizes[before],
            damaged_copy: Some(damaged_path.clone()),
        };
        assert_eq!(report, expected, "byte {at}");
        assert_eq!(std::fs::read(&damaged_path).unwrap(), damaged);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), sizes[before]);
        for (index, (key, frozen)) in entries.iter().enumerate() {
            assert_eq!(store.get(key), (index < before).then_some(frozen));
        }
    }
}

#[test]
fn zeros_after_the_last_record_are_damage_and_not_a_record() {
    let (_folder, path) = folder();
    let (_, sizes, mut bytes) = written(&path);
    bytes.resize(bytes.len() + 4096, 0);
    std::fs::write(&path, &bytes).unwrap();
    let (store, report) = FreezeStore::open(&path).unwrap();
    assert_eq!((store.len(), report.damaged_bytes), (3, 4096));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), sizes[3]);
}

/// A record as the format's description has it, whatever its payload says.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let head = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    [&head, payload, &blake3::hash(payload).as_bytes()[..16]].concat()
}

/// A payload under some key.
fn payload(tag: u8, words: &[u64]) -> Vec<u8> {
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let digest: &[u8] = if tag == 0 { &[] } else { &[3; 16] };
    [&[9; 32][..], &[tag], digest, &words].concat()
}

#[test]
fn the_file_is_what_its_description_says() {
    let (_folder, path) = folder();
    let (mut store, _) = FreezeStore::open(&path).unwrap();
    store.insert(key("a"), compressed(&[(2, 3)])).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut expected = payload(1, &[100, 7, 2, 3]);
    expected[..32].copy_from_slice(&bytes[20..52]);
    assert_eq!(bytes, [b"RPRSMEMO", &SCHEMA.to_le_bytes()[..], &record(&expected)].concat());
}

#[test]
fn a_record_that_is_whole_but_makes_no_sense_is_damage() {
    let (_folder, path) = folder();
    let (_, _, bytes) = written(&path);
    let nonsense = [
        vec![],
        vec![9; 32],
        payload(3, &[5, 4]),
        payload(2, &[]),
        payload(2, &[5, 4])[..40].to_vec(),
        payload(0, &[1]),
        payload(1, &[5]),
        payload(1, &[5, 4, 1]),
        payload(1, &[5, 6]),
        payload(1, &[5, 4, 8, 8]),
        payload(1, &[5, 4, 8, 2]),
        payload(1, &[5, 4, 0, 8, 7, 9]),
        [payload(1, &[5, 4]), vec![0]].concat(),
    ];
    for payload in nonsense {
        let damaged = record(&payload);
        std::fs::write(&path, [&bytes[..], &damaged].concat()).unwrap();
        let (store, report) = FreezeStore::open(&path).unwrap();
        assert_eq!((store.len(), report.damaged_bytes), (3, damaged.len() as u64), "{payload:?}");
    }
}

#[test]
fn of_two_records_of_one_key_the_first_counts() {
    let (_folder, path) = folder();
    let (entries, sizes, mut bytes) = written(&path);
    let mut second = payload(0, &[]);
    second[..32].copy_from_slice(&bytes[sizes[0] as usize + 8..][..32]);
    bytes.extend(record(&second));
    std::fs::write(&path, &bytes).unwrap();
    let (store, report) = FreezeStore::open(&path).unwrap();
    assert_eq!((report.records, store.len()), (4, 3));
    assert_eq!(store.get(&entries[0].0), Some(&entries[0].1));
}

#[test]
fn a_length_beyond_the_file_is_not_allocated() {
    let (_folder, path) = folder();
    let (_, _, mut bytes) = written(&path);
    let length = u32::MAX - 5;
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(FreezeStore::open(&path).unwrap().1.unfinished_bytes, 8);
}

#[test]
fn another_schema_and_another_file_are_refused_untouched() {
    let (_folder, path) = folder();
    let (_, _, mut bytes) = written(&path);
    let older = SCHEMA - 1;
    bytes[8..12].copy_from_slice(&older.to_le_bytes());
    let (said_older, expected) =
        (format!("a memo of schema {older}"), format!("expected a memo of schema {SCHEMA}"));
    for (file, said) in [
        (bytes, said_older.as_str()),
        (b"{\"type\":\"user\"}".to_vec(), "not a memo"),
        (b"RPRSX".to_vec(), "not a memo"),
    ] {
        std::fs::write(&path, &file).unwrap();
        let error = FreezeStore::open(&path).unwrap_err();
        assert!(matches!(error, EngineError::MemoFormat { .. }));
        let words = error.to_string();
        assert!(
            words.contains(said) && words.contains(&expected) && words.contains("move the file away"),
            "{words}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), file);
    }
}

#[test]
fn a_memo_has_one_owner_at_a_time() {
    let (_folder, path) = folder();
    let (first, _) = FreezeStore::open(&path).unwrap();
    assert!(matches!(FreezeStore::open(&path), Err(EngineError::MemoInUse { .. })));
    drop(first);
    assert!(FreezeStore::open(&path).is_ok());
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let (folder, path) = folder();
    for wrong in [path.join("missing"), folder.path().to_owned()] {
        let error = FreezeStore::open(&wrong).unwrap_err().to_string();
        assert!(error.contains(&wrong.display().to_string()), "{error}");
    }
}

proptest! {
    #[test]
    fn any_entries_come_back(
        lengths in vec((vec((0usize..50, 1usize..50), 0..20), any::<u64>(), any::<u64>(), any::<bool>()), 0..8)
    ) {
        let (_folder, path) = folder();
        let (mut store, _) = FreezeStore::open(&path).unwrap();
        let mut entries = Vec::new();
        for (index, (gaps, a, b, verbatim)) in lengths.into_iter().enumerate() {
            let mut at = 0;
            let ranges = gaps.into_iter().map(|(gap, n)| {
                let start = at + gap;
                at = start + n;
                start..at
            });
            let frozen = match verbatim {
                true => Frozen::Verbatim,
                false => Frozen::Compressed {
                    ranges: ranges.collect(),
                    form: if a % 2 == 0 { Form::Joined } else { Form::Marked },
                    text_digest: [a as u8; 16],
                    tokens_raw: a.max(b),
                    tokens_kept: a.min(b),
                },
            };
            store.insert(key(&index.to_string()), frozen.clone()).unwrap();
            entries.push((key(&index.to_string()), frozen));
        }
        drop(store);
        let (store, report) = FreezeStore::open(&path).unwrap();
        prop_assert_eq!(report, OpenReport { records: entries.len(), ..OpenReport::default() });
        for (key, frozen) in &entries {
            prop_assert_eq!(store.get(key), Some(frozen));
        }
    }

    #[test]
    fn garbage_neither_panics_nor_invents_records(
        tail in vec(any::<u8>(), 0..200), edits in vec((12usize..500, any::<u8>()), 0..6)
    ) {
        let (_folder, path) = folder();
        let (entries, _, mut bytes) = written(&path);
        bytes.extend(tail);
        for (at, byte) in edits {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let (store, report) = FreezeStore::open(&path).unwrap();
        prop_assert!(report.records <= 3 && store.len() == report.records);
        for (index, (key, frozen)) in entries.iter().enumerate() {
            prop_assert_eq!(store.get(key), (index < report.records).then_some(frozen));
        }
    }
}
