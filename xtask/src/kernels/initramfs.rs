//! A whole user space for one boot: the programs under test, the tools they call, the libraries all of these need.
//!
//! Programs keep the paths they have here, so the loader finds what `ldd` found; busybox stands in for the rest. Modules
//! are loaded by the init script in the order `modules.dep` asks for. What the tests read of the repository is at its
//! path here too, because they were compiled with it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::package::Kernel;
use crate::{shell, workspace};

/// What the tests need of a kernel beyond what it has built in.
const MODULES: &[&str] = &[
    "tun",
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "sch_fq_codel",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "kvm-amd",
];

/// What a Linux guest on the guest's own KVM needs.
const GUEST_MODULES: &[&str] = &["virtio_mmio", "virtio_net"];
/// The folder of that guest's kernel.
pub const GUEST_KERNEL: &str = "guest-kernel";

/// What the tests call by name; everything else is busybox's. With tcpdump comes libpcap, which compiles our filters.
const TOOLS: &[&str] = &[
    "bridge", "curl", "ethtool", "ip", "iperf3", "mount", "nsenter", "ping", "ss", "sysctl", "tc", "tcpdump", "umount",
    "unshare",
];

/// Where in the guest the programs under test are.
const UNDER_TEST: &str = "weft-under-test";

/// A program to be tested or run by the tests.
pub struct Program {
    /// Its name in the guest.
    pub name: &'static str,
    /// Where it is here.
    pub path: PathBuf,
}

/// Where a program is in the guest.
pub fn inside(name: &str) -> String {
    format!("/{UNDER_TEST}/{name}")
}

/// Packs everything into `initrd`; `script` runs after set-up, and the guest goes down when it ends. With `guests` the
/// kernel is packed too, for guests of the guest.
pub fn pack(kernel: &Kernel, programs: &[Program], guests: bool, script: &str, initrd: &Path) -> Result<()> {
    let root = initrd.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "var/lib", "modules", "etc", UNDER_TEST] {
        fs::create_dir_all(root.join(name))?;
    }
    let mut needed = BTreeSet::new();
    for program in programs {
        let to = root.join(UNDER_TEST).join(program.name);
        // The debug information would fill the guest's memory.
        shell::output(shell::command("strip").arg("-o").arg(&to).arg(&program.path))?;
        needed.extend(libraries(&program.path)?);
    }
    for name in TOOLS {
        let path = shell::find(name).with_context(|| format!("no {name}; run `cargo xtask setup`"))?;
        needed.extend(libraries(&path)?);
        let to = root.join("usr/bin").join(name);
        copy(&path, &to)?;
    }
    for library in needed {
        copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    let busybox = shell::find("busybox").context("no busybox; run `cargo xtask setup`")?;
    copy(&busybox, &root.join("bin/busybox"))?;
    modules(kernel, MODULES, &root.join("modules"))?;
    if guests {
        let folder = root.join(UNDER_TEST).join(GUEST_KERNEL);
        fs::create_dir_all(folder.join("modules"))?;
        modules(kernel, GUEST_MODULES, &folder.join("modules"))?;
        copy(&kernel.image, &folder.join("vmlinuz"))?;
    }
    repository(&root)?;
    fs::write(root.join("init"), init(script))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    // Not compressed: the guest's processor is slower at that than the disk.
    let mut command = shell::command("sh");
    command.args(["-c", "find . | cpio --quiet --create --format=newc --owner=+0:+0 > \"$1\"", "sh"]).arg(initrd);
    shell::output(command.current_dir(&root))?;
    fs::remove_dir_all(root)?;
    Ok(())
}

fn init(script: &str) -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
ulimit -c 0
for module in $(cat /modules/order); do insmod /modules/$module || echo \"no module $module\"; done
ip link set lo up
{script}
poweroff -f
"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The libraries of a program and its loader, by their paths.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program is none of ldd's business, and it says so by failing.
    let Ok(text) = shell::output(shell::command("ldd").arg(program)) else { return Ok(Vec::new()) };
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    let found: Vec<PathBuf> = words.map(PathBuf::from).collect();
    ensure!(!text.contains("not found"), "a library of {} is missing:\n{text}", program.display());
    Ok(found)
}

/// Copies the modules of these names and all they need, and writes down the order of loading.
fn modules(kernel: &Kernel, names: &[&str], to: &Path) -> Result<()> {
    let folder = kernel.root.join("lib/modules").join(&kernel.release);
    let table = fs::read_to_string(folder.join("modules.dep")).context("modules.dep")?;
    let mut order: Vec<&str> = Vec::new();
    for name in names {
        // Built in, or not of this kernel: the tests say when it is needed and missing.
        let Some((path, needs)) =
            table.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| is(path, name))
        else {
            continue;
        };
        // depmod lists the nearest need first.
        for module in needs.split_whitespace().rev().chain([path]) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    let mut list = String::new();
    for module in order {
        let name = Path::new(module).file_name().context("a module has a name")?;
        copy(&folder.join(module), &to.join(name))?;
        writeln!(list, "{}", name.to_string_lossy())?;
    }
    Ok(fs::write(to.join("order"), list)?)
}

fn is(path: &str, name: &str) -> bool {
    Path::new(path).file_stem().is_some_and(|stem| stem == name)
}

/// The files that git knows, at the path they have here.
fn repository(root: &Path) -> Result<()> {
    let here = workspace::root();
    for file in shell::line("git ls-files tests switch dashboards docs *.md")?.lines() {
        let from = here.join(file);
        let to = root.join(from.strip_prefix("/").unwrap_or(&from));
        if from.is_symlink() {
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            symlink(fs::read_link(&from)?, to)?;
        } else {
            copy(&from, &to)?;
        }
    }
    Ok(())
}
