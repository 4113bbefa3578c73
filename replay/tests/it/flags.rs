//! Every flag of `reprise run` parses and reaches the plan; bad values are usage errors.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use replay::arm::Arm;
use replay::cli::{Cli, Command};
use replay::settings::{CallRange, Settings};
use serde_json::{Value, json};

fn parse(args: &[&str]) -> Result<(Settings, Vec<Arm>), String> {
    let words = ["reprise", "run"].iter().chain(args);
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let Command::Run(run) = cli.command else { panic!("`run` parsed as something else") };
    let settings = run.settings(PathBuf::from("/here"));
    let arms = run.chosen_arms(&settings).map_err(|error| error.to_string())?;
    Ok((settings, arms))
}

/// A flag, the arguments that set it, and where its value stands in the settings.
type Row = (&'static str, &'static [&'static str], &'static str, Value);

fn table() -> Vec<Row> {
    vec![
        ("model", &["--model", "m.gguf"], "/model", json!("m.gguf")),
        ("drafter", &["--drafter", "d.gguf"], "/drafter", json!("d.gguf")),
        ("device", &["--device", "cpu"], "/device", json!("cpu")),
        ("hopper-kernels", &["--hopper-kernels"], "/hopper_kernels", json!(true)),
        ("threads", &["--threads", "3"], "/threads", json!(3)),
        ("kv-budget", &["--kv-budget", "1.5GiB"], "/kv_budget_bytes", json!(1_610_612_736_u64)),
        ("residency", &["--residency", "parked"], "/residency", json!("parked")),
        ("calls", &["--calls", "2..7"], "/calls", json!("2..7")),
        ("repeats", &["--repeats", "5"], "/repeats", json!(5)),
        ("max-new-tokens", &["--max-new-tokens", "1"], "/max_new_tokens", json!(1)),
        ("temperature", &["--temperature", "0.7"], "/temperature", json!(0.7)),
        ("seed", &["--seed", "18446744073709551615"], "/seed", json!(u64::MAX)),
        ("verify", &["--verify"], "/verify", json!("bitwise")),
        ("fidelity", &["--fidelity"], "/fidelity", json!("teacher-forced")),
        ("system-prompt", &["--system-prompt", "s.txt"], "/system_prompt", json!("s.txt")),
        ("tools", &["--tools", "t.json"], "/tools", json!("t.json")),
        ("include-subagents", &["--include-subagents"], "/subagents", json!("include")),
        ("keep-verbatim-newest", &["--keep-verbatim-newest", "3"], "/keep_verbatim_newest", json!(3)),
        ("keep-ratio", &["--keep-ratio", "0.25"], "/keep_permille", json!(250)),
        ("compress-threshold", &["--compress-threshold", "9"], "/compress_threshold_tokens", json!(9)),
        ("score-by", &["--score-by", "birth"], "/score_by", json!("birth")),
        ("score-layers", &["--score-layers", "mid"], "/score_layers", json!("mid")),
        ("score-rope", &["--score-rope", "nope"], "/score_rope", json!("nope")),
        ("selection", &["--selection", "lines"], "/selection", json!("lines")),
        ("keep-floor", &["--keep-floor", "64"], "/keep_floor_tokens", json!(64)),
        ("verbatim-tools", &["--verbatim-tools", "Edit,Diff,"], "/verbatim_tools", json!(["Edit", "Diff"])),
        ("compress-with-tools", &["--compress-with-tools"], "/with_tools", json!("compress")),
        ("bypass-tools", &["--bypass-tools"], "/with_tools", json!("bypass")),
        ("user-fallback", &["--user-fallback", "off"], "/user_fallback", json!("off")),
        ("freeze-store", &["--freeze-store", "f.memo"], "/freeze_store", json!("f.memo")),
        ("sample-period-ms", &["--sample-period-ms", "20"], "/sample_period_ms", json!(20)),
    ]
}

/// Flags that shape no setting; each has a test of its own in `cli`.
const OTHER: [&str; 7] = ["arms", "arm-file", "output", "resume", "plan", "json", "help"];

#[test]
fn every_flag_reaches_the_settings() {
    for (flag, args, pointer, expected) in table() {
        let (settings, _) = parse(args).unwrap_or_else(|error| panic!("--{flag}: {error}"));
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(json.pointer(pointer), Some(&expected), "--{flag}");
    }
}

#[test]
fn no_flag_is_untested() {
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").unwrap();
    let flags: BTreeSet<&str> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let tested: BTreeSet<&str> = table().iter().map(|row| row.0).chain(OTHER).collect();
    assert_eq!(flags, tested);
}

#[test]
fn defaults_are_stated_and_depend_on_whether_a_session_is_given() {
    let (bundled, arms) = parse(&[]).unwrap();
    let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(names, ["cold", "warm", "cache-only", "cache+compression"]);
    assert_eq!((bundled.compress_threshold_tokens, bundled.max_new_tokens, bundled.repeats), (1, 128, 1));
    assert_eq!((bundled.model.as_str(), bundled.drafter.as_deref()), ("sample", Some("sample")));
    assert_eq!((bundled.keep_floor_tokens, bundled.seed), (512, 0));
    assert_eq!(bundled.verbatim_tools, ["Edit", "MultiEdit", "Write", "NotebookEdit", "apply_patch"]);
    let (synthetic, _) = parse(&["--model", "synthetic:nano"]).unwrap();
    assert_eq!(synthetic.drafter.as_deref(), Some("synthetic:nano-drafter"));
    let (given, _) = parse(&["s.jsonl"]).unwrap();
    assert_eq!(given.compress_threshold_tokens, 32_000);
    assert_eq!(given.sessions, [PathBuf::from("s.jsonl")]);
    // A real target gets no random drafter behind the user's back.
    assert_eq!(parse(&["--model", "m.gguf"]).unwrap().0.drafter, None);
}

#[test]
fn a_run_from_before_the_sample_period_was_a_setting_goes_on_as_it_began() {
    let (settings, _) = parse(&[]).unwrap();
    assert_eq!(settings.sample_period_ms, 50);
    let mut json = serde_json::to_value(&settings).unwrap();
    json.as_object_mut().unwrap().remove("sample_period_ms");
    assert_eq!(serde_json::from_value::<Settings>(json).unwrap().sample_period_ms, 100);
}

#[test]
fn the_runs_values_reach_the_arms() {
    let (_, arms) = parse(&["--keep-ratio", "1", "--residency", "parked", "--user-fallback", "on"]).unwrap();
    let compression = arms[3].compression.as_ref().unwrap();
    assert_eq!(compression.keep_permille, 1000);
    let json = serde_json::to_value(&arms[3]).unwrap();
    assert_eq!(json["residency"], "parked");
    assert_eq!(json["compression"]["user_fallback"], "on");
}

#[test]
fn bad_values_are_refused_with_what_would_do() {
    for (args, expected) in [
        (&["--calls", "0..3"][..], "expected A..B, A.., ..B or A with 1 <= A <= B, got `0..3`"),
        (&["--calls", "5..2"], "got `5..2`"),
        (&["--calls", "x"], "got `x`"),
        (&["--repeats", "0"], "1..=1000"),
        (&["--max-new-tokens", "0"], "1..=1000000"),
        (&["--sample-period-ms", "9"], "10..=10000"),
        (&["--threads", "0"], "0"),
        (&["--keep-ratio", "0"], "expected a share from 0.001 to 1, got `0`"),
        (&["--keep-ratio", "half"], "got `half`"),
        (&["--temperature", "-1"], ""),
        (&["--temperature", "nan"], "expected a number from 0 to 100"),
        (&["--kv-budget", "much"], "expected a size such as 4GiB"),
        (&["--kv-budget", "0"], "expected a size"),
        (&["--device", "cuda:first"], "expected auto, cpu, cuda or cuda:N, got `cuda:first`"),
        (&["--device", "tpu"], "expected auto, cpu, cuda or cuda:N, got `tpu`"),
        (&["--residency", "elsewhere"], "resident, parked"),
        (&["--compress-with-tools", "--bypass-tools"], "cannot be used with"),
        (&["--resume", "r", "--repeats", "2"], "cannot be used with"),
        (&["--json"], "--plan"),
        (&["--arms", "cold,nope"], "known arms are cold, warm"),
        (&["--no-such-flag"], "unexpected argument"),
    ] {
        let error = parse(args).unwrap_err();
        assert!(error.contains(expected), "{args:?} gave {error}");
    }
}

#[test]
fn ranges_count_from_one_and_include_both_ends() {
    for (text, n_calls, expected) in [
        ("1..10", 20, 0..10),
        ("5", 20, 4..5),
        ("3..", 20, 2..20),
        ("..4", 20, 0..4),
        ("..", 20, 0..20),
        ("1..10", 4, 0..4),
        ("7..9", 4, 4..4),
        ("1..4294967295", u32::MAX, 0..u32::MAX),
    ] {
        let range: CallRange = text.parse().unwrap();
        assert_eq!(range.of_session(n_calls), expected, "{text} of {n_calls}");
        assert_eq!(range.to_string().parse::<CallRange>().unwrap(), range, "{text} written and read");
    }
}
