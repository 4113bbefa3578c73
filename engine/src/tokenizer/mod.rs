//! Text to token ids and back, through the `tokenizers` crate. A tokenizer comes from a `tokenizer.json` or
//! from the vocabulary and merges in a GGUF file's metadata. It knows no message and no chat template.
//!
//! Texts are brought to Unicode NFC before they are split, because Qwen's own tokenizer does so and the
//! models were trained that way. (llama.cpp does not, and GGUF has no key for it: the two differ on
//! decomposed letters alone.)

mod from_gguf;
mod from_json;

use std::ops::Range;

use crate::error::EngineError;
use crate::gguf::GgufFile;

/// What to do with control tokens when decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Write their text.
    Keep,
    /// Leave them out.
    Skip,
}

/// Texts that end a turn in every Qwen model, whatever the metadata says.
const END_OF_TURN: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    /// Parses added and special tokens in the text.
    inner: tokenizers::Tokenizer,
    origin: String,
    eos: Vec<u32>,
    digest: String,
    vocab_len: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`; `origin` names it in errors.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] for a damaged file, or another kind than byte-level BPE as Qwen has it.
    pub fn from_json(bytes: &[u8], origin: &str) -> Result<Self, EngineError> {
        from_json::build(bytes, origin)
    }

    /// Builds the tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] for a kind other than byte-level BPE with Qwen2's splitting, or damaged
    /// tables; [`EngineError::MissingField`] where the file has none.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, EngineError> {
        from_gguf::build(file)
    }

    fn new(mut inner: tokenizers::Tokenizer, origin: &str, digest: String) -> Result<Self, EngineError> {
        let refuse = |problem: String| EngineError::Tokenizer { origin: origin.to_owned(), problem };
        // A tokenizer.json may ask for truncation or padding; a replay needs every token and no other.
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        inner.with_padding(None);
        let vocab = inner.get_vocab(true);
        let Some(highest) = vocab.values().max() else {
            return Err(refuse("the vocabulary is empty".to_owned()));
        };
        let vocab_len = *highest as usize + 1;
        let eos = END_OF_TURN.iter().filter_map(|text| inner.token_to_id(text)).collect();
        Ok(Self { inner, origin: origin.to_owned(), eos, digest, vocab_len })
    }

    /// Adds ids that end the output, as the model's metadata names them. Ids outside the vocabulary are left
    /// out.
    #[must_use]
    pub(crate) fn with_eos(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.eos.extend(ids.into_iter().filter(|&id| (id as usize) < self.vocab_len));
        self.eos.sort_unstable();
        self.eos.dedup();
        self
    }

    /// Token ids of a text. Added and special tokens in the text are recognised, nothing is put around it:
    /// the same as `tokenizer(text, add_special_tokens=False)` in Python.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] if the crate fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| self.failed("encode", &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids as [`Tokenizer::encode`], with the range of bytes of `text` that each token comes from.
    /// Ranges start and end at characters: tokens that share one character share its range. They are in order
    /// and lie in the text.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] if the crate fails.
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), EngineError> {
        let encoding = self.inner.encode(text, false).map_err(|error| self.failed("encode", &error))?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok((encoding.get_ids().to_vec(), ranges))
    }

    /// The text of token ids. Bytes that are not UTF-8 (a character cut in two) become U+FFFD; ids that no
    /// token has (padding rows of the embedding) write nothing.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] if the crate fails.
    pub fn decode(&self, ids: &[u32], specials: Specials) -> Result<String, EngineError> {
        self.inner.decode(ids, specials == Specials::Skip).map_err(|error| self.failed("decode", &error))
    }

    /// The id of a token by its text.
    ///
    /// # Errors
    /// [`EngineError::UnknownToken`].
    pub fn id(&self, token: &str) -> Result<u32, EngineError> {
        self.inner.token_to_id(token).ok_or_else(|| EngineError::UnknownToken {
            token: format!("{token:?}"),
            vocab_len: self.vocab_len,
        })
    }

    /// The vocabulary's own spelling of a token (byte-level alphabet), `None` for an id that no token has.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Ids that end the model's output, ascending.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Highest id plus one.
    pub fn vocab_len(&self) -> usize {
        self.vocab_len
    }

    /// BLAKE3 of what the tokenizer was made from, hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where it comes from: a file, or `built-in`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn failed(&self, what: &str, error: &tokenizers::Error) -> EngineError {
        EngineError::Tokenizer { origin: self.origin.clone(), problem: format!("cannot {what}: {error}") }
    }
}

/// Both halves of a merge and their sum are tokens; the `tokenizers` crate panics on some merges that are
/// not.
fn check_merge(left: &str, right: &str, is_token: impl Fn(&str) -> bool) -> Result<(), String> {
    for part in [left, right, &format!("{left}{right}")] {
        if !is_token(part) {
            return Err(format!(
                "the merge of {left:?} and {right:?} needs the token {part:?}, which is not there"
            ));
        }
    }
    Ok(())
}
