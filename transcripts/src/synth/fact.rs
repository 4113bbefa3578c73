//! The facts that a session turns on: where one stands in a tool output, how a person asks for it, which tool call shows
//! it and which one needs it. One row per kind. Knows no position in a session.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::synth::draw::Draw;
use crate::synth::filler::Output;

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactKind {
    /// A path in a configuration file.
    Pointer,
    /// Path and line of a compiler's error.
    BuildError,
    /// The number of a ticket in a log.
    Ticket,
    /// The id of a job in JSON.
    Job,
    /// The name of a failed test.
    FailedTest,
    /// An error code in the hits of a search.
    ErrorCode,
    /// The value of an environment variable.
    Setting,
    /// Path and line of a definition.
    Symbol,
}

/// A tool call as it is written: name and arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// Name of the tool.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: Value,
}

/// What a call comes back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A text of any size.
    Output(Output),
    /// A line that says that it is done.
    Done(&'static str),
}

/// A fact: a key by which it is asked for, and the values that only its line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub kind: FactKind,
    /// What the request names it by.
    pub key: String,
    /// What the acting call needs, in the order of the line.
    pub values: Vec<String>,
    /// The lines as they stand in the output, joined by `\n`; they hold the key and every value.
    pub text: String,
    /// Other place names of the request: the files to look into.
    files: Vec<String>,
}

impl FactKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Pointer,
        Self::BuildError,
        Self::Ticket,
        Self::Job,
        Self::FailedTest,
        Self::ErrorCode,
        Self::Setting,
        Self::Symbol,
    ];

    /// The name used in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pointer => "pointer",
            Self::BuildError => "build-error",
            Self::Ticket => "ticket",
            Self::Job => "job",
            Self::FailedTest => "failed-test",
            Self::ErrorCode => "error-code",
            Self::Setting => "setting",
            Self::Symbol => "symbol",
        }
    }

    /// What the output around such a fact looks like.
    pub const fn output(self) -> Output {
        match self {
            Self::Pointer => Output::Config,
            Self::BuildError => Output::Build,
            Self::Ticket => Output::Log,
            Self::Job => Output::Json,
            Self::FailedTest => Output::Tests,
            Self::ErrorCode => Output::Hits,
            Self::Setting => Output::Environment,
            Self::Symbol => Output::Symbols,
        }
    }

    /// A new fact of this kind.
    pub fn draw(self, draw: &mut Draw) -> Fact {
        let key = draw.key();
        let mut files = Vec::new();
        let (values, text) = match self {
            Self::Pointer => {
                let path = draw.path();
                let n_files = if draw.one_in(5) { 2 } else { 1 };
                files = (0..n_files).map(|_| format!("{}.toml", draw.word())).collect();
                let text = format!("{key} = \"{path}\"");
                (vec![path], text)
            }
            Self::BuildError => {
                let n_digits = draw.within(2..=3);
                let (path, line, code) = (draw.path(), draw.digits(n_digits), draw.digits(3));
                let column = draw.digits(1);
                let text = format!(
                    "error[E0{code}]: cannot find `{key}` in this scope\n  --> {path}:{line}:{column}"
                );
                (vec![path, line], text)
            }
            Self::Ticket => {
                let id = format!("REQ-{}", draw.digits(5));
                let text =
                    format!("{} ERROR {}: {key} stalled, ticket {id}", draw.time(), draw.words(2, "::"));
                (vec![id], text)
            }
            Self::Job => {
                let id = format!("job-{}", draw.digits(5));
                let text = format!("{{\"job\": \"{key}\", \"id\": \"{id}\", \"state\": \"failed\"}}");
                (vec![id], text)
            }
            Self::FailedTest => {
                let name = draw.words(2, "_");
                let text = format!("test {key}::{name} ... FAILED");
                (vec![name], text)
            }
            Self::ErrorCode => {
                let code = format!("E{}", draw.digits(4));
                let text =
                    format!("logs/{}.log:{}:{key} failed with code {code}", draw.word(), draw.digits(3));
                (vec![code], text)
            }
            Self::Setting => {
                let key = key.to_uppercase();
                let value = format!("{}-{}", draw.word(), draw.digits(3));
                let text = format!("{key}={value}");
                return Fact { kind: self, key, values: vec![value], text, files };
            }
            Self::Symbol => {
                let n_digits = draw.within(2..=3);
                let (path, line) = (draw.path(), draw.digits(n_digits));
                let text = format!("{key}: {path}:{line}");
                (vec![path, line], text)
            }
        };
        Fact { kind: self, key, values, text, files }
    }
}

impl Fact {
    /// What the person asks, where the fact was not shown yet.
    pub fn ask(&self) -> String {
        let key = &self.key;
        match (self.kind, self.files.as_slice()) {
            (FactKind::Pointer, [file, other]) => {
                format!("Look for `{key}` in {file} and {other}, and read the file it points to.")
            }
            (FactKind::Pointer, files) => {
                format!("Read the file that `{key}` in {} points to.", files.join(" and "))
            }
            (FactKind::BuildError, _) => format!("The build cannot find `{key}`. Open the place."),
            (FactKind::Ticket, _) => format!("Close the ticket of `{key}` in the server log."),
            (FactKind::Job, _) => format!("Retry the job `{key}`."),
            (FactKind::FailedTest, _) => format!("One test of `{key}` fails. Run it alone."),
            (FactKind::ErrorCode, _) => format!("Look up the error code of `{key}` in the docs."),
            (FactKind::Setting, _) => format!("Set `{key}` in .env to the value in use."),
            (FactKind::Symbol, _) => format!("Open the definition of `{key}`."),
        }
    }

    /// What the person asks, where an earlier output holds the fact.
    pub fn ask_again(&self) -> String {
        let key = &self.key;
        match self.kind {
            FactKind::Pointer => format!("Now read the file that `{key}` points to, as shown above."),
            FactKind::BuildError => format!("Now open the place where `{key}` is missing, as shown above."),
            FactKind::Ticket => format!("Now close the ticket of `{key}`, as shown above."),
            FactKind::Job => format!("Now retry the job `{key}`, as shown above."),
            FactKind::FailedTest => format!("Now run the failed test of `{key}`, as shown above."),
            FactKind::ErrorCode => format!("Now look up the error code of `{key}`, as shown above."),
            FactKind::Setting => format!("Now set `{key}` in .env, as shown above."),
            FactKind::Symbol => format!("Now open the definition of `{key}`, as shown above."),
        }
    }

    /// The calls that show it: one, or two in parallel of which one does.
    pub fn explore(&self) -> Vec<Use> {
        let bash = |command: String| vec![Use { tool: "Bash", arguments: json!({"command": command}) }];
        match self.kind {
            FactKind::Pointer => {
                let read = |file| Use { tool: "Read", arguments: json!({"file_path": file}) };
                self.files.iter().map(read).collect()
            }
            FactKind::BuildError => bash("cargo build".to_owned()),
            FactKind::Ticket => bash("tail -n 500 server.log".to_owned()),
            FactKind::Job => bash("jobs list --json".to_owned()),
            FactKind::FailedTest => bash("cargo test".to_owned()),
            FactKind::ErrorCode => {
                vec![Use { tool: "Grep", arguments: json!({"pattern": self.key, "path": "logs"}) }]
            }
            FactKind::Setting => bash("printenv".to_owned()),
            FactKind::Symbol => bash(format!("symbols {}", self.key)),
        }
    }

    /// The call that needs it, and what comes back.
    pub fn act(&self) -> (Use, Outcome) {
        let value = |index: usize| self.values.get(index).map_or("", String::as_str);
        let bash = |command: String| Use { tool: "Bash", arguments: json!({"command": command}) };
        match self.kind {
            FactKind::Pointer => {
                let read = Use { tool: "Read", arguments: json!({"file_path": value(0)}) };
                (read, Outcome::Output(Output::Code))
            }
            FactKind::BuildError | FactKind::Symbol => {
                let line: u32 = value(1).parse().unwrap_or(1);
                let arguments = json!({"file_path": value(0), "offset": line});
                (Use { tool: "Read", arguments }, Outcome::Output(Output::Code))
            }
            FactKind::Ticket => (bash(format!("tickets close {}", value(0))), Outcome::Done("closed")),
            FactKind::Job => (bash(format!("jobs retry {}", value(0))), Outcome::Done("queued")),
            FactKind::FailedTest => {
                let command = format!("cargo test {}::{}", self.key, value(0));
                (bash(command), Outcome::Output(Output::Build))
            }
            FactKind::ErrorCode => {
                let grep = Use { tool: "Grep", arguments: json!({"pattern": value(0), "path": "docs"}) };
                (grep, Outcome::Output(Output::Prose))
            }
            FactKind::Setting => {
                let (old, new) = (format!("{}=", self.key), format!("{}={}", self.key, value(0)));
                let arguments = json!({"file_path": ".env", "old_string": old, "new_string": new});
                (Use { tool: "Edit", arguments }, Outcome::Done("The file .env was updated."))
            }
        }
    }

    /// What the request names: the key, then the files to look into.
    pub fn names(&self) -> Vec<&str> {
        std::iter::once(&self.key).chain(&self.files).map(String::as_str).collect()
    }

    /// Bytes of the values in [`Fact::text`], in order.
    pub fn value_places(&self) -> Vec<Range<usize>> {
        // Values follow the key, or a path that holds no other value.
        let mut from = self.text.find(&self.key).map_or(0, |at| at + self.key.len());
        let place = |value: &String| {
            let start = from + self.text.get(from..)?.find(value)?;
            from = start + value.len();
            Some(start..from)
        };
        self.values.iter().filter_map(place).collect()
    }

    /// The sentence that closes the turn.
    pub fn close(&self) -> String {
        let key = &self.key;
        let value = |index: usize| self.values.get(index).map_or("", String::as_str);
        match self.kind {
            FactKind::Pointer => format!("`{key}` points to {}.", value(0)),
            FactKind::BuildError => format!("`{key}` is missing in {}, line {}.", value(0), value(1)),
            FactKind::Ticket => format!("Ticket {} of `{key}` is closed.", value(0)),
            FactKind::Job => format!("Job {} of `{key}` is queued again.", value(0)),
            FactKind::FailedTest => format!("Test {} of `{key}` ran alone.", value(0)),
            FactKind::ErrorCode => format!("`{key}` failed with code {}.", value(0)),
            FactKind::Setting => format!("`{key}` is set to {}.", value(0)),
            FactKind::Symbol => format!("`{key}` is defined in {}, line {}.", value(0), value(1)),
        }
    }
}
