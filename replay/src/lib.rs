//! The harness: arms, plan, runner, telemetry, validity, backends and the `reprise` command. It observes the engine and
//! owns nothing of it; it measures and records, and leaves judging to `reports`.
#![forbid(unsafe_code)]

// What will run.
pub mod arm;
pub mod compression;
pub mod corpus;
pub mod forecast;
pub mod plan;
pub mod sessions;
pub mod settings;

// The loop, and what it alone brings together.
pub mod backend;
pub mod progress;
pub mod recorder;
pub mod runner;
pub mod telemetry;

// From facts to records.
pub mod agreement;
pub mod growth;
pub mod idle;
pub mod manifest;
pub mod record;
pub mod resume;
pub mod validity;

// What models can do.
pub mod abilities;

// The world: time, machine, files, the user.
pub mod cli;
pub mod clock;
pub mod error;
pub mod input;
pub mod machine;
