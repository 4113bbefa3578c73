//! `telemetry.csv`: samples in columns by name, one row each. Reads files with fewer, more or other columns, and appends to
//! a file in the columns that it has. Knows no unit and no plot.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::error::{ReportError, Result};
use crate::record::TelemetrySample;
use crate::store::{Readout, TELEMETRY_FILE};

/// Appends samples to `telemetry.csv`.
#[derive(Debug)]
pub struct TelemetryWriter {
    path: PathBuf,
    rows: csv::Writer<File>,
    order: Order,
}

/// Which cell of a sample stands in which column of the file.
#[derive(Debug)]
enum Order {
    /// The file is new or has the columns of this version.
    Own,
    /// Of each column of an older or newer file, the field of a sample; `None` where samples have no such field.
    OfFile(Vec<Option<usize>>),
}

impl TelemetryWriter {
    /// Appends to `file`, which is at `path`, readable and ends with a whole line.
    pub(crate) fn new(path: PathBuf, file: File) -> Result<Self> {
        let is_new = file.metadata().map_err(ReportError::io(&path, "open for appending"))?.len() == 0;
        let header = if is_new { None } else { Some(header_of_file(&path)?) };
        let own = header_and_row(&TelemetrySample::default()).map_err(ReportError::csv(&path))?.0;
        let order = match header {
            Some(header) if header != own => {
                Order::OfFile(header.iter().map(|name| own.iter().position(|field| field == name)).collect())
            }
            _ => Order::Own,
        };
        let rows = csv::WriterBuilder::new().has_headers(is_new).from_writer(file);
        Ok(Self { path, rows, order })
    }

    /// Appends samples and hands them to the system.
    ///
    /// # Errors
    /// [`ReportError::Csv`] where a row cannot be written, [`ReportError::Io`] where the file refuses.
    pub fn append(&mut self, samples: &[TelemetrySample]) -> Result<()> {
        for sample in samples {
            let written = match &self.order {
                Order::Own => self.rows.serialize(sample),
                Order::OfFile(fields) => header_and_row(sample).and_then(|(_, row)| {
                    let cell = |field: &Option<usize>| field.and_then(|i| row.get(i)).unwrap_or_default();
                    self.rows.write_record(fields.iter().map(cell))
                }),
            };
            written.map_err(ReportError::csv(&self.path))?;
        }
        self.rows.flush().map_err(ReportError::io(&self.path, "append samples"))
    }
}

fn header_of_file(path: &Path) -> Result<StringRecord> {
    let file = File::open(path).map_err(ReportError::io(path, "read"))?;
    let mut rows = csv::ReaderBuilder::new().flexible(true).quoting(false).from_reader(file);
    rows.headers().cloned().map_err(ReportError::csv(path))
}

/// The names of a sample's fields, and its cells in the same order.
fn header_and_row(sample: &TelemetrySample) -> csv::Result<(StringRecord, StringRecord)> {
    let mut written = csv::Writer::from_writer(Vec::new());
    written.serialize(sample)?;
    let bytes = written.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    let mut rows = csv::Reader::from_reader(bytes.as_slice());
    let header = rows.headers()?.clone();
    let mut row = StringRecord::new();
    rows.read_record(&mut row)?;
    Ok((header, row))
}

/// Reads samples by column name; total over any bytes.
pub(crate) fn read(input: impl Read) -> Readout<TelemetrySample> {
    let mut readout = Readout::default();
    // The table holds numbers and plain words, so that a quote is a defect of one row and never swallows the rest.
    let mut rows = csv::ReaderBuilder::new().flexible(true).quoting(false).from_reader(input);
    for row in rows.deserialize() {
        match row {
            Ok(sample) => readout.rows.push(sample),
            Err(error) if error.is_io_error() => {
                readout.warnings.push(format!("{TELEMETRY_FILE}: reading stopped: {error}"));
                break;
            }
            Err(_) => readout.n_skipped += 1,
        }
    }
    if readout.n_skipped > 0 {
        readout.warnings.push(format!("{TELEMETRY_FILE}: {} bad rows skipped", readout.n_skipped));
    }
    readout
}
