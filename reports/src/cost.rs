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

    /// Tokens of the smallest tool message whose compression at birth pays, alone in its batch and prefilled once:
    /// `batch + score · m + prefill · kept(m) < prefill · m`. Attention is left out, so a long context can only make it
    /// smaller. `None` where no size pays.
    pub fn pays_from_tokens(&self, kept: Kept) -> Option<f64> {
        let gain_ms = self.prefill_ms * (1.0 - kept.ratio) - self.score_ms;
        let fixed_ms = self.batch_ms + self.prefill_ms * kept.marker_tokens;
        let tokens = fixed_ms / gain_ms;
        (gain_ms > 0.0 && tokens.is_finite()).then_some(tokens)
    }

    /// The largest kept share at which compression of a message of `tokens` still pays:
    /// `c < 1 - score / prefill - batch / (prefill · m)`. `None` where it never does.
    pub fn keep_ratio_max(&self, tokens: f64) -> Option<f64> {
        let ratio = 1.0 - self.score_ms / self.prefill_ms - self.batch_ms / (self.prefill_ms * tokens);
        (ratio > 0.0 && ratio <= 1.0).then_some(ratio)
    }
}

/// `(held + new)² - held²`: positions that attention of `new` tokens after `held` looks at, twice.
pub fn attention_pairs(held: f64, new: f64) -> f64 {
    new * (2.0 * held + new)
}

#[cfg(test)]
mod tests {
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
        let with = |batch_ms| Costs { batch_ms, score_ms: 0.11, ..CARD }.pays_from_tokens(kept).unwrap();
        assert!((with(3_750.0) / 3_600.0 - 1.0).abs() < 0.02, "{}", with(3_750.0));
        assert!((with(8_200.0) / 7_800.0 - 1.0).abs() < 0.02, "{}", with(8_200.0));
        assert_eq!(with(0.0), 0.0);
    }

    #[test]
    fn the_keep_ratio_that_pays_falls_with_the_drafter_and_the_batch() {
        let ratio = |score_share: f64, batch_ms| {
            Costs { score_ms: score_share * CARD.prefill_ms, batch_ms, ..CARD }.keep_ratio_max(2_200.0)
        };
        assert!(
            (ratio(0.09, 0.0).unwrap() - 0.91).abs() < 1e-9
                && (ratio(0.02, 0.0).unwrap() - 0.98).abs() < 1e-9
        );
        assert_eq!(ratio(0.09, 3_750.0), None);
        assert_eq!(Costs { prefill_ms: 0.0, ..CARD }.keep_ratio_max(10.0), None);
    }

    #[test]
    fn a_drafter_as_dear_as_the_target_never_pays() {
        let kept = Kept { ratio: 0.25, marker_tokens: 0.0 };
        assert_eq!(Costs { score_ms: 0.95, ..CARD }.pays_from_tokens(kept), None);
        assert_eq!(Costs { score_ms: 1.23 * 0.75, ..CARD }.pays_from_tokens(kept), None);
    }

    #[test]
    fn compression_never_makes_a_message_longer_and_scoring_nothing_costs_nothing() {
        let kept = Kept { ratio: 0.25, marker_tokens: 17.0 };
        assert_eq!((kept.of(400.0), kept.of(10.0)), (117.0, 10.0));
        assert_eq!((CARD.score(0.0), CARD.score(1.0)), (0.0, 3_750.0));
    }
}
