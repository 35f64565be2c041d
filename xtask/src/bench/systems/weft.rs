//! Weft: the release binary, started as an operator would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Folder, Kind};
use crate::bench::lab::{Namespace, Running, instance, until};
use crate::shell;

/// Where metrics are served, in the namespace of the switch.
const METRICS: &str = "127.0.0.1:9798";

/// A daemon of ours: the real binary.
pub(super) struct Weft {
    _scraper: Option<Scraper>,
    running: Running,
    state: Folder,
    binary: PathBuf,
    name: String,
}

impl Weft {
    /// Starts what the kind says.
    pub(super) fn start(kind: Kind, binary: &Path, namespace: &Namespace, slot: &str) -> Result<Self> {
        let (datapath, metrics, flows) = match kind {
            Kind::WeftUserspace => ("userspace", "off", ""),
            Kind::WeftForwarding => ("kernel", "off", "[flows]\nenabled = false\n"),
            Kind::WeftSmallTable => ("kernel", "off", "[flows]\nmax = 65536\n"),
            Kind::WeftLargeTable => ("kernel", "off", "[flows]\nmax = 2097152\nper_port = 2097152\n"),
            Kind::WeftRecorder => ("kernel", METRICS, "[capture.recorder]\nenabled = true\n"),
            _ => ("kernel", METRICS, ""),
        };
        let file = std::env::temp_dir().join(format!("weftbench-{}{slot}.toml", std::process::id()));
        std::fs::write(&file, format!("[switch]\nstations_max = 1048576\n{flows}"))?;
        let started = Self::run(binary, namespace, slot, [datapath, metrics], Some(&file));
        std::fs::remove_file(&file)?;
        let scraper = (metrics != "off").then(|| Scraper::start(namespace)).transpose()?;
        Ok(Self { _scraper: scraper, ..started? })
    }

    /// Starts the daemon with a configuration file.
    pub(super) fn run(
        binary: &Path,
        namespace: &Namespace,
        slot: &str,
        [datapath, metrics]: [&str; 2],
        file: Option<&Path>,
    ) -> Result<Self> {
        let name = instance(std::process::id(), slot);
        let state = Folder::new(slot)?;
        let mut command = Command::new(binary);
        command.args(["--name", &name, "run", "--datapath", datapath, "--on-stop", "remove", "--log-level", "error"]);
        command.args(["--metrics", metrics]).arg("--state-dir").arg(&state.0);
        command.arg("--socket").arg(state.0.join("api.sock"));
        if let Some(file) = file {
            command.arg("-c").arg(file);
        }
        let running = Running(namespace.spawn(command.stdin(Stdio::null()))?);
        let mut weft = Self { _scraper: None, running, state, binary: binary.to_owned(), name };
        until(Duration::from_secs(20), || {
            if let Some(status) = weft.running.0.try_wait()? {
                bail!("`weft run` ended with {status}; its words are above");
            }
            Ok(weft.command("port list").ok())
        })
        .context("the daemon did not answer")?;
        Ok(weft)
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.running.id()
    }

    /// The instance's name, which is also its punt tap's.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Attaches a netdev with no bounds on its stations and floods.
    pub(super) fn attach(&self, netdev: &str) -> Result<()> {
        let port = serde_json::json!({
            "name": netdev, "kind": "netdev", "netdev": netdev, "origin": "command", "station_limit": 1_048_576, "flood_per_sec": 10_000_000,
        });
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail-with-body", "--unix-socket"]);
        command.arg(self.state.0.join("api.sock"));
        command.args(["--header", "content-type: application/json", "--data", &port.to_string()]);
        shell::output(command.arg("http://weft/v1/ports")).map(drop)
    }

    /// Gives a namespace an interface.
    pub(super) fn attach_container(&self, port: &str, inside: &str, address: &str) -> Result<()> {
        self.command(&format!("port add {port} --netns {inside} --ifname eth0 --address {address}")).map(drop)
    }

    /// Writes the headers of frames to files: two of 64 MB in turn, as tcpdump is told to.
    pub(super) fn capture(&self, file: &Path, arguments: &str) -> Result<Running> {
        let mut command = Command::new(&self.binary);
        command.env("WEFT_SOCKET", self.state.0.join("api.sock")).args(["--name", &self.name, "capture", "-w"]);
        command.arg(file).args(["-C", "64M", "-W", "2"]).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Running(command.spawn().context("weft capture cannot be started")?))
    }

    /// Runs `weft` as an operator would.
    pub(super) fn command(&self, line: &str) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.env("WEFT_SOCKET", self.state.0.join("api.sock"));
        shell::output(command.args(["--name", &self.name]).args(line.split_whitespace()))
    }
}

/// A Prometheus reduced to its request: every second, the whole of `/metrics`.
struct Scraper {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    fn start(namespace: &Namespace) -> Result<Self> {
        // A thread enters a namespace for good, so the connection is made by one that lives there.
        let entrance = namespace.entrance()?;
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let scraped = entrance.enter().and_then(|()| {
                while !end.load(Ordering::Relaxed) {
                    scrape()?;
                    std::thread::park_timeout(Duration::from_secs(1));
                }
                Ok(())
            });
            if let Err(error) = scraped
                && !end.load(Ordering::Relaxed)
            {
                eprintln!("bench: a scrape failed, from here on there are none: {error:#}");
            }
        });
        Ok(Self { ends, thread: Some(thread) })
    }
}

fn scrape() -> Result<()> {
    let mut stream = TcpStream::connect(METRICS).context("nobody serves metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.contains("weft_port_up") && !answer.contains("weft_build_info") {
        bail!("a scrape without metrics: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}
