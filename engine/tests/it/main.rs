//! The engine's tests through its public interface, as one binary.
// A test that cannot get what it needs should stop right there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod append_only;
mod backfill;
mod chat;
mod cuda;
mod evict;
mod evictions;
mod exactness;
mod freeze;
mod gguf;
mod gguf_writer;
mod golden;
mod lines;
mod logits;
mod masked;
mod model;
mod prefix;
mod prefix_model;
mod query;
mod ranking;
mod requests;
mod schedule;
mod score;
mod select;
mod tokenizer;
