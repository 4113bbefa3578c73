//! The tokenizer against Python's, from both sources, and its own promises over random texts.

use std::path::Path;
use std::sync::OnceLock;

use engine::gguf::GgufFile;
use engine::tokenizer::{Specials, Tokenizer};
use proptest::prelude::*;
use serde_json::json;

use crate::golden;

/// One tokenizer for all cases of a property: building it takes longer than using it.
fn from_folder() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let bytes = std::fs::read(golden::pico("hf/tokenizer.json")).unwrap();
        Tokenizer::from_json(&bytes, "golden").unwrap()
    })
}

fn from_gguf() -> Tokenizer {
    Tokenizer::from_gguf(&GgufFile::open(&golden::pico("pico-f32.gguf")).unwrap()).unwrap()
}

/// Texts and their ids according to Python.
fn cases(file: &str) -> Vec<(String, Vec<u32>)> {
    let json = golden::json(file);
    let case = |case: &serde_json::Value| {
        let ids = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        (case["text"].as_str().unwrap().to_owned(), ids)
    };
    json.as_array().unwrap().iter().map(case).collect()
}

#[test]
fn both_sources_agree_with_python() {
    let cases = cases("pico/tokenizer_cases.json");
    assert!(cases.len() >= 54);
    for tokenizer in [from_folder(), &from_gguf()] {
        for (text, expected) in &cases {
            assert_eq!(&tokenizer.encode(text).unwrap(), expected, "{text:?} by {}", tokenizer.origin());
            let (ids, ranges) = tokenizer.encode_with_offsets(text).unwrap();
            assert_eq!(&ids, expected, "{text:?}");
            assert_eq!(ranges.len(), ids.len());
        }
    }
}

#[test]
fn both_sources_agree_on_everything_else() {
    let (left, right) = (from_folder(), from_gguf());
    assert_eq!(left.vocab_len(), right.vocab_len());
    for id in 0..left.vocab_len() as u32 {
        assert_eq!(left.token(id), right.token(id), "{id}");
        for specials in [Specials::Keep, Specials::Skip] {
            assert_eq!(left.decode(&[id], specials).unwrap(), right.decode(&[id], specials).unwrap(), "{id}");
        }
    }
    assert_eq!(left.token(left.vocab_len() as u32), None);
    assert_eq!(left.digest(), from_folder().digest());
    assert_eq!(right.digest(), from_gguf().digest());
}

#[test]
fn special_tokens_are_parsed_and_kept_or_skipped() {
    let tokenizer = from_folder();
    let (start, end) = (tokenizer.id("<|im_start|>").unwrap(), tokenizer.id("<|im_end|>").unwrap());
    let think = tokenizer.id("<think>").unwrap();
    let text = "<|im_start|>a<think><|im_end|>";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!((ids.first(), ids.last()), (Some(&start), Some(&end)));
    assert!(ids.contains(&think));
    assert_eq!(tokenizer.decode(&ids, Specials::Keep).unwrap(), text);
    assert_eq!(tokenizer.decode(&ids, Specials::Skip).unwrap(), "a<think>", "<think> is added, not special");

    assert!(tokenizer.eos_ids().contains(&end));
    assert!(tokenizer.id("<|nothing|>").unwrap_err().to_string().contains("<|nothing|>"));
}

#[test]
fn a_character_cut_in_two_decodes_to_the_replacement_character() {
    let tokenizer = from_folder();
    let ids = tokenizer.encode("🦙").unwrap();
    assert!(ids.len() > 1, "the golden vocabulary has no token for this character");
    assert_eq!(tokenizer.decode(&ids[..1], Specials::Keep).unwrap(), "\u{fffd}");
    assert_eq!(tokenizer.decode(&ids, Specials::Keep).unwrap(), "🦙");
    assert_eq!(
        tokenizer.decode(&[5_000_000], Specials::Keep).unwrap(),
        "",
        "ids without a token write nothing"
    );
}

#[test]
fn damaged_tokenizers_are_refused() {
    let bytes = std::fs::read(golden::pico("hf/tokenizer.json")).unwrap();
    for len in [0, 1, 100, bytes.len() / 2, bytes.len() - 2] {
        let error = Tokenizer::from_json(&bytes[..len], "cut.json").unwrap_err().to_string();
        assert!(error.contains("cut.json"), "{error}");
    }
}

#[test]
fn tokenizers_of_another_kind_are_refused_by_name() {
    let change = |path: &str, value: serde_json::Value| {
        let mut json = golden::json("pico/hf/tokenizer.json");
        *json.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        Tokenizer::from_json(json.to_string().as_bytes(), "changed.json").unwrap_err().to_string()
    };
    let cases = [
        ("/model/type", json!("WordPiece"), "BPE"),
        ("/model/dropout", json!(0.5), "dropout"),
        ("/model/continuing_subword_prefix", json!("##"), "continuing_subword_prefix"),
        ("/model/vocab", json!([]), "/model/vocab"),
        ("/model/merges", json!({}), "/model/merges"),
        ("/model/merges/0", json!(["Ġ", "nowhere"]), "nowhere"),
        ("/model/merges/0", json!("Ġ"), "two tokens"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "x"}), "Precompiled"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "Metaspace"}]}),
            "Metaspace",
        ),
        ("/decoder", json!({"type": "CTC"}), "CTC"),
        ("/added_tokens/0/id", json!(3), "has id 3"),
    ];
    for (path, value, part) in cases {
        let message = change(path, value);
        assert!(message.contains(part) && message.contains("changed.json"), "{path}: {message}");
    }
}

/// The real vocabulary of Qwen2 and Qwen3, where this machine has it (it is not ours to ship).
#[test]
fn the_full_qwen_vocabulary_builds_and_tokenises() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models/vocab/ggml-vocab-qwen2.gguf");
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let tokenizer = Tokenizer::from_gguf(&GgufFile::open(&path).unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_len(), 151_936);
    let cases = cases("qwen2_tokenizer_cases.json");
    assert!(cases.len() >= 54);
    for (text, expected) in &cases {
        assert_eq!(&tokenizer.encode(text).unwrap(), expected, "{text:?}");
    }
    let prompt = "<|im_start|>user\nhi<|im_end|>";
    assert_eq!(tokenizer.encode(prompt).unwrap(), [151_644, 872, 198, 6023, 151_645]);
    assert_eq!(tokenizer.eos_ids(), [151_643, 151_645]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is encoded decodes to the same text (in NFC, which the ASCII part of these texts is already).
    #[test]
    fn ascii_round_trips(text in "[ -~\\n\\t\\r]{0,200}") {
        let tokenizer = from_folder();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, Specials::Keep).unwrap(), text);
    }

    /// Ranges are in order, lie in the text, start and end at characters, and leave no byte out.
    #[test]
    fn offsets_cover_the_text(text in "(\\PC|[\\n\\t ]|<think>|<\\|im_end\\|>){0,60}") {
        let (ids, ranges) = from_folder().encode_with_offsets(&text).unwrap();
        prop_assert_eq!(ids.len(), ranges.len());
        let mut covered = 0;
        for range in &ranges {
            prop_assert!(text.is_char_boundary(range.start) && text.is_char_boundary(range.end));
            prop_assert!(range.start <= covered, "bytes {}..{} belong to no token", covered, range.start);
            prop_assert!(range.end >= covered);
            covered = range.end;
        }
        prop_assert_eq!(covered, text.len());
    }
}
