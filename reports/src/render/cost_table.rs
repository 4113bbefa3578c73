//! Tables of where the time goes and of the model of cost, as finished text. Knows no markup.

use super::table::{Align, Cell, Room, Table, plain};
use crate::number::{MISSING, count, counted, duration, factor, or_missing, percent};
use crate::report::{
    ArmCost, Backfills, CallCosts, Coefficient, Part, Report, Rescoring, TokenCosts, Tone, coefficient,
};
use crate::stats::Estimate;

/// How to read [`work`].
pub const WORK_REMARK: &str = "Time to first token of one pass over all calls, by what it served: blocked is waiting for a \
     backfill that the recorded gap does not hide, text is rendering and tokenizing, \
     reload parking and loading of weights, scoring the drafter, cache lookup and restore, target prefill and first token. \
     Scorings are of tool messages; again, those that an earlier call had done; the tokens behind them are what freezing each \
     message when first scored would save.";
/// How to read [`prefix_reuse`].
pub const REUSE_REMARK: &str = "Two readings of the ideal, in which each token is prefilled once. By tokens alone: prompt tokens as sent \
     over those that no earlier call had sent, the speed-up if a token cost the same wherever it stands. With attention: the same \
     in time by the fitted model, where attention to a reused prefix is not saved. Of it: TTFT measured (the prefill stage in arms \
     that score) over each ideal; above 100 %, the fitted model takes attention for dearer than it was here.";
/// How to read [`coefficients`] and [`predictions`].
pub const MODEL_REMARK: &str = "TTFT = a · prefilled + b · ((held + prefilled)² - held²) + s · scored + a fixed part of each arm, for \
     tokens prefilled after those that the cache held; least squares over all calls, each weighted by 1 / TTFT, no coefficient \
     below 0, standard errors behind ±. Tokens cost the same in every arm; the fits of single arms beside it show whether they \
     do. a and s are in ms per 1,000 tokens, b in ms per 1,000² tokens, what a call costs and what a call that scores costs more in \
     ms. A dash: not determined by this run.";
/// How to read [`break_even`].
pub const BREAK_EVEN_REMARK: &str = "Compression of a message of m tokens at its birth, behind x tokens of prompt, pays where \
     F + s·m + a·cm + b·cm(2x + cm) < a·m + b·m(2x + m). x is the mean prompt before what was scored; the drafter's own attention \
     is in s, as the mean of the run. What later calls save, which attend to less, is not in it but in the last column: TTFT of the \
     arm that differs in compressing nothing, over that of this arm. F is fitted where TTFT determines it, else the spans of moving \
     weights; an arm that scores a message again on every call pays s and F again on each.";

/// What one arm did for its TTFT over one pass: time by what it served, and the work behind it. Parts that no arm has are
/// left out.
pub fn work(report: &Report, room: Room) -> Table {
    let mut table = Table::default();
    if report.stages.iter().all(|row| row.total_ms.is_none()) {
        return table;
    }
    table.push_column("arm", report.arm_names().map(plain).collect());
    for part in Part::ALL {
        let times: Vec<Option<f64>> = report.stages.iter().map(|row| row.part_ms(part)).collect();
        if times.iter().any(Option::is_some) {
            table.push_column(
                part.as_str(),
                times.iter().map(|ms| plain(or_missing(*ms, duration))).collect(),
            );
        }
    }
    if room == Room::Wide {
        let total = report.stages.iter().map(|row| plain(or_missing(row.total_ms, duration)));
        table.push_column("TTFT", total.collect());
    }
    push_backfills(&mut table, report);
    let prefilled = report.summary.arms.iter().map(|row| plain(or_missing(row.tokens_prefilled, count)));
    table.push_column("tokens prefilled", prefilled.collect());
    if !report.rescoring.is_empty() {
        push_scoring(&mut table, report);
    }
    table
}

/// Prefill between the calls, which TTFT does not show but for what is blocked.
fn push_backfills(table: &mut Table, report: &Report) {
    if report.backfills.is_empty() {
        return;
    }
    let column = |cell: &dyn Fn(&Backfills) -> String| -> Vec<Cell> {
        let row = |arm| report.backfills.iter().find(|row| row.arm == arm);
        report.arm_names().map(|arm| plain(row(arm).map_or_else(|| "0".to_owned(), cell))).collect()
    };
    table.push_column("between calls", column(&|row| duration(row.backfill_ms)));
    table.push_column("tokens backfilled", column(&|row| count(row.tokens)));
}

fn push_scoring(table: &mut Table, report: &Report) {
    let rows: Vec<_> =
        report.arm_names().map(|arm| report.rescoring.iter().find(|row| row.arm == arm)).collect();
    let again = |words: String, is_none: bool| Cell {
        text: words,
        tone: if is_none { Tone::Neutral } else { Tone::Bad },
    };
    let column = |cell: &dyn Fn(&Rescoring) -> Cell| -> Vec<Cell> {
        rows.iter().map(|row| row.map_or_else(|| plain("0"), cell)).collect()
    };
    table.push_column("scorings", column(&|row| plain(count(row.n_events as f64))));
    table.push_column(
        "again",
        column(&|row| again(count(row.n_events_again as f64), row.n_events_again == 0)),
    );
    table.push_column("tokens scored", column(&|row| plain(count(row.tokens_scored))));
    table.push_column("again", column(&|row| again(row.tokens_again_words(), row.n_events_again == 0)));
}

/// What reusing prefixes could have given by the run's own counts, beside what it gave.
pub fn prefix_reuse(report: &Report) -> Table {
    let mut table = Table::new(&[
        "arm",
        "against",
        "TTFT measured",
        "prefill measured",
        "ideal by tokens alone",
        "of it",
        "ideal with attention",
        "of it",
        "by tokens prefilled",
    ]);
    table.columns[1].align = Align::Left;
    for row in &report.prefix_reuse {
        table.rows.push(vec![
            plain(&row.arm),
            plain(row.without_cache.as_deref().unwrap_or(MISSING)),
            plain(or_missing(row.measured, factor)),
            plain(or_missing(row.measured_prefill, factor)),
            plain(factor(row.ideal)),
            plain(or_missing(row.share_by_tokens, percent)),
            plain(or_missing(row.ideal_with_attention, factor)),
            plain(or_missing(row.share_with_attention, percent)),
            plain(factor(row.by_tokens)),
        ]);
    }
    table
}

/// The coefficients over all arms, then of each arm by itself.
pub fn coefficients(report: &Report) -> Table {
    let mut table = Table::new(&[
        "fitted to",
        "calls",
        "target a",
        "attention b",
        "drafter s",
        "a call",
        "a scoring call F",
        "R²",
        "not told apart",
    ]);
    table.columns[8].align = Align::Left;
    let Some(model) = &report.cost_model else { return table };
    let mut push =
        |name: &str, n_calls: usize, tokens: &TokenCosts, fixed: Option<&CallCosts>, r2: Option<f64>| {
            table.rows.push(vec![
                plain(name),
                plain(count(n_calls as f64)),
                estimate(Some(&tokens.prefill), 1e3),
                estimate(Some(&tokens.attention), 1e6),
                estimate(Some(&tokens.score), 1e3),
                estimate(fixed.map(|fixed| &fixed.call), 1.0),
                estimate(fixed.and_then(|fixed| fixed.batch.as_ref()), 1.0),
                plain(or_missing(r2, explained)),
                plain(untold(tokens, fixed)),
            ]);
        };
    push("all arms", model.n_calls, &model.tokens, None, model.r2);
    for row in &model.arms {
        let alone = &row.alone;
        push(&format!("{} alone", row.arm), row.n_calls, &alone.tokens, Some(&alone.fixed), alone.r2);
    }
    table
}

fn estimate(estimate: Option<&Coefficient>, scale: f64) -> Cell {
    plain(estimate.and_then(|estimate| coefficient(estimate, scale)).unwrap_or_else(|| MISSING.to_string()))
}

/// The coefficients of which only a sum is determined, as words.
fn untold(tokens: &TokenCosts, fixed: Option<&CallCosts>) -> String {
    let named = [
        ("target", Some(&tokens.prefill)),
        ("attention", Some(&tokens.attention)),
        ("drafter", Some(&tokens.score)),
        ("call", fixed.map(|fixed| &fixed.call)),
        ("scoring call", fixed.and_then(|fixed| fixed.batch.as_ref())),
    ];
    let tied = named.into_iter().filter(|(_, estimate)| matches!(estimate, Some(Estimate::Tied(_))));
    tied.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

fn explained(r2: f64) -> String {
    format!("{r2:.3}")
}

/// Predicted beside measured, by the coefficients over all arms.
pub fn predictions(report: &Report) -> Table {
    let mut table = Table::new(&[
        "arm",
        "a call",
        "a scoring call F",
        "TTFT sum measured",
        "predicted",
        "off by",
        "typical miss of a call",
        "largest miss",
        "R²",
    ]);
    for row in report.cost_model.iter().flat_map(|model| &model.arms) {
        table.rows.push(vec![
            plain(&row.arm),
            estimate(Some(&row.fixed.call), 1.0),
            estimate(row.fixed.batch.as_ref(), 1.0),
            plain(duration(row.measured_ms)),
            plain(duration(row.predicted_ms)),
            plain(percent(row.predicted_ms / row.measured_ms - 1.0)),
            plain(percent(row.miss_ratio_p50)),
            plain(largest_miss(row)),
            plain(or_missing(row.r2, explained)),
        ]);
    }
    table
}

fn largest_miss(row: &ArmCost) -> String {
    let (key, measured, predicted) = &row.miss_max;
    format!("call {}: {} for {}", key.call_index.saturating_add(1), duration(*predicted), duration(*measured))
}

/// From which size on compression of a tool message at its birth pays, in the arms that compress.
pub fn break_even(report: &Report) -> Table {
    let mut table = Table::new(&[
        "arm",
        "kept c",
        "drafter/target s/a",
        "a scoring call F",
        "context x",
        "pays from",
        "scorings of a message",
        "mean message",
        "pays there up to c",
        "measured",
    ]);
    let arms = report.cost_model.iter().flat_map(|model| &model.arms);
    for (arm, even) in arms.filter_map(|row| Some((&row.arm, row.break_even.as_ref()?))) {
        let tokens = |n: f64| counted(n.ceil() as u64, "token");
        table.rows.push(vec![
            plain(arm),
            plain(percent(even.keep_ratio)),
            plain(percent(even.score_share)),
            plain(format!("{} ({})", duration(even.batch_ms), even.batch_from.as_str())),
            plain(tokens(even.held_tokens)),
            match even.pays_from_tokens {
                Some(size) if size < 1.0 => plain("any size"),
                Some(size) => plain(tokens(size)),
                None => Cell { text: "no size".to_string(), tone: Tone::Bad },
            },
            plain(format!("{:.1}", even.scorings_per_message)),
            plain(even.message_tokens_mean.map_or_else(|| MISSING.to_string(), tokens)),
            plain(or_missing(even.keep_ratio_max, percent)),
            plain(or_missing(even.measured.as_ref().map(|(_, ratio)| *ratio), factor)),
        ]);
    }
    table
}
