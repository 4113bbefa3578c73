//! A tokenizer from a `tokenizer.json`. The `tokenizers` crate trusts such files (it panics on some damaged
//! ones), so the file is checked first: it is JSON, a byte-level BPE with the steps that Qwen models have,
//! and its merges fit its vocabulary. It reads no model.

use serde_json::{Map, Value};

use super::{Tokenizer, check_merge};
use crate::error::EngineError;

/// The steps around BPE that are supported; every other one is refused by name.
const STEPS: [&str; 5] = ["NFC", "Sequence", "Split", "ByteLevel", "TemplateProcessing"];
/// The parts of the file that hold steps.
const SECTIONS: [&str; 4] = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];
/// Options of a BPE model that Qwen leaves unset, and that change or randomise its output.
const UNSET: [&str; 3] = ["dropout", "continuing_subword_prefix", "end_of_word_suffix"];

/// Builds the tokenizer; `origin` names the file in errors.
pub(super) fn build(bytes: &[u8], origin: &str) -> Result<Tokenizer, EngineError> {
    let refuse = |problem: String| EngineError::Tokenizer { origin: origin.to_owned(), problem };
    let json: Value = serde_json::from_slice(bytes).map_err(|error| refuse(format!("not JSON: {error}")))?;
    check(&json).map_err(refuse)?;
    let inner = tokenizers::Tokenizer::from_bytes(bytes)
        .map_err(|error| refuse(format!("not a readable tokenizer.json: {error}")))?;
    check_added_tokens(&json, &inner).map_err(refuse)?;
    Tokenizer::new(inner, origin, blake3::hash(bytes).to_hex().to_string())
}

fn check(json: &Value) -> Result<(), String> {
    for section in SECTIONS {
        check_steps(section, &json[section])?;
    }
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(format!("/model/type is {}, supported is \"BPE\"", model["type"]));
    }
    for option in UNSET {
        let value = &model[option];
        if !value.is_null() && value != "" {
            return Err(format!("/model/{option} is {value}, supported is null"));
        }
    }
    let Some(vocab) = model["vocab"].as_object() else {
        return Err("/model/vocab is not an object of tokens and ids".to_owned());
    };
    let Some(merges) = model["merges"].as_array() else {
        return Err("/model/merges is not a list".to_owned());
    };
    merges.iter().try_for_each(|merge| check_json_merge(merge, vocab))
}

/// Every `type` below a section is a known step. Depth is bounded by the parser.
fn check_steps(place: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if let Some(kind) = fields.get("type")
                && !STEPS.iter().any(|step| kind == step)
            {
                return Err(format!("/{place}/type is {kind}, supported are {}", STEPS.join(", ")));
            }
            fields.iter().try_for_each(|(name, value)| check_steps(&format!("{place}/{name}"), value))
        }
        Value::Array(items) => items.iter().try_for_each(|value| check_steps(place, value)),
        _ => Ok(()),
    }
}

/// A merge is `"left right"` in older files, `["left", "right"]` in newer ones.
fn check_json_merge(merge: &Value, vocab: &Map<String, Value>) -> Result<(), String> {
    let pair = match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
            _ => None,
        },
        _ => None,
    };
    match pair {
        Some((left, right)) => check_merge(left, right, |token| vocab.contains_key(token)),
        None => Err(format!("/model/merges has {merge}, expected two tokens")),
    }
}

/// The crate gives an added token another id, silently, where the file's is taken: then nothing would fit the
/// weights.
fn check_added_tokens(json: &Value, inner: &tokenizers::Tokenizer) -> Result<(), String> {
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default();
        let got = inner.token_to_id(content).map(u64::from);
        if got != token["id"].as_u64() {
            return Err(format!("added token {content:?} has id {}, it would become {got:?}", token["id"]));
        }
    }
    Ok(())
}
