//! A container's network namespace, named within the arena and deleted when dropped.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::thread::LinkNameSpaceType;

use crate::command::{self, run, text};

/// A named network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    deleted: bool,
}

impl Namespace {
    /// Makes one, with its loopback up and a congestion control that does not pace (Reno: every kernel has it, and every
    /// namespace may choose it).
    pub fn new(name: &str) -> Result<Self> {
        run(&format!("ip netns add {name}"))?;
        let namespace = Self { name: name.to_owned(), deleted: false };
        namespace.run("ip link set lo up")?;
        namespace.run("sysctl -qw net.ipv4.tcp_congestion_control=reno")?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command of blank-separated words inside; not started yet.
    pub fn command(&self, line: &str) -> Command {
        command::words(&format!("ip netns exec {} {line}", self.name))
    }

    /// Runs a command inside that must succeed; its standard output.
    pub fn run(&self, line: &str) -> Result<String> {
        text(&mut self.command(line))
    }

    /// Does something in a thread inside. What it makes, such as a socket, stays inside, wherever it is used.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| path.clone())?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            inside.join().unwrap_or_else(|_| bail!("a thread inside {path} panicked"))
        })
    }

    /// Deletes it now, as somebody else would behind the switch's back.
    pub fn delete(mut self) -> Result<()> {
        self.deleted = true;
        run(&format!("ip netns del {}", self.name)).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.deleted {
            let gone = run(&format!("ip netns del {}", self.name));
            assert!(gone.is_ok() || thread::panicking(), "{gone:?}");
        }
    }
}
