//! `2^x` and `e^x` in f32, written so that a loop over them becomes vector code for whatever instruction set
//! the loop is compiled for (see `tile::lanes`): no branch, no table, no call, and no fused multiply-add, so
//! that every instruction set gives the same bits. It knows nothing of softmax or activations.
//!
//! Method: split x into the nearest integer n and a remainder r in [-1/2, 1/2], take `2^r` from a polynomial
//! of degree 6 (Remez on that interval, relative error 1.9e-9 before rounding) and add n to its exponent
//! bits.
//!
//! Contract: relative error below [`MAX_RELATIVE_ERROR`]; exactly 1 at 0; results under `2^-126` are flushed
//! to +0, so that a masked score of -inf weighs exactly nothing; overflow gives +inf; NaN stays NaN.

use std::f32::consts::{LN_2, LOG2_E};

/// The largest relative error against f64, tested over the whole range: the polynomial contributes 2e-9, its
/// evaluation and the reduction in f32 about two roundings of 2^-24.
pub const MAX_RELATIVE_ERROR: f64 = 2.5e-7;

/// Below this exponent the result is flushed to zero: `2^-126` is the smallest normal f32.
const MIN_EXPONENT: f32 = -126.0;
/// From this exponent on the result is infinite.
const MAX_EXPONENT: f32 = 128.0;
/// Adding 1.5·2^23 to a moderate f32 leaves the nearest integer (ties to even) in its low mantissa bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts. The high one has 9 bits, so its products with an exponent are exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients of `2^r`, lowest power first.
const POLYNOMIAL: [f32; 7] =
    [1.0, LN_2, 0.240_226_46, 0.055_503_286, 0.009_618_489, 0.001_339_993_1, 0.000_153_458_12];

/// `2^x`.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let shifted = bounded(x) + ROUND;
    assemble(bounded(x) - (shifted - ROUND), shifted, x)
}

/// `e^x`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let exponent = x * LOG2_E;
    let shifted = bounded(exponent) + ROUND;
    let n = shifted - ROUND;
    // The remainder is taken in units of x: of x·log2(e) it would carry that product's rounding, 5e-6 at |x|
    // = 80.
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    assemble(r * LOG2_E, shifted, exponent)
}

/// `max(x, MIN_EXPONENT)`, in the form that is one instruction; NaN stays.
#[inline(always)]
fn bounded(x: f32) -> f32 {
    if x < MIN_EXPONENT { MIN_EXPONENT } else { x }
}

/// `2^r · 2^n`, n being the low bits of `shifted`, and the special cases by the whole exponent.
#[inline(always)]
fn assemble(r: f32, shifted: f32, exponent: f32) -> f32 {
    // By Estrin's scheme: half as long a chain of dependent operations as Horner's, for one more
    // multiplication.
    let [c0, c1, c2, c3, c4, c5, c6] = POLYNOMIAL;
    let r2 = r * r;
    let p = ((c0 + c1 * r) + (c2 + c3 * r) * r2) + ((c4 + c5 * r) + c6 * r2) * (r2 * r2);
    // Inside the range the sum of the exponents is that of a normal number, so the bits can simply be added.
    let y = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    let y = if exponent < MIN_EXPONENT { 0.0 } else { y };
    // Too large gives infinity, NaN gives NaN.
    if exponent < MAX_EXPONENT { y } else { exponent + f32::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 4093rd bit pattern within ±140 (about 540 thousand values), the ends of the range, the special
    /// values.
    fn inputs() -> Vec<f32> {
        let patterns = (0..u32::MAX).step_by(4093).map(f32::from_bits).filter(|x| x.abs() <= 140.0);
        let ends = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, -126.0, -125.99, -125.5, 127.5, 127.99, -87.33, 88.72];
        let special = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN, 1e-40];
        patterns.chain(ends).chain(special).collect()
    }

    #[track_caller]
    fn check(f: fn(f32) -> f32, truth: fn(f64) -> f64) {
        let mut worst = 0f64;
        for x in inputs() {
            let (y, want) = (f(x), truth(f64::from(x)));
            // Within 1e-5 of either end of the range, flushing or overflowing is as right as a value.
            let (low, high) = (want / f64::from(f32::MIN_POSITIVE), want / f64::from(f32::MAX));
            if x.is_nan() {
                assert!(y.is_nan(), "f(NaN) = {y}");
            } else if low < 1.0 - 1e-5 {
                assert_eq!(y.to_bits(), 0, "f({x}) = {y}: results under 2^-126 are flushed to +0");
            } else if high > 1.0 + 1e-5 {
                assert_eq!(y, f32::INFINITY, "f({x})");
            } else if y == 0.0 {
                assert!(low < 1.0 + 1e-5, "f({x}) flushed");
            } else if y.is_infinite() {
                assert!(high > 1.0 - 1e-5, "f({x}) overflowed");
            } else {
                worst = worst.max((f64::from(y) - want).abs() / want);
            }
        }
        assert!(worst <= MAX_RELATIVE_ERROR, "relative error {worst:e}");
        assert_eq!(f(0.0), 1.0);
    }

    #[test]
    fn powers_of_two_are_within_the_stated_error() {
        check(exp2, f64::exp2);
    }

    #[test]
    fn powers_of_e_are_within_the_stated_error() {
        check(exp, f64::exp);
    }
}
