//! The integration tests of `kernels`: one file per subject, one binary.

mod elementwise;
mod seeded;
mod tile;
