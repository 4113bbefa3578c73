//! Any text as a message and as the arguments of a tool call, redacted: a second pass finds nothing, JSON stays JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::redact(text));
