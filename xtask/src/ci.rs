//! `cargo xtask ci`: what must hold before a change is taken, in the order of the cheapest refusal first.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{ebpf, setup, shell, test, tidy, workspace};

/// A step of the run and how it is done.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("setup", || setup::run(true)),
    ("format", format),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("clippy ebpf", clippy_ebpf),
    ("ebpf", || ebpf::build(true)),
    ("documentation", documentation),
    ("test", tests),
];

/// Runs every step, stops at the first that fails, and prints what each took.
pub fn run() -> Result<()> {
    let mut took = Vec::new();
    let mut outcome = Ok(());
    for (name, step) in STEPS {
        eprintln!("── {name}");
        let start = Instant::now();
        outcome = step().with_context(|| format!("ci: step '{name}' failed"));
        took.push((name, start.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    eprintln!("── time");
    for (name, time) in &took {
        eprintln!("{name:<16} {:>7.1} s", time.as_secs_f64());
    }
    eprintln!("{:<16} {:>7.1} s", "all", took.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>());
    outcome
}

fn format() -> Result<()> {
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))?;
    shell::run(shell::cargo(["fmt", "--check"]).current_dir(workspace::root().join("switch-ebpf")))
}

fn clippy() -> Result<()> {
    shell::run(&mut shell::cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The kernel half is a workspace of its own, for a target whose `core` only Debian's compiler has.
fn clippy_ebpf() -> Result<()> {
    let mut command = Command::new("/usr/bin/cargo-clippy");
    command.current_dir(workspace::root().join("switch-ebpf"));
    command.args(["clippy", "--locked", "--release", "--target", "bpfel-unknown-none", "--", "-D", "warnings"]);
    command.env("CARGO", workspace::cargo()).env("RUSTC", "/usr/bin/rustc");
    command.env("CARGO_TARGET_DIR", workspace::target().join("ebpf-clippy"));
    command.env("RUSTC_BOOTSTRAP", "aya_ebpf,weft_ebpf").env_remove("RUSTUP_TOOLCHAIN");
    shell::run(&mut command)
}

fn documentation() -> Result<()> {
    let mut command = shell::cargo(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<()> {
    let mut require = vec!["root", "bpf", "qemu"];
    if std::env::var_os("WEFT_PCAPS").is_some_and(|folder| Path::new(&folder).is_dir()) {
        require.push("pcaps");
    }
    test::run(None, &[], &[("WEFT_TESTS_REQUIRE", require.join(",").into())])
}
