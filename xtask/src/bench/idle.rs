//! What a daemon costs when nothing happens: processor time and memory with 100 ports.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::lab::until;
use super::systems::System;

/// Ports attached.
const PORTS: usize = 100;

/// Percent of one processor, and mebibytes resident.
pub struct Idle {
    /// Processor time over wall time, in percent.
    pub cpu_percent: f64,
    /// Resident memory, in MiB.
    pub rss_mib: f64,
}

/// Starts a daemon with 100 taps that nobody holds, lets it come to rest, and watches it for `time`.
pub fn measure(binary: &Path, time: Duration) -> Result<Idle> {
    let mut text = String::new();
    for port in 0..PORTS {
        write!(text, "[[port]]\nname = \"p{port}\"\ntap = \"t{port}\"\n")?;
    }
    let file = std::env::temp_dir().join(format!("weftbench-idle-{}.toml", std::process::id()));
    fs::write(&file, text)?;
    let result = with_file(binary, &file, time);
    fs::remove_file(&file)?;
    result
}

fn with_file(binary: &Path, file: &Path, time: Duration) -> Result<Idle> {
    let system = System::configured(binary, "i", file)?;
    let pid = system.daemon()?;
    until(Duration::from_secs(30), || {
        let attached = system.ask("port list")?.as_array().map_or(0, Vec::len);
        Ok((attached == PORTS).then_some(()))
    })
    .context("the ports did not come")?;
    // Rest is when a second passes that cost less than the clock's own step.
    until(Duration::from_secs(30), || Ok((watch(pid, Duration::from_secs(1))? < 0.5).then_some(())))
        .context("the daemon does not come to rest")?;
    Ok(Idle { cpu_percent: watch(pid, time)?, rss_mib: resident(pid)? })
}

/// Percent of one processor that the process uses for a while.
fn watch(pid: u32, time: Duration) -> Result<f64> {
    let before = cpu(pid)?;
    let start = Instant::now();
    std::thread::sleep(time);
    Ok((cpu(pid)? - before) / start.elapsed().as_secs_f64() * 100.0)
}

/// Processor seconds of all threads, as exact as the kernel keeps them.
fn cpu(pid: u32) -> Result<f64> {
    let mut ns = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let field = text.split_whitespace().next().context("an empty schedstat")?;
        ns += field.parse::<f64>()?;
    }
    if ns == 0.0 {
        bail!("this kernel does not count processor time per thread (CONFIG_SCHED_INFO)");
    }
    Ok(ns / 1e9)
}

fn resident(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
