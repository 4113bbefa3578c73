//! Any bytes, read as a session file of `reprise import`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::read_canonical(data));
