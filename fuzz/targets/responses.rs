//! Any bytes, read as a log of the Responses API.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transcripts::import::FormatChoice;
use transcripts::session::SourceFormat;

fuzz_target!(|data: &[u8]| fuzz::import_as(FormatChoice::Source(SourceFormat::Responses), data));
