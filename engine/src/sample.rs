//! Logits in, one token out: greedy, or drawn from the truncated softmax. Knows no model and no text; the same seed and
//! the same logits give the same tokens on one machine, whatever else runs.

use std::cmp::Ordering;

use crate::error::EngineError;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The largest logit; of equal ones the lowest id.
    Greedy,
    /// A draw from `softmax(logits / temperature)`, cut to the `top_k` likeliest tokens, then to the fewest of those
    /// that together reach `top_p`.
    Seeded {
        /// Which of 2^64 streams of random numbers is used.
        seed: u64,
        /// Finite and not negative; 0 is greedy.
        temperature: f32,
        /// Tokens left by the first cut; 0 leaves all.
        top_k: u32,
        /// Share of probability left by the second cut, above 0 and at most 1; 1 leaves all.
        top_p: f32,
    },
}

/// Draws the tokens of one call.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// Tokens drawn so far: the counter of the random numbers.
    drawn: u64,
}

impl Sampler {
    /// A sampler at the start of its stream.
    ///
    /// # Errors
    /// [`EngineError::BadSampling`] for a temperature or a `top_p` outside its bounds.
    pub fn new(sampling: Sampling) -> Result<Self, EngineError> {
        if let Sampling::Seeded { temperature, top_p, .. } = sampling {
            if !temperature.is_finite() || temperature < 0.0 {
                let (field, expected) = ("temperature", "a finite number of at least 0");
                return Err(EngineError::BadSampling { field, got: f64::from(temperature), expected });
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                let (field, expected) = ("top_p", "a number above 0 and at most 1");
                return Err(EngineError::BadSampling { field, got: f64::from(top_p), expected });
            }
        }
        Ok(Self { sampling, drawn: 0 })
    }

    /// How tokens are chosen.
    pub const fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Takes `best`, the largest of `vocab` logits, which a device found; the draw that [`Sampler::sample`] would make
    /// of greedy sampling.
    ///
    /// # Errors
    /// [`EngineError::BadLogits`] if the device found none.
    pub fn accept(&mut self, best: u32, vocab: usize) -> Result<u32, EngineError> {
        if best as usize >= vocab {
            return Err(EngineError::BadLogits { detail: format!("none of {vocab} tokens is allowed") });
        }
        self.drawn += 1;
        Ok(best)
    }

    /// The next token, given the logit of every token of the vocabulary. A logit of minus infinity forbids its token.
    ///
    /// # Errors
    /// [`EngineError::BadLogits`] if a logit is not a number or plus infinity, or if no token is allowed.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let best = largest(logits)?;
        let token = match self.sampling {
            Sampling::Seeded { seed, temperature, top_k, top_p } if temperature > 0.0 => {
                let likely = Candidates::cut(logits, logits[best], temperature, top_k, top_p);
                likely.at(uniform(seed, self.drawn))
            }
            _ => best as u32,
        };
        self.drawn += 1;
        Ok(token)
    }
}

/// Index of the largest logit, the first of equal ones.
fn largest(logits: &[f32]) -> Result<usize, EngineError> {
    let mut best: Option<usize> = None;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(EngineError::BadLogits { detail: format!("token {token} has {logit}") });
        }
        if logit > best.map_or(f32::NEG_INFINITY, |best| logits[best]) {
            best = Some(token);
        }
    }
    best.ok_or_else(|| EngineError::BadLogits {
        detail: format!("none of {} tokens is allowed", logits.len()),
    })
}

/// Tokens that may be drawn, with their share of probability not yet divided by its sum.
struct Candidates {
    tokens: Vec<(u32, f64)>,
    sum: f64,
}

impl Candidates {
    /// The tokens that both cuts leave. Without a cut they stay in the order of their ids, else the likeliest come
    /// first; either order is fixed, so the sums and the draw are.
    fn cut(logits: &[f32], best: f32, temperature: f32, top_k: u32, top_p: f32) -> Self {
        let likeliest_first = |a: &(u32, f32), b: &(u32, f32)| {
            b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
        };
        let mut order: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
        let k = top_k as usize;
        if k > 0 && k < order.len() {
            order.select_nth_unstable_by(k - 1, likeliest_first);
            order.truncate(k);
        }
        if k > 0 || top_p < 1.0 {
            order.sort_unstable_by(likeliest_first);
        }
        let weight = |logit: f32| ((f64::from(logit) - f64::from(best)) / f64::from(temperature)).exp();
        let mut tokens: Vec<(u32, f64)> =
            order.into_iter().map(|(token, logit)| (token, weight(logit))).collect();
        let all: f64 = tokens.iter().map(|(_, weight)| weight).sum();
        if top_p >= 1.0 {
            return Self { tokens, sum: all };
        }
        let enough = f64::from(top_p) * all;
        let mut sum = 0.0;
        let mut left = 0;
        while left < tokens.len() && sum < enough {
            sum += tokens[left].1;
            left += 1;
        }
        tokens.truncate(left);
        Self { tokens, sum }
    }

    /// The token at `share` (0 to below 1) of the summed weights.
    fn at(&self, share: f64) -> u32 {
        let mut before = 0.0;
        let mut chosen = 0;
        for &(token, weight) in self.tokens.iter().filter(|(_, weight)| *weight > 0.0) {
            chosen = token;
            before += weight;
            if before > share * self.sum {
                break;
            }
        }
        chosen
    }
}

/// Number `counter` of the stream `seed`, uniform in [0, 1) with 53 bits.
fn uniform(seed: u64, counter: u64) -> f64 {
    (split_mix_64(seed, counter) >> 11) as f64 / (1u64 << 53) as f64
}

/// Output number `counter` (from 0) of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014). Its state advances by a constant, so any output is computed from its number alone.
fn split_mix_64(seed: u64, counter: u64) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(GOLDEN_GAMMA.wrapping_mul(counter.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Candidates, Sampler, Sampling, split_mix_64, uniform};
    use crate::error::EngineError;
    use proptest::prelude::*;

    const PLAIN: Sampling = Sampling::Seeded { seed: 1, temperature: 1.0, top_k: 0, top_p: 1.0 };

    fn seeded(seed: u64, temperature: f32, top_k: u32, top_p: f32) -> Sampler {
        Sampler::new(Sampling::Seeded { seed, temperature, top_k, top_p }).unwrap()
    }

    fn draw(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<u32> {
        (0..n).map(|_| sampler.sample(logits).unwrap()).collect()
    }

    /// Probabilities by the definition: sort everything, cut, cut again, divide.
    fn twin(logits: &[f32], temperature: f32, top_k: u32, top_p: f32) -> Vec<f64> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
        order.truncate(if top_k == 0 { logits.len() } else { top_k as usize });
        let mut weights = vec![0.0; logits.len()];
        order
            .iter()
            .for_each(|&token| weights[token] = (f64::from(logits[token]) / f64::from(temperature)).exp());
        let sum: f64 = weights.iter().sum();
        let mut reached = 0.0;
        for token in order {
            if reached >= f64::from(top_p) {
                weights[token] = 0.0;
            }
            reached += weights[token] / sum;
        }
        let left: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / left).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut greedy = Sampler::new(Sampling::Greedy).unwrap();
        assert_eq!(greedy.sample(&[0.5, 2.0, -1.0, 2.0]).unwrap(), 1);
        assert_eq!(greedy.sample(&[-0.0, 0.0]).unwrap(), 0);
        assert_eq!(greedy.sample(&[f32::NEG_INFINITY, -3.0]).unwrap(), 1);
    }

    #[test]
    fn settings_that_leave_one_token_are_greedy() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        for mut sampler in [
            seeded(3, 0.0, 0, 1.0),
            seeded(3, 1.0, 1, 1.0),
            seeded(3, 1.0, 0, 1e-6),
            seeded(3, 1e-45, 1, 1.0),
        ] {
            assert_eq!(draw(&mut sampler, &logits, 20), [1; 20]);
        }
    }

    #[test]
    fn the_second_cut_stops_when_its_share_is_reached() {
        assert_eq!(draw(&mut seeded(3, 1.0, 0, 0.5), &[0.0, 0.0], 20), [0; 20]);
        let wider = draw(&mut seeded(3, 1.0, 0, 0.51), &[0.0, 0.0], 20);
        assert!(wider.contains(&0) && wider.contains(&1));
    }

    #[test]
    fn a_share_on_a_border_belongs_to_the_next_token_and_rounding_never_leaves_the_list() {
        let candidates = Candidates { tokens: vec![(4, 1.0), (5, 1.0), (6, 0.0)], sum: 2.0 };
        let chosen = [0.0, 0.499, 0.5, 0.999, 1.0].map(|share| candidates.at(share));
        assert_eq!(chosen, [4, 4, 5, 5, 5]);
    }

    #[test]
    fn a_seed_fixes_the_tokens_and_another_seed_gives_others() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
        let tokens = |seed| draw(&mut seeded(seed, 0.8, 40, 0.95), &logits, 64);
        assert_eq!(tokens(11), tokens(11));
        assert_ne!(tokens(11), tokens(12));
    }

    #[test]
    fn forbidden_tokens_are_never_drawn() {
        let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        for mut sampler in [Sampler::new(PLAIN).unwrap(), seeded(5, 100.0, 5, 1.0), seeded(5, 1.0, 0, 0.999)]
        {
            assert!(draw(&mut sampler, &logits, 200).iter().all(|token| [1, 3].contains(token)));
        }
    }

    #[test]
    fn bad_logits_are_named() {
        let wrong: [(&[f32], &str); 4] = [
            (&[], "none of 0 tokens"),
            (&[f32::NEG_INFINITY; 2], "none of 2 tokens"),
            (&[0.0, f32::NAN], "token 1 has NaN"),
            (&[f32::INFINITY, 0.0], "token 0 has inf"),
        ];
        for (logits, said) in wrong {
            for sampling in [Sampling::Greedy, PLAIN] {
                let error = Sampler::new(sampling).unwrap().sample(logits).unwrap_err();
                assert!(
                    matches!(&error, EngineError::BadLogits { detail } if detail.contains(said)),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn settings_that_describe_no_distribution_are_refused() {
        let wrong =
            [(-1.0, 1.0), (f32::NAN, 1.0), (f32::INFINITY, 1.0), (1.0, 0.0), (1.0, 1.1), (1.0, f32::NAN)];
        for (temperature, top_p) in wrong {
            let refused = Sampler::new(Sampling::Seeded { seed: 0, temperature, top_k: 0, top_p });
            assert!(matches!(refused, Err(EngineError::BadSampling { .. })), "{temperature} {top_p}");
        }
    }

    #[test]
    fn the_random_numbers_are_the_published_ones() {
        let first: Vec<u64> = (0..3).map(|counter| split_mix_64(0, counter)).collect();
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
        assert!((0..1000).map(|counter| uniform(9, counter)).all(|share| (0.0..1.0).contains(&share)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// 4000 draws: each frequency within five standard deviations of the definition (and eight draws, where the
        /// bell curve is none), and not one where it is zero.
        #[test]
        fn frequencies_are_those_of_the_definition(
            logits in prop::collection::vec(-3.0f32..3.0, 1..12),
            seed in any::<u64>(),
            temperature in 0.2f32..3.0,
            top_k in 0u32..14,
            top_p in 0.05f32..=1.0,
        ) {
            let n = 4000;
            let tokens = draw(&mut seeded(seed, temperature, top_k, top_p), &logits, n);
            for (token, p) in twin(&logits, temperature, top_k, top_p).into_iter().enumerate() {
                let seen = tokens.iter().filter(|&&drawn| drawn as usize == token).count() as f64;
                let slack = if p > 0.0 { 5.0 * (n as f64 * p * (1.0 - p)).sqrt() + 8.0 } else { 0.0 };
                prop_assert!((seen - n as f64 * p).abs() <= slack, "token {token}: {seen} of {n}, expected share {p}");
            }
        }
    }
}
