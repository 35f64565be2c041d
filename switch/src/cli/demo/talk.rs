//! What the demo's stations say to each other: ping, and the smallest HTTP there is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::stage::{Namespace, output, until, within};

/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A page on port 80 of one address, until the guard is dropped.
pub(super) struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `text`. The socket is made inside the namespace and belongs to it, whatever thread accepts on it.
    pub(super) fn start(namespace: Option<&Namespace>, address: &str, text: &'static str) -> Result<Self> {
        let address: SocketAddr = format!("{address}:80").parse()?;
        // A fresh IPv4 address is usable at once; only a busy port is an error here.
        let listener = within(namespace, || Ok(TcpListener::bind(address)?))
            .with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that hangs up early is its own trouble.
                    Ok((stream, _)) => drop(answer(stream, text)),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(Self { address, ends, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!(address = %self.address, "a server of the demo panicked");
        }
    }
}

/// Reads a request's head and answers with a page, whatever was asked for.
fn answer(mut stream: TcpStream, text: &str) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = [0; 2048];
    if stream.read(&mut head)? == 0 {
        bail!("nothing was asked");
    }
    let length = text.len() + 1;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{text}\n").as_bytes()).context("cannot answer")
}

/// Fetches the page at an address, seen from a namespace, and answers with its first line.
pub(super) fn fetch(from: Option<&Namespace>, address: &str) -> Result<String> {
    let server: SocketAddr = format!("{address}:80").parse()?;
    let reply = within(from, || {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    })?;
    let (head, body) = reply.split_once("\r\n\r\n").context("that was not HTTP")?;
    if !head.contains(" 200 ") {
        bail!("the server says: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.lines().next().unwrap_or_default().to_owned())
}

/// Pings an address, seen from a namespace, and answers with the time of the last round trip.
pub(super) fn ping(from: Option<&Namespace>, address: &str) -> Result<String> {
    let text = within(from, || output(Command::new("ping").args(["-n", "-c", "3", "-i", "0.2", "-w", "10", address])))?;
    let time = text.lines().filter_map(|line| line.split_once("time=")).next_back().map(|(_, time)| time.to_owned());
    time.context("ping says no time")
}

/// Waits until an address answers the host's ping, as long as `check` has nothing against it, and says how long that took.
pub(super) fn answers(address: &str, patience: Duration, mut check: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    until(patience, || {
        check()?;
        Ok(output(Command::new("ping").args(["-n", "-c", "1", "-w", "1", address])).ok())
    })?;
    Ok(start.elapsed())
}

/// The same, until it serves a page, too.
pub(super) fn serves(address: &str, patience: Duration, check: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    answers(address, patience, check)?;
    until(patience, || Ok(fetch(None, address).ok()))?;
    Ok(start.elapsed())
}
