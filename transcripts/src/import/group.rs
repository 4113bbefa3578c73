//! The files that one importer reads together, and what it makes of them. Knows files and sessions, no format.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::records::{self, Layout, Record};
use super::{ImportedFile, Warning, WarningKind};
use crate::session::Session;

/// One file of a group.
#[derive(Debug)]
pub(super) struct GroupFile {
    pub path: PathBuf,
    /// File name without folder and extensions.
    pub stem: String,
    pub layout: Layout,
}

impl GroupFile {
    /// Calls `each` with every value of the file.
    ///
    /// # Errors
    /// The path, when it cannot be read, and why.
    pub fn read(
        &self,
        mut each: impl FnMut(Record, &mut ImportedFile),
    ) -> Result<ImportedFile, (String, io::Error)> {
        let read = records::read(&self.path, self.layout, |record, report| {
            each(record, report);
            ControlFlow::Continue(())
        });
        read.map_err(|error| (self.path.display().to_string(), error))
    }
}

/// What an importer gives for a group.
#[derive(Debug)]
pub(super) struct GroupImport {
    pub sessions: Vec<Session>,
    pub files: Vec<ImportedFile>,
}

impl GroupImport {
    /// Says of every file with lines that no session came out of it.
    pub fn new(sessions: Vec<Session>, mut files: Vec<ImportedFile>) -> Self {
        let used: HashSet<&str> =
            sessions.iter().flat_map(|session| &session.files).map(|file| file.path.as_str()).collect();
        for file in files.iter_mut().filter(|file| file.lines > 0 && !used.contains(file.path.as_str())) {
            let message = "no model call of its own: no session".to_owned();
            file.warnings.push(Warning { line: 0, kind: WarningKind::NoCalls, message });
        }
        Self { sessions, files }
    }
}
