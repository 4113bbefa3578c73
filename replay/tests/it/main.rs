//! Integration tests of the harness: one binary, one file per subject.

mod arms;
mod fixture;
mod pipeline;
mod resume;
mod telemetry;
mod validity;
