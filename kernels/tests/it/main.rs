//! The integration tests of `kernels`: one file per subject, one binary.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "clippy takes test code outside a #[test] function for ordinary code"
)]

mod attention;
mod block_sparse;
mod cuda;
mod elementwise;
#[cfg(feature = "emulation")]
mod emulation;
mod matmul;
mod prebuilt;
mod qk_norm_rope;
mod quant;
mod seeded;
mod tail_score;
mod tile;
