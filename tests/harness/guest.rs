//! A real Linux guest under QEMU: Debian's cloud kernel, a user space of one busybox, and its console to type on.
//!
//! The kernel's package is downloaded (never installed) into a folder that outlives the test, once, under a lock.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::command::{self, Running, words};
use crate::requirements::on_path;
use crate::{cli, wait};

/// Debian's name for the newest kernel without drivers for bare metal.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Virtio's modules. Who needs whom differs by kernel, so init goes through them twice.
const MODULES: [&str; 8] = [
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/net/virtio_net",
];
/// Ends what a command printed; its exit code follows.
const DONE: &str = "weft-done ";

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) modules: Vec<PathBuf>,
}

impl Kernel {
    /// The file to boot, a bzImage.
    pub fn image(&self) -> &Path {
        &self.image
    }
}

/// The kernel, downloaded into `cache` unless it is there.
pub fn kernel(cache: &Path) -> Result<Kernel> {
    let folder = cache.join("guest-kernel");
    fs::create_dir_all(&folder)?;
    let lock = File::create(cache.join("guest-kernel.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if !folder.join("root/boot").is_dir() {
        download(&folder)?;
    }
    find(&folder.join("root"))
}

fn download(folder: &Path) -> Result<()> {
    let depends = command::run(&format!("apt-cache depends {PACKAGE}"))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image"));
    let package = format!("linux-image{}", package.with_context(|| format!("{PACKAGE} depends on no kernel"))?);
    command::text(words("apt-get download").arg(package).current_dir(folder))?;
    let archives: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    let archive = archives.iter().map(fs::DirEntry::path).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let (archive, half) = (archive.context("apt-get downloaded nothing")?, folder.join("root.new"));
    command::text(words("dpkg-deb --extract").arg(archive).arg(&half))?;
    Ok(fs::rename(half, folder.join("root"))?)
}

fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let found = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with(prefix).then_some(path)
    });
    found.with_context(|| format!("no {prefix}* in {}", folder.display()))
}

fn find(root: &Path) -> Result<Kernel> {
    let modules = only_entry(&root.join("lib/modules"), "")?.join("kernel");
    let modules = MODULES.iter().map(|module| modules.join(format!("{module}.ko"))).collect();
    Ok(Kernel { image: only_entry(&root.join("boot"), "vmlinuz")?, modules })
}

/// Copies a program into the guest's `bin`, without what only a debugger reads, and the libraries that it needs to where they
/// are here.
fn program(path: &Path, root: &Path) -> Result<()> {
    let to = root.join("bin").join(path.file_name().context("a program has a name")?);
    command::text(words("strip -o").arg(to).arg(path))?;
    let needed = command::text(words("ldd").arg(path))?;
    for library in needed.split_whitespace().filter_map(|word| word.strip_prefix('/')) {
        let to = root.join(library);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(Path::new("/").join(library), to).with_context(|| library.to_owned())?;
    }
    Ok(())
}

/// Packs busybox, these programs, the modules and an init that goes on with `script`, into `/run`.
pub(crate) fn initramfs(kernel: &Kernel, name: &str, programs: &[PathBuf], script: &str) -> Result<PathBuf> {
    let (root, packed) = (Path::new("/run").join(name), PathBuf::from(format!("/run/{name}.cpio")));
    for folder in ["bin", "dev", "proc", "sys", "tmp", "www"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(on_path("busybox").context("no busybox")?, root.join("bin/busybox"))?;
    for path in programs {
        program(path, &root)?;
    }
    let mut init = String::from(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t devtmpfs dev /dev\n\
         mount -t proc proc /proc\nmount -t sysfs sys /sys\nstty -echo\n",
    );
    let mut names = Vec::new();
    for module in &kernel.modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        fs::copy(module, root.join(&*name)).with_context(|| module.display().to_string())?;
        names.push(format!("/{name}"));
    }
    let names = names.join(" ");
    writeln!(init, "for module in {names} {names}; do insmod $module 2>/dev/null; done")?;
    writeln!(init, "ip link set lo up\n{script}\npoweroff -f")?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let list = command::text(words("find . -print").current_dir(&root))?;
    let mut pack = words("cpio --quiet -o -H newc -F");
    command::feed(pack.arg(&packed).current_dir(&root), list.as_bytes())?;
    Ok(packed)
}

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    qemu: Running,
    console: Receiver<String>,
    said: Vec<String>,
}

impl Guest {
    /// Boots a guest whose interface eth0, with this address, is on the tap.
    pub fn boot(kernel: &Kernel, tap: &str, mac: &str) -> Result<Self> {
        let obey = "while read -r line; do sh -c \"$line\"; echo";
        let initramfs = initramfs(
            kernel,
            "guest",
            &[cli::built("numbered")?],
            &format!("echo {DONE}0\n{obey} \"{DONE}$?\"; done"),
        )?;
        let mut command = words(
            "qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 512 -nodefaults -no-reboot -display none -serial stdio",
        );
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        command.arg("-netdev").arg(format!("tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off"));
        command.arg("-device").arg(format!("virtio-net-pci,netdev=n0,mac={mac}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = Running::start(&mut command)?;
        let output = qemu.child().stdout.take().context("QEMU has no output")?;
        let console = command::lines_of(output);
        let mut guest = Self { qemu, console, said: Vec::new() };
        guest.answer("boot", wait::LATER)?;
        Ok(guest)
    }

    /// Runs a line of shell inside, which must succeed; what it printed.
    pub fn run(&mut self, line: &str) -> Result<String> {
        let input = self.qemu.child().stdin.as_mut().context("QEMU has no input")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        self.answer(line, wait::LATER)
    }

    fn answer(&mut self, line: &str, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut printed = Vec::new();
        loop {
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(text) => {
                    self.said.push(text.clone());
                    let Some((before, code)) = text.split_once(DONE) else {
                        printed.push(text);
                        continue;
                    };
                    printed.push(before.to_owned());
                    ensure!(code.trim() == "0", "guest: {line}: exit code {code}: {}", printed.join("\n"));
                    return Ok(printed.join("\n").trim().to_owned());
                }
                Err(RecvTimeoutError::Timeout) => bail!("guest: no answer to {line}:\n{}", self.said.join("\n")),
                Err(RecvTimeoutError::Disconnected) => bail!("the guest ended:\n{}", self.said.join("\n")),
            }
        }
    }

    /// Switches the guest off and waits until QEMU has ended.
    pub fn power_off(mut self) -> Result<()> {
        let input = self.qemu.child().stdin.as_mut().context("QEMU has no input")?;
        input.write_all(b"poweroff -f\n")?;
        let status = self.qemu.wait(wait::SOON)?;
        ensure!(status.success(), "QEMU: {status}");
        Ok(())
    }
}
