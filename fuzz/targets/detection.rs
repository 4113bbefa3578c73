//! Any bytes: what they are is told by their content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transcripts::import::FormatChoice;

fuzz_target!(|data: &[u8]| fuzz::import_as(FormatChoice::Auto, data));
