//! Forecasts against the published table of predictions, and the printed page.

use clap::Parser;
use replay::cli::plan::PlanArgs;
use replay::cli::{Cli, Command, forecast_text};
use replay::forecast::{Forecast, SessionSizes, forecast};
use reports::cost::{Costs, Kept};
use transcripts::message::{Message, Role};
use transcripts::session::Session;

use crate::fixture::{check_golden, session};

/// The session of the table: ten calls from 327 characters on, each with one more tool message of 7,850.
fn ten_calls() -> Session {
    let mut ten = session("seed", 10);
    for message in &mut ten.messages {
        let chars = match message.role {
            Role::User => 327,
            Role::Tool => 7_850,
            Role::System | Role::Assistant => 0,
        };
        *message = Message::text(message.role, "x".repeat(chars));
    }
    ten
}

/// One token a character, so that rates are per character, as in the table.
fn by_characters(session: &Session) -> SessionSizes {
    let count = |message: &Message| Ok::<f64, String>(message.chars() as f64);
    SessionSizes::new(session, 0.0, count).unwrap()
}

/// Calibration T is the measured ten-call table, P the pilot; the drafter costs 0.031 ms a character, an optimised one 0.006.
/// All rows of the table share two constants: 50 ms for every call, and 60 characters that a compressed message adds to what is
/// kept of it.
fn predict(prefill_ms: f64, score_ms: f64, (batch_s, lookup_s): (f64, f64), r: f64) -> Forecast {
    let costs = Costs {
        prefill_ms,
        attention_ms: 0.0,
        score_ms,
        batch_ms: 1e3 * batch_s,
        call_ms: 50.0,
        lookup_ms: 1e3 * lookup_s,
    };
    forecast(&by_characters(&ten_calls()), &costs, Kept { ratio: 1.0 / r, marker_tokens: 60.0 })
}

const T: f64 = 0.678;
const P: f64 = 0.462;
const DRAFTER: f64 = 0.031;
const OPTIMISED: f64 = 0.006;

fn assert_seconds(forecast: &Forecast, rows: &[(&str, f64)], rounding: f64) {
    for &(arm, expected) in rows {
        let seconds = forecast.arm(arm).unwrap().ttft_ms_sum / 1e3;
        assert!((seconds - expected).abs() <= rounding, "{arm}: {seconds} s for {expected} s");
    }
}

#[test]
fn the_published_table_comes_out_within_its_rounding() {
    let columns = [
        (
            predict(T, DRAFTER, (8.3, 2.0), 22.0),
            &[
                ("cold", 242.2),
                ("cache-only", 66.6),
                ("warm", 101.1),
                ("cache+rescore", 106.9),
                ("cache+compression", 98.2),
            ][..],
        ),
        (predict(T, DRAFTER, (8.3, 3.3), 22.0), &[("cache-only", 78.3)]),
        (
            predict(T, DRAFTER, (0.0, 2.0), 22.0),
            &[
                ("cold", 242.2),
                ("cache-only", 66.6),
                ("warm", 26.4),
                ("cache+rescore", 32.2),
                ("cache+compression", 23.5),
            ],
        ),
        (
            predict(T, DRAFTER, (0.0, 0.05), 22.0),
            &[
                ("cold", 242.2),
                ("cache-only", 49.1),
                ("warm", 26.4),
                ("cache+rescore", 14.7),
                ("cache+compression", 5.9),
            ],
        ),
        (predict(T, OPTIMISED, (0.0, 0.05), 4.0), &[("cache+compression", 13.9)]),
        (predict(T, OPTIMISED, (0.0, 0.05), 2.0), &[("cache+compression", 25.9)]),
        (
            predict(P, OPTIMISED, (0.0, 0.05), 22.0),
            &[
                ("cold", 165.2),
                ("cache-only", 33.7),
                ("warm", 12.8),
                ("cache+rescore", 5.0),
                ("cache+compression", 3.3),
            ],
        ),
        (predict(P, OPTIMISED, (0.0, 0.05), 4.0), &[("cache+compression", 9.9)]),
        (predict(P, OPTIMISED, (0.0, 0.05), 2.0), &[("cache+compression", 18.1)]),
    ];
    for (forecast, rows) in columns {
        assert_seconds(&forecast, rows, 0.051);
    }
}

#[test]
fn the_published_brackets_of_parking_and_rescoring_come_out_to_the_second() {
    for (lookup_s, rows) in [
        (3.3, [("cache-only", 78.0), ("cache+rescore", 118.0), ("cache+compression", 109.0)]),
        (0.05, [("cache-only", 49.0), ("cache+rescore", 88.0), ("cache+compression", 80.0)]),
    ] {
        assert_seconds(&predict(T, DRAFTER, (8.2, lookup_s), 22.0), &rows, 0.51);
    }
    for (lookup_s, rows) in [
        (3.3, [("cache+rescore", 44.0), ("cache+compression", 35.0)]),
        (0.05, [("cache+rescore", 15.0), ("cache+compression", 5.9)]),
    ] {
        assert_seconds(&predict(T, DRAFTER, (0.0, lookup_s), 22.0), &rows, 0.51);
    }
}

#[test]
fn parking_makes_the_cache_alone_win_and_residency_the_stack() {
    let parked = predict(T, DRAFTER, (8.3, 2.0), 22.0);
    assert_eq!(parked.fastest, "cache-only");
    let resident = predict(T, DRAFTER, (0.0, 0.05), 22.0);
    assert_eq!(resident.fastest, "cache+compression");
    let scored = |forecast: &Forecast, arm: &str| forecast.arm(arm).unwrap().messages_scored;
    assert_eq!((scored(&resident, "warm"), scored(&resident, "cache+compression")), (45, 9));
    // F / (a (1 - c) - s), with the marker's prefill as a part of F.
    let gain = T * (1.0 - 1.0 / 22.0) - DRAFTER;
    assert!((parked.pays_from_tokens.unwrap() - (8_300.0 + T * 60.0) / gain).abs() < 1e-6);
    assert_eq!((parked.messages_that_pay, resident.messages_that_pay), (0, 9));
}

#[test]
fn a_forecast_of_nothing_is_empty_and_replaced_history_is_prefilled_again() {
    let mut empty = session("empty", 1);
    empty.calls.clear();
    let kept = Kept { ratio: 0.25, marker_tokens: 0.0 };
    let costs = Costs { prefill_ms: 1.0, score_ms: 0.1, ..Costs::default() };
    let nothing = forecast(&by_characters(&empty), &costs, kept);
    assert_eq!((nothing.calls, nothing.messages_tool, nothing.message_tokens_mean), (0, 0, None));
    assert!(nothing.arms.iter().all(|row| row.ttft_ms_sum == 0.0));

    // The third call begins with another message: nothing of it is held.
    let mut broken = session("broken", 3);
    broken.messages.push(Message::text(Role::User, "x".repeat(100)));
    broken.calls[2].prefix = vec![broken.messages.len() as u32 - 1];
    let sizes = by_characters(&broken);
    let cached = forecast(&sizes, &costs, kept);
    let second = sizes.prompt_tokens(&sizes.prompts[1]);
    assert_eq!(cached.arm("cache-only").unwrap().tokens_prefilled, second + 100.0);
}

fn args(words: &[&str]) -> Result<PlanArgs, String> {
    let words = ["reprise", "plan", "bundled:explore"].iter().chain(words);
    match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
        Command::Plan(args) => Ok(args),
        other => panic!("`plan` parsed as {other:?}"),
    }
}

const RATES: [&str; 4] = ["--target-rate", "815", "--drafter-rate", "9100"];

#[test]
fn the_page_is_as_it_was() {
    let costs = ["--quadratic", "9.97e-6", "--fixed-ms", "3750", "--lookup-ms", "50", "--call-ms", "50"];
    let mut page = String::new();
    for more in [&costs[..], &["--lookup-ms", "50", "--call-ms", "50"], &["--keep", "0.95"]] {
        let words: Vec<&str> = RATES.iter().chain(more).copied().collect();
        let args = args(&words).unwrap();
        let sizes = by_characters(&ten_calls());
        page += &format!("$ reprise plan SESSION {}\n", words.join(" "));
        page += &forecast_text::render(&args, &[forecast(&sizes, &args.costs(), args.kept())]);
        page.push('\n');
    }
    check_golden("plan.txt", &page);
}

#[test]
fn rates_are_required_and_must_be_rates() {
    let with =
        |more: &[&'static str]| args(&RATES.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>());
    assert_eq!(with(&["--keep", "1/22"]).unwrap().keep, 1.0 / 22.0);
    assert!(args(&["--target-rate", "800"]).unwrap_err().contains("--drafter-rate"));
    for bad in [
        &["--keep", "0"][..],
        &["--keep", "5/4"],
        &["--quadratic", "-1"],
        &["--fixed-ms", "inf"],
        &["--chars-per-token", "0"],
        &["--tokenizer", "m.gguf", "--chars-per-token", "3"],
    ] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
    assert!(args(&["--target-rate", "0", "--drafter-rate", "1"]).is_err());
}
