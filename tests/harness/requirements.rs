//! What a test needs of the machine. A test that lacks it says so and counts as skipped; `WEFT_TESTS_REQUIRE` (a list as
//! `root,bpf,kvm,linux_guest,qemu,pcaps,prometheus,tshark`) turns that skip into a failure.

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::linux;

/// One thing a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to make namespaces and netdevs.
    Root,
    /// The right to load programs, and a kernel that knows them.
    Bpf,
    /// The right to run virtual machines.
    Kvm,
    /// KVM that runs a whole Linux, and the kernel to boot on it.
    LinuxGuest,
    /// QEMU for x86-64, a guest kernel from apt, busybox and cpio.
    Qemu,
    /// nftables, in user space and in the kernel.
    Nft,
    /// A folder of pcap files in `WEFT_PCAPS`.
    Pcaps,
    /// Prometheus and its promtool.
    Prometheus,
    /// tcpdump, tshark and what else comes with Wireshark's terminal tools.
    Tshark,
}

impl Need {
    /// The word in `WEFT_TESTS_REQUIRE`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Bpf => "bpf",
            Self::Kvm => "kvm",
            Self::LinuxGuest => "linux_guest",
            Self::Qemu => "qemu",
            Self::Nft => "nft",
            Self::Pcaps => "pcaps",
            Self::Prometheus => "prometheus",
            Self::Tshark => "tshark",
        }
    }

    /// Why the machine does not have it; `None` when it does.
    fn lacking(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Bpf => {
                if let Some(why) = Self::Root.lacking() {
                    return Some(why);
                }
                let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
                (!known.contains("\tbpf\n")).then(|| "this kernel knows no bpf file system".to_owned())
            }
            Self::Kvm => {
                let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
                opened.err().map(|error| format!("/dev/kvm: {error}"))
            }
            Self::LinuxGuest => Self::Kvm.lacking().or_else(|| {
                let named = env::var_os(linux::KERNEL).is_some();
                (!named).then(|| format!("{} names no kernel that KVM runs here", linux::KERNEL))
            }),
            Self::Qemu => missing(&["qemu-system-x86_64", "busybox", "cpio", "dpkg-deb", "apt-get", "strip"]),
            Self::Prometheus => missing(&["prometheus", "promtool"]),
            Self::Tshark => missing(&["tcpdump", "tshark", "dumpcap", "capinfos", "editcap"]),
            Self::Nft => {
                let Some(nft) = on_path("nft") else { return Some("nft is not on PATH".to_owned()) };
                let asked = std::process::Command::new(nft).args(["list", "tables"]).output();
                (!asked.is_ok_and(|said| said.status.success())).then(|| "nft cannot list tables here".to_owned())
            }
            Self::Pcaps => match pcaps() {
                Some(folder) if folder.is_dir() => None,
                Some(folder) => Some(format!("WEFT_PCAPS names {}, which is no folder", folder.display())),
                None => Some("WEFT_PCAPS is not set".to_owned()),
            },
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The first of these programs that is not there.
fn missing(programs: &[&str]) -> Option<String> {
    let program = programs.iter().find(|program| on_path(program).is_none())?;
    Some(format!("{program} is not on PATH"))
}

/// The folder of pcap files to replay.
pub fn pcaps() -> Option<PathBuf> {
    env::var_os("WEFT_PCAPS").map(PathBuf::from)
}

/// Where a program is, looked for as a shell would.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|file| Path::is_file(file))
}

/// Whether the machine has all of `needs`. When not, says why on stderr (past the capturing of the test runner).
///
/// # Panics
/// When what is lacking is demanded by `WEFT_TESTS_REQUIRE`.
pub fn met(needs: &[Need]) -> bool {
    let demanded = env::var("WEFT_TESTS_REQUIRE").unwrap_or_default();
    for need in needs {
        let Some(why) = need.lacking() else { continue };
        assert!(
            !demanded.split(',').any(|word| word.trim() == need.word()),
            "WEFT_TESTS_REQUIRE demands {need}, but {why}"
        );
        skip(&format!("needs {need}: {why}"));
        return false;
    }
    true
}

/// Says why the running test, or a part of it, is skipped.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    writeln!(io::stderr(), "skipped {test}: {why}").expect("stderr is open");
}
