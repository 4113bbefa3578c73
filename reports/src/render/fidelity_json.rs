//! The blocks `fidelity` and `pareto` of `summary.json`.

use serde_json::{Map, Value, json};

use crate::report::{Cost, Difference, Fidelity, Measure, Measured, Pareto, Point};
use crate::stats::ClusteredMean;

/// `{arms: {ARM: {MEASURE: mean}}, to_cold: [..], to_controls: [..]}`.
pub(super) fn fidelity(fidelity: &Fidelity) -> Value {
    let arms: Map<String, Value> =
        fidelity.rows.iter().map(|row| (row.arm.clone(), measures(&row.measured))).collect();
    json!({
        "arms": arms,
        "to_cold": fidelity.to_cold.iter().map(difference).collect::<Vec<_>>(),
        "to_controls": fidelity.to_controls.iter().map(difference).collect::<Vec<_>>(),
    })
}

/// What was measured; what was not is left out.
fn measures(measured: &Measured) -> Value {
    let mean = |(measure, mean): (&Measure, &ClusteredMean)| {
        let value = json!({
            "mean": mean.mean,
            "ci_low": mean.interval.map(|(low, _)| low),
            "ci_high": mean.interval.map(|(_, high)| high),
            "calls": mean.n,
            "sessions": mean.n_clusters,
        });
        (measure.as_str().to_owned(), value)
    };
    Value::Object(measured.iter().map(mean).collect())
}

fn difference(row: &Difference) -> Value {
    json!({
        "arm": row.arm,
        "against": row.against,
        "keep_permille": row.keep_permille,
        "measures": measures(&row.measured),
    })
}

/// `{lines: [{name, points: [..]}]}`.
pub(super) fn pareto(pareto: &Pareto) -> Value {
    let lines: Vec<Value> = pareto
        .lines
        .iter()
        .map(|line| {
            let points: Vec<Value> = line.points.iter().map(|of| point(pareto, of)).collect();
            json!({"name": line.name, "points": points})
        })
        .collect();
    json!({ "lines": lines })
}

fn point(pareto: &Pareto, point: &Point) -> Value {
    let dominated: Map<String, Value> = [(Cost::Ttft, "ttft"), (Cost::Tokens, "tokens")]
        .map(|(cost, name)| {
            let by = |measure: Measure| {
                (measure.as_str().to_owned(), json!(pareto.is_dominated(point, cost, measure)))
            };
            (name.to_owned(), Value::Object(Pareto::MEASURES.map(by).into_iter().collect()))
        })
        .into_iter()
        .collect();
    json!({
        "arm": point.arm,
        "keep_permille": point.keep_permille,
        "ttft_of_cold": point.ttft_share,
        "tokens_of_cold": point.tokens_share,
        "dominated": dominated,
    })
}
