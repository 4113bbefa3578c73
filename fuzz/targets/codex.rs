//! Any bytes, read as a Codex rollout.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transcripts::import::FormatChoice;
use transcripts::session::SourceFormat;

fuzz_target!(|data: &[u8]| fuzz::import_as(FormatChoice::Source(SourceFormat::Codex), data));
