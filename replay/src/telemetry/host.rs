//! Resident set and CPU use of this process, through sysinfo.

use reports::record::TelemetrySample;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::telemetry::Source;

/// Shortest time over which CPU use is taken, ms: the system counts CPU time in ticks of 10 ms.
pub const CPU_WINDOW_MS_MIN: f64 = 50.0;

/// Samples this process.
pub struct HostSource {
    system: System,
    pid: Pid,
    cpu_before: Option<CpuTime>,
}

/// CPU time of the process at a time of the run, both in ms.
#[derive(Clone, Copy, Debug)]
struct CpuTime {
    time_ms: f64,
    cpu_ms: u64,
}

impl HostSource {
    /// Finds this process.
    ///
    /// # Errors
    /// The platform does not say; the reason goes into `run.json`.
    pub fn open() -> Result<Self, String> {
        let pid = sysinfo::get_current_pid().map_err(str::to_owned)?;
        let mut source = Self { system: System::new(), pid, cpu_before: None };
        source.refresh();
        match source.system.process(pid) {
            Some(_) => Ok(source),
            None => Err("the platform does not report this process".to_owned()),
        }
    }

    fn refresh(&mut self) {
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), false, what);
    }

    /// Cores in use since the last sample that was far enough away; `None` where there is none yet.
    fn cpu_cores(&mut self, now: CpuTime) -> Option<f64> {
        let before = *self.cpu_before.get_or_insert(now);
        let window_ms = now.time_ms - before.time_ms;
        if window_ms < CPU_WINDOW_MS_MIN {
            return None;
        }
        self.cpu_before = Some(now);
        Some(now.cpu_ms.saturating_sub(before.cpu_ms) as f64 / window_ms)
    }
}

impl Source for HostSource {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        self.refresh();
        let process = self.system.process(self.pid);
        let Some((rss, cpu_ms)) = process.map(|p| (p.memory(), p.accumulated_cpu_time())) else { return };
        sample.host_rss_bytes = Some(rss);
        sample.host_cpu_cores = self.cpu_cores(CpuTime { time_ms: sample.time_ms, cpu_ms });
    }
}
