//! Facts of this machine and this program, for `run.json` and `doctor`: processor, cores, memory, system, commit.

use std::collections::BTreeMap;
use std::thread;

use serde_json::Value;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of the source, with `+dirty` where it had changes; absent when built outside of a checkout.
pub const GIT_COMMIT: Option<&str> = option_env!("REPRISE_GIT_COMMIT");

/// Processor, cores, memory and system; what the platform does not say is left out.
pub fn facts() -> BTreeMap<String, Value> {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what);
    let mut facts = BTreeMap::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            facts.insert(key.to_owned(), value);
        }
    };
    put("cpu", system.cpus().first().map(|cpu| cpu.brand().trim().into()));
    put("cores_physical", System::physical_core_count().map(Value::from));
    put("cores_logical", Some(system.cpus().len().into()));
    put("threads_available", thread::available_parallelism().ok().map(|n| n.get().into()));
    put("memory_bytes", Some(system.total_memory().into()));
    put("memory_available_bytes", Some(system.available_memory().into()));
    put("os", System::long_os_version().map(Value::from));
    put("kernel", System::kernel_version().map(Value::from));
    put("arch", Some(System::cpu_arch().into()));
    facts
}
