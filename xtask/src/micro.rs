//! `cargo xtask micro`: builds the micro guest and keeps the image and its provenance in `vmm-harness/prebuilt`.
//!
//! Two toolchains can build it: Debian's `rustc-web` with the sources of `core` from `rust-web-src`, or a rustup nightly
//! with `rust-src`. Both link with the `rust-lld` of a rustup toolchain. As with the kernel half ([`crate::ebpf`]), the same
//! toolchain gives the same bytes in any folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::ebpf::{self, DEBIAN_RUSTC, output, root, run, source_hash};
use crate::workspace;

#[path = "../../vmm-harness/guest/places.rs"]
mod places;

const TARGET: &str = "x86_64-unknown-none";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/src/rust/library/core";
const IMAGE: &str = "vmm-harness/prebuilt/micro-guest.elf";
const PROVENANCE: &str = "vmm-harness/prebuilt/PROVENANCE.toml";

/// Where an image comes from. Field order is the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    object_sha256: String,
    sources_sha256: String,
    rustc: String,
    llvm: String,
    rust_lld: String,
}

/// Builds the image. Without `check` it replaces the one in `vmm-harness/prebuilt`; with it, nothing in the tree is
/// written: see [`verify`].
pub fn build(check: bool) -> Result<()> {
    if check {
        return verify().map(drop);
    }
    let (image, provenance) = compile()?;
    let text = toml::to_string(&provenance)?;
    fs::create_dir_all(root().join("vmm-harness/prebuilt"))?;
    fs::write(root().join(IMAGE), &image)?;
    fs::write(root().join(PROVENANCE), format!("# Written by `cargo xtask micro`.\n{text}"))?;
    eprintln!("{IMAGE}: {} bytes, sha256 {}", image.len(), provenance.object_sha256);
    Ok(())
}

/// Builds the image anew and compares. `None`: the prebuilt image is what this toolchain makes of the sources. `Some`:
/// another toolchain made it, so the bytes say nothing; the tests are to run this image (`WEFT_MICRO_GUEST`).
pub fn verify() -> Result<Option<PathBuf>> {
    let text =
        fs::read_to_string(root().join(PROVENANCE)).context("no prebuilt micro guest; run `cargo xtask micro`")?;
    let kept: Provenance = toml::from_str(&text)?;
    let (image, built) = compile()?;
    ensure!(
        kept.sources_sha256 == built.sources_sha256,
        "the micro guest's sources have changed since the prebuilt image was made; run `cargo xtask micro`"
    );
    if (&kept.rustc, &kept.llvm, &kept.rust_lld) == (&built.rustc, &built.llvm, &built.rust_lld) {
        ensure!(
            kept.object_sha256 == built.object_sha256,
            "the same toolchain made another image of the same sources: {} instead of {}",
            built.object_sha256,
            kept.object_sha256
        );
        eprintln!("{IMAGE}: bit for bit what {} makes of the sources", built.rustc);
        return Ok(None);
    }
    let rebuilt = target().join("micro-guest.elf");
    fs::write(&rebuilt, image)?;
    eprintln!("built by {}, prebuilt by {}: testing {}", built.rustc, kept.rustc, rebuilt.display());
    Ok(Some(rebuilt))
}

/// Lints and format-checks the micro guest, on the host's target: there, clippy has a `core`.
pub fn lint() -> Result<()> {
    let folder = root().join("vmm-harness/guest");
    run(Command::new("cargo").args(["fmt", "--check"]).current_dir(&folder))?;
    let clippy = ["clippy", "--quiet", "--locked", "--", "-D", "warnings"];
    run(Command::new("cargo").args(clippy).current_dir(&folder).env("CARGO_TARGET_DIR", target().join("lint")))
}

/// Compiles, links and strips; answers with the image and where it comes from.
fn compile() -> Result<(Vec<u8>, Provenance)> {
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
        .current_dir(root().join("vmm-harness/guest"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", target())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker)?);
    if !nightly {
        command.env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    run(&mut command)?;

    let image = fs::read(target().join(TARGET).join("release/micro-guest"))?;
    let provenance = Provenance {
        object_sha256: source_hash::sha256(&image),
        sources_sha256: source_hash::source_hash(&root(), places::PLACES)?,
        rustc: version.lines().next().unwrap_or_default().to_owned(),
        llvm: llvm.context("rustc -vV names no LLVM version")?.to_owned(),
        rust_lld: lld.trim().to_owned(),
    };
    Ok((image, provenance))
}

/// Our linker script, addresses fixed at link time, no padding to pages in the file, no trace of this machine's folders.
fn rustflags(linker: &Path) -> Result<OsString> {
    let script = root().join("vmm-harness/guest/link.ld");
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        format!("-Clink-arg=-T{}", script.display()),
        "-Clink-arg=--nmagic".to_owned(),
        "-Crelocation-model=static".to_owned(),
        "-Zlocation-detail=none".to_owned(),
    ];
    flags.extend(ebpf::remapped(&root())?);
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
