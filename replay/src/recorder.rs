//! Where facts go while a run is going: the run directory's append-only files. Knows no arm and no backend.

use reports::record::{CallRecord, RunManifest, TelemetrySample};
use reports::store::{CallsWriter, RunDir, TelemetryWriter};

use crate::error::ReplayError;

/// Appends to one run directory.
pub struct Recorder {
    dir: RunDir,
    calls: CallsWriter,
    telemetry: TelemetryWriter,
}

impl Recorder {
    /// Opens the files of a run for appending.
    ///
    /// # Errors
    /// The directory refuses.
    pub fn open(dir: RunDir) -> Result<Self, ReplayError> {
        let calls = dir.calls_writer()?;
        let telemetry = dir.telemetry_writer()?;
        Ok(Self { dir, calls, telemetry })
    }

    /// The directory.
    pub const fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Appends the record of one call and the samples that were taken up to its end. The record goes first: samples
    /// are worth less.
    ///
    /// # Errors
    /// The disk refuses; everything appended before is kept.
    pub fn append(&mut self, record: &CallRecord, samples: &[TelemetrySample]) -> Result<(), ReplayError> {
        self.calls.append(record)?;
        Ok(self.telemetry.append(samples)?)
    }

    /// Waits until every record is on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<(), ReplayError> {
        Ok(self.calls.sync()?)
    }

    /// Replaces the manifest.
    ///
    /// # Errors
    /// The disk refuses; the old manifest is kept.
    pub fn write_manifest(&self, manifest: &RunManifest) -> Result<(), ReplayError> {
        Ok(self.dir.write_manifest(manifest)?)
    }
}
