//! Where ops run: the CPU, or a CUDA card. The only owner of device memory and of streams; it knows nothing of the
//! ops that run on it.

pub mod cuda;

mod cpu;

pub use cpu::{Cpu, Disjoint, Isa};
