//! `cargo xtask micro`: builds the micro guest and keeps the image and its provenance in `vmm-harness/prebuilt`.
//!
//! Two toolchains can build it: Debian's `rustc-web` with the sources of `core` from `rust-web-src`, or a rustup nightly
//! with `rust-src`. Both link with the `rust-lld` of a rustup toolchain. As with the kernel half ([`crate::ebpf`]), the same
//! toolchain gives the same bytes in any folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::prebuilt::MICRO_GUEST;
use anyhow::{Context, Result, bail, ensure};

use crate::ebpf::{self, DEBIAN_RUSTC, output, run};
use crate::prebuilt::{self, Built};
use crate::workspace;

const TARGET: &str = "x86_64-unknown-none";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/src/rust/library/core";

/// Builds the image. Without `check` it replaces the one in `vmm-harness/prebuilt`; with it, nothing in the tree is
/// written: see [`verify`].
pub fn build(check: bool) -> Result<()> {
    if check { verify().map(drop) } else { prebuilt::keep(&MICRO_GUEST, &compile()?) }
}

/// Builds the image anew and compares; `Some`: the tests are to run this image (`WEFT_MICRO_GUEST`).
pub fn verify() -> Result<Option<PathBuf>> {
    prebuilt::verify(&MICRO_GUEST, &compile()?, &target())
}

/// Lints and format-checks the micro guest, on the host's target: there, clippy has a `core`.
pub fn lint() -> Result<()> {
    let folder = workspace::root().join("vmm-harness/guest");
    run(Command::new("cargo").args(["fmt", "--check"]).current_dir(&folder))?;
    let clippy = ["clippy", "--quiet", "--locked", "--", "-D", "warnings"];
    run(Command::new("cargo").args(clippy).current_dir(&folder).env("CARGO_TARGET_DIR", target().join("lint")))
}

/// Compiles, links and strips.
fn compile() -> Result<Built> {
    let (rustc, nightly) = if Path::new(DEBIAN_CORE).is_dir() && Path::new(DEBIAN_RUSTC).is_file() {
        (PathBuf::from(DEBIAN_RUSTC), false)
    } else if let Some(sysroot) = ebpf::nightly() {
        (sysroot.join("bin/rustc"), true)
    } else {
        bail!(
            "no toolchain for {TARGET}: install Debian's rustc-web and rust-web-src (`cargo xtask setup --ebpf`), \
             or `rustup toolchain install nightly --component rust-src`"
        )
    };
    let version = output(Command::new(&rustc).arg("-vV"))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let linker = linker()?;
    let lld = output(Command::new(&linker).args(["-flavor", "gnu", "--version"]))?;

    let mut command = Command::new("cargo");
    command
        .args(nightly.then_some("+nightly"))
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
        .args(["-Zbuild-std=core,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"])
        .current_dir(workspace::root().join("vmm-harness/guest"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker)?);
    if !nightly {
        command.env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    run(&mut command)?;

    let bytes = fs::read(target().join(TARGET).join("release/micro-guest"))?;
    let toolchain = prebuilt::Toolchain {
        rustc: version.lines().next().unwrap_or_default().to_owned(),
        llvm: llvm.context("rustc -vV names no LLVM version")?.to_owned(),
        linker: lld.trim().to_owned(),
    };
    Ok(Built { bytes, toolchain })
}

/// Our linker script, addresses fixed at link time, no padding to pages in the file, no trace of this machine's folders.
fn rustflags(linker: &Path) -> Result<OsString> {
    let script = workspace::root().join("vmm-harness/guest/link.ld");
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        format!("-Clink-arg=-T{}", script.display()),
        "-Clink-arg=--nmagic".to_owned(),
        "-Crelocation-model=static".to_owned(),
        "-Zlocation-detail=none".to_owned(),
    ];
    flags.extend(ebpf::remapped(workspace::root())?);
    Ok(flags.join("\u{1f}").into())
}

/// The linker that comes with the toolchain that builds everything else.
fn linker() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let linker = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    ensure!(linker.is_file(), "{} is not there: rustup's toolchains have it", linker.display());
    Ok(linker)
}

fn target() -> PathBuf {
    workspace::target().join("micro")
}
