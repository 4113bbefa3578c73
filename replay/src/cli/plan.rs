//! `reprise plan`: which arm would win on a session at given rates, and from which tool-message size compression pays. No model
//! runs.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::model_source::ModelSource;
use engine::tokenizer::Tokenizer;
use reports::cost::{Costs, Kept};
use serde_json::{Value, json};
use transcripts::import::ImportOptions;
use transcripts::message::Message;
use transcripts::session::{Kind, Session};

use crate::backend::BackendError;
use crate::cli::forecast_text;
use crate::cli::{Outcome, output};
use crate::error::ReplayError;
use crate::forecast::{self, Forecast, SessionSizes};
use crate::sessions;

/// What the chat template puts around a message: its opening and closing special tokens, the role and two line breaks.
const FRAME_TOKENS: f64 = 5.0;

/// Arguments of `reprise plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Session files or folders, or bundled:NAME
    #[arg(required = true, value_name = "SESSION")]
    pub session: Vec<PathBuf>,
    /// Prefill rate of the target at an empty context
    #[arg(long, value_name = "TOK_PER_S", value_parser = rate, help_heading = "Rates")]
    pub target_rate: f64,
    /// Scoring rate of the drafter
    #[arg(long, value_name = "TOK_PER_S", value_parser = rate, help_heading = "Rates")]
    pub drafter_rate: f64,
    /// Attention of the target: prefill of k tokens after x takes B * ((x + k)^2 - x^2) milliseconds more
    #[arg(long, value_name = "B", default_value_t = 0.0, value_parser = amount, help_heading = "Rates")]
    pub quadratic: f64,
    /// Milliseconds that a call with anything to score takes more: parking, loading and reloading weights
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = amount, help_heading = "Rates")]
    pub fixed_ms: f64,
    /// Milliseconds that a call with a prefix hit takes more: lookup and restore
    #[arg(long, value_name = "O", default_value_t = 0.0, value_parser = amount, help_heading = "Rates")]
    pub lookup_ms: f64,
    /// Milliseconds that every call takes, whatever its length
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = amount, help_heading = "Rates")]
    pub call_ms: f64,
    /// Share of a tool message that compression keeps: 1/4 or 0.25
    #[arg(long, value_name = "SHARE", default_value = "1/4", value_parser = share, help_heading = "Compression")]
    pub keep: f64,
    /// Tokens that stand in a compressed message for what is gone, beyond the kept share
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = amount, help_heading = "Compression")]
    pub marker_tokens: f64,
    /// Characters that make a token, where no tokenizer is given
    #[arg(long, value_name = "N", default_value_t = 3.5, value_parser = rate, help_heading = "Sizes")]
    pub chars_per_token: f64,
    /// Count each message with this model's tokenizer: a GGUF file, a safetensors folder, or synthetic:SHAPE
    #[arg(long, value_name = "M", conflicts_with = "chars_per_token", help_heading = "Sizes")]
    pub tokenizer: Option<String>,
    /// Plan sub-agent sessions too [default: main sessions alone]
    #[arg(long, help_heading = "Sizes")]
    pub include_subagents: bool,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e12).contains(&value) => Ok(value),
        _ => Err(format!("expected a number of 0 or more, got `{text}`")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    amount(text)
        .ok()
        .filter(|&value| value >= 1e-6)
        .ok_or_else(|| format!("expected a number above 0, got `{text}`"))
}

/// `1/4` or `0.25`.
fn share(text: &str) -> Result<f64, String> {
    let parsed = match text.split_once('/') {
        Some((part, whole)) => amount(part).and_then(|part| Ok(part / rate(whole)?)),
        None => amount(text),
    };
    let bad = || format!("expected a share above 0 and at most 1, as 1/4 or 0.25, got `{text}`");
    parsed.ok().filter(|share| *share > 0.0 && *share <= 1.0).ok_or_else(bad)
}

impl PlanArgs {
    /// The rates as coefficients.
    pub fn costs(&self) -> Costs {
        Costs {
            prefill_ms: 1e3 / self.target_rate,
            attention_ms: self.quadratic,
            score_ms: 1e3 / self.drafter_rate,
            batch_ms: self.fixed_ms,
            call_ms: self.call_ms,
            lookup_ms: self.lookup_ms,
        }
    }

    /// What compression leaves.
    pub const fn kept(&self) -> Kept {
        Kept { ratio: self.keep, marker_tokens: self.marker_tokens }
    }

    /// How sizes were counted, as words.
    pub fn counted(&self) -> String {
        match &self.tokenizer {
            Some(model) => format!("tokens counted message by message with the tokenizer of {model}"),
            None => format!("tokens estimated at {} characters each", self.chars_per_token),
        }
    }
}

/// Forecasts the arms on each session and prints them.
///
/// # Errors
/// A session or the tokenizer cannot be read, or there is no session with a call.
pub fn plan(args: &PlanArgs) -> Result<Outcome, ReplayError> {
    let found = sessions::read(&args.session, Path::new(""), ImportOptions::default())?;
    for warning in sessions::warnings(&found) {
        eprintln!("warning: {warning}");
    }
    let n_mains = found.sessions.iter().filter(|session| session.kind == Kind::Main).count();
    // A sub-agent's file given by itself is meant; beside a main session it comes along uninvited.
    let keeps_all = args.include_subagents || n_mains == 0;
    let planned: Vec<&Session> =
        found.sessions.iter().filter(|session| keeps_all || session.kind == Kind::Main).collect();
    let left_out = found.sessions.len() - planned.len();
    if left_out > 0 {
        eprintln!("warning: {left_out} sub-agent sessions left out; --include-subagents plans them");
    }
    let counter = Counter::open(args)?;
    let mut forecasts: Vec<Forecast> = Vec::new();
    for session in planned {
        let sizes = counter.sizes(session)?;
        if !sizes.prompts.is_empty() {
            forecasts.push(forecast::forecast(&sizes, &args.costs(), args.kept()));
        }
    }
    if forecasts.is_empty() {
        let paths: Vec<String> = args.session.iter().map(|path| path.display().to_string()).collect();
        let reason = "no call of it has a request; see `reprise inspect`".to_owned();
        return Err(ReplayError::NoSession { paths: paths.join(", "), reason });
    }
    if args.json {
        output::json(&to_json(args, &forecasts))?;
    } else {
        output::text(&forecast_text::render(args, &forecasts))?;
    }
    Ok(Outcome::Pass)
}

fn to_json(args: &PlanArgs, forecasts: &[Forecast]) -> Value {
    json!({
        "schema_version": reports::record::SCHEMA_VERSION,
        "costs": args.costs(),
        "kept": args.kept(),
        "sizes": args.counted(),
        "sessions": forecasts,
    })
}

/// How messages are counted.
enum Counter {
    Characters(f64),
    Tokenizer(Box<Tokenizer>),
}

impl Counter {
    fn open(args: &PlanArgs) -> Result<Self, ReplayError> {
        let Some(given) = &args.tokenizer else { return Ok(Self::Characters(args.chars_per_token)) };
        let model = ModelSource::parse(given).and_then(|source| source.open()).map_err(BackendError::from)?;
        Ok(Self::Tokenizer(Box::new(model.tokenizer)))
    }

    fn sizes(&self, session: &Session) -> Result<SessionSizes, ReplayError> {
        let tools: Vec<String> = session.tools.iter().map(Value::to_string).collect();
        let base_tokens = self.text(&tools.join("\n"))?;
        SessionSizes::new(session, base_tokens, |message| self.message(message))
    }

    fn text(&self, text: &str) -> Result<f64, ReplayError> {
        match self {
            Self::Characters(per_token) => Ok(text.chars().count() as f64 / per_token),
            Self::Tokenizer(tokenizer) => {
                Ok(tokenizer.encode(text).map_err(BackendError::from)?.len() as f64)
            }
        }
    }

    /// Text, reasoning and tool calls of a message, and the frame around it.
    fn message(&self, message: &Message) -> Result<f64, ReplayError> {
        let tokens = match self {
            Self::Characters(per_token) => message.chars() as f64 / per_token,
            Self::Tokenizer(_) => {
                let mut tokens =
                    self.text(&message.flat_text())? + self.text(message.reasoning_text().unwrap_or(""))?;
                for call in &message.tool_calls {
                    tokens += self.text(&call.name)? + self.text(&call.arguments)?;
                }
                tokens
            }
        };
        Ok(tokens + FRAME_TOKENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_fractions_or_decimals() {
        for (text, expected) in
            [("1/4", Some(0.25)), ("0.05", Some(0.05)), ("1", Some(1.0)), ("1/22", Some(1.0 / 22.0))]
        {
            assert_eq!(share(text).ok(), expected);
        }
        for bad in ["0", "5/4", "1/0", "-1/4", "nan", "1/", ""] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
