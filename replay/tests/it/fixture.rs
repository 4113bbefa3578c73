//! A session made by hand, a plan over it, and a run on the mock: what the other tests start from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use replay::arm::{self, Residency};
use replay::backend::mock::{Fault, MockBackend, Script};
use replay::backend::{Backend, FidelityCheck, Verify};
use replay::clock::RunClock;
use replay::compression::{FallbackChoice, WithTools};
use replay::error::ReplayError;
use replay::plan::Plan;
use replay::progress::Progress;
use replay::record::Key;
use replay::recorder::Recorder;
use replay::resume::Done;
use replay::runner::{RunEnd, Runner};
use replay::sessions::SourcedSession;
use replay::settings::{CallRange, DeviceChoice, Settings, Subagents};
use replay::telemetry::{Sources, Telemetry};
use reports::record::CallRecord;
use reports::store::RunDir;
use transcripts::call::Call;
use transcripts::fidelity::{Fidelity, Reason};
use transcripts::message::{Message, Role, ToolCall};
use transcripts::session::{Kind, Session, SourceFormat, System};

/// Id of every run of these tests.
pub const RUN_ID: &str = "test-run";

/// A session of `n_calls` calls: a user's question, then one tool call and its result per call. Result `k` has
/// `10 * k` words, five on a line.
pub fn session(id: &str, n_calls: u32) -> Session {
    let mut messages = vec![Message::text(Role::User, "please look around in here")];
    let mut calls = Vec::new();
    for k in 1..=n_calls {
        let prefix: Vec<u32> = (0..messages.len() as u32).collect();
        let mut turn = Message::text(Role::Assistant, format!("looking at {k}"));
        turn.tool_calls.push(ToolCall {
            id: format!("call_{k}"),
            name: "read".to_owned(),
            arguments: format!("{{\"path\":\"{id}/{k}\"}}"),
        });
        messages.push(turn);
        calls.push(Call {
            prefix,
            completion: messages.len() as u32 - 1,
            model: None,
            usage: None,
            started_at: None,
            gap_ms: None,
            prefix_break: None,
        });
        let words: Vec<String> = (0..10 * k).map(|i| format!("{id}{k}w{i}")).collect();
        let lines: Vec<String> = words.chunks(5).map(|line| line.join(" ")).collect();
        let mut result = Message::text(Role::Tool, lines.join("\n"));
        result.tool_call_id = Some(format!("call_{k}"));
        result.name = Some("read".to_owned());
        messages.push(result);
    }
    Session {
        id: id.to_owned(),
        format: SourceFormat::ClaudeCode,
        source_version: None,
        kind: Kind::Main,
        started_at: None,
        system: System::Missing,
        tools: Vec::new(),
        messages,
        calls,
        fidelity: Fidelity::from_reasons([Reason::SystemMissing]),
        issues: Vec::new(),
        files: Vec::new(),
        unknown_lines: BTreeMap::new(),
    }
}

/// Settings with the defaults of the command, but a threshold of 1 token and half of every message kept.
pub fn settings() -> Settings {
    Settings {
        sessions: vec![PathBuf::from("made-by-hand")],
        working_dir: PathBuf::from("/"),
        subagents: Subagents::LeaveOut,
        system_prompt: None,
        tools: None,
        calls: CallRange::ALL,
        model: "synthetic:nano".to_owned(),
        drafter: Some("synthetic:nano-drafter".to_owned()),
        device: DeviceChoice::Cpu,
        hopper_kernels: false,
        threads: None,
        kv_budget_bytes: 1 << 20,
        repeats: 1,
        max_new_tokens: 32,
        temperature: 0.0,
        seed: 0,
        verify: Verify::Off,
        fidelity: FidelityCheck::Off,
        keep_verbatim_newest: 1,
        keep_permille: 500,
        compress_threshold_tokens: 1,
        score_by: None,
        score_layers: None,
        score_rope: None,
        selection: None,
        keep_floor_tokens: 0,
        verbatim_tools: Vec::new(),
        with_tools: Some(WithTools::Bypass),
        user_fallback: FallbackChoice::Auto,
        residency: Residency::Resident,
        freeze_store: None,
        sample_period_ms: 50,
    }
}

/// A plan of these arms over these sessions.
pub fn plan(settings: Settings, arms: &[&str], sessions: &[SourcedSession]) -> Plan {
    let names: Vec<String> = arms.iter().map(|&name| name.to_owned()).collect();
    let arms = arm::choose(&names, &[], &settings.arm_defaults()).unwrap();
    Plan::build(settings, arms, sessions).unwrap()
}

/// Sessions with their sources.
pub fn sourced(sessions: Vec<Session>) -> Vec<SourcedSession> {
    let sourced = |session: Session| SourcedSession { source: format!("{}.jsonl", session.id), session };
    sessions.into_iter().map(sourced).collect()
}

/// A mock with faults on calls counted from 0.
pub fn mock_with(faults: &[(u64, Fault)]) -> MockBackend {
    MockBackend::scripted(Script { faults: faults.iter().copied().collect(), ..Script::default() })
}

/// Sets a flag after so many recorded calls: the interrupt of a user who watches.
struct StopAfter<'a> {
    left: u64,
    stop: &'a AtomicBool,
}

impl Progress for StopAfter<'_> {
    fn pass_begins(&mut self, _arm: &str, _repeat: u32) {}
    fn call_begins(&mut self, _key: &Key<'_>) {}
    fn call_ends(&mut self, _record: &CallRecord) {
        self.left -= 1;
        if self.left == 0 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn call_rebuilt(&mut self) {}
    fn pass_ends(&mut self) {}
}

/// Says nothing.
struct Silent;

impl Progress for Silent {
    fn pass_begins(&mut self, _arm: &str, _repeat: u32) {}
    fn call_begins(&mut self, _key: &Key<'_>) {}
    fn call_ends(&mut self, _record: &CallRecord) {}
    fn call_rebuilt(&mut self) {}
    fn pass_ends(&mut self) {}
}

/// What surrounds a run of these tests.
#[derive(Default)]
pub struct Around {
    /// Calls that have a record.
    pub done: Done,
    /// Recorded calls after which the user interrupts.
    pub stop_after: Option<u64>,
    /// Sources of telemetry.
    pub sources: Sources,
}

/// Runs a plan into `dir`, going on from what is recorded there; stops after `stop_after` calls if that is given.
pub fn run(
    plan: &Plan,
    sessions: &[SourcedSession],
    backend: &mut dyn Backend,
    dir: &Path,
    stop_after: Option<u64>,
) -> Result<RunEnd, ReplayError> {
    let run_dir = if dir.join("run.json").exists() { RunDir::open(dir)? } else { RunDir::create(dir)? };
    let done = Done::of(&run_dir.calls()?.rows);
    run_around(plan, sessions, backend, run_dir, Around { done, stop_after, ..Around::default() })
}

/// As [`run`], with everything around it given.
pub fn run_around(
    plan: &Plan,
    sessions: &[SourcedSession],
    backend: &mut dyn Backend,
    run_dir: RunDir,
    around: Around,
) -> Result<RunEnd, ReplayError> {
    let identity = backend.identity();
    let surroundings = replay::manifest::Surroundings::default();
    run_dir.write_manifest(&replay::manifest::begin(RUN_ID, plan, &identity, surroundings)?)?;
    let stop = AtomicBool::new(around.stop_after == Some(0));
    let mut progress: Box<dyn Progress> = match around.stop_after {
        Some(left) if left > 0 => Box::new(StopAfter { left, stop: &stop }),
        _ => Box::new(Silent),
    };
    Runner {
        previous: None,
        plan,
        sessions,
        run_id: RUN_ID,
        backend,
        identity: &identity,
        telemetry: &Telemetry::start(
            RunClock::start(Duration::ZERO),
            around.sources,
            plan.settings.sample_period(),
        ),
        recorder: &mut Recorder::open(run_dir)?,
        progress: progress.as_mut(),
        done: &around.done,
        stop: &stop,
    }
    .run()
}

/// The records of a run directory.
pub fn records(dir: &Path) -> Vec<CallRecord> {
    RunDir::open(dir).unwrap().calls().unwrap().rows
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it instead.
pub fn check_golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(expected, got, "{name} differs; UPDATE_GOLDEN=1 cargo test -p replay writes it again");
}
