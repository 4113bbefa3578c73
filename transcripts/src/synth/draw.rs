//! Seeded draws: one stream of random numbers, and the choices made from it. The same seed gives the same stream on every
//! machine and in every version, because generated sessions are named by their seed. Knows no session.

use std::ops::RangeInclusive;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter and a mixing function.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`; 0 for `n` = 0. Biased by less than `n / 2^64`.
    pub const fn below(&mut self, n: usize) -> usize {
        ((self.next() as u128 * n as u128) >> 64) as usize
    }

    /// A number of the range; its start if it is empty.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let (start, end) = range.into_inner();
        start + self.below(end.saturating_sub(start) + 1)
    }

    /// A number in `[0, 1)`.
    pub const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True once in `n` draws.
    pub const fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`, which must not be empty.
    pub const fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}
