//! Two processes that replay the same sessions with the bundled pair: the same frozen bytes, logits and outputs, whatever the
//! number of threads and the order in which messages came to the memo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use reports::record::CallRecord;

use crate::cli::{reprise, stderr};
use crate::fixture::records;

/// Every arm with a cache.
const CACHING_ARMS: &str =
    "cache-only,cache+compression,cache+rescore,random,head-tail,rolling,evict,latency-only";

/// Two generated sessions of four calls.
fn sessions(folder: &Path) {
    for seed in ["1", "2"] {
        let name = format!("{seed}.jsonl");
        let made =
            reprise(folder, &["synth", "--seed", seed, "--calls", "4", "--chars", "6000", "-o", &name]);
        assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    }
}

/// Replays sessions in a process of its own, with a memo of its own.
fn replay(folder: &Path, sessions: &[&str], threads: &str, name: &str) -> Vec<CallRecord> {
    let memo = format!("{name}.memo");
    let settings = ["--arms", CACHING_ARMS, "--threads", threads, "--freeze-store", &memo, "-o", name];
    let small = ["--max-new-tokens", "4", "--compress-threshold", "1", "--keep-floor", "64"];
    let output = reprise(folder, &[&["run"], sessions, &settings, &small].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    records(&folder.join(name))
}

/// What may not differ: tokens, what the messages became, digests of the first logits and of the output.
type Facts = (Option<u64>, Option<i64>, Option<u64>, Option<String>, Option<String>);

fn facts(records: &[CallRecord]) -> BTreeMap<(&str, &str, u32), Facts> {
    let facts = |r: &CallRecord| {
        let digests = (r.first_logits_digest.clone(), r.output_digest.clone());
        (r.tokens_raw, r.tokens_removed, r.messages_compressed, digests.0, digests.1)
    };
    records.iter().map(|r| ((r.arm.as_str(), r.session_id.as_str(), r.call_index), facts(r))).collect()
}

/// The records of a memo file in no order: a header of 12 bytes, then a length, its complement, payload and checksum each.
fn entries(memo: &[u8]) -> BTreeSet<&[u8]> {
    let mut rest = &memo[12..];
    let mut entries = BTreeSet::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize + 24;
        entries.insert(&rest[..length]);
        rest = &rest[length..];
    }
    entries
}

#[test]
fn two_processes_agree_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    sessions(folder);
    let first = replay(folder, &["1.jsonl", "2.jsonl"], "2", "first");
    let again = replay(folder, &["1.jsonl", "2.jsonl"], "1", "again");
    let turned = replay(folder, &["2.jsonl", "1.jsonl"], "2", "turned");
    assert!(first.iter().all(|record| record.error.is_none()));
    assert!(first.iter().any(|record| record.tokens_removed > Some(0) && record.tokens_prefix_hit > Some(0)));
    assert_eq!(facts(&first), facts(&again), "another number of threads");
    assert_eq!(facts(&first), facts(&turned), "another order of messages");

    let memo = |name: &str| fs::read(folder.join(format!("{name}.memo"))).unwrap();
    let [first, again, turned] = ["first", "again", "turned"].map(memo);
    assert_eq!(first, again, "frozen bytes");
    assert!(entries(&first).len() > 4);
    assert_ne!(first, turned);
    assert_eq!(entries(&first), entries(&turned), "frozen bytes in another order");
}
