//! `reprise inspect`: what is in a session, a model or a run, told by what the path holds.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::describe::ModelDescription;
use engine::model_source::{ModelSource, SAMPLE};
use reports::store::{MANIFEST_FILE, RunDir};
use transcripts::import::ImportOptions;
use transcripts::inspect::inspect as summarise;

use crate::backend::BackendError;
use crate::cli::table::{Align, Table};
use crate::cli::{Outcome, size};
use crate::cli::{inspect_session, output};
use crate::error::ReplayError;
use crate::sessions;

/// Arguments of `reprise inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A session file or folder, bundled:NAME, a model (sample:target, sample:drafter, a GGUF file, a safetensors
    /// folder, synthetic:SHAPE) or a run directory
    #[arg(required = true, value_name = "SESSION | MODEL | RUN")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Draw the session with the most calls: an .svg or .png file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// Tells what the path is and shows it.
///
/// # Errors
/// The path holds none of the three, or cannot be read.
pub fn inspect(args: &InspectArgs) -> Result<Outcome, ReplayError> {
    let given = args.path.to_string_lossy();
    let is_model = given.starts_with("synthetic:")
        || given == SAMPLE
        || given.starts_with("sample:")
        || args.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        || args.path.join("config.json").is_file();
    let is_run = args.path.join(MANIFEST_FILE).is_file();
    if let Some(file) = args.plot.as_ref().filter(|_| is_model || is_run) {
        let reason = "--plot draws a session; a run has its plots after `reprise report`".to_owned();
        return Err(ReplayError::PlotFile { path: file.clone(), reason });
    }
    if is_model {
        return model(&given, args.json);
    }
    if is_run {
        return run(&RunDir::open(&args.path)?, args.json);
    }
    session(args)
}

fn session(args: &InspectArgs) -> Result<Outcome, ReplayError> {
    let found = sessions::read(std::slice::from_ref(&args.path), Path::new(""), ImportOptions::default())?;
    for warning in sessions::warnings(&found) {
        eprintln!("warning: {warning}");
    }
    let inspection = summarise(&found);
    if let Some(file) = &args.plot {
        inspect_session::plot(&inspection, file)?;
    }
    if args.json {
        output::json(&inspection)?;
    } else {
        output::text(&inspect_session::overview(&inspection))?;
        for session in &inspection.sessions {
            output::text(&inspect_session::details(session))?;
        }
    }
    Ok(Outcome::Pass)
}

fn model(given: &str, as_json: bool) -> Result<Outcome, ReplayError> {
    let model = ModelSource::parse(given).and_then(|source| source.open()).map_err(BackendError::from)?;
    let description = model.describe();
    if as_json {
        output::json(&description)?
    } else {
        output::text(&model_text(&description))?
    }
    Ok(Outcome::Pass)
}

fn model_text(model: &ModelDescription) -> String {
    let config = &model.config;
    let dtypes: Vec<String> =
        model.tensors_by_dtype.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect();
    let mut table = Table::new(&[("model", Align::Left), (&model.name, Align::Left)]);
    let rows = [
        ("architecture", config.architecture.clone()),
        ("parameters", model.parameters.to_string()),
        ("layers", config.n_layers.to_string()),
        ("hidden", config.hidden.to_string()),
        (
            "heads",
            format!("{} query, {} key/value, of {}", config.n_heads, config.n_kv_heads, config.head_dim),
        ),
        ("feed-forward", config.ffn.to_string()),
        ("vocabulary", config.vocab.to_string()),
        ("output matrix", (if config.tied { "tied to the embedding" } else { "its own" }).to_owned()),
        ("context", format!("{} tokens", config.context_length)),
        ("rope theta", config.rope_theta.to_string()),
        ("tensors", dtypes.join(", ")),
        ("tokenizer", format!("{} ({} entries)", model.tokenizer.origin, model.tokenizer.vocab_len)),
        ("chat template", model.chat_template.to_string()),
        (
            "file",
            if model.file_bytes == 0 {
                "none: random weights".to_owned()
            } else {
                size::show(model.file_bytes)
            },
        ),
        ("weights in memory", size::show(model.memory.weight_bytes)),
        (
            "KV of 1000 tokens",
            format!(
                "{} in BF16, {} in F32",
                size::show(model.memory.kv_bytes_per_1k_tokens_bf16),
                size::show(model.memory.kv_bytes_per_1k_tokens_f32)
            ),
        ),
        ("digest", model.digest.clone()),
    ];
    for (name, value) in rows {
        table.row([name.to_owned(), value]);
    }
    table.render()
}

fn run(dir: &RunDir, as_json: bool) -> Result<Outcome, ReplayError> {
    let report = reports::read(dir)?;
    if as_json {
        output::text(&reports::render::json::render(&report))?;
    } else {
        output::text(&reports::render::terminal::render(&report, output::color()))?;
    }
    Ok(Outcome::Pass)
}
