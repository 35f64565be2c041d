//! `cargo xtask ebpf`: builds the kernel half and keeps the object and its provenance in `switch-ebpf/prebuilt`.
//!
//! Two toolchains can build it: Debian's `rustc-web` with the prebuilt core of `libstd-rust-web-dev-bpf`, or a rustup
//! nightly with `rust-src`. Both link with `bpf-linker`. The object depends on neither the folder it was built in nor the
//! user's home, so the same toolchain gives the same bytes: two `--remap-path-prefix` keep folders out of the line
//! information, and the crate's hash is taken out of the functions' names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use ::prebuilt::KERNEL_HALF;
use anyhow::{Context, Result, bail, ensure};

use crate::prebuilt::{self, Built};
use crate::workspace;

const TARGET: &str = "bpfel-unknown-none";
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";

/// Builds the object. Without `check` it replaces the one in `switch-ebpf/prebuilt`; with it, nothing in the tree is
/// written: see [`verify`].
///
/// # Errors
/// No toolchain, a failed build, or with `check` an object that differs.
pub(crate) fn build(check: bool) -> Result<()> {
    if check { verify().map(drop) } else { prebuilt::keep(&KERNEL_HALF, &compile()?) }
}

/// Builds the object anew and compares; `Some`: the tests are to run on this object (`WEFT_EBPF_OBJECT`).
///
/// # Errors
/// See [`prebuilt::verify`].
pub(crate) fn verify() -> Result<Option<PathBuf>> {
    prebuilt::verify(&KERNEL_HALF, &compile()?, &target_dir())
}

/// Lints and formats-checks the kernel half, on the host's target: no clippy exists for the other one.
///
/// # Errors
/// What clippy or rustfmt find.
pub(crate) fn lint() -> Result<()> {
    let crate_dir = workspace::root().join("switch-ebpf");
    run(Command::new("cargo").args(["fmt", "--check"]).current_dir(&crate_dir))?;
    let clippy = ["clippy", "--quiet", "--", "-D", "warnings"];
    run(Command::new("cargo")
        .args(clippy)
        .current_dir(&crate_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target_dir().join("lint")))
}

/// A toolchain that can build for the kernel.
struct Toolchain {
    rustc: OsString,
    cargo_args: Vec<&'static str>,
    envs: Vec<(&'static str, OsString)>,
    cargo: Vec<&'static str>,
}

fn toolchain() -> Result<Toolchain> {
    if Path::new(DEBIAN_CORE).is_dir() && Path::new(DEBIAN_RUSTC).is_file() {
        return Ok(Toolchain {
            rustc: DEBIAN_RUSTC.into(),
            cargo: vec!["cargo"],
            cargo_args: vec![],
            envs: vec![("RUSTC", DEBIAN_RUSTC.into()), ("RUSTC_BOOTSTRAP", "aya_ebpf,weft".into())],
        });
    }
    if let Some(sysroot) = nightly() {
        return Ok(Toolchain {
            rustc: sysroot.join("bin/rustc").into_os_string(),
            cargo: vec!["cargo", "+nightly"],
            cargo_args: vec!["-Zbuild-std=core"],
            envs: vec![],
        });
    }
    bail!(
        "no toolchain for {TARGET}: install Debian's rustc-web and libstd-rust-web-dev-bpf (`cargo xtask setup`), \
         or `rustup toolchain install nightly --component rust-src`"
    )
}

/// The folder of a rustup nightly that has core's sources.
pub(crate) fn nightly() -> Option<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"])).ok()?;
    let sysroot = PathBuf::from(sysroot.trim());
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some(sysroot)
}

/// Compiles, links and strips.
fn compile() -> Result<Built> {
    let toolchain = toolchain()?;
    let version = output(Command::new(&toolchain.rustc).arg("-vV"))?;
    let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let llvm = line("LLVM version:").context("rustc -vV names no LLVM version")?.to_owned();
    let major = llvm.split('.').next().unwrap_or_default().to_owned();
    let path = search_path(&major)?;
    let linker = output(Command::new("bpf-linker").arg("--version").env("PATH", &path))
        .context("bpf-linker is not on PATH; `cargo xtask setup` installs it")?;

    let root = workspace::root();
    let target_dir = target_dir();
    let mut command = Command::new(toolchain.cargo.first().copied().unwrap_or("cargo"));
    command
        .args(toolchain.cargo.iter().skip(1))
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET])
        .args(&toolchain.cargo_args)
        .current_dir(root.join("switch-ebpf"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root)?)
        .env("PATH", &path);
    for (name, value) in &toolchain.envs {
        command.env(name, value);
    }
    run(&mut command)?;

    let built = target_dir.join(TARGET).join("release/weft");
    let stripped = target_dir.join("stripped.o");
    let mut objcopy = Command::new("llvm-objcopy");
    objcopy.arg("--strip-debug").args(anonymous_symbols(&built, &path)?).arg(&built).arg(&stripped).env("PATH", &path);
    run(&mut objcopy).with_context(|| format!("llvm-objcopy is not there; install llvm-{major}"))?;
    let rustc = version.lines().next().unwrap_or_default().to_owned();
    let toolchain = prebuilt::Toolchain { rustc, llvm, linker: linker.trim().to_owned() };
    Ok(Built { bytes: fs::read(&stripped)?, toolchain })
}

/// Renames every function so that its crate's hash, which tells apart folders, is not in its name: `_RNvNtCs4r…_4weft4punt`
/// becomes `_RNvNtC4weft4punt` (RFC 2603, "Namespaces", crate roots).
fn anonymous_symbols(object: &Path, path: &OsString) -> Result<Vec<String>> {
    let mut names = Command::new("llvm-nm");
    let names = output(names.arg("--format=just-symbols").arg(object).env("PATH", path))?;
    let anonymous = |name: &str| {
        let (before, rest) = name.strip_prefix("_R")?.split_once("Cs")?;
        let (_hash, after) = rest.split_once('_')?;
        Some(format!("--redefine-sym={name}=_R{before}C{after}"))
    };
    Ok(names.lines().filter_map(anonymous).collect())
}

/// BTF for maps and programs, 64-bit atomics, no trace of this machine's folders.
fn rustflags(root: &Path) -> Result<OsString> {
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
    ];
    let flags = flags.into_iter().chain(remapped(root)?).collect::<Vec<_>>();
    Ok(flags.join("\u{1f}").into())
}

/// Flags that keep this machine's folders out of what is built.
pub(crate) fn remapped(root: &Path) -> Result<[String; 2]> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let [root, cargo_home] = [(root, "/weft"), (cargo_home.as_path(), "/cargo")]
        .map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    Ok([root, cargo_home])
}

/// PATH with the LLVM that matches rustc's in front, and cargo's own programs.
fn search_path(llvm_major: &str) -> Result<OsString> {
    let mut places = vec![PathBuf::from(format!("/usr/lib/llvm-{llvm_major}/bin"))];
    places.extend(env::var_os("CARGO_HOME").map(|home| Path::new(&home).join("bin")));
    places.extend(env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin")));
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(env::join_paths(places)?)
}

fn target_dir() -> PathBuf {
    workspace::target().join("ebpf")
}

pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
