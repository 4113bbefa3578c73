//! The sessions that come with the program, so that a first run needs no input: a generated one, whose next calls are
//! known to need a fact of their prompt, and recorded-form Claude Code files over this project's own sources. Knows seeds
//! and file names only; generator and importer do the rest.

use crate::error::TranscriptError;
use crate::import::{Import, TextFile, import_texts};
use crate::synth::{DEFAULT_SEED, Shape, generate};

/// One bundled session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// The name it is asked for by.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub about: &'static str,
    /// Where it comes from.
    pub source: BundledSource,
}

/// Where a bundled session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundledSource {
    /// Its main file, then its sub-agents' files; `data/SOURCE.md` says how they were made.
    Files(&'static [TextFile<'static>]),
    /// Generated when it is asked for.
    Generated {
        /// Seed and size.
        shape: Shape,
        /// Name of the file that it stands for.
        file: &'static str,
    },
}

/// Every bundled session; the first one is the default of a run.
pub const ALL: &[Bundled] = &[
    Bundled {
        name: "sample",
        about: "ten generated calls that grow to 71K characters; every acting call copies a fact of an earlier tool output",
        source: BundledSource::Generated {
            shape: Shape { seed: DEFAULT_SEED, calls: 10, chars: Some(71_000) },
            file: "sample.jsonl",
        },
    },
    Bundled {
        name: "explore",
        about: "ten calls that grow from 0.3K to 65K characters, nearly all of them tool results",
        source: BundledSource::Files(&[TextFile {
            name: "explore.jsonl",
            text: include_str!("../data/explore.jsonl"),
        }]),
    },
    Bundled {
        name: "delegate",
        about: "parallel tool calls, and a sub-agent with a prefix of its own",
        source: BundledSource::Files(&[TextFile {
            name: "delegate.jsonl",
            text: include_str!("../data/delegate.jsonl"),
        }]),
    },
    Bundled {
        name: "compacted",
        about: "a session that was compacted half way, so that its prefix breaks once",
        source: BundledSource::Files(&[TextFile {
            name: "compacted.jsonl",
            text: include_str!("../data/compacted.jsonl"),
        }]),
    },
];

/// The bundled session of a name.
pub fn find(name: &str) -> Option<&'static Bundled> {
    ALL.iter().find(|bundled| bundled.name == name)
}

impl Bundled {
    /// Imports the session and its sub-agents.
    ///
    /// # Errors
    /// As [`import_texts`].
    pub fn import(&self) -> Result<Import, TranscriptError> {
        match &self.source {
            BundledSource::Files(files) => import_texts(files),
            BundledSource::Generated { shape, file } => generate(shape).import(file),
        }
    }
}
