//! The flight recorder's memory: what each port's guest sent last, its headers and its fate, in as many bytes as a port has.
//!
//! A reel is a ring of bytes that holds whole records, oldest first. A port that sends much remembers a shorter time; it takes
//! nothing of another port's. What the kernel dropped behind the switch's back is on the reel of the port it came in by, or of
//! the one it was for when that is not known.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::session::Keep;
use super::stream::{self, Fate, Frame, Record};
use crate::fdb::Nanos;

/// How the recorder is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reeling {
    /// The recorder's bit.
    pub bit: u8,
    /// Bytes that each port has.
    pub bytes_per_port: usize,
    /// What is older is forgotten when something comes.
    pub age_max: Duration,
    /// What is kept of a frame.
    pub keep: Keep,
}

/// All ports' reels.
#[derive(Debug)]
pub(super) struct Reels {
    reeling: Reeling,
    by_port: HashMap<u16, VecDeque<u8>>,
    record: Vec<u8>,
    account: Arc<Account>,
}

impl Reels {
    pub(super) fn new(reeling: Reeling) -> Self {
        Self { reeling, by_port: HashMap::new(), record: Vec::new(), account: Arc::default() }
    }

    pub(super) fn bit(&self) -> u8 {
        self.reeling.bit
    }

    /// The recorder's books: a frame on a reel is delivered, also when it makes room for others later.
    pub(super) fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Keeps a frame; the oldest ones make room for it.
    pub(super) fn keep(&mut self, frame: &Frame<'_>) {
        let Some(fate) = Fate::decode(frame.fate) else { return self.account.lose() };
        let egress = || fate.egress().next().map_or(0, |(port, _)| port);
        let port = if fate.ingress == 0 { egress() } else { fate.ingress };
        self.record.clear();
        Frame { bytes: self.reeling.keep.of(frame.bytes), ..*frame }.encode(&mut self.record);
        if self.record.len() > self.reeling.bytes_per_port {
            return self.account.lose();
        }
        let age_max = u64::try_from(self.reeling.age_max.as_nanos()).unwrap_or(u64::MAX);
        let reel = self.by_port.entry(port).or_default();
        while let Some((bytes, time_ns)) = oldest(reel)
            && (reel.len() + self.record.len() > self.reeling.bytes_per_port
                || frame.time_ns.saturating_sub(time_ns) > age_max)
        {
            reel.drain(..bytes);
        }
        reel.extend(&self.record);
        self.account.deliver(1);
    }

    /// What a port's reel holds is nobody's when its number is another port's.
    pub(super) fn forget(&mut self, port: u16) {
        self.by_port.remove(&port);
    }

    /// Every frame since then, in the order of their times.
    pub(super) fn since(&mut self, since: Nanos, mut each: impl FnMut(&Frame<'_>)) {
        let mut frames: Vec<Frame<'_>> = Vec::new();
        for reel in self.by_port.values_mut() {
            let mut rest: &[u8] = reel.make_contiguous();
            while let Ok(Some((Record::Frame(frame), bytes))) = stream::decode(rest) {
                if frame.time_ns >= since.0 {
                    frames.push(frame);
                }
                rest = rest.get(bytes..).unwrap_or_default();
            }
        }
        frames.sort_by_key(|frame| (frame.time_ns, frame.number));
        frames.iter().for_each(&mut each);
    }
}

/// How long the oldest record is, and of when; its place in the record is that of [`stream::FRAME_HEADER_BYTES`].
fn oldest(reel: &VecDeque<u8>) -> Option<(usize, u64)> {
    let byte = |at: usize| reel.get(at).copied();
    let length = u32::from_le_bytes([byte(0)?, byte(1)?, byte(2)?, byte(3)?]);
    let mut time = [0; 8];
    for (to, at) in time.iter_mut().zip(10..) {
        *to = byte(at)?;
    }
    Some((4 + usize::try_from(length).ok()?, u64::from_le_bytes(time)))
}

#[cfg(test)]
mod tests {
    use super::super::stream::{FateHead, Outcome};
    use super::*;

    fn reels(bytes_per_port: usize, age_max: Duration) -> Reels {
        Reels::new(Reeling { bit: 3, bytes_per_port, age_max, keep: Keep::Bytes(20) })
    }

    fn keep(reels: &mut Reels, ingress: u16, number: u64) {
        let head =
            FateHead { ingress, outcome: Outcome::Forwarded, flags: 0, segment_bytes: 0, segments: 0, reason: "" };
        let mut fate = Vec::new();
        head.encode([(9, "")].into_iter(), &mut fate);
        reels.keep(&Frame { time_ns: number * 1000, number, length: 60, fate: &fate, bytes: &[7; 60] });
    }

    fn numbers(reels: &mut Reels, since: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        reels.since(Nanos(since), |frame| {
            assert_eq!((frame.bytes, frame.length), (&[7; 20][..], 60));
            numbers.push(frame.number);
        });
        numbers
    }

    #[test]
    fn a_port_that_sends_much_forgets_its_own_oldest_frames_only() {
        let mut reels = reels(1000, Duration::from_hours(1));
        keep(&mut reels, 1, 0);
        for number in 1..500 {
            keep(&mut reels, 2, number);
        }
        keep(&mut reels, 1, 500);
        let kept = numbers(&mut reels, 0);
        assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&500)));
        let of_the_busy_one = kept.len() - 2;
        assert!((10..=20).contains(&of_the_busy_one), "{kept:?}");
        assert!(kept.is_sorted() && kept.contains(&499) && !kept.contains(&400));
        assert_eq!(numbers(&mut reels, 499_000), [499, 500]);
        reels.forget(1);
        assert!(!numbers(&mut reels, 0).contains(&500));
    }

    #[test]
    fn what_is_old_is_forgotten_when_something_comes() {
        let mut reels = reels(100_000, Duration::from_micros(10));
        for number in 0..100 {
            keep(&mut reels, 1, number);
        }
        assert_eq!(numbers(&mut reels, 0), (89..100).collect::<Vec<_>>());
    }
}
