//! The operations of a transformer on the CPU. One op is one file under `ops/`: a plain specification, a fast
//! version checked against it, and its cost. This crate knows nothing of models, tokens, sessions or records.
//!
//! Reading order: [`device`] (threads and instruction set), [`tile`] (the micro-kernels every fast path is built
//! from), then the ops.

pub mod blocks;
pub mod buffer;
pub mod cost;
pub mod device;
pub mod dtype;
pub mod error;
pub mod exp;
pub mod kv;
mod kv_tile;
mod matrix;
mod online_softmax;
pub mod ops;
pub mod peak;
pub mod quant;
mod rms;
pub mod tile;

pub use error::KernelError;
