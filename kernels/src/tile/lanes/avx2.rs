//! [`Lanes`] with AVX2, FMA and F16C: a row is four 256-bit registers.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::{Job, Lanes, NR};

/// Registers of a row, and values in one.
const REGS: usize = 4;
const WIDTH: usize = NR / REGS;

/// The token of AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

/// Runs a job with AVX2.
///
/// # Safety
/// The machine must have every feature named here.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<J: Job>(job: J) -> J::Output {
    job.run(Avx2(()))
}

/// Bytes `8 r ..` of a row in the low half of a register.
#[inline(always)]
fn quarter(row: __m256i, r: usize) -> __m128i {
    // SAFETY: only reached from the methods of a token, so AVX2 is there.
    unsafe {
        let half = if r < 2 { _mm256_castsi256_si128(row) } else { _mm256_extracti128_si256::<1>(row) };
        if r.is_multiple_of(2) { half } else { _mm_srli_si128::<8>(half) }
    }
}

impl Lanes for Avx2 {
    type V = [__m256; REGS];
    type B = __m256i;
    type I = [__m256i; REGS];
    const MAX_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm256_set1_ps(x); REGS] }
    }
    #[inline(always)]
    fn load(self, row: &[f32; NR]) -> Self::V {
        // SAFETY: all four quarters lie in the row; the load needs no alignment.
        from_fn(|r| unsafe { _mm256_loadu_ps(row.as_ptr().add(WIDTH * r)) })
    }
    #[inline(always)]
    fn store(self, v: Self::V, row: &mut [f32; NR]) {
        for (r, quarter) in v.into_iter().enumerate() {
            // SAFETY: all four quarters lie in the row; the store needs no alignment.
            unsafe { _mm256_storeu_ps(row.as_mut_ptr().add(WIDTH * r), quarter) };
        }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_fmadd_ps(a[r], b[r], c[r]) })
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_mul_ps(a[r], b[r]) })
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_sub_ps(a[r], b[r]) })
    }
    #[inline(always)]
    fn load_f16(self, row: &[u16; NR]) -> Self::V {
        // SAFETY: all four quarters lie in the row; the load needs no alignment.
        from_fn(|r| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(row.as_ptr().add(WIDTH * r).cast())) })
    }
    #[inline(always)]
    fn f16_from_bytes(self, low: Self::B, high: Self::B) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_cvtph_ps(_mm_unpacklo_epi8(quarter(low, r), quarter(high, r))) })
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> Self::B {
        // SAFETY: the token exists, so the features do.
        unsafe { _mm256_set1_epi8(x.cast_signed()) }
    }
    #[inline(always)]
    fn load_b(self, row: &[u8; NR]) -> Self::B {
        // SAFETY: a row is 32 bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        // SAFETY: the token exists, so the features do.
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        // SAFETY: the token exists, so the features do.
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: Self::B, n: u32) -> Self::B {
        // SAFETY: the token exists, so the features do. Shifts exist for 16 bits at least; the mask takes away what
        // came from the neighbouring byte.
        unsafe {
            _mm256_and_si256(_mm256_sll_epi16(a, _mm_cvtsi32_si128(n.cast_signed())), self.splat_b(0xff << n))
        }
    }
    #[inline(always)]
    fn shr(self, a: Self::B, n: u32) -> Self::B {
        // SAFETY: the token exists, so the features do; the mask as in `shl`.
        unsafe {
            _mm256_and_si256(_mm256_srl_epi16(a, _mm_cvtsi32_si128(n.cast_signed())), self.splat_b(0xff >> n))
        }
    }
    #[inline(always)]
    fn sub_b(self, a: Self::B, b: Self::B) -> Self::B {
        // SAFETY: the token exists, so the features do.
        unsafe { _mm256_sub_epi8(a, b) }
    }
    #[inline(always)]
    fn u8_to_f32(self, a: Self::B) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(quarter(a, r))) })
    }
    #[inline(always)]
    fn i8_to_f32(self, a: Self::B) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(quarter(a, r))) })
    }
    #[inline(always)]
    fn splat_i(self, x: u32) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm256_set1_epi32(x.cast_signed()); REGS] }
    }
    #[inline(always)]
    fn load_i(self, row: &[u32; NR]) -> Self::I {
        // SAFETY: all four quarters lie in the row; the load needs no alignment.
        from_fn(|r| unsafe { _mm256_loadu_si256(row.as_ptr().add(WIDTH * r).cast()) })
    }
    #[inline(always)]
    fn dot_bf16(self, a: Self::I, b: Self::I, acc: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        from_fn(|r| unsafe {
            let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let low = |x: __m256i| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
            let high = |x: __m256i| _mm256_castsi256_ps(_mm256_and_si256(x, mask));
            _mm256_fmadd_ps(high(a[r]), high(b[r]), _mm256_fmadd_ps(low(a[r]), low(b[r]), acc[r]))
        })
    }
}
