//! A forecast as a person reads it: one table per session, the winner, and from where on compression pays.

use std::fmt::Write;

use reports::number::{count, counted, duration, factor, percent};

use crate::cli::plan::PlanArgs;
use crate::cli::table::{Align, Table};
use crate::forecast::Forecast;

/// The whole text.
pub fn render(args: &PlanArgs, forecasts: &[Forecast]) -> String {
    let costs = args.costs();
    let mut text = format!(
        "target {} tokens/s, drafter {} tokens/s (s/a = {}); {}\n",
        count(args.target_rate),
        count(args.drafter_rate),
        percent(costs.score_ms / costs.prefill_ms),
        args.counted()
    );
    for forecast in forecasts {
        text += &session(args, forecast);
    }
    text
}

fn session(args: &PlanArgs, forecast: &Forecast) -> String {
    let mut text = format!(
        "\n{}: {}, the longest of {} tokens, {}\n\n",
        forecast.session_id,
        counted(forecast.calls, "call"),
        count(forecast.tokens_raw_max),
        counted(forecast.messages_tool, "tool message")
    );
    text += &table(forecast).render();
    text.push('\n');
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", winner(forecast));
    let _ = writeln!(text, "{}", break_even(args, forecast));
    text
}

fn table(forecast: &Forecast) -> Table {
    let numbers = [
        "TTFT sum",
        "vs cold",
        "target",
        "scoring",
        "reload",
        "lookup",
        "fixed",
        "tokens prefilled",
        "tokens scored",
        "messages scored",
    ];
    let mut columns = vec![("arm", Align::Left)];
    columns.extend(numbers.map(|title| (title, Align::Right)));
    let mut table = Table::new(&columns);
    let cold_ms = forecast.arm("cold").map_or(0.0, |row| row.ttft_ms_sum);
    let part = |ms: f64| if ms > 0.0 { duration(ms) } else { "-".to_owned() };
    for row in &forecast.arms {
        table.row([
            row.arm.clone(),
            duration(row.ttft_ms_sum),
            if row.ttft_ms_sum > 0.0 { factor(cold_ms / row.ttft_ms_sum) } else { "-".to_owned() },
            part(row.prefill_ms),
            part(row.score_ms),
            part(row.batch_ms),
            part(row.lookup_ms),
            part(row.call_ms),
            count(row.tokens_prefilled),
            count(row.tokens_scored),
            count(row.messages_scored as f64),
        ]);
    }
    table
}

/// Arms with one of the two layers.
const ONE_LAYER: [&str; 3] = ["cache-only", "warm", "freeze-only"];

/// The fastest arm against the best of the others that have one layer alone: whether the layers stack.
fn winner(forecast: &Forecast) -> String {
    let Some(fastest) = forecast.arm(&forecast.fastest) else { return String::new() };
    let single = ONE_LAYER.iter().filter(|name| **name != fastest.arm).filter_map(|name| forecast.arm(name));
    let best = single.min_by(|a, b| a.ttft_ms_sum.total_cmp(&b.ttft_ms_sum));
    match best.filter(|_| fastest.ttft_ms_sum > 0.0) {
        Some(best) if ONE_LAYER.contains(&fastest.arm.as_str()) => {
            let ratio = factor(best.ttft_ms_sum / fastest.ttft_ms_sum);
            format!(
                "fastest: {}, a single layer; {ratio} faster than {}, the next one",
                fastest.arm, best.arm
            )
        }
        Some(best) => {
            let ratio = factor(best.ttft_ms_sum / fastest.ttft_ms_sum);
            format!("fastest: {}, {ratio} faster than {}, the best single layer", fastest.arm, best.arm)
        }
        None => format!("fastest: {}", fastest.arm),
    }
}

fn break_even(args: &PlanArgs, forecast: &Forecast) -> String {
    let kept = percent(args.keep);
    let of_all = format!(
        "{} of {} tool messages here",
        count(forecast.messages_that_pay as f64),
        count(forecast.messages_tool as f64)
    );
    let verdict = match forecast.pays_from_tokens {
        None => {
            return format!(
                "compression to {kept} pays for no tool message: c < 1 - s/a - F/(a m) holds at no size m"
            );
        }
        Some(size) if size < 1.0 => format!("compression to {kept} at birth pays at any size: {of_all}"),
        Some(size) => format!(
            "compression to {kept} at birth pays for tool messages of {} tokens or more: {of_all}",
            count(size.ceil())
        ),
    };
    match (forecast.message_tokens_mean, forecast.keep_ratio_max) {
        (None, _) => verdict,
        (Some(mean), Some(most)) => {
            format!(
                "{verdict}; at the mean size of {} any share kept under {} pays",
                count(mean),
                percent(most)
            )
        }
        (Some(mean), None) => format!("{verdict}; at the mean size of {} none does", count(mean)),
    }
}
