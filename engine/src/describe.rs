//! What `reprise inspect MODEL` shows: a model in numbers, ready to serialise. It loads no weights.

use std::collections::BTreeMap;

use kernels::kv::KvDType;
use serde::Serialize;

use crate::chat::TemplateOrigin;
use crate::config::ModelConfig;
use crate::model_source::Model;

/// A model's description.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelDescription {
    /// Name of the model.
    pub name: String,
    /// BLAKE3 over its files, hex.
    pub digest: String,
    /// Size of its files in bytes; 0 for synthetic models.
    pub file_bytes: u64,
    /// Number of parameters, a tied embedding counted once.
    pub parameters: u64,
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// Number of tensors per element type.
    pub tensors_by_dtype: BTreeMap<String, usize>,
    /// The tokenizer.
    pub tokenizer: TokenizerDescription,
    /// Where the chat template comes from.
    pub chat_template: TemplateOrigin,
    /// Memory the model needs.
    pub memory: MemoryDescription,
}

/// A tokenizer's description.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenizerDescription {
    /// Where it comes from.
    pub origin: String,
    /// BLAKE3, hex.
    pub digest: String,
    /// Highest token id plus one.
    pub vocab_len: usize,
    /// Ids that end the output.
    pub eos_ids: Vec<u32>,
}

/// Memory that a model needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryDescription {
    /// Weights, resident.
    pub weight_bytes: u64,
    /// Keys and values of 1,000 tokens in BF16.
    pub kv_bytes_per_1k_tokens_bf16: u64,
    /// Keys and values of 1,000 tokens in F32.
    pub kv_bytes_per_1k_tokens_f32: u64,
}

impl Model {
    /// Describes this model.
    pub fn describe(&self) -> ModelDescription {
        ModelDescription {
            name: self.name.clone(),
            digest: self.digest.clone(),
            file_bytes: self.file_bytes,
            parameters: self.config.parameters(),
            config: self.config.clone(),
            tensors_by_dtype: self.dtype_counts(),
            tokenizer: TokenizerDescription {
                origin: self.tokenizer.origin().to_owned(),
                digest: self.tokenizer.digest().to_owned(),
                vocab_len: self.tokenizer.vocab_len(),
                eos_ids: self.tokenizer.eos_ids().to_vec(),
            },
            chat_template: self.chat.origin().clone(),
            memory: MemoryDescription {
                weight_bytes: self.weight_bytes(),
                kv_bytes_per_1k_tokens_bf16: 1000 * self.kv_bytes_per_token(KvDType::BF16),
                kv_bytes_per_1k_tokens_f32: 1000 * self.kv_bytes_per_token(KvDType::F32),
            },
        }
    }
}
