//! Forward passes, one architecture per file. A model sees tokens, positions and slots; it never sees hashes, hits
//! or time.

pub mod qwen3;
