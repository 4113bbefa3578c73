//! [`Lanes`] in plain Rust, for machines without AVX2 and as the twin the others are tested against.

use std::array::from_fn;

use super::{Lanes, NR};

/// The token of plain Rust.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable(());

impl Portable {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Lanes for Portable {
    type V = [f32; NR];
    type I = [u32; NR];
    const MAX_ROWS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; NR]
    }
    #[inline(always)]
    fn load(self, row: &[f32; NR]) -> Self::V {
        *row
    }
    #[inline(always)]
    fn store(self, v: Self::V, row: &mut [f32; NR]) {
        *row = v;
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn splat_i(self, x: u32) -> Self::I {
        [x; NR]
    }
    #[inline(always)]
    fn load_i(self, row: &[u32; NR]) -> Self::I {
        *row
    }
    #[inline(always)]
    fn load_u8(self, row: &[u8; NR]) -> Self::I {
        row.map(u32::from)
    }
    #[inline(always)]
    fn load_i8(self, row: &[u8; NR]) -> Self::I {
        row.map(|x| i32::from(x.cast_signed()).cast_unsigned())
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shl(self, a: Self::I, n: u32) -> Self::I {
        a.map(|x| x << n)
    }
    #[inline(always)]
    fn shr(self, a: Self::I, n: u32) -> Self::I {
        a.map(|x| x >> n)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::V {
        a.map(|x| x.cast_signed() as f32)
    }
    #[inline(always)]
    fn load_f16(self, row: &[u16; NR]) -> Self::V {
        row.map(|x| f16_bits_to_f32(x.into()))
    }
    #[inline(always)]
    fn f16_to_f32(self, a: Self::I) -> Self::V {
        a.map(f16_bits_to_f32)
    }
    #[inline(always)]
    fn dot_bf16(self, a: Self::I, b: Self::I, acc: Self::V) -> Self::V {
        let low = |x: u32| f32::from_bits(x << 16);
        let high = |x: u32| f32::from_bits(x & 0xffff_0000);
        from_fn(|i| high(a[i]) * high(b[i]) + (low(a[i]) * low(b[i]) + acc[i]))
    }
}

/// The f32 of half-precision bits, exactly, without branches so that it vectorises. Shifting the exponent and
/// mantissa into place and multiplying by 2^-112 rebiases normal values, infinities and NaN; subnormals are built
/// as `0.5 + m · 2^-24` and the half taken away (the conversion of Maratyszcza's FP16 library).
#[inline(always)]
fn f16_bits_to_f32(bits: u32) -> f32 {
    let shifted = bits << 16;
    let sign = shifted & 0x8000_0000;
    let magnitude = shifted.wrapping_add(shifted);
    let normal = f32::from_bits((magnitude >> 4).wrapping_add(0xe0 << 23)) * f32::from_bits(0x0780_0000);
    let subnormal = f32::from_bits((magnitude >> 17) | (126 << 23)) - 0.5;
    let value = if magnitude < 1 << 27 { subnormal } else { normal };
    f32::from_bits(sign | value.to_bits())
}
