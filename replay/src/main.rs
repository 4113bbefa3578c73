//! The `reprise` command. Everything is in the library; this is the one place that ends the process.
#![forbid(unsafe_code)]

use std::process::{self, ExitCode};

use replay::cli::{self, Outcome};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), || process::exit(Outcome::Invalid.code().into())).into()
}
