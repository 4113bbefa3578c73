//! The hyper-parameters of a Qwen3 dense model, read from GGUF metadata or from a `config.json`. What this
//! engine cannot run right (another architecture, scaled rotary positions, a sliding window, quantised
//! safetensors) is refused here with a sentence. It knows no tensor and no tokenizer.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::EngineError;
use crate::gguf::{self, GgufFile};
use crate::tensors::TensorId;

/// The one architecture of this engine, by the name that both formats use.
pub const ARCHITECTURE: &str = "qwen3";

/// Hyper-parameters of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Architecture name, `qwen3`.
    pub architecture: String,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head. Its own number: `n_heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Rows of the embedding; the tokenizer may use fewer.
    pub vocab: usize,
    /// Longest prompt plus output, in tokens, that the model was made for.
    pub context_length: usize,
    /// Base of the rotary position frequencies.
    pub rope_theta: f64,
    /// Epsilon of every RMSNorm.
    pub rms_eps: f32,
    /// The output matrix is the embedding.
    pub tied: bool,
}

impl ModelConfig {
    /// Bytes that the keys and values of one token take over all layers, at `element_bytes` per number.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> u64 {
        2 * self.n_layers as u64 * self.n_kv_heads as u64 * self.head_dim as u64 * element_bytes as u64
    }

    /// Number of parameters, a tied embedding counted once.
    pub fn parameters(&self) -> u64 {
        TensorId::all(self).into_iter().map(|id| id.shape(self).iter().product::<usize>() as u64).sum()
    }

    /// Reads the configuration of a GGUF file.
    ///
    /// # Errors
    /// [`EngineError`] naming the key, for a missing or absurd value and for all that is not supported.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, EngineError> {
        let path = file.path();
        let metadata = file.metadata();
        let architecture = metadata.string(path, "general.architecture")?;
        check_architecture(path, "general.architecture", architecture)?;
        refuse_gguf_extras(file)?;

        let fields = Fields { path, prefix: "qwen3." };
        let integer = |key: &str, cap| {
            let field = format!("qwen3.{key}");
            metadata.integer(path, &field).and_then(|value| fields.size(key, value, cap))
        };
        let head_dim = integer("attention.key_length", MAX_HEAD_DIM)?;
        let value_length = integer("attention.value_length", MAX_HEAD_DIM)?;
        if value_length != head_dim {
            let expected = format!("{head_dim}, as attention.key_length");
            return Err(fields.bad("attention.value_length", value_length, expected));
        }
        let vocab = match file.tensor("token_embd.weight") {
            Some(embedding) => embedding.shape.first().copied().unwrap_or(0),
            None => file.strings("tokenizer.ggml.tokens")?.len(),
        };
        let config = Self {
            architecture: architecture.to_owned(),
            n_layers: integer("block_count", MAX_LAYERS)?,
            hidden: integer("embedding_length", MAX_WIDTH)?,
            n_heads: integer("attention.head_count", MAX_HEADS)?,
            n_kv_heads: integer("attention.head_count_kv", MAX_HEADS)?,
            head_dim,
            ffn: integer("feed_forward_length", MAX_WIDTH)?,
            vocab: fields.size("vocabulary", vocab as i64, MAX_VOCAB)?,
            context_length: integer("context_length", MAX_CONTEXT)?,
            rope_theta: metadata.float(path, "qwen3.rope.freq_base")?,
            rms_eps: metadata.float(path, "qwen3.attention.layer_norm_rms_epsilon")? as f32,
            tied: file.tensor("output.weight").is_none(),
        };
        config.check(&fields)
    }

    /// Reads the configuration of a `config.json` (written by transformers 4 or 5).
    ///
    /// # Errors
    /// [`EngineError`] naming the field, for a missing or absurd value and for all that is not supported.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, EngineError> {
        let fields = Fields { path, prefix: "" };
        let architecture = json.get("model_type").and_then(Value::as_str).unwrap_or("not given");
        check_architecture(path, "model_type", architecture)?;
        refuse_json_extras(&fields, json)?;

        let integer = |key: &str, cap| match json.get(key) {
            Some(value) => match value.as_i64() {
                Some(value) => fields.size(key, value, cap),
                None => Err(fields.bad(key, value, "an integer".to_owned())),
            },
            None => Err(fields.missing(key)),
        };
        let float = |key: &str, value: Option<&Value>| match value {
            Some(value) => value.as_f64().ok_or_else(|| fields.bad(key, value, "a number".to_owned())),
            None => Err(fields.missing(key)),
        };
        let rope = json.get("rope_parameters").filter(|rope| rope.is_object()).unwrap_or(json);
        // transformers' Qwen3Config has 128 as the default of head_dim, and false as that of
        // tie_word_embeddings.
        let head_dim = if json.get("head_dim").is_some() { integer("head_dim", MAX_HEAD_DIM)? } else { 128 };
        let config = Self {
            architecture: architecture.to_owned(),
            n_layers: integer("num_hidden_layers", MAX_LAYERS)?,
            hidden: integer("hidden_size", MAX_WIDTH)?,
            n_heads: integer("num_attention_heads", MAX_HEADS)?,
            n_kv_heads: integer("num_key_value_heads", MAX_HEADS)?,
            head_dim,
            ffn: integer("intermediate_size", MAX_WIDTH)?,
            vocab: integer("vocab_size", MAX_VOCAB)?,
            context_length: integer("max_position_embeddings", MAX_CONTEXT)?,
            rope_theta: float("rope_theta", rope.get("rope_theta"))?,
            rms_eps: float("rms_norm_eps", json.get("rms_norm_eps"))? as f32,
            tied: json.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
        };
        config.check(&fields)
    }

    /// The relations between fields that every source must satisfy.
    fn check(self, fields: &Fields<'_>) -> Result<Self, EngineError> {
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let expected = format!("a divisor of the {} query heads", self.n_heads);
            return Err(fields.bad("the number of key/value heads", self.n_kv_heads, expected));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(fields.bad("the head width", self.head_dim, "an even number".to_owned()));
        }
        if !self.rope_theta.is_finite() || self.rope_theta < 1.0 {
            return Err(fields.bad(
                "the rotary base",
                self.rope_theta,
                "a finite number from 1 on".to_owned(),
            ));
        }
        if !self.rms_eps.is_finite() || self.rms_eps <= 0.0 || self.rms_eps > 0.1 {
            return Err(fields.bad("the RMSNorm epsilon", self.rms_eps, "above 0, up to 0.1".to_owned()));
        }
        Ok(self)
    }
}

// Caps far above any published dense model; with them no product of two sizes can overflow 64 bits.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_VOCAB: usize = 1 << 24;
const MAX_CONTEXT: usize = 1 << 30;

/// Where fields come from, for errors.
struct Fields<'a> {
    path: &'a Path,
    prefix: &'static str,
}

impl Fields<'_> {
    fn size(&self, key: &str, value: i64, cap: usize) -> Result<usize, EngineError> {
        match usize::try_from(value) {
            Ok(size) if (1..=cap).contains(&size) => Ok(size),
            _ => Err(self.bad(key, value, format!("from 1 to {cap}"))),
        }
    }

    fn bad(&self, key: &str, got: impl std::fmt::Display, expected: String) -> EngineError {
        EngineError::BadField {
            path: self.path.to_owned(),
            field: format!("{}{key}", self.prefix),
            got: got.to_string(),
            expected,
        }
    }

    fn missing(&self, key: &str) -> EngineError {
        EngineError::MissingField {
            path: self.path.to_owned(),
            field: format!("{}{key}", self.prefix),
            advice: "take the config.json that belongs to these weights",
        }
    }
}

fn check_architecture(path: &Path, field: &str, architecture: &str) -> Result<(), EngineError> {
    if architecture == ARCHITECTURE {
        return Ok(());
    }
    Err(EngineError::BadField {
        path: path.to_owned(),
        field: field.to_owned(),
        got: format!("{architecture:?}"),
        expected: format!("{ARCHITECTURE:?}: this engine runs the Qwen3 dense family; choose such a model"),
    })
}

/// GGUF keys that change the arithmetic in ways this engine does not implement.
fn refuse_gguf_extras(file: &GgufFile) -> Result<(), EngineError> {
    let (path, metadata) = (file.path(), file.metadata());
    let fields = Fields { path, prefix: "qwen3." };
    if let Some(scaling) = metadata.optional_string(path, "qwen3.rope.scaling.type")?
        && scaling != "none"
    {
        let expected = "no rope scaling; convert the model without it".to_owned();
        return Err(fields.bad("rope.scaling.type", scaling, expected));
    }
    if let Some(window) = metadata.optional_integer(path, "qwen3.attention.sliding_window")?
        && window != 0
    {
        let expected = "0: sliding-window attention is not supported".to_owned();
        return Err(fields.bad("attention.sliding_window", window, expected));
    }
    if let Some(rotated) = metadata.optional_integer(path, "qwen3.rope.dimension_count")?
        && Some(rotated) != metadata.optional_integer(path, "qwen3.attention.key_length")?
    {
        let expected = "attention.key_length: partial rotation is not supported".to_owned();
        return Err(fields.bad("rope.dimension_count", rotated, expected));
    }
    if let Some(gguf::Value::Integer(parts @ 2..)) = metadata.get("split.count") {
        let expected = "1: join the parts with llama-gguf-split --merge".to_owned();
        return Err(Fields { path, prefix: "" }.bad("split.count", parts, expected));
    }
    Ok(())
}

/// `config.json` fields that change the arithmetic in ways this engine does not implement.
fn refuse_json_extras(fields: &Fields<'_>, json: &Value) -> Result<(), EngineError> {
    let present = |key: &str| json.get(key).filter(|value| !value.is_null());
    if let Some(scaling) = present("rope_scaling") {
        return Err(fields.bad("rope_scaling", scaling, "null: rope scaling is not supported".to_owned()));
    }
    if let Some(rope) = present("rope_parameters") {
        let kind = rope.get("rope_type").and_then(Value::as_str).unwrap_or("default");
        if kind != "default" || rope.get("partial_rotary_factor").is_some() {
            let expected = "of rope_type \"default\": rope scaling is not supported".to_owned();
            return Err(fields.bad("rope_parameters", rope, expected));
        }
    }
    if present("use_sliding_window").and_then(Value::as_bool) == Some(true) {
        let expected = "false: sliding-window attention is not supported".to_owned();
        return Err(fields.bad("use_sliding_window", "true", expected));
    }
    if let Some(layers) = present("layer_types").and_then(Value::as_array)
        && let Some(other) = layers.iter().find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(fields.bad("layer_types", other, "\"full_attention\" in every layer".to_owned()));
    }
    if present("attention_bias").and_then(Value::as_bool) == Some(true) {
        return Err(fields.bad("attention_bias", "true", "false: Qwen3 dense models have none".to_owned()));
    }
    if let Some(activation) = present("hidden_act").and_then(Value::as_str)
        && activation != "silu"
    {
        return Err(fields.bad("hidden_act", activation, "\"silu\"".to_owned()));
    }
    if present("quantization_config").is_some() {
        let expected = "absent: use the F32, F16 or BF16 weights, or a GGUF file".to_owned();
        return Err(fields.bad("quantization_config", "present", expected));
    }
    Ok(())
}
