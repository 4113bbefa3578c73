//! Records in, pages out. Opens the run directory of any schema version; knows no engine, no GPU, no session.
//!
//! `record` is the contract, `store` the folder; `metrics`, `cost` and `stats` make `summary` and `report`, and `render` lays these out.
#![forbid(unsafe_code)]

pub mod record;

pub mod check;
pub mod cost;
mod error;
pub mod grid;
pub mod metrics;
pub mod number;
pub mod render;
pub mod report;
pub mod stats;
pub mod store;
pub mod summary;
mod telemetry_csv;
pub mod throttle;
pub mod tool_call;
mod write;

pub use error::{ReportError, Result};
pub use report::Report;
pub use write::{Written, read, write_all};
