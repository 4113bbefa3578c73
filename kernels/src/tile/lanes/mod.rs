//! Rows of [`NR`] values and the operations on them, for each instruction set, and [`run`], which compiles one
//! generic [`Job`] for all of them and calls the one a [`Cpu`] supports. It knows nothing of tiles or formats.
//!
//! A [`Lanes`] value is a token: it can only be had inside [`Job::run`], which [`run`] enters through a function
//! compiled for the token's instruction set. So its methods are safe to call.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::NR;
use crate::device::{Cpu, Isa};

/// The operations on rows of [`NR`] values that kernels are written in. `V` is a row of f32, `B` of
/// bytes, `I` of 32-bit words. Every operation is elementwise and, where it rounds, rounds to nearest even.
pub trait Lanes: Copy {
    /// A row of f32 values in registers.
    type V: Copy;
    /// A row of bytes in registers.
    type B: Copy;
    /// A row of 32-bit words in registers.
    type I: Copy;
    /// Accumulator rows that fit the registers beside the operands of a tile.
    const MAX_ROWS: usize;

    /// All zeros.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
    /// The same value everywhere.
    fn splat(self, x: f32) -> Self::V;
    /// A row from memory.
    fn load(self, row: &[f32; NR]) -> Self::V;
    /// A row to memory.
    fn store(self, v: Self::V, row: &mut [f32; NR]);
    /// `a · b + c`, rounded once where the instruction set has FMA, else twice.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// A row of half-precision values from memory, exactly.
    fn load_f16(self, row: &[u16; NR]) -> Self::V;
    /// Half-precision values from rows of their low and high bytes, exactly.
    fn f16_from_bytes(self, low: Self::B, high: Self::B) -> Self::V;

    /// The same byte everywhere.
    fn splat_b(self, x: u8) -> Self::B;
    /// A row of bytes from memory.
    fn load_b(self, row: &[u8; NR]) -> Self::B;
    /// `a & b`.
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    /// `a | b`.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// `a << n`, `n < 8`.
    fn shl(self, a: Self::B, n: u32) -> Self::B;
    /// `a >> n`, `n < 8`, filling with zeros.
    fn shr(self, a: Self::B, n: u32) -> Self::B;
    /// `a - b`, wrapping.
    fn sub_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Unsigned bytes to f32.
    fn u8_to_f32(self, a: Self::B) -> Self::V;
    /// Signed bytes to f32.
    fn i8_to_f32(self, a: Self::B) -> Self::V;

    /// The same word everywhere.
    fn splat_i(self, x: u32) -> Self::I;
    /// A row of words from memory.
    fn load_i(self, row: &[u32; NR]) -> Self::I;
    /// `acc + a.0 · b.0 + a.1 · b.1` for pairs of bf16 values. The instruction sets differ in how often the sum
    /// is rounded; each is deterministic. With `VDPBF16PS`, subnormal inputs and results count as zero.
    fn dot_bf16(self, a: Self::I, b: Self::I, acc: Self::V) -> Self::V;
}

/// Work written once over [`Lanes`]. Implementations mark `run` and all it calls `#[inline(always)]`, or the code
/// is not compiled for the instruction set.
pub trait Job {
    /// What the work returns.
    type Output;
    /// Does the work.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs `job` compiled for the instruction set of `cpu`.
#[inline]
pub fn run<J: Job>(cpu: &Cpu, job: J) -> J::Output {
    match cpu.isa() {
        Isa::Portable => job.run(portable::Portable::new()),
        // SAFETY: a `Cpu` holds only instruction sets that were detected on this machine.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::run(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::run(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { avx512::run_bf16(job) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => job.run(portable::Portable::new()),
    }
}
