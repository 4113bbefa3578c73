//! The integration tests of `kernels`: one file per subject, one binary.

mod seeded;
mod tile;
