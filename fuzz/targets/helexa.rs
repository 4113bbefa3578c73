//! Any bytes, read as a session store of helexa.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transcripts::import::FormatChoice;
use transcripts::session::SourceFormat;

fuzz_target!(|data: &[u8]| fuzz::import_as(FormatChoice::Source(SourceFormat::Helexa), data));
