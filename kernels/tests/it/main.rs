//! The integration tests of `kernels`: one file per subject, one binary.

mod elementwise;
mod matmul;
mod quant;
mod seeded;
mod tile;
