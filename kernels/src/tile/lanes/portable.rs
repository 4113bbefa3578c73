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
    type B = [u8; NR];
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
    fn load_f16(self, row: &[u16; NR]) -> Self::V {
        row.map(|x| f16_bits_to_f32(x.into()))
    }
    #[inline(always)]
    fn f16_from_bytes(self, low: Self::B, high: Self::B) -> Self::V {
        from_fn(|i| f16_bits_to_f32(u16::from_le_bytes([low[i], high[i]]).into()))
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> Self::B {
        [x; NR]
    }
    #[inline(always)]
    fn load_b(self, row: &[u8; NR]) -> Self::B {
        *row
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shl(self, a: Self::B, n: u32) -> Self::B {
        a.map(|x| x << n)
    }
    #[inline(always)]
    fn shr(self, a: Self::B, n: u32) -> Self::B {
        a.map(|x| x >> n)
    }
    #[inline(always)]
    fn sub_b(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn u8_to_f32(self, a: Self::B) -> Self::V {
        a.map(f32::from)
    }
    #[inline(always)]
    fn i8_to_f32(self, a: Self::B) -> Self::V {
        a.map(|x| f32::from(x.cast_signed()))
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
