//! `cargo xtask setup`: what the other commands need from the machine, by name and with the reason.
//!
//! A need counts as met when the file it is about is there, wherever it came from; apt is only asked for what is
//! missing. The Rust toolchain is rustup's business (`rust-toolchain.toml`).

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Something the machine must offer, and the Debian package that brings it.
pub struct Need {
    package: &'static str,
    /// A program on PATH, or a file when it begins with `/`.
    proof: &'static str,
    why: &'static str,
}

/// A package, what shows that it is there, and why it is needed.
pub const fn need(package: &'static str, proof: &'static str, why: &'static str) -> Need {
    Need { package, proof, why }
}

/// What running, showing and testing needs.
const RUN: &[Need] = &[
    need("iproute2", "ip", "network namespaces, links and bridges for the demo, the tests and the bench"),
    need("iputils-ping", "ping", "the simplest proof that two stations talk"),
    need("iperf3", "iperf3", "bulk TCP in the tests and the bench"),
    need("curl", "curl", "HTTP through the switch, and the API over its socket"),
    need(
        "busybox-static",
        "busybox",
        "HTTP servers and a DHCP client in namespaces, and the whole user space of the Linux guest",
    ),
    need("nftables", "nft", "counts in the tests what containers send, and drops what they should lose"),
    need("prometheus", "promtool", "reads our metrics in the tests, and checks them"),
    need("tcpdump", "tcpdump", "a second pair of eyes on the frames of the tests"),
    need("tshark", "tshark", "reads in the tests what tcpdump and Weft capture"),
    need("dnsmasq-base", "dnsmasq", "answers DNS and gives DHCP leases in the tests"),
    need("procps", "sysctl", "settings of the kernel in the tests' namespaces"),
    need("ethtool", "ethtool", "offloads of the netdevs under test"),
    need("qemu-system-x86", "qemu-system-x86_64", "Linux guests on taps"),
    need("cpio", "cpio", "packs the guest's initramfs"),
    need("xz-utils", "xz", "unpacks the modules of the kernels that `test --kernel` boots"),
    need("binutils", "strip", "takes the debug information out of what is packed for them"),
];

/// What building the kernel half and the micro guest from source needs.
const EBPF: &[Need] = &[
    need("rustc-web", "/usr/bin/rustc", "a rustc whose LLVM is the one that bpf-linker uses"),
    need("libstd-rust-web-dev-bpf", "/usr/lib/rustlib/bpfel-unknown-none", "`core` for the eBPF target"),
    need("rust-web-src", "/usr/lib/rustlib/src/rust/library/core", "`core` for the micro guest, from its sources"),
    need("llvm-22-dev", "/usr/lib/llvm-22/include", "bpf-linker links against it"),
    need("llvm-22", "/usr/lib/llvm-22/bin/llvm-strip", "takes the DWARF out of the object and leaves the BTF"),
    need("libzstd-dev", "/usr/include/zstd.h", "LLVM links against it"),
    need("g++", "g++", "LLVM is C++"),
    need("zlib1g-dev", "/usr/include/zlib.h", "LLVM links against it"),
];

/// The version the design was checked with.
const BPF_LINKER: &str = "0.13.0";
/// Where Debian's LLVM keeps its programs.
pub const LLVM_BIN: &str = "/usr/lib/llvm-22/bin";

impl Need {
    fn met(&self) -> bool {
        if self.proof.starts_with('/') { Path::new(self.proof).exists() } else { shell::find(self.proof).is_some() }
    }
}

/// Installs what is missing, or fails with the list of it and how to get it.
pub fn run(ebpf: bool) -> Result<()> {
    ensure(RUN)?;
    if ebpf { ensure(EBPF).and_then(|()| bpf_linker()) } else { Ok(()) }
}

/// Installs what is missing of these, or fails with the list of it and how to get it.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.met()).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(missing: &[&Need]) -> Result<()> {
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let list =
        missing.iter().fold(String::new(), |text, need| format!("{text}    {:<24} {}\n", need.package, need.why));
    if shell::find("apt-get").is_none() {
        bail!("this machine has no apt; missing, under their Debian names:\n{list}install them and run this again");
    }
    if !shell::is_root() {
        bail!(
            "missing:\n{list}install them with\n    sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    eprintln!("setup: installing with apt:\n{list}");
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        shell::run(&mut command)
    };
    // No package's service is started: what needs a daemon starts its own, where it wants it.
    let _policy = NoServices::declare()?;
    apt(&["-q", "update"])?;
    let options = ["-q", "install", "--yes", "--no-install-recommends"];
    apt(&[&options[..], &names[..]].concat())?;
    match missing.iter().find(|need| !need.met()) {
        Some(need) => bail!("apt installed {} and yet {} is not there", need.package, need.proof),
        None => Ok(()),
    }
}

/// While it lives, Debian's packages start no service; a policy that is there already is the operator's, and stays.
struct NoServices(bool);

impl NoServices {
    const POLICY: &'static str = "/usr/sbin/policy-rc.d";

    fn declare() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        if Path::new(Self::POLICY).exists() {
            return Ok(Self(false));
        }
        std::fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n")?;
        let ours = Self(true);
        std::fs::set_permissions(Self::POLICY, std::fs::Permissions::from_mode(0o755))?;
        Ok(ours)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.0
            && let Err(error) = std::fs::remove_file(Self::POLICY)
        {
            eprintln!("setup: {}: {error}", Self::POLICY);
        }
    }
}

/// Builds bpf-linker against Debian's LLVM; the default features would bring an LLVM that is not rustc's.
fn bpf_linker() -> Result<()> {
    let installed = |home: std::ffi::OsString| Path::new(&home).join("bin/bpf-linker").is_file();
    if shell::find("bpf-linker").is_some() || std::env::var_os("CARGO_HOME").is_some_and(installed) {
        return Ok(());
    }
    eprintln!("setup: building bpf-linker {BPF_LINKER}, which links eBPF objects (about a minute)");
    let mut paths = vec![LLVM_BIN.into()];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = shell::cargo(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    command.args(["--no-default-features", "--features", "llvm-22"]);
    // The target folder of whoever called us is not ours to fill.
    command.env("PATH", std::env::join_paths(paths)?).env_remove("CARGO_TARGET_DIR");
    shell::run(&mut command)
}
