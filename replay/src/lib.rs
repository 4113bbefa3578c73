//! The harness: arms, plan, runner, telemetry, validity, backends and the `reprise` command. It observes the engine and
//! owns nothing of it; it measures and records, and leaves judging to `reports`.
#![forbid(unsafe_code)]

pub mod arm;
pub mod backend;
pub mod cli;
pub mod clock;
pub mod error;
pub mod input;
pub mod machine;
pub mod manifest;
pub mod plan;
pub mod progress;
pub mod record;
pub mod recorder;
pub mod resume;
pub mod runner;
pub mod sessions;
pub mod settings;
pub mod telemetry;
pub mod validity;
