//! The command line as an operator uses it, with its JSON read back.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command;

/// Frames and their weight, as `port list -o json` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Tally {
    /// Frames, super-frames once.
    pub frames: u64,
    /// Frames as a wire would have carried them.
    pub wire_frames: u64,
    /// Bytes, super-frames once.
    pub bytes: u64,
}

/// A port, as `port list -o json` gives it.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// `netdev`, `tap`, `netns` or `host`.
    pub kind: String,
    /// `file` or `command`.
    pub origin: String,
    /// Its netdev, when it has one.
    pub netdev: Option<String>,
    /// `up`, `no_carrier`, `down`, `absent` or `failed`.
    pub state: String,
    /// What came in.
    pub ingress: Tally,
    /// What went out.
    pub egress: Tally,
    /// Drops by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// A learned or static station, as `fdb -o json` gives it.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct StationEntry {
    /// Its address.
    pub mac: String,
    /// The port's name.
    pub port: String,
    /// Whether an operator put it there.
    #[serde(rename = "static", alias = "is_static", default)]
    pub is_static: bool,
}

/// What a command that failed said.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its exit code.
    pub code: i32,
    /// Its standard error.
    pub message: String,
}

/// Runs `weft` for one instance.
#[derive(Clone, Debug)]
pub struct Cli {
    binary: PathBuf,
    name: String,
}

impl Cli {
    /// For the instance `name`.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self { binary: binary()?, name: name.to_owned() })
    }

    /// The binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `weft` with blank-separated words, whatever its exit code.
    pub fn output(&self, line: &str) -> Result<Output> {
        self.output_of(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `weft` with these arguments, whatever its exit code.
    pub fn output_of(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = std::process::Command::new(&self.binary);
        command::output(command.arg("--name").arg(&self.name).args(arguments))
    }

    /// Runs `weft`, which must succeed; its standard output.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        ensure!(
            output.status.success(),
            "weft {line}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `weft`, which must fail; its exit code and what it said.
    pub fn refused(&self, line: &str) -> Result<Refusal> {
        self.refused_of(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// As [`Self::refused`], with arguments that may be empty or contain blanks.
    pub fn refused_of(&self, arguments: &[&str]) -> Result<Refusal> {
        let output = self.output_of(arguments)?;
        ensure!(!output.status.success(), "weft {arguments:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(message.contains("error:"), "weft {arguments:?} failed without a word of error: {message:?}");
        Ok(Refusal { code: output.status.code().context("killed by a signal")?, message })
    }

    /// Runs `weft -o json …` and reads what it prints.
    pub fn json<T: DeserializeOwned>(&self, line: &str) -> Result<T> {
        let text = self.run(&format!("-o json {line}"))?;
        serde_json::from_str(&text).with_context(|| format!("weft -o json {line} printed {text}"))
    }

    /// The ports.
    pub fn ports(&self) -> Result<Vec<Port>> {
        self.json("port list")
    }

    /// One port.
    pub fn port(&self, name: &str) -> Result<Port> {
        self.ports()?.into_iter().find(|port| port.name == name).with_context(|| format!("no port {name}"))
    }

    /// The stations.
    pub fn stations(&self) -> Result<Vec<StationEntry>> {
        self.json("fdb")
    }

    /// The ledger as it stands, whatever its shape.
    pub fn ledger(&self) -> Result<Value> {
        self.json("ledger")
    }

    /// Drops of one port for one reason.
    pub fn drops(&self, port: &str, reason: &str) -> Result<u64> {
        Ok(self.port(port)?.drops.get(reason).copied().unwrap_or(0))
    }
}

/// The binary under test: `WEFT_BIN`, or the one cargo built beside this test.
fn binary() -> Result<PathBuf> {
    match std::env::var_os("WEFT_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => built("weft").context("`cargo build -p weft` first, or set WEFT_BIN"),
    }
}

/// A binary that cargo built beside this test.
pub fn built(name: &str) -> Result<PathBuf> {
    // …/target/debug/deps/it-0123 → …/target/debug/weft
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).map(|folder| folder.join(name)).find(|file| file.is_file());
    beside.with_context(|| format!("no {name} binary beside this test"))
}
