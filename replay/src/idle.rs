//! The time between two calls of a session: what the recording says of it, and what was prefilled in it. Pure; knows no
//! backend at work, no record and no clock.

use std::time::Duration;

use crate::backend::Backfill;

/// What lies between the turn before and a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// The recorded gap: the tools and the person. `None` where the recording does not say.
    pub gap: Option<Duration>,
    /// What was prefilled; `None` if there was nothing to do.
    pub backfill: Option<Backfill>,
}

impl Idle {
    /// What the call waits for: the part of the backfill that the gap does not hide, all of it where no gap is recorded.
    /// `None` without a backfill.
    pub fn blocked(&self) -> Option<Duration> {
        self.backfill.map(|backfill| backfill.time.saturating_sub(self.gap.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_hides_as_much_as_fits_into_it() {
        let ms = Duration::from_millis;
        let blocked = |time, gap: Option<u64>| {
            Idle { gap: gap.map(ms), backfill: Some(Backfill { tokens: 1, time: ms(time) }) }.blocked()
        };
        assert_eq!(blocked(5, Some(3)), Some(ms(2)));
        assert_eq!(blocked(5, Some(5)), Some(ms(0)));
        assert_eq!(blocked(5, Some(9)), Some(ms(0)));
        assert_eq!(blocked(5, None), Some(ms(5)));
        assert_eq!(Idle { gap: Some(ms(3)), backfill: None }.blocked(), None);
    }
}
