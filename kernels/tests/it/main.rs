//! The integration tests of `kernels`: one file per subject, one binary.

mod attention;
mod elementwise;
mod matmul;
mod quant;
mod seeded;
mod tail_score;
mod tile;
