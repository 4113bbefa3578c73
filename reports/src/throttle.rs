//! Why a board holds its clocks down: NVML's bits, the words for them, and which of them mean that it ran slower than it can.
//! Pure; knows no sample and no report. Source of the bits: `nvmlClocksThrottleReason*` of nvml.h.

/// A reason and its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Bit of NVML's mask.
    pub bit: u64,
    /// The word in `telemetry.csv` and in reports.
    pub word: &'static str,
    /// What it says about the board.
    pub kind: Kind,
}

/// What a reason says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Power or temperature slow the board down: times measured then are those of a slower board.
    Slowed,
    /// The clocks are where work or settings put them.
    Chosen,
}

/// Every reason that NVML names, in the order of its bits.
pub const REASONS: [Reason; 9] = [
    reason(0x1, "gpu_idle", Kind::Chosen),
    reason(0x2, "applications_clocks", Kind::Chosen),
    reason(0x4, "sw_power_cap", Kind::Slowed),
    reason(0x8, "hw_slowdown", Kind::Slowed),
    reason(0x10, "sync_boost", Kind::Chosen),
    reason(0x20, "sw_thermal", Kind::Slowed),
    reason(0x40, "hw_thermal", Kind::Slowed),
    reason(0x80, "hw_power_brake", Kind::Slowed),
    reason(0x100, "display_clock", Kind::Chosen),
];

const fn reason(bit: u64, word: &'static str, kind: Kind) -> Reason {
    Reason { bit, word, kind }
}

/// The reasons of a mask as words joined by `+`: `none` for an empty one, unknown bits in hexadecimal.
pub fn words(mask: u64) -> String {
    let mut words: Vec<String> =
        REASONS.iter().filter(|reason| mask & reason.bit != 0).map(|reason| reason.word.to_owned()).collect();
    let unknown = REASONS.iter().fold(mask, |left, reason| left & !reason.bit);
    if unknown != 0 {
        words.push(format!("{unknown:#x}"));
    }
    if words.is_empty() { "none".to_owned() } else { words.join("+") }
}

/// The reasons of a mask by which power or temperature slow the board down.
pub fn slowed(mask: u64) -> impl Iterator<Item = &'static Reason> {
    REASONS.iter().filter(move |reason| reason.kind == Kind::Slowed && mask & reason.bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_read_as_words() {
        assert_eq!(words(0), "none");
        assert_eq!(words(0x24), "sw_power_cap+sw_thermal");
        assert_eq!(words(0x401), "gpu_idle+0x400");
    }

    #[test]
    fn idling_and_chosen_clocks_slow_nothing() {
        assert_eq!(slowed(0x1 | 0x2 | 0x10 | 0x100).count(), 0);
        let words: Vec<_> = slowed(u64::MAX).map(|reason| reason.word).collect();
        assert_eq!(words, ["sw_power_cap", "hw_slowdown", "sw_thermal", "hw_thermal", "hw_power_brake"]);
    }
}
