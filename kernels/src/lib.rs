//! The operations of a transformer on the CPU. One op is one file under `ops/`: a plain specification, a fast
//! version checked against it, and its cost. This crate knows nothing of models, tokens, sessions or records.
