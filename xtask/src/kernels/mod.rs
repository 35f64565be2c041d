//! `cargo xtask test --kernel 6.1 --kernel 6.12`: the same tests under other kernels than this machine's.
//!
//! ```text
//!   apt ─ package ─► kernel, modules ┐
//!   cargo ─────────► weft, tests ────┼─ initramfs ─► machine (QEMU, TCG) ─ console ─► results, exit code
//!   this machine ──► tools, libraries┘
//! ```
//!
//! Nothing is installed and nobody needs to be root: the guest is. It is an emulated machine, an order of magnitude
//! slower than this one, so the tests wait longer (`WEFT_TESTS_PATIENCE`) and only those run that a kernel can make fail.
//! All kernels at once, each on one of this machine's processors: see `machine.rs`.

mod initramfs;
mod machine;
mod package;
mod plan;
mod results;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::{self, Profile};
use crate::{setup, shell};
use initramfs::Program;
use plan::Boot;
use results::Results;

/// The series that Weft is promised to run on besides this machine's.
pub const PROMISED: [&str; 2] = ["6.1", "6.12"];
/// What the matrix takes of this machine.
const TOOLS: [&str; 4] = ["qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb"];

/// The first program that the matrix takes and this machine lacks.
pub fn lacking() -> Option<&'static str> {
    TOOLS.into_iter().find(|tool| shell::find(tool).is_none())
}

/// Runs the datapath tests, or those whose name contains `filter`, on each series of kernels; `variables` are set when the
/// programs under test are built.
pub fn run(series: &[String], filter: Option<&str>, args: &[OsString], variables: &[(&str, OsString)]) -> Result<()> {
    setup::run(false)?;
    let variables = || variables.iter().map(|(name, value)| (*name, value));
    let weft = workspace::weft(Profile::Debug, variables())?;
    let mut tests = test_binaries(variables())?;
    let mut take = |name| tests.remove(name).with_context(|| format!("cargo built no test binary {name}"));
    let programs = [
        Program { name: "weft", path: weft },
        Program { name: "vmm-harness", path: workspace::monitor(Profile::Debug)? },
        Program { name: "it", path: take("it")? },
        Program { name: "reflex", path: take("weft")? },
    ];
    let machines = series
        .iter()
        .map(|series| Ok((series.as_str(), Ready::new(series, &programs, filter, args)?)))
        .collect::<Result<Vec<_>>>()?;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            machines.iter().map(|(series, ready)| (*series, scope.spawn(|| ready.run(series)))).collect();
        running.into_iter().map(|(series, machine)| (series, machine.join())).collect()
    });
    let mut faults = Vec::new();
    for (series, outcome) in outcomes {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(format!("{series}: {error:#}")),
            Err(_) => faults.push(format!("{series}: who watched the machine panicked")),
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// A kernel, and what is booted with it, one after the other.
struct Ready {
    kernel: package::Kernel,
    boots: Vec<(Boot, PathBuf)>,
}

impl Ready {
    fn new(series: &str, programs: &[Program], filter: Option<&str>, args: &[OsString]) -> Result<Self> {
        let kernel = package::fetch(series)?;
        let folder = workspace::target().join("kernels").join(series);
        let mut boots = Vec::new();
        for boot in plan::boots(series, filter, args)? {
            let initrd = folder.join(boot.name);
            initramfs::pack(&kernel, programs, plan::has_guests(series), &boot.script, &initrd)?;
            boots.push((boot, initrd));
        }
        Ok(Self { kernel, boots })
    }

    /// Boots each, and says how long all took.
    fn run(&self, series: &str) -> Result<()> {
        let start = Instant::now();
        for (boot, initrd) in &self.boots {
            self.boot(series, boot, initrd)?;
        }
        eprintln!("kernels: {series}: {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Boots, and judges what is said; whose line is whose is in front of each.
    fn boot(&self, series: &str, boot: &Boot, initrd: &Path) -> Result<()> {
        eprintln!("kernels: booting {}", self.kernel.release);
        let mut results = Results::default();
        let booted = machine::boot(&self.kernel, initrd, boot.processors, |line| {
            if results.take(line) {
                println(&format!("{series} | {line}"));
            }
        });
        println(&format!("kernels: {}\n{results}", self.kernel.release));
        booted?;
        results.judge(boot.last, boot.verifies)
    }
}

#[expect(clippy::print_stdout, reason = "the results are what was asked for")]
fn println(line: &str) {
    println!("{line}");
}

/// Builds the tests, and says where those are that go into the guest, by the name of the target. All of the workspace are
/// built, as `cargo xtask test` does: for another choice cargo would compile most of it once more.
fn test_binaries<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a OsString)>,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = shell::cargo(["test", "--locked", "--workspace", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics").envs(variables);
    command.stderr(Stdio::inherit());
    let printed = shell::output(&mut command)?;
    let mut found = BTreeMap::new();
    for line in printed.lines() {
        let artifact: Value = serde_json::from_str(line)?;
        let name = artifact.pointer("/target/name").and_then(Value::as_str);
        let path = artifact.get("executable").and_then(Value::as_str);
        let is_test = artifact.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
        // A program's own tests have the name of its library's.
        let is_program = artifact.pointer("/target/kind/0").and_then(Value::as_str) == Some("bin");
        if let (Some(name), Some(path), true, false) = (name, path, is_test, is_program) {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(found)
}
