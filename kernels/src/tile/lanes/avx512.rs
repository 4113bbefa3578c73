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

impl<const BF16: bool> Lanes for Avx512<BF16> {
    type V = [__m512; 2];
    type B = __m256i;
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
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_mul_ps(a[0], b[0]), _mm512_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe { [_mm512_sub_ps(a[0], b[0]), _mm512_sub_ps(a[1], b[1])] }
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
    fn f16_from_bytes(self, low: Self::B, high: Self::B) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe {
            let high = _mm512_slli_epi16::<8>(_mm512_cvtepu8_epi16(high));
            let bits = _mm512_or_si512(_mm512_cvtepu8_epi16(low), high);
            let halves = [_mm512_castsi512_si256(bits), _mm512_extracti64x4_epi64::<1>(bits)];
            [_mm512_cvtph_ps(halves[0]), _mm512_cvtph_ps(halves[1])]
        }
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
        unsafe {
            let halves = [_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)];
            halves.map(|half| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(half)))
        }
    }
    #[inline(always)]
    fn i8_to_f32(self, a: Self::B) -> Self::V {
        // SAFETY: the token exists, so the features do.
        unsafe {
            let halves = [_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)];
            halves.map(|half| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(half)))
        }
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
