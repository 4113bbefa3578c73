//! A tokenizer from the metadata of a GGUF file: `tokenizer.ggml.*` keys of model `gpt2` (byte-level BPE)
//! with the `qwen2` splitting. It reads no tensor.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::{Tokenizer, check_merge};
use crate::error::EngineError;
use crate::gguf::GgufFile;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// How Qwen2 and Qwen3 split a text before BPE (from the models' `tokenizer.json`; GGUF calls it `qwen2`).
const QWEN2_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Values of `tokenizer.ggml.token_type`: matched verbatim, and special.
const CONTROL: i64 = 3;
/// Matched verbatim, not special.
const USER_DEFINED: i64 = 4;
/// A padding row of the embedding, which no text can produce.
const UNUSED: i64 = 5;

/// Builds the tokenizer.
pub(super) fn build(file: &GgufFile) -> Result<Tokenizer, EngineError> {
    let path = file.path();
    let metadata = file.metadata();
    let origin = format!("{} (metadata)", path.display());
    let refuse = |problem: String| EngineError::Tokenizer { origin: origin.clone(), problem };

    let Some(model) = metadata.optional_string(path, MODEL)? else {
        let advice = "this file carries no tokenizer; convert the model again together with its tokenizer";
        return Err(EngineError::MissingField { path: path.to_owned(), field: MODEL.to_owned(), advice });
    };
    if model != "gpt2" {
        return Err(refuse(format!("{MODEL} is {model:?}, supported is \"gpt2\" (byte-level BPE)")));
    }
    let pre = metadata.string(path, PRE)?;
    if pre != "qwen2" {
        return Err(refuse(format!(
            "{PRE} is {pre:?}, supported is \"qwen2\"; use this model's safetensors folder"
        )));
    }

    let tokens = file.strings(TOKENS)?;
    let types = match metadata.get(TYPES) {
        Some(_) => file.integers(TYPES)?,
        None => vec![1; tokens.len()],
    };
    if types.len() != tokens.len() {
        return Err(refuse(format!("{TYPES} has {} entries, {TOKENS} has {}", types.len(), tokens.len())));
    }
    let merges = file.strings(MERGES)?;
    let digest = digest(&tokens, &types, &merges);
    let model = bpe(&tokens, &types, &merges).map_err(&refuse)?;
    let mut inner = pipeline(model).map_err(|error| refuse(error.to_string()))?;
    let added = tokens.iter().zip(&types).filter_map(|(token, &kind)| match kind {
        CONTROL => Some(AddedToken::from(*token, true)),
        USER_DEFINED => Some(AddedToken::from(*token, false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added).map_err(|error| refuse(error.to_string()))?;

    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        eos.extend(metadata.optional_integer(path, key)?.and_then(|id| u32::try_from(id).ok()));
    }
    Ok(Tokenizer::new(inner, &origin, digest)?.with_eos(eos))
}

/// The BPE tables.
fn bpe(tokens: &[&str], types: &[i64], merges: &[&str]) -> Result<BPE, String> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (id, (token, &kind)) in tokens.iter().zip(types).enumerate() {
        if kind == UNUSED {
            continue;
        }
        let id = u32::try_from(id).map_err(|_| format!("{TOKENS} has more than 2^32 entries"))?;
        if vocab.insert((*token).to_owned(), id).is_some() {
            return Err(format!("{TOKENS} has {token:?} twice"));
        }
    }
    let pairs: Result<Merges, String> = merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => {
                check_merge(left, right, |token| vocab.contains_key(token))?;
                Ok((left.to_owned(), right.to_owned()))
            }
            None => Err(format!("{MERGES} has {merge:?}, expected two tokens with a space between")),
        })
        .collect();
    let pairs = pairs?;
    BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .build()
        .map_err(|error| format!("{MERGES} does not fit {TOKENS}: {error}"))
}

/// The steps around BPE, as in Qwen's `tokenizer.json`.
fn pipeline(model: BPE) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    let byte_level = ByteLevel::new(false, false, false);
    let split =
        Split::new(SplitPattern::Regex(QWEN2_SPLIT.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let steps = vec![PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(byte_level)];
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NFC))?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_post_processor(Some(byte_level));
    tokenizer.with_decoder(Some(byte_level));
    Ok(tokenizer)
}

/// BLAKE3 over the tables, every entry with its length, hex.
fn digest(tokens: &[&str], types: &[i64], merges: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"gpt2 qwen2 nfc");
    for table in [tokens, merges] {
        hasher.update(&(table.len() as u64).to_le_bytes());
        for entry in table {
            hasher.update(&(entry.len() as u64).to_le_bytes());
            hasher.update(entry.as_bytes());
        }
    }
    for kind in types {
        hasher.update(&kind.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
