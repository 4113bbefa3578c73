//! The `reprise` command.
#![forbid(unsafe_code)]

fn main() {}
