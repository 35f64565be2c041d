//! What a daemon costs by the number of its ports: attaching them, resting, and being scraped.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cpu::process_seconds as cpu;
use super::lab::until;
use super::statistics::median;
use super::systems::System;

/// Where the daemon serves its metrics, in a namespace of its own.
const METRICS: &str = "127.0.0.1:9798";
/// Scrapes; their median counts.
const SCRAPES: usize = 10;

/// A daemon with so many ports.
pub struct Scale {
    /// From the daemon's start until all ports are attached, in seconds.
    pub attach_s: f64,
    /// Processor time over wall time at rest, in percent of one processor.
    pub cpu_percent: f64,
    /// Resident memory, in MiB.
    pub rss_mib: f64,
    /// Processor time of the daemon per scrape, in ms.
    pub scrape_ms: f64,
}

/// Starts a daemon with `ports` taps that nobody holds, lets it come to rest, watches it for `time`, and scrapes it.
pub fn measure(binary: &Path, ports: usize, time: Duration) -> Result<Scale> {
    let mut text = String::new();
    for port in 0..ports {
        write!(text, "[[port]]\nname = \"p{port}\"\ntap = \"t{port}\"\n")?;
    }
    let file = std::env::temp_dir().join(format!("weftbench-scale-{}.toml", std::process::id()));
    fs::write(&file, text)?;
    let result = with_file(binary, &file, ports, time);
    fs::remove_file(&file)?;
    result
}

fn with_file(binary: &Path, file: &Path, ports: usize, time: Duration) -> Result<Scale> {
    let start = Instant::now();
    let system = System::configured(binary, "i", file, METRICS)?;
    let pid = system.daemon()?;
    until(Duration::from_mins(2), || {
        let ports_now = system.ask("port list")?;
        let attached = ports_now.as_array().map_or(0, |all| all.iter().filter(|port| is_attached(port)).count());
        Ok((attached == ports).then_some(()))
    })
    .context("the ports did not come")?;
    let attach_s = start.elapsed().as_secs_f64();
    // Rest is when a second passes that cost next to nothing.
    until(Duration::from_secs(30), || Ok((watch(pid, Duration::from_secs(1))? < 0.5).then_some(())))
        .context("the daemon does not come to rest")?;
    let (cpu_percent, rss_mib) = (watch(pid, time)?, resident(pid)?);
    let scrapes =
        system.namespace().inside(|| (0..SCRAPES).map(|_| scrape(pid, ports)).collect::<Result<Vec<f64>>>())?;
    Ok(Scale { attach_s, cpu_percent, rss_mib, scrape_ms: median(&scrapes) })
}

/// A tap that nobody holds has no carrier, and is attached.
fn is_attached(port: &serde_json::Value) -> bool {
    port.get("state").and_then(serde_json::Value::as_str).is_some_and(|state| ["up", "no_carrier"].contains(&state))
}

/// Processor time of the daemon for one scrape, in ms. Every port must be in it.
fn scrape(pid: u32, ports: usize) -> Result<f64> {
    let before = cpu(pid)?;
    let mut stream = TcpStream::connect(METRICS).context("nobody serves metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let found = answer.lines().filter(|line| line.starts_with("weft_port_up{")).count();
    if found != ports {
        bail!("a scrape names {found} ports of {ports}");
    }
    Ok((cpu(pid)? - before) * 1e3)
}

/// Percent of one processor that the process uses for a while.
pub fn watch(pid: u32, time: Duration) -> Result<f64> {
    let before = cpu(pid)?;
    let start = Instant::now();
    std::thread::sleep(time);
    Ok((cpu(pid)? - before) / start.elapsed().as_secs_f64() * 100.0)
}

fn resident(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
