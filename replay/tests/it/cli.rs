//! The command from outside: exit codes, messages, files, help.

use engine::device::detect;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{check_golden, session};

pub fn reprise(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("reprise").unwrap();
    command
        .current_dir(folder)
        .args(args)
        .env("NO_COLOR", "1")
        .env_remove("RUST_BACKTRACE")
        .env_remove("COLUMNS");
    command.output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder with one canonical session of three calls, `s.session.json`.
pub fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let session = session("s", 3);
    transcripts::canonical::write(&session, &dir.path().join("s.session.json")).unwrap();
    dir
}

/// So that the few words of these sessions are compressed, by models that take no time.
const SMALL: [&str; 8] =
    ["--model", "synthetic:nano", "--max-new-tokens", "2", "--compress-threshold", "1", "--keep-floor", "1"];

pub fn run(folder: &Path, args: &[&str]) -> Output {
    let all: Vec<&str> = ["run", "s.session.json"].iter().chain(&SMALL).chain(args).copied().collect();
    reprise(folder, &all)
}

#[test]
fn help_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for args in [
        &["--help"][..],
        &["import", "--help"],
        &["inspect", "--help"],
        &["run", "--help"],
        &["plan", "--help"],
        &["report", "--help"],
        &["doctor", "--help"],
        &["bench-sample", "--help"],
        &["tokenize", "--help"],
        &["logits", "--help"],
    ] {
        let output = reprise(dir.path(), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        text += &format!("$ reprise {}\n{}\n", args.join(" "), stdout(&output));
    }
    check_golden("help.txt", &text);
}

#[test]
fn usage_errors_exit_3_and_help_exits_0() {
    let dir = tempfile::tempdir().unwrap();
    for (args, code) in [
        (&["--version"][..], 0),
        (&["help", "run"], 0),
        (&[], 3),
        (&["fly"], 3),
        (&["run", "--no-such-flag"], 3),
        (&["run", "--device", "cuda:99"], 3),
        (&["report"], 3),
        (&["logits"], 3),
    ] {
        let output = reprise(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn bad_input_exits_3_with_a_sentence() {
    let dir = folder();
    let at = dir.path();
    fs::write(at.join("empty.jsonl"), "").unwrap();
    fs::write(at.join("noise.bin"), [0_u8, 159, 146, 150]).unwrap();
    fs::write(at.join("tools.json"), "{\"not\": \"a list\"}").unwrap();
    fs::write(at.join("latin.txt"), [b'a', 0xE9]).unwrap();
    fs::write(at.join("cut.gguf"), b"GGUF\x03\0\0\0").unwrap();
    fs::write(at.join("arms.toml"), "[[arm]]\nname = \"x\"\nspeed = 9\n").unwrap();
    fs::create_dir(at.join("nothing")).unwrap();
    for (args, expected) in [
        (&["run", "gone.jsonl"][..], "gone.jsonl"),
        (
            &["run", "--device", "cuda:99"],
            if detect().is_ok() { "there is no card 99" } else { "--device cpu" },
        ),
        (&["run", "empty.jsonl"], "empty.jsonl"),
        (&["run", "noise.bin"], "noise.bin"),
        (&["run", "nothing"], "no session to replay"),
        (&["run", "bundled:nope"], "the bundled sessions are sample, explore"),
        (
            &["run", "s.session.json", "./s.session.json", "bundled:explore", "--calls", "99.."],
            "no call to replay in 2 sessions",
        ),
        (
            &["run", "s.session.json", "--calls", "9.."],
            "--calls 9..: no call to replay in 1 sessions: the longest has 3 calls",
        ),
        (&["run", "s.session.json", "--arms", "cold,tepid"], "arm `tepid`: unknown; known arms are cold"),
        (&["run", "s.session.json", "--arm-file", "arms.toml"], "unknown field `speed`"),
        (&["run", "s.session.json", "--tools", "tools.json"], "expected a JSON list of tool definitions"),
        (&["run", "s.session.json", "--system-prompt", "latin.txt"], "latin.txt: not UTF-8 at byte 1"),
        (&["run", "s.session.json", "--model", "gone.gguf"], "drafter"),
        (&["run", "s.session.json", "--model", "gone.gguf", "--arms", "cold"], "gone.gguf"),
        (&["run", "s.session.json", "--model", "cut.gguf", "--arms", "cold"], "cut.gguf"),
        (&["run", "s.session.json", "--model", "synthetic:huge"], "synthetic shapes are"),
        (&["run", "--resume", "nothing"], "not a run directory"),
        (&["report", "nothing"], "not a run directory"),
        (&["inspect", "gone.jsonl"], "gone.jsonl"),
        (&["inspect", "cut.gguf"], "cut.gguf"),
        (&["inspect", "s.session.json", "--plot", "p.jpg"], "expected a name that ends in .svg or .png"),
        (&["inspect", "synthetic:nano", "--plot", "p.svg"], "--plot draws a session"),
        (&["import", "nothing"], "hold no recorded call"),
        (&["tokenize", "--file", "latin.txt"], "not UTF-8 at byte 1"),
        (&["tokenize", "--model", "sampel", "--file", "tools.json"], "give sample, a .gguf file"),
        (&["logits", "--tokens", "1,2,99999999"], "99999999"),
        (&["logits", "--tokens", "1,x"], "invalid"),
    ] {
        let output = reprise(at, args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?} said {text}");
        assert!(!text.contains("panicked"), "{args:?} said {text}");
        assert!(output.stdout.is_empty(), "{args:?} wrote data");
    }
}

#[test]
fn the_plan_is_printed_and_nothing_runs() {
    let dir = folder();
    let output =
        run(dir.path(), &["--plan", "--json", "--repeats", "2", "--arms", "cold,cache-only", "-o", "r"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(plan["calls_planned"], 12);
    let order: Vec<&str> =
        plan["order"].as_array().unwrap().iter().map(|p| p["arm"].as_str().unwrap()).collect();
    assert_eq!(order, ["cold", "cache-only", "cache-only", "cold"]);
    assert_eq!(plan["settings"]["max_new_tokens"], 2);
    assert_eq!(plan["output"], "r");
    assert!(!dir.path().join("r").exists());

    let text = stdout(&run(dir.path(), &["--plan"]));
    for shown in ["cache+compression", "max_new_tokens", "order: cold warm cache-only", "random weights"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}

#[test]
fn a_threshold_that_nothing_reaches_is_said() {
    let dir = folder();
    let text = stdout(&reprise(dir.path(), &["run", "s.session.json", "--plan"]));
    assert!(text.contains("under the threshold of 32000 tokens: nothing will be compressed"), "{text}");
}

#[test]
fn arms_of_a_file_run_beside_cold() {
    let dir = folder();
    fs::write(
        dir.path().join("a.toml"),
        "[[arm]]\nname = \"mine\"\ncompression = \"freeze\"\ncache = \"on\"\nkeep_ratio = 0.5\n",
    )
    .unwrap();
    let output = run(dir.path(), &["--arm-file", "a.toml", "--plan", "--json"]);
    let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(plan["arms"][0]["name"], "cold");
    assert_eq!(plan["arms"][1]["name"], "mine");
    assert_eq!(plan["arms"][1]["compression"]["keep_permille"], 500);
}

#[test]
fn a_run_leaves_its_directory_and_can_be_reported_and_inspected_again() {
    let dir = folder();
    let output = run(dir.path(), &["-o", "r", "--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("cache+compression"), "{}", stdout(&output));
    let at = dir.path().join("r");
    for file in
        ["run.json", "calls.jsonl", "calls.csv", "telemetry.csv", "summary.json", "summary.md", "report.html"]
    {
        assert!(fs::metadata(at.join(file)).unwrap().len() > 0, "{file}");
    }
    let records = crate::fixture::records(&at);
    assert_eq!(records.len(), 12);
    assert_eq!(reports::check::check_run(&records), []);
    assert!(records.iter().all(|record| record.error.is_none() && record.host_rss_bytes_peak > Some(0)));
    let cached = records.iter().filter(|record| record.arm.starts_with("cache"));
    assert!(cached.clone().count() == 6 && cached.into_iter().all(|record| record.exact == Some(true)));

    let manifest: Value = serde_json::from_str(&fs::read_to_string(at.join("run.json")).unwrap()).unwrap();
    let telemetry = &manifest["telemetry"];
    assert_eq!(telemetry["period_ms"], 50.0);
    assert!(
        telemetry["samples"].as_u64().unwrap() >= 24 && telemetry["sample_cost_ms_mean"].as_f64().is_some()
    );
    assert!(telemetry.get("idle_ms").is_none(), "nothing is watched where no device runs the models");
    assert!(manifest["finished_at"].is_string());
    assert_eq!(manifest["config"]["model"], "synthetic:nano");
    assert_eq!(manifest["models"]["target"]["random_weights"], true);
    assert_eq!(manifest["sessions"][0]["calls_replayed"], 3);

    fs::remove_file(at.join("report.html")).unwrap();
    assert_eq!(reprise(dir.path(), &["report", "r"]).status.code(), Some(0));
    assert!(at.join("report.html").exists());
    let summary: Value =
        serde_json::from_str(&stdout(&reprise(dir.path(), &["inspect", "r", "--json"]))).unwrap();
    assert_eq!(summary["arms"]["cold"]["calls"], 3);

    let again = run(dir.path(), &["-o", "r"]);
    assert_eq!(again.status.code(), Some(3));
    assert!(stderr(&again).contains("already holds"), "{}", stderr(&again));
}

#[test]
fn a_cut_run_is_resumed_to_the_same_counts() {
    let dir = folder();
    let at = dir.path().join("r");
    assert_eq!(run(dir.path(), &["-o", "r"]).status.code(), Some(0));
    let whole = crate::fixture::records(&at);
    let text = fs::read_to_string(at.join("calls.jsonl")).unwrap();
    let kept: String = text.lines().take(7).map(|line| format!("{line}\n")).collect();
    fs::write(at.join("calls.jsonl"), kept + "{\"schema_version\":1,\"arm\":\"ca").unwrap();

    let output = reprise(dir.path(), &["run", "--resume", "r"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let resumed = crate::fixture::records(&at);
    let counts = |records: &[reports::record::CallRecord]| -> Vec<_> {
        let count = |r: &reports::record::CallRecord| {
            (
                r.order_index,
                r.arm.clone(),
                r.tokens_prefix_hit,
                r.tokens_scored,
                r.first_logits_digest.clone(),
            )
        };
        records.iter().map(count).collect()
    };
    assert_eq!(counts(&resumed), counts(&whole));

    fs::write(
        dir.path().join("s.session.json"),
        fs::read_to_string(dir.path().join("s.session.json")).unwrap().replace("please", "pleas"),
    )
    .unwrap();
    let changed = reprise(dir.path(), &["run", "--resume", "r"]);
    assert_eq!(changed.status.code(), Some(3));
    assert!(stderr(&changed).contains("is not what it was when the run began"), "{}", stderr(&changed));
}

#[test]
fn calls_that_fail_are_counted_and_exit_1_or_3() {
    let dir = folder();
    // 2 KiB per token of the nano model's KV: room for the first prompt alone.
    let some = run(dir.path(), &["-o", "some", "--arms", "cold", "--kv-budget", "100KiB"]);
    let records = crate::fixture::records(&dir.path().join("some"));
    let failed: Vec<_> = records.iter().filter_map(|record| record.error.as_ref()).collect();
    assert!(!failed.is_empty() && failed.len() < 3, "{failed:?}");
    assert_eq!(failed[0].kind, "out_of_memory");
    assert_eq!(some.status.code(), Some(1), "{}", stderr(&some));
    assert!(stderr(&some).contains("of 3 calls failed"), "{}", stderr(&some));

    let all = run(dir.path(), &["-o", "all", "--arms", "cold", "--kv-budget", "4KiB"]);
    assert_eq!(all.status.code(), Some(3), "{}", stderr(&all));
}

#[test]
fn a_damaged_freeze_store_is_said_and_set_aside() {
    let dir = folder();
    let arms = ["--arms", "freeze-only", "--freeze-store", "memo"];
    let go = |name| run(dir.path(), &[&["-o", name], &arms[..]].concat());
    assert!(!stderr(&go("whole")).contains("damaged"));
    let memo = dir.path().join("memo");
    let mut bytes = fs::read(&memo).unwrap();
    // The complement of the first record's length: behind the header of 12 bytes and the length of 4.
    bytes[16] ^= 0xff;
    fs::write(&memo, &bytes).unwrap();
    let said = stderr(&go("damaged"));
    assert!(
        said.contains("bytes of the freeze store are damaged") && said.contains("memo.damaged"),
        "{said}"
    );
    assert_eq!(fs::read(dir.path().join("memo.damaged")).unwrap(), bytes);
}

#[test]
fn a_prompt_longer_than_the_context_is_a_failed_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = session("long", 1);
    long.messages[0] =
        transcripts::message::Message::text(transcripts::message::Role::User, "x y ".repeat(50_000));
    transcripts::canonical::write(&long, &dir.path().join("s.session.json")).unwrap();
    let output = run(dir.path(), &["-o", "r", "--arms", "cold"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let record = &crate::fixture::records(&dir.path().join("r"))[0];
    let error = record.error.as_ref().unwrap();
    assert_eq!(error.kind, "context_length");
    assert!(error.message.contains("maximum context length is 40960 tokens"), "{}", error.message);
}

#[test]
fn import_writes_sessions_that_inspect_reads() {
    let dir = folder();
    let output = reprise(dir.path(), &["import", "s.session.json", "-o", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("1 sessions, 3 calls"), "{}", stdout(&output));
    let written: Vec<PathBuf> =
        fs::read_dir(dir.path().join("out")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(written.len(), 1);
    let inspected = reprise(dir.path(), &["inspect", written[0].to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&stdout(&inspected)).unwrap();
    assert_eq!(json["sessions"][0]["session_id"], "s");
    assert_eq!(json["sessions"][0]["calls"], 3);
    assert_eq!(json["sessions"][0]["kind"], "main");
    assert_eq!(json["files"][0]["bad_lines"], 0);
    let text = stdout(&reprise(dir.path(), &["inspect", "out"]));
    assert!(text.contains("fidelity: the system prompt is not recorded"), "{text}");
}

#[test]
fn import_redacts_and_exports() {
    let dir = tempfile::tempdir().unwrap();
    let secret = ["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let mut session = session("s", 1);
    let text = format!("token {secret} in /home/maryanne/x");
    session.messages[0] =
        transcripts::message::Message::text(transcripts::message::Role::User, text.as_str());
    transcripts::canonical::write(&session, &dir.path().join("s.session.json")).unwrap();
    let plain = reprise(dir.path(), &["import", "s.session.json"]);
    assert!(
        stderr(&plain).contains("likely secrets (1 GitHub token, 1 home path); --redact"),
        "{}",
        stderr(&plain)
    );
    for (form, file) in [
        ("openai-chat", "s.openai-chat.jsonl"),
        ("requests", "s.inputs.jsonl"),
        ("aiperf", "aiperf.jsonl"),
        ("guidellm", "guidellm.jsonl"),
    ] {
        let args = ["import", "s.session.json", "--redact", "--export", form, "-o", "out"];
        let output = reprise(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("redacted: 1 GitHub token, 1 home path"), "{}", stderr(&output));
        assert!(!stderr(&output).contains(&secret) && !stdout(&output).contains(&secret));
        let written = fs::read_to_string(dir.path().join("out").join(file)).unwrap();
        let line: Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
        let sent = line["messages"][0]["content"].as_str().unwrap();
        assert!(sent.starts_with("token ghp_REDACT") && !sent.contains("maryanne"), "{sent}");
        assert_eq!(sent.len(), text.len());
    }
    let alone = reprise(dir.path(), &["import", "s.session.json", "--export", "requests"]);
    assert_eq!(alone.status.code(), Some(3), "a form without a folder");
}

#[test]
fn inspect_tells_the_shape_of_a_session_and_draws_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("bundled:{}", transcripts::bundled::ALL[0].name);
    let drawn = reprise(dir.path(), &["inspect", &name, "--plot", "p.svg", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&drawn)).unwrap();
    let session = &json["sessions"][0];
    let calls = session["profile"]["calls"].as_array().unwrap();
    assert_eq!(calls.len() as u64, session["calls"].as_u64().unwrap());
    let grown: u64 = calls.iter().filter_map(|call| call["grown_chars"].as_u64()).sum();
    let chars = |call: &Value| {
        ["system_chars", "user_chars", "assistant_chars", "tool_chars"]
            .iter()
            .map(|key| call[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(chars(&calls[0]) + grown, chars(&calls[calls.len() - 1]), "nothing breaks: growth adds up");
    let svg = fs::read_to_string(dir.path().join("p.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));

    let text = stdout(&reprise(dir.path(), &["inspect", &name]));
    for part in ["new chars of a request", "chars of a tool output", "repeated outputs: ", "p90"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn bundled_sessions_are_named_like_files() {
    let dir = tempfile::tempdir().unwrap();
    for bundled in transcripts::bundled::ALL {
        let name = format!("bundled:{}", bundled.name);
        let json: Value =
            serde_json::from_str(&stdout(&reprise(dir.path(), &["inspect", &name, "--json"]))).unwrap();
        assert!(json["sessions"][0]["calls"].as_u64() > Some(0), "{name}");
        let plan: Value =
            serde_json::from_str(&stdout(&reprise(dir.path(), &["run", &name, "--plan", "--json"]))).unwrap();
        assert_eq!(plan["sessions"][0]["source"], Value::from(name));
        assert_eq!(plan["settings"]["compress_threshold_tokens"], 32_000);
    }
}

#[test]
fn tokens_and_logits_are_json() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.txt"), "hello<|im_end|>").unwrap();
    let ids: Vec<u32> =
        serde_json::from_str(&stdout(&reprise(dir.path(), &["tokenize", "--file", "t.txt"]))).unwrap();
    assert!(ids.len() >= 2, "{ids:?}");
    let mut piped = Command::cargo_bin("reprise").unwrap();
    let output = piped.arg("tokenize").write_stdin("hello<|im_end|>").output().unwrap();
    assert_eq!(serde_json::from_str::<Vec<u32>>(&stdout(&output)).unwrap(), ids);

    let rows = |args: &[&str]| -> Vec<Vec<f32>> {
        let json: Value = serde_json::from_str(&stdout(&reprise(dir.path(), args))).unwrap();
        serde_json::from_value(json["logits"].clone()).unwrap()
    };
    let all = rows(&["logits", "--tokens", "1,2,3", "--all"]);
    let last = rows(&["logits", "--tokens", "1,2,3"]);
    assert_eq!((all.len(), last.len()), (3, 1));
    assert_eq!(all[2], last[0]);
    assert_eq!(all[..2], rows(&["logits", "--tokens", "1,2", "--all"]), "causal");
}

#[test]
fn models_and_the_machine_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let model: Value =
        serde_json::from_str(&stdout(&reprise(dir.path(), &["inspect", "synthetic:qwen3-0.6b", "--json"])))
            .unwrap();
    assert_eq!(model["config"]["n_layers"], 28);
    assert!(model["memory"]["weight_bytes"].as_u64().unwrap() > 1 << 30);
    let text = stdout(&reprise(dir.path(), &["inspect", "synthetic:nano"]));
    assert!(text.contains("random weights") && text.contains("KV of 1000 tokens"), "{text}");

    let drafter: Value =
        serde_json::from_str(&stdout(&reprise(dir.path(), &["inspect", "sample:drafter", "--json"])))
            .unwrap();
    let target = stdout(&reprise(dir.path(), &["inspect", "sample"]));
    assert!(target.contains("32768 tokens") && !target.contains("random weights"), "{target}");

    let doctor = reprise(dir.path(), &["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(0));
    let doctor: Value = serde_json::from_str(&stdout(&doctor)).unwrap();
    let parts = doctor["parts"].as_array().unwrap();
    // A card that is not there is named with what that costs; one that is there, with the kernels it runs.
    let card = parts.iter().find(|part| part["name"] == "CUDA card").unwrap();
    let detail = card["detail"].as_str().unwrap();
    match card["state"].as_str().unwrap() {
        "absent" => assert!(detail.contains("--device cpu") && card["cost"].is_string(), "{detail}"),
        _ => assert!(detail.contains("cuda:0"), "{detail}"),
    }
    assert!(parts.iter().all(|part| (part["state"] == "absent") == part["cost"].is_string()));
    let engine = parts.iter().find(|part| part["name"] == "engine").unwrap();
    assert_eq!(engine["state"], "present", "{engine}");
    let pair = parts.iter().find(|part| part["name"] == "sample models").unwrap();
    let detail = pair["detail"].as_str().unwrap();
    assert!(detail.contains(&drafter["digest"].as_str().unwrap()[..8]), "{detail}");
    let nvml = parts.iter().find(|part| part["name"] == "NVIDIA driver (NVML)").unwrap();
    let detail = nvml["detail"].as_str().unwrap();
    assert!(detail.starts_with("no NVIDIA driver answers: ") || detail.contains(" tells "), "{detail}");
    assert!(stdout(&reprise(dir.path(), &["doctor"])).contains("costs you"));
}
