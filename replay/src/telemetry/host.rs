//! Resident set and CPU use of this process, through sysinfo.

use reports::record::TelemetrySample;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::telemetry::Source;

/// Samples this process.
pub struct HostSource {
    system: System,
    pid: Pid,
}

impl HostSource {
    /// Finds this process.
    ///
    /// # Errors
    /// The platform does not say; the reason goes into `run.json`.
    pub fn open() -> Result<Self, String> {
        let pid = sysinfo::get_current_pid().map_err(str::to_owned)?;
        let mut source = Self { system: System::new(), pid };
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
}

impl Source for HostSource {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        self.refresh();
        if let Some(process) = self.system.process(self.pid) {
            sample.host_rss_bytes = Some(process.memory());
            // sysinfo gives percent of one core.
            sample.host_cpu_cores = Some(f64::from(process.cpu_usage()) / 100.0);
        }
    }
}
