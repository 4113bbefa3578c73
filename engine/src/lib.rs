//! The reference engine: messages in, tokens and stage times out. It returns facts (tokens, spans, counts); it
//! never names a metric, never logs on the request path and never writes a record.
#![deny(unsafe_code)]

pub mod backfill;
pub mod chat;
pub mod compress;
pub mod config;
pub mod describe;
pub mod device;
pub mod digest;
pub mod engine;
pub mod error;
pub mod fidelity;
pub mod gguf;
pub mod kv;
mod mapped;
pub mod model;
pub mod model_source;
pub mod prefill;
pub mod request;
pub mod residency;
mod safetensors_folder;
pub mod sample;
pub mod schedule;
pub mod shapes;
pub mod spans;
mod synthetic;
mod tensors;
pub mod tokenizer;
pub mod weights;
mod written;

/// What the device was measured to reach, for callers that know the engine alone.
pub use kernels::peak;
