//! The sessions that come with the program: recorded-form Claude Code files over this project's own sources, so that a
//! first run needs no input. Knows file names only; the importer does the rest.

use crate::error::TranscriptError;
use crate::import::{Import, TextFile, import_texts};

/// One bundled session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// The name it is asked for by.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub about: &'static str,
    /// Its main file, then its sub-agents' files.
    pub files: &'static [TextFile<'static>],
}

/// Every bundled session; the first one is the default of a run. `data/SOURCE.md` says how they were made.
pub const ALL: &[Bundled] = &[
    Bundled {
        name: "explore",
        about: "ten calls that grow from 0.3K to 65K characters, nearly all of them tool results",
        files: &[TextFile { name: "explore.jsonl", text: include_str!("../data/explore.jsonl") }],
    },
    Bundled {
        name: "delegate",
        about: "parallel tool calls, and a sub-agent with a prefix of its own",
        files: &[TextFile { name: "delegate.jsonl", text: include_str!("../data/delegate.jsonl") }],
    },
    Bundled {
        name: "compacted",
        about: "a session that was compacted half way, so that its prefix breaks once",
        files: &[TextFile { name: "compacted.jsonl", text: include_str!("../data/compacted.jsonl") }],
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
        import_texts(self.files)
    }
}
