//! Namespaces to measure in, and threads inside them. Whatever is made here goes when its guard is dropped.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, LinkNameSpaceType};

use crate::shell;

/// What the names of a bench's namespaces and folders begin with; its process id follows.
pub const PREFIX: &str = "weftbench-";

/// What the daemons of a bench are called: at most 15 characters, because it names the punt tap.
pub fn instance(bench: u32, slot: &str) -> String {
    format!("wb{}{slot}", bench % 100_000)
}

/// A private network namespace, named so that nobody else's can be meant.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one: loopback up, no IPv6 chatter, no bridge netfilter, no pacing TCP.
    pub fn new(what: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{what}", std::process::id());
        shell::line(&format!("ip netns add {name}"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        namespace.inside(|| {
            for setting in ["net/ipv6/conf/all/disable_ipv6", "net/ipv6/conf/default/disable_ipv6"] {
                std::fs::write(format!("/proc/sys/{setting}"), "1").with_context(|| setting.to_owned())?;
            }
            // Some machines default to BBR, whose pacing would be measured; Reno is allowed everywhere.
            std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno").context("no Reno")?;
            Ok(())
        })?;
        // Absent when br_netfilter is, which is what is wanted.
        if namespace.has_bridge_netfilter()? {
            namespace.bridge_netfilter(false)?;
        }
        Ok(namespace)
    }

    /// Whether bridges could hand their frames to netfilter.
    fn has_bridge_netfilter(&self) -> Result<bool> {
        self.inside(|| Ok(std::path::Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()))
    }

    /// Has bridges hand their frames to netfilter, or not.
    pub fn bridge_netfilter(&self, on: bool) -> Result<()> {
        self.inside(|| {
            for filter in ["arptables", "iptables", "ip6tables"] {
                let file = format!("/proc/sys/net/bridge/bridge-nf-call-{filter}");
                std::fs::write(&file, if on { "1" } else { "0" }).context("this kernel has no bridge netfilter")?;
            }
            Ok(())
        })
    }

    /// Its name, as `ip netns` and `weft port add --netns` take it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        shell::line(&format!("ip -n {} {arguments}", self.name))
    }

    /// Takes the queueing discipline off a netdev, so that none is measured.
    pub fn noqueue(&self, netdev: &str) -> Result<()> {
        shell::line(&format!("tc -n {} qdisc replace dev {netdev} root noqueue", self.name)).map(drop)
    }

    /// Does something in a thread of its own that is inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside.join().unwrap_or_else(|_| bail!("a thread in {} panicked", self.name))
        })
    }

    /// Moves the calling thread into it for good.
    pub fn enter(&self) -> Result<()> {
        self.entrance()?.enter()
    }

    /// A way in, for a thread that outlives the caller.
    pub fn entrance(&self) -> Result<Entrance> {
        let path = format!("/run/netns/{}", self.name);
        File::open(&path).map(Entrance).context(path)
    }

    /// Starts a program inside. Only the network namespace is another: `ip netns exec` would also hide `/sys/fs/bpf`.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.inside(|| command.spawn().with_context(|| format!("cannot start {}", command.get_program().display())))
    }
}

/// A way into a namespace.
pub struct Entrance(File);

impl Entrance {
    /// Moves the calling thread into the namespace for good.
    pub fn enter(&self) -> Result<()> {
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = shell::line(&format!("ip netns del {}", self.name)) {
            eprintln!("bench: {error:#}");
        }
    }
}

/// A program that is asked to end, and made to, when the guard is dropped.
pub struct Running(pub Child);

impl Running {
    /// Its process id, for `/proc`.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            eprintln!("bench: cannot end process {}: {error}", self.0.id());
        }
        let ended = until(Duration::from_mins(1), || Ok(self.0.try_wait()?.map(drop)));
        if ended.is_err() {
            eprintln!("bench: process {} had to be killed", self.0.id());
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// Waits for an answer, with a deadline.
pub fn until<T>(patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("nothing after {patience:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Does something in a thread of its own that stays on one processor (counted modulo those there are), so that neither
/// the bench itself nor the programs it starts inherit the choice.
pub fn pinned<T: Send>(processor: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            pin(processor)?;
            work()
        });
        pinned.join().unwrap_or_else(|_| bail!("a measuring thread panicked"))
    })
}

/// Keeps the calling thread on one processor.
pub fn pin(processor: usize) -> Result<()> {
    let all = thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(processor % all);
    rustix::thread::sched_setaffinity(None, &set).context("cannot pin a thread")
}
