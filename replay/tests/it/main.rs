//! Integration tests of the harness: one binary, one file per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed; clippy exempts test functions, not what they share"
)]

mod abilities;
mod arms;
mod cli;
mod corpus;
mod energy;
mod engine;
mod fixture;
mod flags;
mod forecast;
mod idle;
mod pipeline;
mod processes;
mod resume;
mod scripted_board;
mod telemetry;
mod tidy;
mod validity;
