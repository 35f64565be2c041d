//! A container's network namespace, named within the arena and deleted when dropped.

use std::process::Command;

use anyhow::Result;

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
            assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
        }
    }
}
