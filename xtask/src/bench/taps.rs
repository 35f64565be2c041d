//! Tap to tap, one frame after the other: what a write costs, how long a round trip takes, when a verdict is in effect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};

use super::cpu::cpu_ns;
use super::frames::{self, mac, udp};
use super::lab::{pin, pinned, until};
use super::systems::System;
use super::tap::Station;

/// CPU nanoseconds per write: one pinned thread writes a burst, then drains the other tap. No wake-ups, no second
/// processor. Every frame must arrive. A stream goes on, from one call to the next: no byte of it is sent twice.
pub fn write_cost(a: &Station, b: &mut Station, frame: &mut [u8], burst: usize, bursts: u32) -> Result<f64> {
    cost_of(a, b, frame, burst, bursts, frames::advance)
}

/// The same with a frame of another flow each time: `flow` counts on from one call to the next, up to `flows` and anew.
pub fn flows_cost(
    a: &Station,
    b: &mut Station,
    frame: &mut [u8],
    burst: usize,
    bursts: u32,
    (flow, flows): (&mut u32, u32),
) -> Result<f64> {
    cost_of(a, b, frame, burst, bursts, |frame| {
        *flow = (*flow + 1) % flows;
        frames::set_flow(frame, *flow);
    })
}

/// The same for whatever frame `next` makes of the one before.
fn cost_of(
    a: &Station,
    b: &mut Station,
    frame: &mut [u8],
    burst: usize,
    bursts: u32,
    mut next: impl FnMut(&mut [u8]) + Send,
) -> Result<f64> {
    let bytes = frame.len() - frames::VNET_BYTES;
    let cpu = pinned(0, || {
        let mut cpu = 0;
        for _ in 0..bursts {
            let start = cpu_ns();
            for _ in 0..burst {
                a.send(frame)?;
                next(frame);
            }
            cpu += cpu_ns() - start;
            let arrived = b.drain(bytes)?;
            if arrived != burst {
                bail!("{burst} frames were written and {arrived} were there to read");
            }
        }
        Ok(cpu)
    })?;
    let frames = i64::try_from(burst)? * i64::from(bursts);
    Ok(f64_of(cpu)? / f64_of(frames)?)
}

/// Round trips of a 60-byte frame in microseconds; the other station sleeps until one comes.
pub fn round_trips(a: &mut Station, b: &mut Station, count: usize) -> Result<Vec<f64>> {
    let there = udp(a.mac(), b.mac(), 60);
    let back = udp(b.mac(), a.mac(), 60);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> Result<()> {
            pin(1)?;
            while !done.load(Ordering::Relaxed) {
                wait(b.file())?;
                for _ in 0..b.drain(60)? {
                    b.send(&back)?;
                }
            }
            Ok(())
        });
        let result = pinned(0, || {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                a.send(&there)?;
                while a.drain(60)? == 0 {
                    wait(a.file())?;
                    if start.elapsed() > Duration::from_secs(2) {
                        bail!("a frame did not come back");
                    }
                }
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            Ok(times)
        });
        done.store(true, Ordering::Relaxed);
        echo.join().ok().context("the echo panicked")??;
        result
    })
}

/// Microseconds from the first frame of a new station to another until the reflex forwards by itself.
///
/// The first frame is followed by one every `STEP`, all of the same pair. The kernel counts how many frames the punt tap
/// handed to the daemon; when they are k more than before, frame k (counted from 0) was the first that was forwarded by
/// a cached verdict, so the verdict was in effect when that frame was written. The answer is an upper bound that is at
/// most one step too large.
pub fn first_verdict(system: &System, a: &mut Station, b: &mut Station, number: u32) -> Result<f64> {
    const STEP: Duration = Duration::from_micros(10);
    const FRAMES: u32 = 200;
    let (source, destination) = (mac(0x0100_0000 + number), mac(0x0200_0000 + number));
    // The destination says that it is there, as ARP would; the source is heard of for the first time when it sends.
    b.send(&udp(destination, [0xff; 6], 60))?;
    a.expect(60, Duration::from_secs(1)).context("the announcement did not arrive")?;
    let before = system.punted()?;

    let frame = udp(source, destination, 60);
    let mut written = Vec::new();
    let start = Instant::now();
    for n in 0..FRAMES {
        while start.elapsed() < STEP * n {
            std::hint::spin_loop();
        }
        written.push(start.elapsed());
        a.send(&frame)?;
    }
    until(Duration::from_secs(1), || Ok((b.drain(60)? == 0).then_some(())))?;
    let handed = system.punted()? - before;
    // None within two milliseconds is at least that; a median can live with it.
    let first = written.get(usize::try_from(handed)?).copied().unwrap_or_else(|| start.elapsed());
    Ok(first.as_secs_f64() * 1e6)
}

/// Sleeps until there is something to read, at most a tenth of a second.
fn wait(file: &std::fs::File) -> Result<()> {
    let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}

/// A count as a number to divide by; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds here stay below 2^53, which is checked")]
pub fn f64_of(count: i64) -> Result<f64> {
    if count.unsigned_abs() >> 53 != 0 {
        bail!("{count} is too large to be exact");
    }
    Ok(count as f64)
}
