//! The ops, one a file: a plain specification, a fast version checked against it, its cost. No op calls another.

pub mod argmax;
pub mod attention;
pub mod block_score;
pub mod block_select;
pub mod embedding;
pub mod kv_store;
pub mod matmul;
pub mod qk_norm_rope;
pub mod rms_norm;
pub mod sparse_attention;
pub mod swiglu;
pub mod synthetic;
pub mod tail_score;
