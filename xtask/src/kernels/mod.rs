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
//! One kernel after the other: two machines at once take as long, for each uses both processors.

mod initramfs;
mod machine;
mod package;
mod results;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace::{self, Profile};
use crate::{setup, shell};
use initramfs::Program;
use results::Results;

/// The series that Weft is promised to run on besides this machine's.
pub const PROMISED: [&str; 2] = ["6.1", "6.12"];
/// The tests that a kernel can change: programs attached, frames forwarded by every verdict, books balanced, daemons killed.
const DATAPATH: &[&str] =
    &["scenarios::taps_", "bad_frames::", "frames_in_order::", "lifecycle::", "links::", "linux_guests::"];
/// What needs QEMU, apt or files that are not in the guest, and what demands a speed, be it a ratio of two: what is cheap
/// for a processor is not what is cheap for an emulator.
const OUTSIDE: &[&str] = &["a_linux_guest_and_a_container", "demo::", "replay::", "floods::", "cost::"];
/// Other ways through the same scenarios, which this machine tests: clsact, which on 6.1 is what `cached` is, and without cached
/// verdicts, where the kernel half does what it does for the first frames of the cached way.
const TWICE: &[&str] = &["clsact::", "taps_clsact", "taps_uncached"];
/// What TCX is for, on kernels before 6.6.
const WITHOUT_TCX: &[&str] = &["tcx"];
/// What is tested once, on 6.6 and later: frames that mean harm, who looks on, order without cached verdicts, and clsact where
/// it is asked for, which is what earlier kernels do anyway.
const LATER: &[&str] = &["bad_frames::", "uncached::", "watching::", "killed_with_clsact"];
/// What is tested once, before 6.6: what the programs make of a frame's bytes and of their own tables, whatever is around
/// them, and clsact's filters that another daemon finds.
const EARLIER: &[&str] = &[
    "flow_",
    "refusals::",
    "names::",
    "passing::",
    "evidence::",
    "clsact_filters_are_adopted",
    "filters_of_another_layout",
];
/// The first series with TCX.
const TCX: (u32, u32) = (6, 6);
/// The first series in whose machine KVM boots Linux guests too; once is enough, and boots take long.
const LINUX_GUESTS: (u32, u32) = (6, 12);
/// The test that says how many instructions the verifier went through.
const VERIFIER: &str = "the_verifier_takes";
/// How much longer than usual a test waits.
const PATIENCE: u32 = 10;
/// Tests at once, on two processors: some wait most of their time.
const THREADS: u32 = 3;

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
    let mut faults = Vec::new();
    for series in series {
        let start = Instant::now();
        let outcome = one(series, &programs, filter, args);
        eprintln!("kernels: {series}: {:.0} s", start.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            faults.push(format!("{series}: {error:#}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn one(series: &str, programs: &[Program], filter: Option<&str>, args: &[OsString]) -> Result<()> {
    let kernel = package::fetch(series)?;
    let initrd = workspace::target().join("kernels").join(series).join("initrd");
    let guests = at_least(series, LINUX_GUESTS);
    initramfs::pack(&kernel, programs, guests, &script(series, filter, args)?, &initrd)?;
    eprintln!("kernels: booting {}", kernel.release);
    let mut results = Results::default();
    let booted = machine::boot(&kernel, &initrd, |line| {
        if results.take(line) {
            println(line);
        }
    });
    println(&format!("kernels: {}\n{results}", kernel.release));
    booted?;
    results.judge("it", filter.is_none())
}

#[expect(clippy::print_stdout, reason = "the results are what was asked for")]
fn println(line: &str) {
    println!("{line}");
}

/// What the guest runs once it is up: shell, with every word quoted.
fn script(series: &str, filter: Option<&str>, args: &[OsString]) -> Result<String> {
    let mut skip = OUTSIDE.to_vec();
    let tcx = at_least(series, TCX);
    if !tcx {
        skip.extend(WITHOUT_TCX);
    }
    if filter.is_none() {
        skip.extend(TWICE);
        skip.extend(if tcx { EARLIER } else { LATER });
    }
    let skip = skip.into_iter().flat_map(|name| ["--skip", name]);
    let given = args.iter().map(|arg| arg.to_str().context("an argument is not UTF-8")).collect::<Result<Vec<_>>>()?;
    let words: Vec<String> = skip.chain(given).map(quote).collect();
    let words = words.join(" ");
    let here = quote(&workspace::root().to_string_lossy());
    let weft = initramfs::inside("weft");
    let guests = at_least(series, LINUX_GUESTS);
    let require = if guests { "root,bpf,kvm,linux_guest" } else { "root,bpf" };
    let mut script = vec![format!("export WEFT_BIN={weft} WEFT_TESTS_PATIENCE={PATIENCE} RUST_BACKTRACE=1")];
    script.push(format!("export WEFT_TESTS_REQUIRE={require} RUST_TEST_THREADS={THREADS}"));
    if guests {
        script.push(format!("export WEFT_GUEST_KERNEL={}", initramfs::inside(initramfs::GUEST_KERNEL)));
    }
    script.push(format!("cd {here}/tests\nuname -r"));
    let mut part = |name: &str, program: &str, words: &str| {
        let (program, ended) = (initramfs::inside(program), results::ENDED);
        script.push(format!("{program} {words}\necho {ended}{name} $?"));
    };
    if let Some(filter) = filter.map(quote) {
        part("reflex", "reflex", &format!("{filter} {words}"));
        part("it", "it", &format!("{filter} {words}"));
    } else {
        // What the verifier had to do is said by a test, so that one is not captured.
        part("verifier", "reflex", &format!("{VERIFIER} --nocapture"));
        part("reflex", "reflex", &format!("reflex::tests:: {words} --skip {VERIFIER}"));
        part("it", "it", &format!("{} {words}", DATAPATH.join(" ")));
    }
    Ok(script.join("\n"))
}

/// Whether a series is this one or a later one.
fn at_least(series: &str, than: (u32, u32)) -> bool {
    let mut numbers = series.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= than
}

/// A word as a shell takes it literally.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
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

#[cfg(test)]
mod tests {
    use super::{EARLIER, LATER, TCX, at_least, quote, script};

    #[test]
    fn tcx_came_with_linux_6_6() {
        for (series, has) in
            [("6.1", false), ("6.5", false), ("6.6", true), ("6.12", true), ("7.0", true), ("5.15", false)]
        {
            assert_eq!(at_least(series, TCX), has, "{series}");
        }
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn what_one_kernel_leaves_out_is_tested_under_the_other() {
        let script = |series| script(series, None, &[]).expect("no arguments");
        for (names, tested, left_out) in [(EARLIER, "6.1", "6.12"), (LATER, "6.12", "6.1")] {
            for name in names {
                let skip = format!("'--skip' '{name}'");
                assert!(script(left_out).contains(&skip) && !script(tested).contains(&skip), "{name}");
            }
        }
    }
}
