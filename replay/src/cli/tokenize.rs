//! `reprise tokenize`: the token ids of a text.

use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use engine::model_source::ModelSource;

use crate::backend::BackendError;
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::{input, settings};

/// Longest text that is tokenized, bytes.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// Arguments of `reprise tokenize`.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The model whose tokenizer is used: sample, a GGUF file, a safetensors folder, or synthetic:SHAPE
    #[arg(long, value_name = "M", default_value = settings::MODEL)]
    pub model: String,
    /// The text, byte for byte, with special tokens in it parsed [default: standard input]
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
}

/// Prints a JSON array of token ids.
///
/// # Errors
/// The model or the text cannot be read, or the text is not UTF-8.
pub fn tokenize(args: &TokenizeArgs) -> Result<Outcome, ReplayError> {
    let text = match &args.file {
        Some(path) => input::read_text(path, TEXT_BYTES_MAX)?,
        None => standard_input()?,
    };
    let model =
        ModelSource::parse(&args.model).and_then(|source| source.open()).map_err(BackendError::from)?;
    let ids = model.tokenizer.encode(&text).map_err(BackendError::from)?;
    output::json_line(&ids)?;
    Ok(Outcome::Pass)
}

fn standard_input() -> Result<String, ReplayError> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(TEXT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReplayError::Io { action: "standard input", source })?;
    input::text(PathBuf::from("standard input"), bytes, TEXT_BYTES_MAX)
}
