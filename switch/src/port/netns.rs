//! Other network namespaces: found by name, path or process id, and entered by a thread that ends with its errand.
//!
//! A thread that has called setns(2) must not be given other work, so each errand gets a thread of its own, with a runtime
//! and a netlink connection that live no longer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::netlink::{Netlink, NetlinkError};
use super::sys;

/// Where `ip netns` keeps its names; the second is what the first was before /run.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";
/// `NSFS_MAGIC` (include/uapi/linux/magic.h): the file system of namespace files.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace.
#[derive(Debug)]
pub(super) struct Netns {
    file: OwnedFd,
}

impl Netns {
    /// Opens a namespace: a name under /run/netns, an absolute path, or the id of a process in it.
    pub(super) fn open(text: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut refusal = io::Error::from(io::ErrorKind::NotFound);
        for path in places(text) {
            match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(file) => return Self::checked(file),
                Err(error) if error == rustix::io::Errno::NOENT => {}
                Err(error) => refusal = error.into(),
            }
        }
        Err(refusal)
    }

    fn checked(file: OwnedFd) -> io::Result<Self> {
        let kind = u64::try_from(rustix::fs::fstatfs(&file)?.f_type).unwrap_or(0);
        if kind == NSFS_MAGIC && sys::is_network_namespace(&file)? {
            Ok(Self { file })
        } else {
            Err(io::Error::other("not the file of a network namespace"))
        }
    }

    /// Whether this is the namespace the calling thread lives in.
    pub(super) fn is_own(&self) -> io::Result<bool> {
        let own = rustix::fs::stat(OWN)?;
        let this = rustix::fs::fstat(&self.file)?;
        Ok((own.st_dev, own.st_ino) == (this.st_dev, this.st_ino))
    }

    /// Does an errand inside.
    pub(super) async fn within<T, E, F, Fut>(&self, errand: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<NetlinkError> + Send + 'static,
        F: FnOnce(Netlink) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>>,
    {
        let failed = |source: io::Error| NetlinkError::new("entering the network namespace", source);
        let file = self.file.try_clone().map_err(failed)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = move || {
            // That nobody waits any more is no concern of this thread.
            sender.send(enter(&file, errand)).ok();
        };
        std::thread::Builder::new().name("weft-netns".to_owned()).spawn(thread).map_err(failed)?;
        receiver.await.map_err(|error| failed(io::Error::other(error)))?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn enter<T, E, F, Fut>(file: &OwnedFd, errand: F) -> Result<T, E>
where
    E: From<NetlinkError>,
    F: FnOnce(Netlink) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let failed = |source: io::Error| NetlinkError::new("entering the network namespace", source);
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async { errand(Netlink::connect()?).await })
}

/// Where a namespace of that description may be, in the order of `ip link set netns`: a name goes before a process id.
fn places(text: &str) -> Vec<PathBuf> {
    if text.starts_with('/') {
        return vec![PathBuf::from(text)];
    }
    if text.is_empty() || text.contains('/') || text == "." || text == ".." {
        return Vec::new();
    }
    let mut places: Vec<_> = NAMED.iter().map(|folder| PathBuf::from(folder).join(text)).collect();
    if let Ok(pid) = text.parse::<u32>() {
        places.push(PathBuf::from(format!("/proc/{pid}/ns/net")));
    }
    places
}
