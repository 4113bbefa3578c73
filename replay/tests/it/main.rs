//! Integration tests of the harness: one binary, one file per subject.

mod arms;
mod cli;
mod fixture;
mod flags;
mod pipeline;
mod resume;
mod telemetry;
mod validity;
