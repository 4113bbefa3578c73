//! The run directory on disk: who writes which file, and a reader that opens every schema version.
//!
//! Records are appended one line at a time and never rewritten; `run.json` and everything derived is replaced atomically.
//! A run that was cut keeps all it measured: an unfinished last line is dropped on reading and removed before appending.
//! Knows no metric and no page.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{ReportError, Result};
use crate::record::{CallRecord, RunManifest, SCHEMA_VERSION, TelemetrySample};
use crate::telemetry_csv;
pub use crate::telemetry_csv::TelemetryWriter;

/// Manifest of the run.
pub const MANIFEST_FILE: &str = "run.json";
/// Records, one JSON object a line.
pub const CALLS_FILE: &str = "calls.jsonl";
/// Samples over time.
pub const TELEMETRY_FILE: &str = "telemetry.csv";
/// A longer line of `calls.jsonl` is not a record: outputs are bounded by `--max-new-tokens`.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Telemetry beyond this is not read: twenty samples a second, each of every column, fill it in about three days.
const TELEMETRY_BYTES_MAX: u64 = 1 << 30;
/// Bad lines reported one by one; the rest is counted.
const WARNINGS_MAX: usize = 20;

/// A run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// What was read from a file, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readout<T> {
    /// Rows in file order.
    pub rows: Vec<T>,
    /// Lines that are not rows and were skipped.
    pub n_skipped: u64,
    /// What was skipped or is unusual, by file and line number; the first twenty bad lines, then a count.
    pub warnings: Vec<String>,
}

impl RunDir {
    /// Makes the folder (and its parents) for a new run.
    ///
    /// # Errors
    /// [`ReportError::Occupied`] where it holds a run already, [`ReportError::Io`] where the system refuses.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(ReportError::io(&path, "create the run directory"))?;
        for found in [MANIFEST_FILE, CALLS_FILE] {
            if path.join(found).exists() {
                return Err(ReportError::Occupied { path, found });
            }
        }
        Ok(Self { path })
    }

    /// Opens the folder of an existing run, of any schema version.
    ///
    /// # Errors
    /// [`ReportError::NotARun`] where there is no manifest in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::metadata(&path).map_err(ReportError::io(&path, "open the run directory"))?;
        if !path.join(MANIFEST_FILE).is_file() {
            return Err(ReportError::NotARun { path, expected: MANIFEST_FILE });
        }
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a file in it.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Reads `run.json`; fields that are missing are empty, unknown ones are ignored.
    ///
    /// # Errors
    /// [`ReportError::Io`], [`ReportError::Manifest`].
    pub fn manifest(&self) -> Result<RunManifest> {
        let path = self.file(MANIFEST_FILE);
        let bytes = fs::read(&path).map_err(ReportError::io(&path, "read"))?;
        serde_json::from_slice(&bytes).map_err(|source| ReportError::Manifest { path, source })
    }

    /// Replaces `run.json` atomically.
    ///
    /// # Errors
    /// [`ReportError::Io`]; the old manifest is kept then.
    pub fn write_manifest(&self, manifest: &RunManifest) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|source| ReportError::Encode { path: self.file(MANIFEST_FILE), source })?;
        text.push(b'\n');
        self.write_file(MANIFEST_FILE, &text)
    }

    /// Replaces a file atomically: a temporary file beside it, synced and renamed. Makes its folder where needed.
    ///
    /// # Errors
    /// [`ReportError::Io`]; the old file is kept then.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.replace(name, |temporary| {
            let mut file = File::create(temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        })
    }

    /// Lets `fill` write a temporary file with the extension of `name`, then renames it to `name`.
    pub(crate) fn replace(&self, name: &str, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
        let path = self.file(name);
        let folder = path.parent().unwrap_or(&self.path).to_path_buf();
        fs::create_dir_all(&folder).map_err(ReportError::io(&folder, "create"))?;
        let base = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".writing-{base}"));
        let done = fill(&temporary).and_then(|()| fs::rename(&temporary, &path));
        done.map_err(|source| {
            // Leave no debris on a full disk; the error to report is the first one.
            let _ = fs::remove_file(&temporary);
            ReportError::Io { path, action: "write", source }
        })
    }

    /// Reads `calls.jsonl`; a run without it has no records yet.
    ///
    /// Unknown fields are ignored and missing ones are `null`. A bad line is skipped with a warning that names it, an
    /// unfinished last line is dropped.
    ///
    /// # Errors
    /// [`ReportError::Io`] where the file exists and cannot be read.
    pub fn calls(&self) -> Result<Readout<CallRecord>> {
        let path = self.file(CALLS_FILE);
        match File::open(&path) {
            Ok(file) => read_calls(BufReader::new(file)).map_err(ReportError::io(&path, "read")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Readout::default()),
            Err(source) => Err(ReportError::Io { path, action: "open", source }),
        }
    }

    /// Opens `calls.jsonl` for appending. What a cut run left of an unfinished line is removed first.
    ///
    /// # Errors
    /// [`ReportError::Io`].
    pub fn calls_writer(&self) -> Result<CallsWriter> {
        let path = self.file(CALLS_FILE);
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            finish_last_line(&mut file, |tail| serde_json::from_slice::<CallRecord>(tail).is_ok())?;
            Ok(file)
        };
        let file = open().map_err(ReportError::io(&path, "open for appending"))?;
        Ok(CallsWriter { path, file })
    }

    /// Reads `telemetry.csv`; a run without it has no samples.
    ///
    /// # Errors
    /// [`ReportError::Io`] where the file exists and cannot be opened.
    pub fn telemetry(&self) -> Result<Readout<TelemetrySample>> {
        let path = self.file(TELEMETRY_FILE);
        match File::open(&path) {
            Ok(file) => Ok(telemetry_csv::read(file.take(TELEMETRY_BYTES_MAX))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Readout::default()),
            Err(source) => Err(ReportError::Io { path, action: "open", source }),
        }
    }

    /// Opens `telemetry.csv` for appending; a new file begins with the header, an old one keeps its columns.
    ///
    /// # Errors
    /// [`ReportError::Io`].
    pub fn telemetry_writer(&self) -> Result<TelemetryWriter> {
        let path = self.file(TELEMETRY_FILE);
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
            finish_last_line(&mut file, |_| false)?;
            Ok(file)
        };
        let file = open().map_err(ReportError::io(&path, "open for appending"))?;
        TelemetryWriter::new(path, file)
    }
}

/// Appends records to `calls.jsonl`.
#[derive(Debug)]
pub struct CallsWriter {
    path: PathBuf,
    file: File,
}

impl CallsWriter {
    /// Appends one record as one line, handed to the system before this returns.
    ///
    /// # Errors
    /// [`ReportError::Io`]; the lines written before stay whole, and what was written of this one is taken back.
    pub fn append(&mut self, record: &CallRecord) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|source| ReportError::Encode { path: self.path.clone(), source })?;
        line.push(b'\n');
        let length_before = self.file.metadata().map(|m| m.len());
        self.file.write_all(&line).map_err(|source| {
            // Best effort: a reader drops an unfinished last line anyway.
            if let Ok(length) = length_before {
                let _ = self.file.set_len(length);
            }
            ReportError::Io { path: self.path.clone(), action: "append a record", source }
        })
    }

    /// Waits until everything appended is on the disk; called at the end of each pass.
    ///
    /// # Errors
    /// [`ReportError::Io`].
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(ReportError::io(&self.path, "sync"))
    }
}

/// Reads records from lines; total over any bytes.
pub(crate) fn read_calls(mut input: impl BufRead) -> io::Result<Readout<CallRecord>> {
    let mut readout = Readout::default();
    let mut newest_version = 0;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let finished = line.ends_with(b"\n");
        if !finished && line.len() as u64 == LINE_BYTES_MAX {
            input.skip_until(b'\n')?;
            skip(&mut readout, number, &format!("longer than {LINE_BYTES_MAX} bytes"));
            continue;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match serde_json::from_slice::<CallRecord>(text) {
            Ok(record) => {
                newest_version = newest_version.max(record.schema_version);
                readout.rows.push(record);
            }
            Err(_) if !finished => {
                let cut = format!(
                    "{CALLS_FILE}:{number}: unfinished last line dropped; the run was cut while writing it"
                );
                readout.warnings.push(cut);
            }
            Err(error) => skip(&mut readout, number, &error.to_string()),
        }
    }
    if readout.n_skipped as usize > WARNINGS_MAX {
        readout.warnings.push(format!("{CALLS_FILE}: {} bad lines skipped in all", readout.n_skipped));
    }
    if newest_version > SCHEMA_VERSION {
        readout.warnings.push(format!(
            "{CALLS_FILE}: written with schema version {newest_version}, this program knows {SCHEMA_VERSION}; \
             fields it does not know are ignored"
        ));
    }
    Ok(readout)
}

fn skip<T>(readout: &mut Readout<T>, number: u64, reason: &str) {
    readout.n_skipped += 1;
    if readout.n_skipped as usize <= WARNINGS_MAX {
        readout.warnings.push(format!("{CALLS_FILE}:{number}: bad line skipped: {reason}"));
    }
}

/// Ends the file with a whole line, so that the next one stands alone. What follows the last line break was left by a cut
/// run: it is completed where `is_whole` says that only the break is missing, and removed otherwise.
fn finish_last_line(file: &mut File, is_whole: fn(&[u8]) -> bool) -> io::Result<()> {
    let length = file.metadata()?.len();
    let start = after_last_break(file, length)?;
    if start == length {
        return Ok(());
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    Read::by_ref(file).take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
    if is_whole(&tail) { file.write_all(b"\n") } else { file.set_len(start) }
}

/// Offset after the last line break of the first `length` bytes; 0 without one.
fn after_last_break(file: &mut File, length: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(position) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
