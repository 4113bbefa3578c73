//! Architectures: one folder each. A model sees tokens, positions and slots; it knows no cache, no hash and no time.

pub mod qwen3;
