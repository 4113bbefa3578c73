//! Energy of a stretch of time: known answers, limits, and that parts add up to the whole.

use proptest::prelude::*;
use replay::telemetry::energy::{
    Energy, Evidence, Integral, Point, Window, counted, energy, integral, update_period_ms,
};
use reports::record::EnergyMethod;

const fn window(begin_ms: f64, end_ms: f64) -> Window {
    Window { begin_ms, end_ms }
}

fn close(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

/// Samples every `every_ms` up to `until_ms`.
fn sampled(every_ms: f64, until_ms: f64, value: impl Fn(f64) -> f64) -> Vec<Point> {
    (0..).map(|i| f64::from(i) * every_ms).take_while(|&t| t <= until_ms).map(|t| (t, value(t))).collect()
}

/// A counter under constant power that moves once in `period_ms`.
fn stepping(power_w: f64, period_ms: f64) -> impl Fn(f64) -> f64 {
    move |time_ms| (time_ms / period_ms).floor() * period_ms * power_w / 1e3
}

#[test]
fn the_integral_is_the_area_between_the_ends_of_the_stretch() {
    let power = [(0.0, 100.0), (500.0, 200.0), (2000.0, 200.0)];
    // 0.5 s x 150 W + 1.5 s x 200 W.
    assert_eq!(integral(&power, window(0.0, 2000.0)), Some(Integral { area: 375_000.0, covered_ms: 2000.0 }));
    // From 250 ms on at 150 W, to 1000 ms.
    let part = integral(&power, window(250.0, 1000.0)).unwrap();
    assert!(close(part.area, 250.0 * 175.0 + 500.0 * 200.0), "{part:?}");
}

#[test]
fn too_few_samples_too_far_apart_or_off_the_stretch_give_nothing() {
    assert_eq!(integral(&[], window(0.0, 10.0)), None);
    assert_eq!(integral(&[(0.0, 1.0), (10.0, 1.0)], window(0.0, 10.0)), None);
    assert_eq!(integral(&[(0.0, 1.0), (100.0, 1.0), (3200.0, 1.0)], window(0.0, 3200.0)), None);
    assert_eq!(integral(&[(5.0, 1.0); 3], window(5.0, 5.0)), None, "no time, no mean");
    let first_half = sampled(50.0, 500.0, |_| 100.0);
    assert_eq!(integral(&first_half, window(0.0, 1000.0)), None, "half of it is unseen");
    let nearly_all = integral(&first_half, window(0.0, 540.0)).unwrap();
    assert!(close(nearly_all.covered_ms, 500.0) && close(nearly_all.area, 50_000.0));
}

#[test]
fn the_counter_is_preferred_where_it_moves_finer_than_the_call() {
    let (fine, coarse) =
        (sampled(50.0, 5000.0, stepping(100.0, 20.0)), sampled(50.0, 5000.0, stepping(100.0, 100.0)));
    let power = sampled(50.0, 5000.0, |_| 90.0);
    let of = |counter: &[Point], period, window| {
        energy(&Evidence { counter, counter_period_ms: Some(period), power: &power }, window).unwrap()
    };
    let got = of(&fine, 20.0, window(1000.0, 2000.0));
    assert_eq!((got.method, got.gap_ms), (EnergyMethod::Counter, 40.0));
    assert!(close(got.joules, 100.0), "{got:?}");
    assert_eq!(of(&coarse, 100.0, window(1000.0, 3000.0)).method, EnergyMethod::Counter);
    let short = of(&coarse, 100.0, window(1000.0, 2900.0));
    assert_eq!((short.method, short.gap_ms), (EnergyMethod::Power, 0.0));
    assert!(close(short.joules, 90.0 * 1.9), "{short:?}");
}

#[test]
fn without_power_a_coarse_counter_is_taken_with_the_gap_it_has() {
    let counter = sampled(50.0, 1000.0, stepping(100.0, 100.0));
    let of = |period, window| {
        energy(&Evidence { counter: &counter, counter_period_ms: period, power: &[] }, window)
    };
    let got = of(Some(100.0), window(100.0, 600.0)).unwrap();
    assert_eq!((got.method, got.gap_ms), (EnergyMethod::Counter, 200.0));
    // Sampled every 50 ms it is seen to move every 100 ms, so nobody has to say so.
    assert_eq!(of(None, window(100.0, 600.0)), Some(got));
    // A call shorter than the uncertainty may be off by more than its length.
    assert_eq!(of(Some(100.0), window(100.0, 201.0)).unwrap().gap_ms, 200.0);
    assert_eq!(of(Some(100.0), window(110.0, 140.0)), None, "it stood still: no evidence of zero");
}

#[test]
fn a_counter_that_falls_is_not_believed_and_power_stands_in() {
    // The driver is loaded anew at 500 ms.
    let counter = sampled(50.0, 1000.0, |t| if t < 500.0 { 7000.0 + t / 10.0 } else { (t - 500.0) / 10.0 });
    let power = sampled(50.0, 1000.0, |_| 100.0);
    let of =
        |window| energy(&Evidence { counter: &counter, counter_period_ms: Some(1.0), power: &power }, window);
    assert_eq!(counted(&counter, window(400.0, 600.0)), None);
    let across = of(window(400.0, 600.0)).unwrap();
    assert_eq!((across.method, across.gap_ms), (EnergyMethod::Power, 0.0));
    assert!(close(across.joules, 20.0));
    // One that falls and passes its old value before the stretch ends differs by less than was drawn.
    let young = sampled(50.0, 3000.0, |t| if t < 200.0 { t / 10.0 } else { (t - 200.0) / 10.0 });
    assert_eq!(counted(&young, window(100.0, 2900.0)), None);
    for apart in [window(100.0, 400.0), window(600.0, 900.0)] {
        let Energy { joules, method, .. } = of(apart).unwrap();
        assert!(method == EnergyMethod::Counter && close(joules, 30.0), "{joules}");
    }
}

#[test]
fn a_counter_that_wraps_past_its_largest_value_is_a_counter_that_falls() {
    let largest_j = u32::MAX as f64 / 1e3;
    let counter = sampled(10.0, 200.0, |t| (largest_j - 10.0 + t / 10.0) % largest_j);
    assert_eq!(counted(&counter, window(0.0, 200.0)), None);
    assert!(counted(&counter, window(0.0, 90.0)).is_some_and(|joules| (joules - 9.0).abs() < 1e-6));
}

#[test]
fn a_call_shorter_than_an_update_may_be_off_by_more_than_its_length() {
    let counter = sampled(5.0, 2_000.0, stepping(400.0, 150.0));
    let evidence = Evidence { counter: &counter, counter_period_ms: Some(150.0), power: &[] };
    let got = energy(&evidence, window(1_480.0, 1_510.0)).unwrap();
    assert!(close(got.joules, 60.0), "a whole update, where 12 J were drawn: {}", got.joules);
    assert!(close(got.gap_ms, 300.0), "{}", got.gap_ms);
}

#[test]
fn a_board_that_is_lost_leaves_no_energy_of_the_call_in_flight() {
    let counter = sampled(50.0, 500.0, stepping(100.0, 10.0));
    let power = sampled(50.0, 500.0, |_| 100.0);
    let evidence = Evidence { counter: &counter, counter_period_ms: Some(10.0), power: &power };
    assert_eq!(energy(&evidence, window(200.0, 1200.0)), None);
    assert!(energy(&evidence, window(0.0, 500.0)).is_some());
}

#[test]
fn the_update_period_is_the_mean_time_between_moves() {
    let counter = sampled(5.0, 2000.0, stepping(60.0, 100.0));
    assert_eq!(update_period_ms(&counter), Some(100.0));
    assert_eq!(update_period_ms(&[(0.0, 1.0), (5.0, 2.0)]), None, "one move has no period");
    assert_eq!(update_period_ms(&sampled(5.0, 100.0, |_| 3.0)), None);
}

fn cuts() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0.0..10_000.0_f64, 2..8).prop_map(|mut cuts| {
        cuts.sort_by(f64::total_cmp);
        cuts.dedup();
        cuts
    })
}

/// Samples at uneven times that enclose 0 to 10 s, with values from 0 to 700.
fn samples() -> impl Strategy<Value = Vec<Point>> {
    proptest::collection::vec((1.0..90.0_f64, 0.0..700.0_f64), 260..300).prop_map(|steps| {
        let mut time_ms = -1.0;
        let mut points: Vec<Point> = Vec::new();
        for (step, value) in steps {
            points.push((time_ms, value));
            time_ms += step;
        }
        points.push((time_ms.max(10_001.0), 50.0));
        points
    })
}

proptest! {
    #[test]
    fn integrals_of_adjacent_stretches_add_up(points in samples(), cuts in cuts()) {
        let area = |a, b| {
            // Stretches with fewer than three samples near them have no integral; the sum is then not defined.
            integral(&points, window(a, b)).map(|i| i.area)
        };
        let parts: Option<Vec<f64>> = cuts.windows(2).map(|pair| area(pair[0], pair[1])).collect();
        if let (Some(parts), Some(whole)) = (parts, area(cuts[0], cuts[cuts.len() - 1])) {
            let sum: f64 = parts.iter().sum();
            prop_assert!((sum - whole).abs() <= 1e-9 * whole.abs().max(1.0), "{sum} {whole}");
        }
    }

    #[test]
    fn counted_energies_of_adjacent_stretches_add_up(points in samples(), cuts in cuts()) {
        let mut total = 0.0;
        let counter: Vec<Point> = points.iter().map(|&(t, v)| { total += v; (t, total) }).collect();
        let joules = |a, b| counted(&counter, window(a, b)).unwrap_or(0.0);
        let sum: f64 = cuts.windows(2).map(|pair| joules(pair[0], pair[1])).sum();
        let whole = joules(cuts[0], cuts[cuts.len() - 1]);
        prop_assert!((sum - whole).abs() <= 1e-9 * whole.abs().max(1.0), "{sum} {whole}");
    }

    #[test]
    fn a_counter_is_off_by_no_more_than_its_gap(
        begin in 100.0..2_000.0_f64, length in 30.0..4_000.0_f64, period in 1.0..150.0_f64, every in 5.0..60.0_f64,
    ) {
        let power_w = 400.0;
        let counter = sampled(every, 7_000.0, stepping(power_w, period));
        let evidence = Evidence { counter: &counter, counter_period_ms: Some(period), power: &[] };
        if let Some(got) = energy(&evidence, window(begin, begin + length)) {
            let true_joules = power_w * length / 1e3;
            // Reading between samples adds at most what is drawn between two of them at either end.
            let bound = power_w * (got.gap_ms + 2.0 * every) / 1e3;
            prop_assert!((got.joules - true_joules).abs() <= bound, "{got:?} {true_joules}");
        }
    }
}
