#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is surprised has failed")]
//! This room against a real kernel: each test in a network namespace of its own, which goes with its thread.

use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::attach::{AttachError, Attached, Host};
use super::spec::{IfName, PortSpec};
use super::sys;
use switch_common::PortId;

mod attaching;
mod pairs;
mod punting;
mod refusing;
mod watching;

/// Runs a test in a new network namespace; without root, says that it is skipped, or fails when root is required.
fn in_new_netns<F>(test: F)
where
    F: AsyncFnOnce() + Send + 'static,
{
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var("WEFT_TESTS_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|word| word == "root"), "this test needs root, and WEFT_TESTS_REQUIRE has it");
        eprintln!("skipped: needs root for a network namespace of its own");
        return;
    }
    let thread = thread::spawn(move || {
        sys::unshare_network().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Another network namespace, kept by a thread that runs commands in it.
struct Elsewhere {
    path: PathBuf,
    orders: Option<mpsc::Sender<(String, mpsc::Sender<String>)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Elsewhere {
    fn new() -> Self {
        let (orders, received) = mpsc::channel::<(String, mpsc::Sender<String>)>();
        let (ready, path) = mpsc::channel();
        let thread = thread::spawn(move || {
            sys::unshare_network().unwrap();
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            ready.send(PathBuf::from("/proc").join(task).join("ns/net")).unwrap();
            for (command, answer) in received {
                answer.send(run(&command)).unwrap();
            }
        });
        Self { path: path.recv().unwrap(), orders: Some(orders), thread: Some(thread) }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn run(&self, command: &str) -> String {
        let (answer, answered) = mpsc::channel();
        self.orders.as_ref().unwrap().send((command.to_owned(), answer)).unwrap();
        answered.recv().unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Runs a command in the calling thread's network namespace; gives what it printed.
fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip` says about a link, or all links and addresses.
fn json(command: &str) -> Value {
    serde_json::from_str(&run(command)).unwrap()
}

/// All links with their addresses; see [`links`].
fn all_links() -> Value {
    settled("ip -d -j address")
}

/// All links.
fn links() -> Value {
    settled("ip -d -j link")
}

/// The operational state, and the flag that says the same, are left out: the kernel settles them later, by a work queue.
fn settled(command: &str) -> Value {
    let mut links = json(command);
    for link in links.as_array_mut().unwrap() {
        link.as_object_mut().unwrap().remove("operstate");
        link["flags"].as_array_mut().unwrap().retain(|flag| flag != "NO-CARRIER");
    }
    links
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A port as the configuration file would have it: the lines of its `[[port]]` table.
fn port(lines: &str) -> PortSpec {
    toml::from_str(&format!("name = \"p\"\norigin = \"command\"\n{lines}")).unwrap()
}

/// Tries until it succeeds, at most 5 s: a process forked by a test beside this one may hold a copy of our descriptors
/// until it executes its program.
async fn soon<T, E: std::fmt::Debug>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "not within 5 s: {error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

const PUNT_IFINDEX: u32 = 4242;

/// Prepares a port with the id 7.
async fn prepare(host: &Host, lines: &str) -> Result<Attached, AttachError> {
    host.prepare(&port(lines), &name("weft-t"), PUNT_IFINDEX, PortId::new(7).unwrap()).await
}
