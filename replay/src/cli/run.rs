//! `reprise run`: from flags to a run directory with its report. The loop itself is `runner`; this file assembles it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reports::record::{CallRecord, RunManifest};
use reports::store::RunDir;
use serde_json::Value;

use crate::backend::engine::EngineBackend;
use crate::backend::{Backend, Device, Identity};
use crate::cli::run_args::RunArgs;
use crate::cli::{Outcome, plan_text, report};
use crate::clock::{RunClock, now_rfc3339};
use crate::error::ReplayError;
use crate::manifest::{self, Surroundings};
use crate::plan::Plan;
use crate::progress::{Bar, Lines, Progress};
use crate::recorder::Recorder;
use crate::resume::{self, Done};
use crate::runner::{RunEnd, Runner};
use crate::sessions::{self, SourcedSession};
use crate::telemetry::nvml::Which;
use crate::telemetry::{self, IDLE_TIME, Sources, Telemetry};

/// A run that is ready to go: new, or cut before.
struct Prepared {
    plan: Plan,
    sessions: Vec<SourcedSession>,
    earlier: Option<Earlier>,
}

/// What an earlier part of a run left.
struct Earlier {
    dir: RunDir,
    manifest: RunManifest,
    records: Vec<CallRecord>,
}

/// Runs, or prints the plan.
///
/// # Errors
/// Bad input, a run that turned out invalid, a device or disk that refuses.
pub fn run(args: &RunArgs, command: &[OsString], end_at_once: fn()) -> Result<Outcome, ReplayError> {
    let prepared = match &args.resume {
        Some(path) => prepare_resumed(path)?,
        None => prepare_new(args)?,
    };
    if args.plan {
        plan_text::print(&prepared.plan, args.output.as_deref(), args.json)?;
        return Ok(Outcome::Pass);
    }
    for note in &prepared.plan.notes {
        eprintln!("note: {note}");
    }
    let mut backend = EngineBackend::open(&prepared.plan.settings)?;
    let identity = backend.identity();
    if let Some(reason) = identity.device_facts.get("no_cuda").and_then(Value::as_str) {
        eprintln!("note: the models run on the CPU: {reason}");
    }
    let command = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let run = Run::begin(prepared, identity, command, args.output.clone())?;
    let stop = stop_on_signal(end_at_once)?;
    run.execute(&mut backend, &stop)
}

fn prepare_new(args: &RunArgs) -> Result<Prepared, ReplayError> {
    let working_dir =
        std::env::current_dir().map_err(|source| ReplayError::Io { action: "current directory", source })?;
    let settings = args.settings(working_dir);
    let arms = args.chosen_arms(&settings)?;
    let sessions = sessions::load(&settings)?;
    for warning in &sessions.warnings {
        eprintln!("warning: {warning}");
    }
    let plan = Plan::build(settings, arms, &sessions.sessions)?;
    Ok(Prepared { plan, sessions: sessions.sessions, earlier: None })
}

fn prepare_resumed(path: &Path) -> Result<Prepared, ReplayError> {
    let dir = RunDir::open(path)?;
    let manifest = dir.manifest()?;
    let (settings, arms) = resume::settings(path, &manifest)?;
    let sessions = sessions::load(&settings)?;
    let plan = Plan::build(settings, arms, &sessions.sessions)?;
    let calls = dir.calls()?;
    for warning in calls.warnings.iter().chain(&sessions.warnings) {
        eprintln!("warning: {warning}");
    }
    resume::check(path, &manifest, &plan, &calls.rows)?;
    let earlier = Earlier { dir, manifest, records: calls.rows };
    Ok(Prepared { plan, sessions: sessions.sessions, earlier: Some(earlier) })
}

/// A run with its directory and manifest.
struct Run {
    plan: Plan,
    sessions: Vec<SourcedSession>,
    identity: Identity,
    manifest: RunManifest,
    recorder: Recorder,
    sources: Sources,
    clock: RunClock,
    done: Done,
}

impl Run {
    fn begin(
        prepared: Prepared,
        identity: Identity,
        command: Vec<String>,
        output: Option<PathBuf>,
    ) -> Result<Self, ReplayError> {
        let Prepared { plan, sessions, earlier } = prepared;
        let opened = telemetry::open(&board_of(&identity));
        let (dir, manifest, before, done) = match earlier {
            Some(Earlier { dir, manifest, records }) => {
                resume::check_models(dir.path(), &manifest, &identity.models)?;
                let before = resume::time_before(&dir.telemetry()?.rows);
                (dir, manifest, before, Done::of(&records))
            }
            None => {
                let run_id = manifest::new_run_id();
                let dir = RunDir::create(output.unwrap_or_else(|| Path::new("runs").join(&run_id)))?;
                let surroundings =
                    Surroundings { command, gpu_facts: opened.gpu_facts, telemetry_absent: opened.absent };
                let manifest = manifest::begin(&run_id, &plan, &identity, surroundings)?;
                (dir, manifest, Duration::ZERO, Done::default())
            }
        };
        let recorder = Recorder::open(dir)?;
        recorder.write_manifest(&manifest)?;
        let clock = RunClock::start(before);
        Ok(Self { plan, sessions, identity, manifest, recorder, sources: opened.sources, clock, done })
    }

    fn execute(mut self, backend: &mut dyn Backend, stop: &AtomicBool) -> Result<Outcome, ReplayError> {
        let n_done = self.done.len() as u64;
        let mut progress: Box<dyn Progress> = if std::io::stderr().is_terminal() {
            Box::new(Bar::new(&self.plan, n_done))
        } else {
            Box::new(Lines::new(&self.plan, n_done))
        };
        let sources = std::mem::take(&mut self.sources);
        let telemetry = Telemetry::start(self.clock, sources, self.plan.settings.sample_period());
        if self.identity.device != Device::Cpu {
            telemetry.watch_idle(IDLE_TIME);
        }
        let ended = Runner {
            previous: None,
            plan: &self.plan,
            sessions: &self.sessions,
            run_id: &self.manifest.run_id,
            backend,
            identity: &self.identity,
            telemetry: &telemetry,
            recorder: &mut self.recorder,
            progress: progress.as_mut(),
            done: &self.done,
            stop,
        }
        .run();
        drop(progress);
        let path = self.recorder.dir().path().display();
        let ended = ended
            .inspect_err(|_| eprintln!("what was measured is kept; `reprise report {path}` shows it"))?;
        self.manifest.telemetry = telemetry.facts();
        if let Some(reason) = telemetry.lost().first() {
            self.manifest
                .telemetry_absent
                .insert("nvml".to_owned(), format!("lost during the run: {reason}"));
        }
        if ended == RunEnd::Complete {
            self.manifest.finished_at = Some(now_rfc3339());
        }
        self.recorder.write_manifest(&self.manifest)?;
        report::write(self.recorder.dir())?;
        let verdict = Verdict::of(&self.recorder.dir().calls()?.rows, ended);
        verdict.explain(self.recorder.dir().path());
        Ok(verdict.outcome())
    }
}

/// The board that the models run on; the first one where they run on the CPU. CUDA and NVML may number boards
/// differently, so the id goes before the number.
fn board_of(identity: &Identity) -> Which {
    let uuid = identity.device_facts.get("uuid").and_then(Value::as_str);
    match (uuid, identity.device) {
        (Some(uuid), _) => Which::Uuid(uuid.to_owned()),
        (None, Device::Cuda(ordinal)) => Which::Index(ordinal),
        (None, Device::Cpu) => Which::Index(0),
    }
}

/// What a finished or stopped run amounts to.
struct Verdict {
    end: RunEnd,
    n_calls: usize,
    n_failed: usize,
    n_not_exact: usize,
}

impl Verdict {
    fn of(records: &[CallRecord], end: RunEnd) -> Self {
        Self {
            end,
            n_calls: records.len(),
            n_failed: records.iter().filter(|record| record.error.is_some()).count(),
            n_not_exact: records.iter().filter(|record| record.exact == Some(false)).count(),
        }
    }

    const fn outcome(&self) -> Outcome {
        match self.end {
            RunEnd::Stopped => Outcome::Invalid,
            RunEnd::Complete if self.n_failed == self.n_calls => Outcome::Invalid,
            RunEnd::Complete if self.n_failed + self.n_not_exact > 0 => Outcome::Failed,
            RunEnd::Complete => Outcome::Pass,
        }
    }

    fn explain(&self, path: &Path) {
        if self.n_failed > 0 {
            eprintln!("{} of {} calls failed; their records say why", self.n_failed, self.n_calls);
        }
        if self.n_not_exact > 0 {
            eprintln!(
                "{} of {} calls: cached logits are not equal to cold ones",
                self.n_not_exact, self.n_calls
            );
        }
        if self.end == RunEnd::Stopped {
            eprintln!(
                "stopped after {} calls; continue with `reprise run --resume {}`",
                self.n_calls,
                path.display()
            );
        }
    }
}

/// The first signal ends the run after the call in flight, the second one at once: every record is on disk by then.
fn stop_on_signal(end_at_once: fn()) -> Result<Arc<AtomicBool>, ReplayError> {
    let stop = Arc::new(AtomicBool::new(false));
    let of_handler = Arc::clone(&stop);
    let handler = move || {
        if of_handler.swap(true, Ordering::Relaxed) {
            end_at_once();
        }
        eprintln!("stopping after the call in flight; once more to stop at once");
    };
    match ctrlc::set_handler(handler) {
        Ok(()) => Ok(stop),
        Err(error) => Err(ReplayError::Io {
            action: "signal handler",
            source: std::io::Error::other(error.to_string()),
        }),
    }
}
