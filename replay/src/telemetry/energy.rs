//! Energy of a stretch of time, from an energy counter or from sampled power. Pure functions over points in time; what
//! cannot be said is `None`, never 0. Both ways are the integral of one fixed function of time, so that the energies of
//! adjacent stretches add up to that of the whole.

use reports::record::EnergyMethod;

/// Fewest power samples behind an integral.
pub const POWER_SAMPLES_MIN: usize = 3;
/// Longest time between two samples that is still bridged, ms.
pub const BRIDGED_MS_MAX: f64 = 3000.0;
/// The counter is preferred where its two uncertain ends are at most this share of the stretch.
pub const COUNTER_GAP_SHARE_MAX: f64 = 0.1;
/// Samples of power must cover at least this share of the stretch.
pub const COVERED_SHARE_MIN: f64 = 0.9;

/// A value at a time, ms.
pub type Point = (f64, f64);

/// A stretch of time, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its start.
    pub begin_ms: f64,
    /// Its end.
    pub end_ms: f64,
}

impl Window {
    /// Its length, ms; 0 where it ends before it begins.
    pub fn length_ms(self) -> f64 {
        (self.end_ms - self.begin_ms).max(0.0)
    }
}

/// Energy of a stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// J.
    pub joules: f64,
    /// Where it comes from.
    pub method: EnergyMethod,
    /// Time at the ends of the stretch for which it may be off, ms.
    pub gap_ms: f64,
}

/// What samples say about the energy of a stretch.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Readings of the energy counter, J.
    pub counter: &'a [Point],
    /// Time between two updates of the counter, ms, where it is known.
    pub counter_period_ms: Option<f64>,
    /// Samples of power, W.
    pub power: &'a [Point],
}

/// The energy of a stretch: by the counter where it moves finer than the stretch, else by power, else by the counter with
/// the larger gap it has then.
pub fn energy(evidence: &Evidence<'_>, window: Window) -> Option<Energy> {
    let counted = counted_with_gap(evidence, window);
    let is_fine = |energy: &Energy| energy.gap_ms <= COUNTER_GAP_SHARE_MAX * window.length_ms();
    counted
        .filter(is_fine)
        .or_else(|| {
            let integral = integral(evidence.power, window)?;
            Some(Energy {
                joules: integral.area / 1e3,
                method: EnergyMethod::Power,
                gap_ms: window.length_ms() - integral.covered_ms,
            })
        })
        .or(counted)
}

fn counted_with_gap(evidence: &Evidence<'_>, window: Window) -> Option<Energy> {
    let joules = counted(evidence.counter, window)?;
    let period_ms = evidence.counter_period_ms.or_else(|| update_period_ms(evidence.counter));
    // The reading at either end may be as old as one update, however short the stretch is: one that ends right behind an
    // update has all that was drawn since the update before.
    let gap_ms = period_ms.map_or(window.length_ms(), |period| 2.0 * period);
    Some(Energy { joules, method: EnergyMethod::Counter, gap_ms })
}

/// Difference of the counter over the stretch, J, read between samples by interpolation. `None` where samples do not
/// enclose the stretch or lie too far apart, where the counter fell (the driver was loaded anew, or it wrapped), and where
/// it did not move: a counter that stands still is no evidence of zero.
pub fn counted(counter: &[Point], window: Window) -> Option<f64> {
    let first = counter.iter().rposition(|point| point.0 <= window.begin_ms)?;
    let last = counter.iter().position(|point| point.0 >= window.end_ms)?;
    let enclosing = counter.get(first..=last)?;
    let is_sound = |pair: &[Point]| pair[1].1 >= pair[0].1 && pair[1].0 - pair[0].0 <= BRIDGED_MS_MAX;
    if !enclosing.windows(2).all(is_sound) {
        return None;
    }
    let joules = at(enclosing, window.end_ms)? - at(enclosing, window.begin_ms)?;
    (joules > 0.0).then_some(joules)
}

/// Mean time between two moves of the counter, ms, as far as readings resolve it; `None` below two moves.
pub fn update_period_ms(counter: &[Point]) -> Option<f64> {
    let moves: Vec<f64> =
        counter.windows(2).filter(|pair| pair[1].1 != pair[0].1).map(|pair| pair[1].0).collect();
    let (first, last) = (moves.first()?, moves.last()?);
    (moves.len() >= 2).then(|| (last - first) / (moves.len() - 1) as f64)
}

/// Area under samples within a stretch, and how much of the stretch they cover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Integral {
    /// Value x ms.
    pub area: f64,
    /// Time covered, ms.
    pub covered_ms: f64,
}

/// Trapezoids under the samples, cut at the ends of the stretch by interpolation; time before the first and after the
/// last sample is left out. `None` where samples are too few, too far apart, or cover too little.
pub fn integral(points: &[Point], window: Window) -> Option<Integral> {
    let from = points.iter().rposition(|point| point.0 <= window.begin_ms).unwrap_or(0);
    let to = points.iter().position(|point| point.0 >= window.end_ms).map_or(points.len(), |last| last + 1);
    let inside = points.get(from..to)?;
    if inside.len() < POWER_SAMPLES_MIN {
        return None;
    }
    let mut integral = Integral { area: 0.0, covered_ms: 0.0 };
    for pair in inside.windows(2) {
        let (start, end) = (pair[0].0.max(window.begin_ms), pair[1].0.min(window.end_ms));
        if pair[1].0 - pair[0].0 > BRIDGED_MS_MAX {
            return None;
        }
        if start < end {
            integral.area += (end - start) * (on_line(pair, start) + on_line(pair, end)) / 2.0;
            integral.covered_ms += end - start;
        }
    }
    let length_ms = window.length_ms();
    (length_ms > 0.0 && integral.covered_ms >= COVERED_SHARE_MIN * length_ms).then_some(integral)
}

/// Value at a time between the first and the last of these points.
fn at(points: &[Point], time_ms: f64) -> Option<f64> {
    let exact = || points.iter().find(|point| point.0 == time_ms).map(|point| point.1);
    let pair = points.windows(2).find(|pair| pair[0].0 <= time_ms && time_ms < pair[1].0);
    pair.map(|pair| on_line(pair, time_ms)).or_else(exact)
}

fn on_line(pair: &[Point], time_ms: f64) -> f64 {
    let (before, after) = (pair[0], pair[1]);
    let share = if after.0 > before.0 { (time_ms - before.0) / (after.0 - before.0) } else { 0.0 };
    before.1 + share * (after.1 - before.1)
}
