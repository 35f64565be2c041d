//! `weft doctor`: can this host run it, what is missing, and how to mend it.

use std::fs;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use super::output::{Column, print, render};
use super::{Global, wait_for};
use crate::api::client::ClientError;
use crate::api::schema::{PortInfo, Status};
use crate::reflex::Reflex;

/// Check whether this host can run the switch, and say how to mend what is missing
#[derive(Args, Debug)]
pub(super) struct Options {}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As it should be.
    Ok,
    /// The switch runs without it.
    Optional,
    /// The switch does not run without it.
    Missing,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    what: &'static str,
    grade: Grade,
    found: String,
    /// What to do; empty when there is nothing to do.
    mend: &'static str,
}

impl Check {
    /// Good, or else graded and with what to do.
    fn new(what: &'static str, is_good: bool, found: String, otherwise: Grade, mend: &'static str) -> Self {
        let (grade, mend) = if is_good { (Grade::Ok, "") } else { (otherwise, mend) };
        Self { what, grade, found, mend }
    }
}

pub(super) fn run(global: &Global) -> anyhow::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut checks = vec![kernel(&release), tcx(&release), capabilities(&status), netns_ports(&status)];
    checks.extend([
        bpf(),
        bpffs(),
        btf(),
        tun(),
        kvm(),
        daemon(global),
        kernel_drops(global),
        foreign_programs(global),
    ]);
    print(&render(global.output, &checks, COLUMNS)?)?;
    let missing = checks.iter().filter(|check| check.grade == Grade::Missing).count();
    ensure!(missing == 0, "the switch cannot run here, missing: {missing}; mend what is marked above and ask again");
    Ok(())
}

const COLUMNS: &[Column<Check>] = &[
    Column::text("CHECK", |check| check.what.to_owned()),
    Column::text("RESULT", |check| match check.grade {
        Grade::Ok => "ok".to_owned(),
        Grade::Optional => "optional".to_owned(),
        Grade::Missing => "MISSING".to_owned(),
    }),
    Column::text("FOUND", |check| check.found.clone()),
    Column::text("MEND", |check| check.mend.to_owned()),
];

/// Major and minor number of a kernel release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(release: &str) -> Check {
    let found = format!("Linux {release}");
    Check::new("kernel", version(release) >= (6, 1), found, Grade::Missing, "run Linux 6.1 or newer")
}

fn tcx(release: &str) -> Check {
    let has = version(release) >= (6, 6);
    let found = if has { "TCX" } else { "clsact" }.to_owned();
    Check::new("hook", has, found, Grade::Optional, "Linux 6.6 brings TCX links; filters on clsact do until then")
}

/// Numbers of capabilities (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Whether a process, by its /proc/PID/status, has a capability in effect.
fn has_capability(status: &str, number: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(0);
    effective >> number & 1 == 1
}

fn capabilities(status: &str) -> Check {
    let has = |number| has_capability(status, number);
    let lacking: Vec<_> = [
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, has)| (!has).then_some(name))
    .collect();
    let found = if lacking.is_empty() { "all in effect".to_owned() } else { format!("without {}", lacking.join(", ")) };
    Check::new("capabilities", lacking.is_empty(), found, Grade::Missing, "run it as root, or grant these capabilities")
}

fn netns_ports(status: &str) -> Check {
    let has = has_capability(status, CAP_SYS_ADMIN);
    let found = if has { "CAP_SYS_ADMIN" } else { "without CAP_SYS_ADMIN" }.to_owned();
    Check::new("netns ports", has, found, Grade::Optional, "run it as root to give namespaces interfaces")
}

fn bpf() -> Check {
    let has = fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.lines().any(|line| line.split_whitespace().last() == Some("bpf")));
    let found = if has { "in the kernel" } else { "not in the kernel" }.to_owned();
    Check::new("bpf", has, found, Grade::Missing, "run a kernel with CONFIG_BPF_SYSCALL")
}

fn bpffs() -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = mounts.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some("/sys/fs/bpf") && fields.next() == Some("bpf")
    });
    let found = if has { "/sys/fs/bpf" } else { "not mounted" }.to_owned();
    Check::new("bpffs", has, found, Grade::Optional, "`weft run` mounts it, as does: mount -t bpf bpf /sys/fs/bpf")
}

fn btf() -> Check {
    let has = fs::metadata("/sys/kernel/btf/vmlinux").is_ok();
    let found = if has { "/sys/kernel/btf/vmlinux" } else { "none" }.to_owned();
    Check::new("BTF", has, found, Grade::Optional, "a kernel with CONFIG_DEBUG_INFO_BTF tells why it drops frames")
}

fn tun() -> Check {
    let outcome = fs::File::options().read(true).write(true).open("/dev/net/tun");
    let found = outcome.as_ref().map_or_else(ToString::to_string, |_| "/dev/net/tun".to_owned());
    Check::new(
        "tun",
        outcome.is_ok(),
        found,
        Grade::Missing,
        "run `modprobe tun` as root; in a container, hand in /dev/net/tun",
    )
}

fn kvm() -> Check {
    let outcome = fs::File::options().read(true).write(true).open("/dev/kvm");
    let found = outcome.as_ref().map_or_else(ToString::to_string, |_| "/dev/kvm".to_owned());
    Check::new("kvm", outcome.is_ok(), found, Grade::Optional, "guests run faster with KVM; the switch needs none")
}

fn daemon(global: &Global) -> Check {
    let mut found = String::new();
    let asked = wait_for(async {
        let status: Status = global.client().get("/v1/status").await?;
        found = format!("{} runs, pid {}, {} datapath, {}", status.name, status.pid, status.datapath, status.hook);
        Ok(())
    });
    if let Err(e) = &asked {
        found = match e.downcast_ref() {
            Some(ClientError::Unreachable { path, .. }) => format!("none answers at {}", path.display()),
            _ => e.to_string(),
        };
    }
    Check::new("daemon", asked.is_ok(), found, Grade::Optional, "start it with `weft run`")
}

/// Whether the daemon that runs counts what the kernel drops.
fn kernel_drops(global: &Global) -> Check {
    let mut found = "counted, by port and reason".to_owned();
    let mut is_good = true;
    let asked = wait_for(async {
        let status: Status = global.client().get("/v1/status").await?;
        if let Some(problem) = status.kernel_drops_problem {
            (found, is_good) = (format!("not counted: {problem}"), false);
        }
        Ok(())
    });
    if asked.is_err() {
        (found, is_good) = ("no daemon to ask".to_owned(), false);
    }
    let mend = "a kernel with BTF counts what it drops itself, a full tap ring for one";
    Check::new("kernel drops", is_good, found, Grade::Optional, mend)
}

/// Programs of others on our ports' netdevs: they may see, change or drop a frame before or after ours.
fn foreign_programs(global: &Global) -> Check {
    let mut found = Vec::new();
    let asked = wait_for(async {
        let ports: Vec<PortInfo> = global.client().get("/v1/ports").await?;
        for (port, ifindex) in ports.iter().filter_map(|port| Some((port, port.ifindex?))) {
            let programs = Reflex::foreign_programs(&port.netdev, ifindex)?;
            found.extend(programs.iter().map(|it| format!("{} ({}) on {}", it.name, it.hook, port.netdev)));
        }
        Ok(())
    });
    let text = match &asked {
        Ok(()) if found.is_empty() => "none on the ports' netdevs".to_owned(),
        Ok(()) => found.join(", "),
        Err(error) => format!("not looked for: {error}"),
    };
    let is_good = asked.is_ok() && found.is_empty();
    let mend = "find out whose they are (`bpftool net`); what they drop or change, the ledger does not see";
    Check::new("foreign programs", is_good, text, Grade::Optional, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v509"), (6, 18));
        assert_eq!(version("6.1.0-41-amd64"), (6, 1));
        assert_eq!(kernel("5.10.0").grade, Grade::Missing);
        assert_eq!(kernel("6.1.0").grade, Grade::Ok);
        assert_eq!(kernel("10.0").grade, Grade::Ok);
        assert_eq!(tcx("6.1.0").grade, Grade::Optional);
        assert_eq!(tcx("6.6.1").grade, Grade::Ok);
    }

    #[test]
    fn root_can_and_a_user_cannot_and_is_told_what_to_do() {
        let root = capabilities("CapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n");
        assert_eq!((root.grade, root.mend), (Grade::Ok, ""));
        let user = capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(user.grade, Grade::Missing);
        assert_eq!(user.found, "without CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON");
        assert!(!user.mend.is_empty());
        // CAP_BPF (39), CAP_PERFMON (38) and CAP_NET_ADMIN (12) alone do.
        assert_eq!(capabilities("CapEff:\t000000c000001000\n").grade, Grade::Ok);
        assert_eq!(netns_ports("CapEff:\t000000c000001000\n").grade, Grade::Optional);
    }
}
