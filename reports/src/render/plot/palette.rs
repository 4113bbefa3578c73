//! Colours: one per arm, stage and fate of a token, the same in every plot and page. From the Okabe-Ito set, which stays
//! apart under the common kinds of colour blindness; pairs that meet in a plot also differ in lightness.

use plotters::style::RGBColor;

/// Titles and labels.
pub(crate) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Axis labels and remarks.
pub(crate) const MUTED: RGBColor = RGBColor(0x65, 0x6D, 0x76);
/// Grid lines.
pub(crate) const RULE: RGBColor = RGBColor(0xE4, 0xE7, 0xEB);
/// Axes and separators.
pub(crate) const AXIS: RGBColor = RGBColor(0xAE, 0xB6, 0xBF);
/// Background.
pub(crate) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
/// Calls that failed.
pub(crate) const ALARM: RGBColor = RGBColor(0xC6, 0x28, 0x28);

/// Lines that share a panel, dark enough to stand before any arm's tint.
pub(crate) const LINES: [RGBColor; 3] = [INK, RGBColor(0x00, 0x5A, 0x9C), RGBColor(0x8B, 0x1E, 0x3F)];

/// Tokens that compression removed.
pub(crate) const REMOVED: RGBColor = RGBColor(0xE3, 0xD5, 0xB8);
/// Tokens that were reused.
pub(crate) const PREFIX_HIT: RGBColor = RGBColor(0x7F, 0xC8, 0xB2);
/// Tokens that went through the target.
pub(crate) const PREFILLED: RGBColor = RGBColor(0x00, 0x5A, 0x9C);

/// Arms with a colour of their own, so that it is the same in every run.
const NAMED: [(&str, RGBColor); 6] = [
    ("cold", RGBColor(0x7A, 0x82, 0x8C)),
    ("warm", RGBColor(0xE6, 0x9F, 0x00)),
    ("cache-only", RGBColor(0x00, 0x72, 0xB2)),
    ("cache+compression", RGBColor(0x00, 0x9E, 0x73)),
    ("cache+rescore", RGBColor(0xD5, 0x5E, 0x00)),
    ("freeze-only", RGBColor(0xCC, 0x79, 0xA7)),
];

/// Colours of other arms, in run order.
const OTHERS: [RGBColor; 6] = [
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x6A, 0x3D, 0x9A),
    RGBColor(0xA6, 0x76, 0x1D),
    RGBColor(0x8B, 0x1E, 0x3F),
    RGBColor(0x4D, 0x9D, 0x2A),
    RGBColor(0xB5, 0xA3, 0x00),
];

/// One colour per arm, in run order.
pub(crate) fn arms<'a>(names: impl Iterator<Item = &'a str>) -> Vec<RGBColor> {
    let mut n_others = 0;
    let color = |name: &str| {
        if let Some((_, color)) = NAMED.iter().find(|(known, _)| *known == name) {
            return *color;
        }
        n_others += 1;
        OTHERS[(n_others - 1) % OTHERS.len()]
    };
    names.map(color).collect()
}

/// Colour of a stage of TTFT, by what it serves: waiting pink, text grey, weights red, compression yellow, cache green, target blue.
pub(crate) fn stage(name: &str) -> RGBColor {
    match name {
        "blocked" => RGBColor(0xCC, 0x79, 0xA7),
        "render" => RGBColor(0xC3, 0xC9, 0xD1),
        "tokenize" => RGBColor(0x8E, 0x98, 0xA4),
        "target_park" => RGBColor(0xF2, 0xB5, 0xA0),
        "drafter_load" => RGBColor(0xD5, 0x5E, 0x00),
        "target_load" => RGBColor(0x93, 0x35, 0x0B),
        "score" => RGBColor(0xE6, 0x9F, 0x00),
        "select" => RGBColor(0xF0, 0xD8, 0x6A),
        "lookup" => RGBColor(0x9A, 0xD9, 0xC3),
        "restore" => RGBColor(0x00, 0x9E, 0x73),
        "prefill" => RGBColor(0x00, 0x72, 0xB2),
        "first_token" => RGBColor(0x56, 0xB4, 0xE9),
        _ => RGBColor(0x4A, 0x50, 0x58),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_of_a_run_differ_in_colour_and_known_ones_keep_theirs() {
        let names = [
            "cold",
            "mine",
            "warm",
            "cache-only",
            "elide",
            "cache+compression",
            "cache+rescore",
            "freeze-only",
        ];
        let colors = arms(names.into_iter());
        for (i, color) in colors.iter().enumerate() {
            assert!(!colors[..i].contains(color), "{} repeats a colour", names[i]);
        }
        assert_eq!(arms(["cache-only"].into_iter()), [colors[3]]);
    }

    #[test]
    fn stages_differ_in_colour() {
        let stages = crate::record::SpansMs::default().named().map(|(name, _)| stage(name));
        for (i, color) in stages.iter().enumerate() {
            assert!(!stages[..i].contains(color));
        }
    }
}
