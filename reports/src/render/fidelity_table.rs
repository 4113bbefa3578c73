//! Tables of fidelity, as finished text. Knows no markup.

use super::table::{Align, Cell, Table, plain};
use crate::number::{MISSING, count, kept_share, measured};
use crate::report::{Difference, Fidelity, Measure, Report, Tone, side_of_zero};
use crate::stats::ClusteredMean;

/// How to read [`distances`].
pub const DISTANCES_REMARK: &str = "The prompt as sent against the prompt as recorded, teacher-forced over the recorded turn: KL in \
     nats, its mean and 95th percentile over the positions of a turn, and at the first token; same top token: share of positions \
     with the same likeliest token. Means over calls; in brackets the 95 % bootstrap interval over sessions, none for one session. cold is the null \
     control: 0, 0, 0 and 100 %.";
/// How to read [`calls`].
pub const CALLS_REMARK: &str = "Shares of calls, in percent. As cold: the generated tool calls are those of cold for the same \
     session, call and repeat, where cold calls a tool: by name; with the same arguments, paths and blanks of commands normalised; \
     exactly. As recorded: they are the recorded ones exactly. Needed: words of the recorded arguments that tool outputs held; \
     the share that the prompt as sent still holds, and the calls that lost one. In brackets the 95 % bootstrap interval over \
     sessions, none for one session.";
/// How to read [`to_cold`] and [`to_controls`].
pub const DIFFERENCES_REMARK: &str = "Paired differences, call by call, with the 95 % bootstrap interval over sessions (none for \
     one session); shares in percentage points. Coloured where the interval leaves 0 out.";

/// Measures of distance with their headings.
const DISTANCES: [(Measure, &str); 4] = [
    (Measure::KlMean, "KL mean"),
    (Measure::KlP95, "KL p95"),
    (Measure::KlFirst, "KL first token"),
    (Measure::Argmax, "same top token, %"),
];
/// Measures of what is called and sent with their headings.
const CALLS: [(Measure, &str); 7] = [
    (Measure::ColdName, "as cold: name"),
    (Measure::ColdNormalised, "normalised"),
    (Measure::ColdExact, "exact"),
    (Measure::Recorded, "as recorded"),
    (Measure::Needles, "needed words kept"),
    (Measure::Elided, "calls that lost one"),
    (Measure::Valid, "valid"),
];
/// Measures that a drafter is held against its controls by.
const JUDGED: [(Measure, &str); 5] = [
    (Measure::KlMean, "KL mean"),
    (Measure::ColdNormalised, "as cold, normalised"),
    (Measure::Recorded, "as recorded"),
    (Measure::Needles, "needed words kept"),
    (Measure::Valid, "valid"),
];
/// Measures that a terminal has room for.
const BRIEF: [(Measure, &str); 4] = [
    (Measure::KlMean, "KL mean"),
    (Measure::Argmax, "same top token, %"),
    (Measure::ColdNormalised, "calls as cold, %"),
    (Measure::Recorded, "as recorded, %"),
];

/// Distances between distributions, one row per arm.
pub fn distances(report: &Report) -> Table {
    report.fidelity.as_ref().map(|fidelity| rows(fidelity, &DISTANCES)).unwrap_or_default()
}

/// What the generated calls are and what the prompts still held, one row per arm.
pub fn calls(report: &Report) -> Table {
    report.fidelity.as_ref().map(|fidelity| rows(fidelity, &CALLS)).unwrap_or_default()
}

/// What fits a terminal, where distances were measured.
pub fn brief(report: &Report) -> Table {
    let measured = report.fidelity.as_ref().filter(|fidelity| fidelity.has_distances());
    measured.map(|fidelity| rows(fidelity, &BRIEF)).unwrap_or_default()
}

/// One row per arm; columns that no arm can fill are left out.
fn rows(fidelity: &Fidelity, columns: &[(Measure, &str)]) -> Table {
    let is_filled = |measure| fidelity.rows.iter().any(|row| row.measured.contains_key(&measure));
    let mut table = Table::default();
    if !columns.iter().any(|(measure, _)| is_filled(*measure)) {
        return table;
    }
    table.push_column("arm", fidelity.rows.iter().map(|row| plain(&row.arm)).collect());
    for (measure, title) in columns.iter().filter(|(measure, _)| is_filled(*measure)) {
        let cell = |mean: Option<&ClusteredMean>| plain(with_interval(*measure, mean, "–"));
        table.push_column(title, fidelity.rows.iter().map(|row| cell(row.measured.get(measure))).collect());
    }
    table
}

/// What `cold` does not have by itself, one row per other arm.
pub fn to_cold(report: &Report) -> Table {
    let mut table = Table::new(&["arm less cold", "calls as recorded", "valid"]);
    for row in report.fidelity.iter().flat_map(|fidelity| &fidelity.to_cold) {
        let mut cells = vec![plain(&row.arm)];
        cells.extend([Measure::Recorded, Measure::Valid].map(|measure| difference(row, measure)));
        table.rows.push(cells);
    }
    table
}

/// Drafters less their controls at the same budget.
pub fn to_controls(report: &Report) -> Table {
    let mut titles = vec!["kept", "arm", "less"];
    titles.extend(JUDGED.map(|(_, title)| title));
    let mut table = Table::new(&titles);
    table.columns[1].align = Align::Left;
    table.columns[2].align = Align::Left;
    for row in report.fidelity.iter().flat_map(|fidelity| &fidelity.to_controls) {
        let kept = row.keep_permille.map_or_else(|| MISSING.to_owned(), kept_share);
        let mut cells = vec![plain(kept), plain(&row.arm), plain(&row.against)];
        cells.extend(JUDGED.map(|(measure, _)| difference(row, measure)));
        table.rows.push(cells);
    }
    table
}

fn difference(row: &Difference, measure: Measure) -> Cell {
    let mean = row.measured.get(&measure);
    let tone = mean.and_then(|mean| side_of_zero(measure, mean)).unwrap_or(Tone::Neutral);
    let sign = if mean.is_some_and(|mean| mean.mean > 0.0) { "+" } else { "" };
    Cell { text: format!("{sign}{}", with_interval(measure, mean, " to ")), tone }
}

/// `0.12 (0.08–0.19)`, `92.5 (85–98)`: nats as they are, shares in percent, the ends of their intervals in whole ones.
fn with_interval(measure: Measure, mean: Option<&ClusteredMean>, between: &str) -> String {
    let is_nats = matches!(measure, Measure::KlMean | Measure::KlP95 | Measure::KlFirst);
    let number: fn(f64) -> String = if is_nats { nats } else { percentage };
    let end: fn(f64) -> String = if is_nats { nats } else { whole };
    match mean {
        None => MISSING.to_string(),
        Some(ClusteredMean { mean, interval: Some((low, high)), .. }) => {
            format!("{} ({}{between}{})", number(*mean), end(*low), end(*high))
        }
        Some(mean) => number(mean.mean),
    }
}

/// `-0.12`, `0.031`, `2.41`.
fn nats(value: f64) -> String {
    let sign = if value < 0.0 && measured(value) != "0" { "-" } else { "" };
    format!("{sign}{}", measured(value.abs()))
}

/// A share in percent without its sign: `0`, `92.5`, `100`.
fn percentage(share: f64) -> String {
    let tenths = (share * 1000.0).round();
    let is_end = tenths == 0.0 || tenths.abs() == 1000.0;
    if is_end { count(tenths / 10.0) } else { format!("{:.1}", tenths / 10.0) }
}

/// A share in whole percent.
fn whole(share: f64) -> String {
    count(share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_with_their_intervals() {
        let mean = |mean, interval| ClusteredMean { mean, interval, n: 4, n_clusters: 2 };
        for (measure, value, expected) in [
            (Measure::KlMean, mean(0.1234, Some((0.0, 2.5))), "0.12 (0 to 2.50)"),
            (Measure::KlMean, mean(-0.0123, None), "-0.012"),
            (Measure::Valid, mean(0.925, Some((0.8, 1.0))), "92.5 (80 to 100)"),
            (Measure::Valid, mean(-0.12345, Some((-0.5, 0.0))), "-12.3 (-50 to 0)"),
        ] {
            assert_eq!(with_interval(measure, Some(&value), " to "), expected);
        }
        assert_eq!(with_interval(Measure::Valid, None, "–"), MISSING);
    }
}
