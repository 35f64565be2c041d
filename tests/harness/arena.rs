//! An arena: a thread in a network and mount namespace of its own, where one test happens.
//!
//! Inside, `/run`, `/var/lib` and `/sys/fs/bpf` are fresh, so a daemon uses its default paths and meets nobody; `/sys`
//! shows the arena's own netdevs. Children inherit all of it from the thread. When the thread ends the kernel takes
//! everything away; before that [`Arena::run`] asserts that no process and no named namespace was left behind.

use std::fs;
use std::panic;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount,
};

use crate::command::{run, text, words};
use crate::requirements::{self, Need};
use crate::{sys, wait};

/// The namespaces of one test; there is one per [`Arena::run`], and it cannot leave its thread.
#[derive(Debug)]
pub struct Arena {
    network: u64,
}

impl Arena {
    /// Runs `body` in a fresh arena; skips, saying why, when the machine lacks one of `needs`.
    ///
    /// # Panics
    /// When `body` fails or leaves something behind.
    pub fn run(needs: &[Need], body: impl FnOnce(&Self) -> Result<()> + Send) {
        if !requirements::met(&[&[Need::Root], needs].concat()) {
            return;
        }
        let name = thread::current().name().unwrap_or("arena").to_owned();
        let outcome = thread::scope(|scope| {
            let inside = move || {
                let arena = Self::enter()?;
                body(&arena)?;
                arena.assert_nothing_left()
            };
            thread::Builder::new().name(name).spawn_scoped(scope, inside).expect("a thread can be started").join()
        });
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{error:?}"),
            Err(panicked) => panic::resume_unwind(panicked),
        }
    }

    fn enter() -> Result<Self> {
        sys::leave_namespaces().context("cannot leave the namespaces")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("private mounts")?;
        for (kind, folder) in [("tmpfs", "/run"), ("tmpfs", "/var/lib"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
            mount(kind, folder, kind, MountFlags::empty(), c"").with_context(|| format!("mount {kind} on {folder}"))?;
        }
        // `ip netns` wants its folder to be a shared mount, so that namespaces named here are seen by all within.
        fs::create_dir("/run/netns")?;
        mount_bind("/run/netns", "/run/netns")?;
        mount_change("/run/netns", MountPropagationFlags::SHARED)?;
        run("ip link set lo up")?;
        Ok(Self { network: network_of("/proc/thread-self/ns/net")? })
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, line: &str) -> Result<String> {
        text(words("ip").args(line.split_whitespace()))
    }

    /// Makes a device one that nobody here may open, root neither.
    pub fn forbid_device(&self, path: &str) -> Result<()> {
        mount_bind(path, path)?;
        Ok(mount_remount(path, MountFlags::BIND | MountFlags::NODEV, c"")?)
    }

    /// Leaves only these devices in `/dev`.
    pub fn keep_devices(&self, kept: &[&str]) -> Result<()> {
        for name in kept {
            let place = Path::new("/run/dev").join(name);
            fs::create_dir_all(place.parent().unwrap_or(Path::new("/run/dev")))?;
            fs::write(&place, [])?;
            mount_bind(Path::new("/dev").join(name), place)?;
        }
        Ok(mount_bind_recursive("/run/dev", "/dev")?)
    }

    /// Whether a netdev exists here.
    pub fn has_netdev(&self, name: &str) -> bool {
        Path::new("/sys/class/net").join(name).exists()
    }

    /// The netdevs that are here, sorted, without the loopback.
    pub fn netdevs(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir("/sys/class/net")?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.retain(|name| name != "lo");
        names.sort();
        Ok(names)
    }

    /// One of a netdev's own statistics, the kernel's truth.
    pub fn statistic(&self, netdev: &str, name: &str) -> Result<u64> {
        let file = format!("/sys/class/net/{netdev}/statistics/{name}");
        Ok(fs::read_to_string(&file).context(file)?.trim().parse()?)
    }

    /// Process ids, other than ours, that live in the arena's network namespace.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let own = std::process::id();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process that ends while we look is not left behind.
            if pid != own && network_of(&format!("/proc/{pid}/ns/net")).is_ok_and(|network| network == self.network) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn assert_nothing_left(&self) -> Result<()> {
        wait::until_true("processes left in the arena end", wait::SOON, || Ok(self.processes()?.is_empty()))?;
        let named: Vec<_> = fs::read_dir("/run/netns")?.collect::<std::io::Result<_>>()?;
        ensure!(named.is_empty(), "network namespaces left behind: {named:?}");
        Ok(())
    }
}

fn network_of(file: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(file)?.ino())
}
