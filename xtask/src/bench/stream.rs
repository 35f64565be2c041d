//! The generator: one thread writes frames at some taps, another reads them at others, and every frame is accounted for.
//!
//! Each frame carries who sent it, its number and when ([`Label`]), so that loss, duplication, reordering and misdelivery
//! are counted and not concluded. It is the same for every switch. A sender that may not have more frames under way
//! sleeps until the reader wakes it, for a switch in user space needs the processor that it would spin on; a reader
//! sleeps in `poll`, as a virtual machine monitor does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::figure::{Counts, Size, Vary};
use super::frames::{self, Label};
use super::lab::{pin, pinned};
use super::statistics::median;
use super::tap::Station;

/// Frames between two looks at the clock; only the first of them is timed.
const STRIDE: u32 = 16;
/// Nothing for so long, and what is under way is given up: longer than a busy machine keeps a thread from running.
const QUIET: Duration = Duration::from_millis(200);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// How long frames are.
    pub size: Size,
    /// Whether all sinks are meant, or the first alone.
    pub flood: bool,
    /// What changes from frame to frame.
    pub vary: Vary,
    /// How fast.
    pub pace: Pace,
    /// For how long.
    pub time: Duration,
    /// At most so many frames.
    pub frames_max: u32,
}

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// With at most so many under way.
    Window(u32),
    /// Without regard to what arrives.
    Free,
    /// So many per second.
    PerSecond(f64),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Frame by frame.
    pub counts: Counts,
    /// From the first write to the last read.
    pub elapsed: Duration,
    /// Median time from write to read, in microseconds.
    pub delay_us: f64,
}

/// What both threads see.
struct Shared {
    /// Both threads are where they belong.
    ready: Barrier,
    start: OnceLock<Instant>,
    fanout: u64,
    written: AtomicU64,
    arrived: AtomicU64,
    given_up: AtomicU64,
    /// The reader wakes the sender when no more than so many are under way.
    wake_at: u64,
    finished: AtomicBool,
    sender: OnceLock<Thread>,
}

impl Shared {
    /// Waits for the other thread; answers when the measurement began.
    fn begin(&self) -> Instant {
        self.ready.wait();
        *self.start.get_or_init(Instant::now)
    }

    /// Frames of which it is not known what became of them.
    fn under_way(&self) -> u64 {
        let settled = self.arrived.load(Ordering::Acquire) + self.given_up.load(Ordering::Acquire);
        (self.written.load(Ordering::Acquire) * self.fanout).saturating_sub(settled)
    }
}

/// Sends from `sources` in turn to the first of `sinks`, or to all. `run` and `fresh` go on from call to call: the first
/// tells a straggler of an earlier measurement, the second numbers stations and flows that nobody has seen.
pub fn stream(
    sources: &[Station],
    sinks: &mut [Station],
    offer: Offer,
    run: &mut u16,
    fresh: &mut u32,
) -> Result<Outcome> {
    *run = run.wrapping_add(1);
    let run = *run;
    let target = if offer.flood { [0xff; 6] } else { sinks.first().context("nobody to send to")?.mac() };
    let fanout = if offer.flood { u64::try_from(sinks.len())? } else { 1 };
    let shared = Shared {
        ready: Barrier::new(2),
        start: OnceLock::new(),
        fanout,
        written: AtomicU64::new(0),
        arrived: AtomicU64::new(0),
        given_up: AtomicU64::new(0),
        wake_at: if let Pace::Window(window) = offer.pace { u64::from(window / 2) * fanout } else { 0 },
        finished: AtomicBool::new(false),
        sender: OnceLock::new(),
    };
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let pinned = pin(1);
            let start = shared.begin();
            pinned.and_then(|()| read(sinks, &shared, start, run, target))
        });
        let sent = pinned(0, || {
            drop(shared.sender.set(thread::current()));
            let start = shared.begin();
            let sent = write(sources, offer, &shared, start, run, target, fresh);
            shared.finished.store(true, Ordering::Release);
            sent
        });
        let mut outcome = reader.join().ok().context("the reader panicked")??;
        outcome.counts.sent = sent? * fanout;
        outcome.counts.lost = outcome.counts.sent.saturating_sub(outcome.counts.received);
        Ok(outcome)
    })
}

/// Writes until time or frames are over; answers how many.
fn write(
    sources: &[Station],
    offer: Offer,
    shared: &Shared,
    start: Instant,
    run: u16,
    target: [u8; 6],
    fresh: &mut u32,
) -> Result<u64> {
    let mut templates: Vec<Vec<Vec<u8>>> =
        sources.iter().map(|source| templates(source.mac(), target, offer.size)).collect();
    let mut number = 0_u32;
    let mut time = 0;
    while number < offer.frames_max {
        if number.is_multiple_of(STRIDE) {
            if number > 0 && start.elapsed() >= offer.time {
                break;
            }
            if let Pace::PerSecond(rate) = offer.pace {
                let due = Duration::from_secs_f64(f64::from(number) / rate);
                while start.elapsed() < due {
                    std::hint::spin_loop();
                }
            }
            time = u64::try_from(start.elapsed().as_nanos())?;
        }
        if let Pace::Window(window) = offer.pace {
            wait_for_room(shared, u64::from(window));
        }
        let index = number as usize % sources.len();
        let frames = templates.get_mut(index).context("nobody sends")?;
        let shapes = frames.len();
        let frame = frames.get_mut(number as usize / sources.len() % shapes).context("nothing to send")?;
        // Whose order counts: the sender's, or the station's or flow's that it plays.
        let source = match offer.vary {
            Vary::Nothing => u16::try_from(index)?,
            Vary::Station | Vary::Flow => low_half(*fresh),
            Vary::Known(stations) => low_half(*fresh % stations),
        };
        Label { run, source, number, time }.write(frame);
        match offer.vary {
            Vary::Nothing => frames::advance(frame),
            Vary::Station => frames::set_source(frame, 0x0300_0000 + *fresh),
            Vary::Flow => frames::set_flow(frame, *fresh),
            Vary::Known(stations) => frames::set_source(frame, 0x0600_0000 + *fresh % stations),
        }
        *fresh = fresh.wrapping_add(u32::from(offer.vary != Vary::Nothing));
        sources.get(index).context("nobody sends")?.send(frame)?;
        number += 1;
        shared.written.store(u64::from(number), Ordering::Release);
    }
    Ok(u64::from(number))
}

/// Enough of a number to tell those apart that are under way together.
fn low_half(number: u32) -> u16 {
    let [a, b, ..] = number.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// When too many frames are under way, sleeps until half of them have arrived; what does not arrive any more is given up.
fn wait_for_room(shared: &Shared, window: u64) {
    if shared.under_way() < window * shared.fanout {
        return;
    }
    let mut progress = (shared.arrived.load(Ordering::Acquire), Instant::now());
    while shared.under_way() > shared.wake_at {
        // It may return at once, for a wake-up that came before.
        thread::park_timeout(QUIET);
        let arrived = shared.arrived.load(Ordering::Acquire);
        if arrived != progress.0 {
            progress = (arrived, Instant::now());
        } else if progress.1.elapsed() > QUIET {
            let written = shared.written.load(Ordering::Acquire) * shared.fanout;
            shared.given_up.store(written.saturating_sub(arrived), Ordering::Release);
        }
    }
}

/// The frames of a source, sent in turn.
fn templates(source: [u8; 6], target: [u8; 6], size: Size) -> Vec<Vec<u8>> {
    match size {
        Size::Bytes(bytes) => vec![frames::udp(source, target, bytes)],
        // Shuffled by hand, so that large frames do not come in a row.
        Size::Imix => [60, 570, 60, 60, 570, 60, 1514, 60, 570, 60, 60, 570]
            .into_iter()
            .map(|bytes| frames::udp(source, target, bytes))
            .collect(),
        Size::Gso => vec![frames::super_frame(source, target)],
    }
}

/// What one sink has seen.
#[derive(Default)]
struct Seen {
    numbers: Vec<u64>,
    latest: Vec<Option<u32>>,
}

impl Seen {
    /// Notes a frame: whether it is new here, and whether a later one of its source came before it.
    fn note(&mut self, label: Label) -> (bool, bool) {
        let (word, bit) = (label.number as usize / 64, 1_u64 << (label.number % 64));
        if self.numbers.len() <= word {
            self.numbers.resize(word + 1, 0);
        }
        let new = self.numbers.get_mut(word).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        });
        let source = usize::from(label.source);
        if self.latest.len() <= source {
            self.latest.resize(source + 1, None);
        }
        let late = self.latest.get_mut(source).is_some_and(|latest| {
            let late = latest.is_some_and(|latest| latest > label.number);
            *latest = Some(latest.map_or(label.number, |latest| latest.max(label.number)));
            late
        });
        (new, new && late)
    }
}

/// Reads all sinks until everything has arrived, or nothing more does.
fn read(sinks: &mut [Station], shared: &Shared, start: Instant, run: u16, target: [u8; 6]) -> Result<Outcome> {
    const BATCH: usize = 64;
    let mut seen: Vec<Seen> = sinks.iter().map(|_| Seen::default()).collect();
    let mut counts = Counts::default();
    let mut delays = Vec::new();
    let mut last = Instant::now();
    loop {
        let before = counts.received;
        // Asked before the look at the sinks: whoever slept in between has not looked in vain.
        let quiet = shared.finished.load(Ordering::Acquire) && last.elapsed() > QUIET;
        for (index, (sink, seen)) in sinks.iter_mut().zip(&mut seen).enumerate() {
            let meant = index == 0 || target == [0xff; 6];
            for _ in 0..BATCH {
                let Some(frame) = sink.receive()? else { break };
                let Some(label) = Label::read(frame).filter(|label| label.run == run) else { continue };
                if !meant || !frame.starts_with(&target) {
                    counts.misdelivered += 1;
                    continue;
                }
                let (new, late) = seen.note(label);
                counts.received += u64::from(new);
                counts.duplicated += u64::from(!new);
                counts.reordered += u64::from(late);
                if label.number.is_multiple_of(STRIDE) {
                    let now = u64::try_from(start.elapsed().as_nanos())?;
                    delays.push(Duration::from_nanos(now.saturating_sub(label.time)).as_secs_f64() * 1e6);
                }
            }
        }
        if counts.received > before {
            last = Instant::now();
            shared.arrived.store(counts.received, Ordering::Release);
            if shared.under_way() <= shared.wake_at
                && let Some(sender) = shared.sender.get()
            {
                sender.unpark();
            }
            continue;
        }
        let all = || counts.received >= shared.written.load(Ordering::Acquire) * shared.fanout;
        if quiet || (shared.finished.load(Ordering::Acquire) && all()) {
            break;
        }
        let mut waiting: Vec<PollFd<'_>> = sinks.iter().map(|sink| PollFd::new(sink.file(), PollFlags::IN)).collect();
        match poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 })) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
    Ok(Outcome { counts, elapsed: last.duration_since(start), delay_us: median(&delays) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(source: u16, number: u32) -> Label {
        Label { run: 1, source, number, time: 0 }
    }

    #[test]
    fn a_frame_is_new_once_and_late_only_behind_its_own_source() {
        let mut seen = Seen::default();
        assert_eq!(seen.note(label(0, 5)), (true, false));
        assert_eq!(seen.note(label(0, 5)), (false, false), "again");
        assert_eq!(seen.note(label(1, 2)), (true, false), "another source may lag");
        assert_eq!(seen.note(label(0, 3)), (true, true), "overtaken");
        assert_eq!(seen.note(label(0, 70)), (true, false));
        assert_eq!(seen.note(label(0, 3)), (false, false), "a duplicate is not late as well");
    }

    #[test]
    fn a_mix_is_seven_to_four_to_one() {
        let lengths: Vec<usize> = templates([2; 6], [4; 6], Size::Imix).iter().map(Vec::len).collect();
        let of = |bytes: usize| lengths.iter().filter(|length| **length == bytes + frames::VNET_BYTES).count();
        assert_eq!((of(60), of(570), of(1514), lengths.len()), (7, 4, 1, 12));
    }
}
