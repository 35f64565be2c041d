//! `cargo xtask ci`: what must hold before a change is taken, in the order of the cheapest refusal first.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{ebpf, gate, kernels, micro, setup, shell, test, tidy};

/// What each step took, printed when it is over, however it is over.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    /// Does a step.
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("── {name}");
        let start = Instant::now();
        let outcome = work().with_context(|| format!("ci: step '{name}' failed"));
        self.0.push((name, start.elapsed()));
        outcome
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        eprintln!("── time");
        for (name, time) in &self.0 {
            eprintln!("{name:<16} {:>7.1} s", time.as_secs_f64());
        }
        eprintln!("{:<16} {:>7.1} s", "all", self.0.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>());
    }
}

/// Runs every step and stops at the first that fails; `matrix`: also the datapath tests under the other kernels that are
/// promised, where QEMU and apt are.
pub fn run(matrix: bool) -> Result<()> {
    let mut times = Times::default();
    times.step("setup", || setup::run(true))?;
    times.step("format", || shell::run(&mut shell::cargo(["fmt", "--all", "--check"])))?;
    times.step("tidy", tidy::run)?;
    times.step("ebpf lint", ebpf::lint)?;
    let object = times.step("ebpf rebuild", ebpf::verify)?;
    times.step("guest lint", micro::lint)?;
    let guest = times.step("guest rebuild", micro::verify)?;
    times.step("clippy", clippy)?;
    times.step("documentation", documentation)?;
    times.step("brain's cost", gate::run)?;
    // What another toolchain than the committed one's built has other bytes, so it has to behave.
    let mut built = Vec::new();
    built.extend(object.map(|path| ("WEFT_EBPF_OBJECT", path.into_os_string())));
    built.extend(guest.map(|path| ("WEFT_MICRO_GUEST", path.into_os_string())));
    times.step("test", || tests(&built))?;
    if let Some(tool) = matrix.then(kernels::lacking).flatten() {
        eprintln!("ci: Linux {} left out: this machine has no {tool}", kernels::PROMISED.join(" and "));
    } else if matrix {
        times.step("other kernels", || kernels::run(&kernels::PROMISED.map(str::to_owned), None, &[], &built))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    shell::run(&mut shell::cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The documentation is for who works on Weft, so private items are in it, and links to them are links.
fn documentation() -> Result<()> {
    let mut command = shell::cargo(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

/// Every test, none skipped for want of what the machine must offer; with these variables set.
fn tests(variables: &[(&'static str, OsString)]) -> Result<()> {
    let mut require = vec!["root", "bpf", "qemu", "nft", "prometheus", "dnsmasq", "tshark"];
    if std::env::var_os("WEFT_PCAPS").is_some_and(|folder| Path::new(&folder).is_dir()) {
        require.push("pcaps");
    }
    if Path::new("/dev/kvm").exists() {
        require.push("kvm");
    }
    let required = [("WEFT_TESTS_REQUIRE", require.join(",").into())];
    test::run(None, &[], &[&required, variables].concat())
}
