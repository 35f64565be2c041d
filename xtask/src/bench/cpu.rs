//! What a measurement cost the machine: processor time of the bench, of programs it started and that have ended, of the
//! switch, and of the kernel's own threads that work for netdevs.
//!
//! It is not all that the processors did: on a machine that is shared, that would be the neighbours' work too. What a
//! switch in the kernel does runs inside of a write, in the time of its writer, or in a softirq, in the time of whom it
//! interrupts; when there is much of it, in that of `ksoftirqd`.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread, in nanoseconds; includes what the kernel does for its system calls.
pub fn cpu_ns() -> i64 {
    clock_ns(ClockId::ThreadCPUTime)
}

fn clock_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Adds up what is spent from a moment on.
pub struct Meter {
    processes: Vec<u32>,
    start: f64,
}

impl Meter {
    /// From now on, with these processes as the switch.
    pub fn start(mut processes: Vec<u32>) -> Result<Self> {
        processes.extend(softirq_threads()?);
        let start = spent(&processes)?;
        Ok(Self { processes, start })
    }

    /// Nanoseconds until now.
    pub fn read(&self) -> Result<f64> {
        Ok(spent(&self.processes)? - self.start)
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a process stay below 2^53, which is 104 days")]
fn spent(processes: &[u32]) -> Result<f64> {
    let mut ns = clock_ns(ClockId::ProcessCPUTime) as f64 + children()?;
    for process in processes {
        ns += process_seconds(*process)? * 1e9;
    }
    Ok(ns)
}

/// Processor seconds of all threads of a process, as exact as the kernel keeps them.
pub fn process_seconds(pid: u32) -> Result<f64> {
    let mut ns = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        ns += text.split_whitespace().next().context("an empty schedstat")?.parse::<f64>()?;
    }
    if ns == 0.0 {
        bail!("this kernel does not count processor time per thread (CONFIG_SCHED_INFO)");
    }
    Ok(ns / 1e9)
}

/// Nanoseconds of the programs that were started and have ended, in ticks of 10 ms.
fn children() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; `cutime` and `cstime` are fields 16 and 17, counted from 1.
    let (_, rest) = text.rsplit_once(')').context("/proc/self/stat")?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(13).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() * 1e7)
}

/// The kernel's threads `ksoftirqd/N`.
fn softirq_threads() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two looks.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            found.push(pid);
        }
    }
    Ok(found)
}
