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

/// Every bundled session; the first one is the default of a run.
pub const ALL: &[Bundled] = &[Bundled {
    name: "explore",
    about: "an agent reads its way through a small crate, one tool result at a time",
    files: &[TextFile { name: "explore.jsonl", text: include_str!("../data/explore.jsonl") }],
}];

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
