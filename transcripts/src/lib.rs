//! What a recorded agent session is, and every way to read or rewrite one. No tokenizer, no model, no clock.
#![forbid(unsafe_code)]

pub mod bundled;
pub mod call;
pub mod canonical;
pub mod error;
pub mod export;
pub mod fidelity;
pub mod import;
pub mod inspect;
pub mod json_text;
pub mod message;
pub mod profile;
pub mod redact;
pub mod schema;
pub mod session;
pub mod structure;
pub mod synth;
pub mod token_fit;
