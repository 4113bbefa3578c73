//! What an op must at least do: bytes to move and arithmetic to perform, counted from its shapes. It knows nothing
//! of how the op is written, so that time over cost says how good the writing is.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Bytes an op must read and write once, and the floating-point operations it must do (a multiply-add is two).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Cost {
    /// The least time, in milliseconds, on a machine that computes `gflops` and reads `gb_s`: the longer of
    /// computing and moving, as if the two overlapped perfectly (the roofline of Williams, Waterman and Patterson,
    /// CACM 2009).
    pub fn roofline_ms(self, gflops: f64, gb_s: f64) -> f64 {
        (self.flops as f64 / (gflops * 1e6)).max(self.bytes as f64 / (gb_s * 1e6))
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, flops: self.flops + other.flops }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roofline_is_the_slower_of_computing_and_moving() {
        let cost = Cost { bytes: 40_000_000, flops: 1_000_000_000 };
        assert_eq!(cost.roofline_ms(500.0, 40.0), 2.0);
        assert_eq!(cost.roofline_ms(500.0, 5.0), 8.0);
    }

    #[test]
    fn costs_add_up() {
        let costs = [Cost { bytes: 1, flops: 2 }, Cost { bytes: 10, flops: 20 }];
        assert_eq!(costs.into_iter().sum::<Cost>(), Cost { bytes: 11, flops: 22 });
    }
}
