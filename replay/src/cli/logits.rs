//! `reprise logits`: the forward pass laid bare, for comparison with other implementations.

use clap::Args;
use engine::engine::Engine;
use engine::model_source::ModelSource;
use engine::request::EngineOptions;
use serde_json::json;

use crate::backend::BackendError;
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::settings;

/// Arguments of `reprise logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// sample, a GGUF file, a safetensors folder, or synthetic:SHAPE
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
    let options = EngineOptions { kv_budget_bytes: settings::KV_BUDGET_BYTES, ..EngineOptions::new(target) };
    let engine = Engine::open(options).map_err(BackendError::from)?;
    let first = if args.all { 0 } else { args.tokens.len().saturating_sub(1) };
    let rows = engine.logits(&args.tokens, first).map_err(BackendError::from)?;
    output::json_line(&json!({ "logits": rows }))?;
    Ok(Outcome::Pass)
}
