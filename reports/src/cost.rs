//! What a call costs by its token counts: the formulas that a run is fitted with and that a forecast is made of. Knows no
//! record, no session and no arm; milliseconds and tokens in, milliseconds and tokens out.

use serde::Serialize;

/// Coefficients of the time to first token:
/// `prefill · k + attention · ((x + k)² - x²) + score · scored + batch · [scored > 0] + call + lookup · [x > 0]` for `k` tokens
/// prefilled after `x` that the cache held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Costs {
    /// Target prefill, ms per token: everything in it that does not grow with the context.
    pub prefill_ms: f64,
    /// Target attention, ms per token²: `(x + k)² - x²` of them for `k` tokens after `x`.
    pub attention_ms: f64,
    /// Drafter, ms per token scored.
    pub score_ms: f64,
    /// A call that scores anything, ms more: parking, loading and reloading weights.
    pub batch_ms: f64,
    /// Every call, ms: what has no part above.
    pub call_ms: f64,
    /// A call that reuses a prefix, ms more: lookup and restore.
    pub lookup_ms: f64,
}

/// What compression leaves of a tool message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Share of its tokens.
    pub ratio: f64,
    /// Tokens added to what is kept: the marker that stands for what is not.
    pub marker_tokens: f64,
}

impl Kept {
    /// Tokens of a message of `tokens` after compression, never more than before.
    pub fn of(self, tokens: f64) -> f64 {
        (self.ratio * tokens + self.marker_tokens).min(tokens)
    }
}

impl Costs {
    /// Target prefill of `new` tokens after `held` that are there already, ms.
    pub fn prefill(&self, held: f64, new: f64) -> f64 {
        self.prefill_ms * new + self.attention_ms * attention_pairs(held, new)
    }

    /// Drafter scoring of `tokens` in one batch, ms; nothing where there is nothing to score.
    pub fn score(&self, tokens: f64) -> f64 {
        if tokens > 0.0 { self.batch_ms + self.score_ms * tokens } else { 0.0 }
    }

    /// Tokens of the smallest tool message whose compression at birth pays, alone in its batch and prefilled once, after `held`
    /// tokens: `batch + score · m + prefill(held, kept(m)) < prefill(held, m)`. What later calls save, which attend to less, is
    /// left out. `None` where no size pays.
    pub fn pays_from_tokens(&self, kept: Kept, held: f64) -> Option<f64> {
        let Kept { ratio, marker_tokens } = kept;
        // The gain over m tokens is square · m² + rate · m - fixed; `token` is what one costs by itself behind `held`.
        let token_ms = self.prefill_ms + 2.0 * self.attention_ms * held;
        let square = self.attention_ms * (1.0 - ratio * ratio);
        let rate = token_ms * (1.0 - ratio) - 2.0 * self.attention_ms * ratio * marker_tokens - self.score_ms;
        let fixed = self.batch_ms + token_ms * marker_tokens + self.attention_ms * marker_tokens.powi(2);
        largest_root(square, rate, fixed)
    }

    /// The largest kept share at which compression of a message of `tokens` after `held` still pays, without a marker. `None`
    /// where it never does.
    pub fn keep_ratio_max(&self, tokens: f64, held: f64) -> Option<f64> {
        let token_ms = self.prefill_ms + 2.0 * self.attention_ms * held;
        let square = self.attention_ms * tokens * tokens;
        // What is left to spend on the kept part: what the whole message would cost, less its scoring.
        let left = square + (token_ms - self.score_ms) * tokens - self.batch_ms;
        largest_root(square, token_ms * tokens, left).filter(|&ratio| ratio > 0.0 && ratio <= 1.0)
    }
}

/// The largest `x >= 0` with `square · x² + rate · x = total`, for a square that is not below 0; `None` where there is none, and
/// where the left side does not grow.
fn largest_root(square: f64, rate: f64, total: f64) -> Option<f64> {
    let root = if square > 0.0 {
        let discriminant = rate * rate + 4.0 * square * total;
        // Of the two forms of the root the one that subtracts nothing of its own size.
        let half = if rate > 0.0 {
            2.0 * total / (rate + discriminant.sqrt())
        } else {
            (discriminant.sqrt() - rate) / (2.0 * square)
        };
        Some(half)
    } else {
        (rate > 0.0).then(|| total / rate)
    };
    root.filter(|x| x.is_finite() && *x >= 0.0)
}

/// `(held + new)² - held²`: positions that attention of `new` tokens after `held` looks at, twice.
pub fn attention_pairs(held: f64, new: f64) -> f64 {
    new * (2.0 * held + new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An RTX 3090 with a 27B target, coefficients of a published table.
    const CARD: Costs = Costs {
        prefill_ms: 1.23,
        attention_ms: 9.97e-6,
        score_ms: 0.0,
        batch_ms: 3_750.0,
        call_ms: 0.0,
        lookup_ms: 0.0,
    };

    #[test]
    fn prefill_in_pieces_costs_what_it_costs_at_once() {
        let pieces =
            CARD.prefill(0.0, 1_000.0) + CARD.prefill(1_000.0, 500.0) + CARD.prefill(1_500.0, 8_500.0);
        assert!((pieces - CARD.prefill(0.0, 10_000.0)).abs() < 1e-6);
        assert!((CARD.prefill(0.0, 10_000.0) - (12_300.0 + 997.0)).abs() < 1e-9);
    }

    #[test]
    fn break_even_sizes_are_the_published_ones() {
        // With c = 0.05 and s/a = 9 %, 3.75 s of loading need messages over about 3.6K tokens, 8.2 s over about 7.8K.
        let kept = Kept { ratio: 0.05, marker_tokens: 0.0 };
        let with = |batch_ms| {
            Costs { batch_ms, score_ms: 0.11, attention_ms: 0.0, ..CARD }.pays_from_tokens(kept, 0.0).unwrap()
        };
        assert!((with(3_750.0) / 3_600.0 - 1.0).abs() < 0.02, "{}", with(3_750.0));
        assert!((with(8_200.0) / 7_800.0 - 1.0).abs() < 0.02, "{}", with(8_200.0));
        assert_eq!(with(0.0), 0.0);
    }

    #[test]
    fn the_keep_ratio_that_pays_falls_with_the_drafter_and_the_batch() {
        let ratio = |score_share: f64, batch_ms| {
            Costs { score_ms: score_share * CARD.prefill_ms, batch_ms, attention_ms: 0.0, ..CARD }
                .keep_ratio_max(2_200.0, 0.0)
        };
        assert!(
            (ratio(0.09, 0.0).unwrap() - 0.91).abs() < 1e-9
                && (ratio(0.02, 0.0).unwrap() - 0.98).abs() < 1e-9
        );
        assert_eq!(ratio(0.09, 3_750.0), None);
        assert_eq!(Costs { prefill_ms: 0.0, attention_ms: 0.0, ..CARD }.keep_ratio_max(10.0, 0.0), None);
    }

    #[test]
    fn a_drafter_as_dear_as_the_target_never_pays() {
        let kept = Kept { ratio: 0.25, marker_tokens: 0.0 };
        let pays = |score_ms, attention_ms, held| {
            Costs { score_ms, attention_ms, ..CARD }.pays_from_tokens(kept, held)
        };
        assert_eq!(pays(0.95, 0.0, 0.0), None);
        assert_eq!(pays(1.23 * 0.75, 0.0, 9e9), None);
        // But for attention: a token removed is one that the rest need not look at.
        let (alone, behind) = (pays(0.95, 1e-5, 0.0).unwrap(), pays(0.95, 1e-5, 9_000.0).unwrap());
        assert!(behind > 0.0 && behind < alone, "{behind} behind 9,000 tokens, {alone} alone");
    }

    #[test]
    fn compression_never_makes_a_message_longer_and_scoring_nothing_costs_nothing() {
        let kept = Kept { ratio: 0.25, marker_tokens: 17.0 };
        assert_eq!((kept.of(400.0), kept.of(10.0)), (117.0, 10.0));
        assert_eq!((CARD.score(0.0), CARD.score(1.0)), (0.0, 3_750.0));
    }

    proptest! {
        /// The slow twin: what both sides cost, one token below and one above the size named, and at shares beside the one.
        #[test]
        fn break_even_is_where_the_two_sides_cost_the_same(
            score_ms in 0.0_f64..2.0,
            attention_ms in prop_oneof![Just(0.0), 1e-7_f64..1e-4],
            batch_ms in 0.0_f64..5e3,
            held in 0.0_f64..5e4,
            ratio in 0.01_f64..0.99,
            marker_tokens in 0.0_f64..40.0,
        ) {
            let costs = Costs { prefill_ms: 1.0, attention_ms, score_ms, batch_ms, ..Costs::default() };
            let gain = |m: f64, ratio: f64, marker: f64| {
                costs.prefill(held, m) - costs.batch_ms - costs.score_ms * m - costs.prefill(held, ratio * m + marker)
            };
            match costs.pays_from_tokens(Kept { ratio, marker_tokens }, held) {
                Some(m) => {
                    prop_assert!(gain(1.001 * m + 1e-3, ratio, marker_tokens) > 0.0, "{} pays", m);
                    prop_assert!(gain(0.999 * m - 1e-3, ratio, marker_tokens) < 0.0 || m < 1e-3, "below {}", m);
                }
                None => prop_assert!([1.0, 1e3, 1e6].iter().all(|&m| gain(m, ratio, marker_tokens) <= 0.0)),
            }
            match costs.keep_ratio_max(3_000.0, held) {
                Some(most) => {
                    prop_assert!(gain(3_000.0, 0.999 * most, 0.0) > 0.0 && gain(3_000.0, 1.001 * most, 0.0) < 0.0);
                }
                None => prop_assert!(gain(3_000.0, 1e-9, 0.0) <= 1e-3),
            }
        }
    }
}
