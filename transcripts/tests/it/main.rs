//! Integration tests of the transcripts crate: one binary, one module per subject.

mod shared_set;
