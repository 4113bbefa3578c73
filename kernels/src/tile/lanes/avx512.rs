//! [`Lanes`] with AVX-512: a row is two 512-bit registers.

use std::arch::x86_64::*;

use super::{Job, Lanes, NR};

/// The token of AVX-512 F, BW, DQ, VL and FMA; with `BF16` also of `VDPBF16PS`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512<const BF16: bool>(());

/// Runs a job with AVX-512.
///
/// # Safety
/// The machine must have every feature named here.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn run<J: Job>(job: J) -> J::Output {
    job.run(Avx512::<false>(()))
}

/// Runs a job with AVX-512 and `VDPBF16PS`.
///
/// # Safety
/// The machine must have every feature named here.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn run_bf16<J: Job>(job: J) -> J::Output {
    job.run(Avx512::<true>(()))
}

/// Applies a binary intrinsic to both halves of a row.
macro_rules! both {
    ($op:ident($a:expr, $b:expr)) => {{
        let (a, b) = ($a, $b);
        // SAFETY: the token exists, so the features do.
        unsafe { [$op(a[0], b[0]), $op(a[1], b[1])] }
    }};
}

impl<const BF16: bool> Avx512<BF16> {
    /// Sixteen 8-bit values of a row, as loaded from memory.
    #[inline(always)]
    fn bytes(self, row: &[u8; NR], half: usize) -> __m128i {
        // SAFETY: `half` is 0 or 1, so 16 bytes lie in the row; the load needs no alignment.
        unsafe { _mm_loadu_si128(row.as_ptr().add(16 * half).cast()) }
    }
}

impl<const BF16: bool> Lanes for Avx512<BF16> {
    type V = [__m512; 2];
    type I = [__m512i; 2];
    const MAX_ROWS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, row: &[f32; NR]) -> Self::V {
        // SAFETY: both halves lie in the row; the load needs no alignment.
        unsafe { [_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row.as_ptr().add(16))] }
    }
    #[inline(always)]
    fn store(self, v: Self::V, row: &mut [f32; NR]) {
        // SAFETY: both halves lie in the row; the store needs no alignment.
        unsafe {
            _mm512_storeu_ps(row.as_mut_ptr(), v[0]);
            _mm512_storeu_ps(row.as_mut_ptr().add(16), v[1]);
        }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_fmadd_ps(a[0], b[0], c[0]), _mm512_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        both!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn splat_i(self, x: u32) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_set1_epi32(x.cast_signed()); 2] }
    }
    #[inline(always)]
    fn load_i(self, row: &[u32; NR]) -> Self::I {
        // SAFETY: both halves lie in the row; the load needs no alignment.
        unsafe { [_mm512_loadu_si512(row.as_ptr().cast()), _mm512_loadu_si512(row.as_ptr().add(16).cast())] }
    }
    #[inline(always)]
    fn load_u8(self, row: &[u8; NR]) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_cvtepu8_epi32(self.bytes(row, 0)), _mm512_cvtepu8_epi32(self.bytes(row, 1))] }
    }
    #[inline(always)]
    fn load_i8(self, row: &[u8; NR]) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_cvtepi8_epi32(self.bytes(row, 0)), _mm512_cvtepi8_epi32(self.bytes(row, 1))] }
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shl(self, a: Self::I, n: u32) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm512_sll_epi32(a[0], n), _mm512_sll_epi32(a[1], n)]
        }
    }
    #[inline(always)]
    fn shr(self, a: Self::I, n: u32) -> Self::I {
        // SAFETY: the token exists, so the features do.
        unsafe {
            let n = _mm_cvtsi32_si128(n.cast_signed());
            [_mm512_srl_epi32(a[0], n), _mm512_srl_epi32(a[1], n)]
        }
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_cvtepi32_ps(a[0]), _mm512_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    fn load_f16(self, row: &[u16; NR]) -> Self::V {
        // SAFETY: both halves lie in the row; the load needs no alignment.
        unsafe {
            [
                _mm512_cvtph_ps(_mm256_loadu_si256(row.as_ptr().cast())),
                _mm512_cvtph_ps(_mm256_loadu_si256(row.as_ptr().add(16).cast())),
            ]
        }
    }
    #[inline(always)]
    fn f16_to_f32(self, a: Self::I) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe {
            [_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a[0])), _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a[1]))]
        }
    }
    #[inline(always)]
    fn dot_bf16(self, a: Self::I, b: Self::I, acc: Self::V) -> Self::V {
        if BF16 {
            // SAFETY: the token exists, so the features do; both types are 512 plain bits.
            return unsafe {
                let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
                [
                    _mm512_dpbf16_ps(acc[0], pairs(a[0]), pairs(b[0])),
                    _mm512_dpbf16_ps(acc[1], pairs(a[1]), pairs(b[1])),
                ]
            };
        }
        // SAFETY: the token exists, so the features do.
        unsafe {
            let low = |x: Self::I| {
                [
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x[0])),
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x[1])),
                ]
            };
            let mask = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            let high = |x: Self::I| {
                [
                    _mm512_castsi512_ps(_mm512_and_si512(x[0], mask)),
                    _mm512_castsi512_ps(_mm512_and_si512(x[1], mask)),
                ]
            };
            self.fma(high(a), high(b), self.fma(low(a), low(b), acc))
        }
    }
}
