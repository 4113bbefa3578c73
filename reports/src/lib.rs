//! Records in, pages out. Opens the run directory of any schema version; knows no engine, no GPU, no session.
#![forbid(unsafe_code)]

pub mod record;
