//! Integration tests of the transcripts crate: one binary, one module per subject.

// Helpers outside of test functions may unwrap too: a failure there is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod canonical;
mod export;
mod files;
mod golden;
mod invariants;
mod mutations;
mod naive;
mod properties;
mod redact;
mod session;
mod shared_formats;
mod shared_set;
mod structure;
mod synth;
mod variants;
