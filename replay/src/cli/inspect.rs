//! `reprise inspect`: what is in a session, a model or a run, told by what the path holds.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::describe::ModelDescription;
use engine::model_source::ModelSource;
use reports::store::{MANIFEST_FILE, RunDir};
use transcripts::import::ImportOptions;
use transcripts::inspect::{Inspection, inspect as summarise};

use crate::backend::BackendError;
use crate::cli::output;
use crate::cli::table::{Align, Table};
use crate::cli::{Outcome, size};
use crate::error::ReplayError;
use crate::sessions;

/// Findings listed one by one on a terminal; `--json` has all.
const FINDINGS_SHOWN_MAX: usize = 20;

/// Arguments of `reprise inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A session file or folder, bundled:NAME, a model (GGUF file, safetensors folder, synthetic:SHAPE) or a run directory
    #[arg(required = true, value_name = "SESSION | MODEL | RUN")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tells what the path is and shows it.
///
/// # Errors
/// The path holds none of the three, or cannot be read.
pub fn inspect(args: &InspectArgs) -> Result<Outcome, ReplayError> {
    let given = args.path.to_string_lossy();
    let is_model = given.starts_with("synthetic:")
        || args.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        || args.path.join("config.json").is_file();
    if is_model {
        return model(&given, args.json);
    }
    if args.path.join(MANIFEST_FILE).is_file() {
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
    if args.json {
        output::json(&inspection)?;
    } else {
        output::text(&sessions_table(&inspection))?;
        output::text(&findings(&inspection))?;
    }
    Ok(Outcome::Pass)
}

/// A row per session, then the files with bad lines.
pub fn sessions_table(inspection: &Inspection) -> String {
    let mut table = Table::new(&[
        ("session", Align::Left),
        ("kind", Align::Left),
        ("calls", Align::Right),
        ("messages", Align::Right),
        ("tool %", Align::Right),
        ("breaks", Align::Left),
        ("findings", Align::Right),
        ("fidelity", Align::Left),
    ]);
    for session in &inspection.sessions {
        let breaks: Vec<String> = session
            .prefix_breaks
            .iter()
            .map(|found| format!("{}:{}", found.call_index + 1, found.cause.as_str()))
            .collect();
        table.row([
            session.session_id.clone(),
            session.kind.clone(),
            session.calls.to_string(),
            session.messages.to_string(),
            session.tool_bytes_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}", share * 100.0)),
            if breaks.is_empty() { "-".to_owned() } else { breaks.join(" ") },
            session.findings.len().to_string(),
            session.fidelity.level.as_str().to_owned(),
        ]);
    }
    let calls: usize = inspection.sessions.iter().map(|session| session.calls).sum();
    let bad: u64 = inspection.files.iter().map(|file| file.bad_lines).sum();
    let mut text = table.render();
    text += &format!(
        "{} sessions, {calls} calls, {} files, {bad} bad lines\n",
        inspection.sessions.len(),
        inspection.files.len()
    );
    text
}

/// Why each session is no closer to what was sent, and what its requests break.
fn findings(inspection: &Inspection) -> String {
    let mut text = String::new();
    for session in &inspection.sessions {
        text += &format!("\n{}\n", session.session_id);
        for reason in &session.fidelity.reasons {
            text += &format!("  fidelity: {reason}\n");
        }
        if let Some(fit) = &session.token_fit {
            text += &format!(
                "  token fit: R2 {:.4} over {} calls, {:.0} tokens beside the messages, {:.2} chars a token{}\n",
                fit.r2,
                fit.calls,
                fit.intercept_tokens,
                fit.chars_per_token,
                if fit.is_suspect { "; too bad for a faithful rebuild, look at this session" } else { "" }
            );
        }
        for finding in session.findings.iter().take(FINDINGS_SHOWN_MAX) {
            let place = |index: Option<u32>| index.map_or_else(|| "-".to_owned(), |i| (i + 1).to_string());
            let (call, message) = (place(finding.call_index), place(finding.message_index));
            text +=
                &format!("  {} call {call} message {message}: {}\n", finding.code.as_str(), finding.detail);
        }
        if session.findings.len() > FINDINGS_SHOWN_MAX {
            text += &format!(
                "  {} more findings; --json lists all\n",
                session.findings.len() - FINDINGS_SHOWN_MAX
            );
        }
    }
    text
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
        output::text(&reports::render::json::render(&report.summary))?;
    } else {
        output::text(&reports::render::terminal::render(&report, output::color()))?;
    }
    Ok(Outcome::Pass)
}
