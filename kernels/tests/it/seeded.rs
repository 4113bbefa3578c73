//! Seeded inputs for the tests: the same values on every machine and in every run.

/// A stream of pseudo-random numbers (splitmix64, Steele, Lea and Flood 2014).
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1, with 24 bits.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

/// The mean squared error of `got` relative to the mean square of `want`.
pub fn nmse(want: &[f32], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let error: f64 = want.iter().zip(got).map(|(w, g)| (f64::from(*w) - f64::from(*g)).powi(2)).sum();
    let signal: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    if error == 0.0 { 0.0 } else { error / signal }
}

pub fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
