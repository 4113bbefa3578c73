//! `reprise logits`: the forward pass laid bare, for comparison with other implementations.

use clap::Args;
use engine::engine::Engine;
use engine::error::EngineError;
use engine::kv::cache::KvCache;
use engine::model::qwen3::Scratch;
use engine::model_source::ModelSource;
use engine::request::{CachePolicy, EngineOptions};
use serde_json::json;

use crate::backend::BackendError;
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::settings;

/// Tokens that go through the model at once.
const PIECE: usize = 512;

/// Arguments of `reprise logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// A GGUF file, a safetensors folder, or synthetic:<shape>
    #[arg(long, value_name = "M", default_value = settings::MODEL)]
    pub model: String,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub tokens: Vec<u32>,
    /// Logits of every position, not of the last alone
    #[arg(long)]
    pub all: bool,
}

/// Prints `{"logits": [[...], ...]}`.
///
/// # Errors
/// The model cannot be opened, the list is empty or too long, an id is not in the vocabulary.
pub fn logits(args: &LogitsArgs) -> Result<Outcome, ReplayError> {
    let target = ModelSource::parse(&args.model).map_err(BackendError::from)?;
    let options =
        EngineOptions { target, drafter: None, threads: None, kv_budget_bytes: settings::KV_BUDGET_BYTES };
    let engine = Engine::open(options).map_err(BackendError::from)?;
    let config = &engine.target().model().config;
    let n_tokens = args.tokens.len();
    if n_tokens == 0 || n_tokens > config.context_length {
        let model = engine.target().model().name.clone();
        return Err(ReplayError::TokenCount { model, most: config.context_length, got: n_tokens });
    }
    let hidden = hidden_states(&engine, &args.tokens).map_err(BackendError::from)?;
    let model = engine.target().on(engine.cpu()).map_err(BackendError::from)?;
    let first = if args.all { 0 } else { n_tokens - 1 };
    let rows: Vec<Vec<f32>> =
        hidden[first * config.hidden..].chunks(config.hidden).map(|row| model.logits(row)).collect();
    output::json_line(&json!({ "logits": rows }))?;
    Ok(Outcome::Pass)
}

/// Hidden states of all positions, row by row.
fn hidden_states(engine: &Engine, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
    let target = engine.target();
    let model = target.on(engine.cpu())?;
    let kv_bytes = KvCache::bytes_per_token(model.config, target.kv_dtype()) * tokens.len() as u64;
    let mut cache = KvCache::new(model.config, target.kv_dtype(), kv_bytes, CachePolicy::Off)?;
    let sequence = cache.open(None, tokens.len())?;
    let mut scratch = Scratch::default();
    let mut hidden = Vec::with_capacity(tokens.len() * model.config.hidden);
    let mut n_done = 0;
    for piece in tokens.chunks(PIECE) {
        n_done += piece.len();
        hidden.extend(model.forward(piece, sequence.slots(n_done), cache.layers(), &mut scratch)?);
    }
    Ok(hidden)
}
