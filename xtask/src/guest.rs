//! The Linux guest of the demo: Debian's own cloud kernel, and a user space of one busybox.
//!
//! The kernel's package is fetched and unpacked, never installed. Its virtio drivers are modules, so the initramfs
//! carries them. The guest takes `weft.address=CIDR` (any number) from its command line, serves HTTP on port 80 and
//! says `weft-guest: ready` on its console.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

/// What a hypervisor is started with.
pub struct Guest {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

/// The modules of a virtio network device, in the order in which they depend on each other. What a kernel has built in
/// is simply not there.
const MODULES: &[&str] = &[
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_net",
];

/// The guest's first and only script.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
for word in $(cat /proc/cmdline); do
    case $word in weft.address=*) ip address add ${word#*=} dev eth0 ;; esac
done
echo "Hello from a Linux guest, $(uname -r)." > /www/index.html
httpd -p 80 -h /www
echo "weft-guest: ready"
while :; do sleep 3600; done
"#;

/// Makes the guest once, in `target/guest`, and answers with where it is.
pub fn prepare() -> Result<Guest> {
    let folder = workspace::target().join("guest");
    let guest = Guest { kernel: folder.join("vmlinuz"), initrd: folder.join("initrd") };
    if guest.initrd.is_file() && guest.kernel.is_file() {
        return Ok(guest);
    }
    fs::create_dir_all(&folder)?;
    let package = download(&folder)?;
    let unpacked = folder.join("package");
    shell::output(shell::command("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    let kernel = find(&unpacked.join("boot"), "vmlinuz-")?.context("the kernel package holds no kernel")?;
    pack(&folder, &unpacked, &guest.initrd)?;
    fs::copy(kernel, &guest.kernel)?;
    fs::remove_dir_all(&unpacked)?;
    fs::remove_file(package)?;
    Ok(guest)
}

/// Fetches the newest cloud kernel of this machine's Debian.
fn download(folder: &Path) -> Result<PathBuf> {
    let depends = shell::line("apt-cache depends linux-image-cloud-amd64")?;
    let package = depends
        .split_whitespace()
        .find(|word| {
            word.starts_with("linux-image-") && word.ends_with("-cloud-amd64") && *word != "linux-image-cloud-amd64"
        })
        .context("apt knows no linux-image-cloud-amd64; run `apt-get update`, or use Debian's main archive")?;
    eprintln!("guest: fetching {package}");
    shell::output(shell::command("apt-get").args(["-q", "download", package]).current_dir(folder))?;
    find(folder, package)?.with_context(|| format!("apt fetched {package} and yet it is not there"))
}

/// Packs busybox, the modules and the script into an initramfs.
fn pack(folder: &Path, unpacked: &Path, initrd: &Path) -> Result<()> {
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "sys", "www", "modules"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = shell::find("busybox").context("no busybox; run `cargo xtask setup`")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    let found = shell::output(shell::command("find").arg(unpacked).args(["-name", "*.ko"]))?;
    let mut order = String::new();
    for name in MODULES {
        let file = format!("{name}.ko");
        let Some(path) = found.lines().find(|path| Path::new(path).file_name().is_some_and(|f| f == file.as_str()))
        else {
            continue;
        };
        fs::copy(path, root.join("modules").join(&file))?;
        order.push_str(name);
        order.push('\n');
    }
    if !order.contains("virtio_net") {
        bail!("the kernel package holds no virtio_net.ko (compressed modules are not read)");
    }
    fs::write(root.join("modules/order"), &order)?;

    let pack = "find . | cpio --quiet --create --format=newc | gzip -1";
    let mut command = shell::command("sh");
    command.args(["-c", &format!("{pack} > \"$1\""), "sh"]).arg(initrd).current_dir(&root);
    shell::output(&mut command)?;
    fs::remove_dir_all(root)?;
    Ok(())
}

/// The first entry of a folder whose name begins with `start`.
fn find(folder: &Path, start: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(start) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
