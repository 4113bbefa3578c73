//! How close a session's calls are to the requests that were really sent, and why not closer. Knows no format: an
//! importer states its reasons, this module orders them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How close to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The requests themselves were recorded.
    Exact,
    /// The requests were rebuilt from recorded messages; what is missing is missing as a whole.
    Rebuilt,
    /// Some message bodies are ours, or some recorded messages could not be placed or read.
    Approximate,
}

impl Level {
    /// The word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Rebuilt => "rebuilt",
            Self::Approximate => "approximate",
        }
    }
}

/// One thing that separates a session from what was sent. `count` is how often it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The source holds no system prompt.
    SystemMissing,
    /// The source holds no tool definitions.
    ToolsMissing,
    /// The caller supplied the system prompt.
    SystemSupplied,
    /// The caller supplied the tool definitions.
    ToolsSupplied,
    /// Requests were rebuilt from a log of messages; blocks the client adds at send time are not in it.
    RebuiltFromLog,
    /// The log is unprocessed: the agent elided old messages from what it sent.
    HistoryUnprocessed,
    /// Tool-call arguments were recorded parsed: their original bytes are lost.
    ArgumentsReserialised {
        /// Tool calls.
        count: u64,
    },
    /// Reasoning is a signature without text.
    ReasoningHidden {
        /// Turns.
        count: u64,
    },
    /// Images are placeholders.
    ImagesAsPlaceholders {
        /// Images and documents.
        count: u64,
    },
    /// Old tool results were cleared on the request side and are sent as the client's placeholder.
    ResultsCleared {
        /// Tool results.
        count: u64,
    },
    /// The client sent a recorded replacement in place of a tool result.
    ResultsReplaced {
        /// Tool results.
        count: u64,
    },
    /// History was compacted; what the client attaches again after the summary is not in the file.
    Compacted {
        /// Compaction boundaries.
        count: u64,
    },
    /// Client attachments were rendered as text by us.
    AttachmentsRendered {
        /// Attachments.
        count: u64,
    },
    /// Large tool results were sent as a preview whose text we rebuilt.
    ResultsPreviewed {
        /// Tool results.
        count: u64,
    },
    /// Messages named no parent that was written; the line before them was taken instead.
    ParentsGuessed {
        /// Lines.
        count: u64,
    },
    /// The file records request-side changes of a kind we cannot apply.
    ProjectionsUnknown {
        /// Lines.
        count: u64,
    },
    /// Tool definitions changed between calls; those of the first call stand for all.
    ToolsChanged {
        /// Calls.
        count: u64,
    },
    /// What was sent after a compaction is not recorded: the person's messages and the summary stand for it.
    SummariesPlaced {
        /// Compactions.
        count: u64,
    },
    /// Requests continue an answer that is not in the log: what stands before them is missing.
    PastMissing {
        /// Requests.
        count: u64,
    },
    /// Answers were recorded as events, of which some are missing or cannot be read.
    AnswersIncomplete {
        /// Answers.
        count: u64,
    },
    /// Tool results were recorded as data and are rendered as text by us.
    ResultsRendered {
        /// Tool results.
        count: u64,
    },
    /// Large tool results were saved as receipts: what was sent live is gone.
    ReceiptsKept {
        /// Tool results.
        count: u64,
    },
    /// The client sends these tool results shortened or as references; they stand as they were saved.
    ProjectionsNotApplied {
        /// Tool results.
        count: u64,
    },
    /// The client dropped its oldest messages when it saved the session.
    HistoryDropped {
        /// Messages.
        count: u64,
    },
    /// Lines could not be read and were skipped.
    LinesUnreadable {
        /// Lines.
        count: u64,
    },
    /// Calls were left out because the session exceeds what an import may hold.
    CallsLeftOut {
        /// Calls.
        count: u64,
    },
}

impl Reason {
    /// The level a session can have at best with this reason.
    pub const fn level(&self) -> Level {
        match self {
            Self::SystemSupplied | Self::ToolsSupplied => Level::Exact,
            Self::SystemMissing
            | Self::ToolsMissing
            | Self::RebuiltFromLog
            | Self::ArgumentsReserialised { .. }
            | Self::ReasoningHidden { .. }
            | Self::ImagesAsPlaceholders { .. }
            | Self::ResultsCleared { .. }
            | Self::ResultsReplaced { .. }
            | Self::Compacted { .. } => Level::Rebuilt,
            Self::HistoryUnprocessed
            | Self::AttachmentsRendered { .. }
            | Self::ResultsPreviewed { .. }
            | Self::ParentsGuessed { .. }
            | Self::ProjectionsUnknown { .. }
            | Self::ToolsChanged { .. }
            | Self::SummariesPlaced { .. }
            | Self::PastMissing { .. }
            | Self::AnswersIncomplete { .. }
            | Self::ResultsRendered { .. }
            | Self::ReceiptsKept { .. }
            | Self::ProjectionsNotApplied { .. }
            | Self::HistoryDropped { .. }
            | Self::LinesUnreadable { .. }
            | Self::CallsLeftOut { .. } => Level::Approximate,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count().map(|count| count.to_string());
        f.write_str(&self.words().replacen("{}", count.as_deref().unwrap_or_default(), 1))
    }
}

impl Reason {
    /// The sentence, `{}` where the count stands.
    const fn words(&self) -> &'static str {
        match self {
            Self::SystemMissing => "the system prompt is not recorded; give it with --system-prompt FILE",
            Self::ToolsMissing => "the tool definitions are not recorded; give them with --tools FILE",
            Self::SystemSupplied => "the system prompt was supplied, not recorded",
            Self::ToolsSupplied => "the tool definitions were supplied, not recorded",
            Self::RebuiltFromLog => {
                "requests are rebuilt from the message log; reminders added at send time are not in it"
            }
            Self::HistoryUnprocessed => {
                "the log is unprocessed; the agent elided old messages from what it sent"
            }
            Self::ArgumentsReserialised { .. } => {
                "arguments of {} tool calls were recorded parsed and are written again as compact JSON"
            }
            Self::ReasoningHidden { .. } => "reasoning of {} turns is a signature without text",
            Self::ImagesAsPlaceholders { .. } => "{} images or documents are placeholders",
            Self::ResultsCleared { .. } => "{} tool results were cleared by microcompaction",
            Self::ResultsReplaced { .. } => "{} tool results were replaced as the client recorded it",
            Self::Compacted { .. } => {
                "{} compactions; files the client attaches again afterwards are not recorded"
            }
            Self::AttachmentsRendered { .. } => "{} attachments were rendered as text by us",
            Self::ResultsPreviewed { .. } => "{} large tool results are rebuilt previews",
            Self::ParentsGuessed { .. } => {
                "{} lines name no parent that was written and follow the line before them"
            }
            Self::ProjectionsUnknown { .. } => "{} lines change requests in a way that cannot be applied",
            Self::ToolsChanged { .. } => "{} calls had other tool definitions than the first",
            Self::SummariesPlaced { .. } => {
                "after {} compactions the person's messages and the summary stand for what was sent"
            }
            Self::PastMissing { .. } => "{} requests continue an answer that is not in the log",
            Self::AnswersIncomplete { .. } => {
                "{} answers are incomplete: events of their streams are missing or cannot be read"
            }
            Self::ResultsRendered { .. } => {
                "{} tool results were recorded as data and are rendered as text by us"
            }
            Self::ReceiptsKept { .. } => "{} tool results were saved as receipts; what was sent live is gone",
            Self::ProjectionsNotApplied { .. } => {
                "{} tool results stand as they were saved; the client sends them shortened or as references"
            }
            Self::HistoryDropped { .. } => "{} oldest messages were dropped when the session was saved",
            Self::LinesUnreadable { .. } => "{} lines could not be read",
            Self::CallsLeftOut { .. } => "{} calls were left out: the session is too large",
        }
    }
}

/// The fidelity block of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The worst level of all reasons; `Exact` without any.
    pub level: Level,
    /// The reasons, each once, in the order of `Reason`.
    pub reasons: Vec<Reason>,
}

impl Fidelity {
    /// The block for these reasons; reasons with a count of 0 and duplicates are dropped.
    pub fn from_reasons(reasons: impl IntoIterator<Item = Reason>) -> Self {
        let mut reasons: Vec<Reason> =
            reasons.into_iter().filter(|reason| reason.count() != Some(0)).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let level = reasons.iter().map(Reason::level).max().unwrap_or(Level::Exact);
        Self { level, reasons }
    }

    /// Takes `old` out, puts `new` in and settles the level again.
    pub fn replace(&mut self, old: Reason, new: Reason) {
        let kept = self.reasons.iter().copied().filter(|reason| *reason != old);
        *self = Self::from_reasons(kept.chain([new]).collect::<Vec<_>>());
    }
}

impl Reason {
    /// How often the reason applies, where it is counted.
    pub const fn count(&self) -> Option<u64> {
        match self {
            Self::SystemMissing
            | Self::ToolsMissing
            | Self::SystemSupplied
            | Self::ToolsSupplied
            | Self::RebuiltFromLog
            | Self::HistoryUnprocessed => None,
            Self::ArgumentsReserialised { count }
            | Self::ReasoningHidden { count }
            | Self::ImagesAsPlaceholders { count }
            | Self::ResultsCleared { count }
            | Self::ResultsReplaced { count }
            | Self::Compacted { count }
            | Self::AttachmentsRendered { count }
            | Self::ResultsPreviewed { count }
            | Self::ParentsGuessed { count }
            | Self::ProjectionsUnknown { count }
            | Self::ToolsChanged { count }
            | Self::SummariesPlaced { count }
            | Self::PastMissing { count }
            | Self::AnswersIncomplete { count }
            | Self::ResultsRendered { count }
            | Self::ReceiptsKept { count }
            | Self::ProjectionsNotApplied { count }
            | Self::HistoryDropped { count }
            | Self::LinesUnreadable { count }
            | Self::CallsLeftOut { count } => Some(*count),
        }
    }
}
