//! Flood buckets: how much copying a port may cause the others.
//!
//! Each port has two buckets of `flood_per_sec` frames a second, with a burst of one second's worth: one for group
//! frames, one for unicast to unknown stations. They are apart so that ARP survives a scan: a guest that tries every
//! address empties the second bucket, and its neighbours still hear its broadcasts.
//!
//! A bucket is one number, the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371, annex A): a frame
//! conforms when that time lies no further ahead of now than the burst. A super-frame is charged all its wire frames, and
//! conforms when its first one does; so it may overdraw the bucket once, and then pays it off.

use crate::fdb::Nanos;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// What is to be flooded, and so from which bucket it is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodKind {
    /// Broadcast and multicast.
    Group,
    /// Unicast to a station nobody has heard of.
    Unknown,
}

/// A port's two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodBuckets {
    per_sec: u32,
    group: Bucket,
    unknown: Bucket,
}

impl FloodBuckets {
    /// Two full buckets; 0 frames a second means that this port floods nothing.
    pub fn new(per_sec: u32) -> Self {
        Self { per_sec, group: Bucket::default(), unknown: Bucket::default() }
    }

    /// The rate they were made with.
    pub fn per_sec(&self) -> u32 {
        self.per_sec
    }

    /// Takes a frame's weight from its bucket; false, and nothing taken, when the bucket is empty.
    pub fn take(&mut self, kind: FloodKind, wire_frames: u64, now: Nanos) -> bool {
        if self.per_sec == 0 {
            return false;
        }
        let interval_ns = NANOS_PER_SEC / u64::from(self.per_sec);
        let bucket = match kind {
            FloodKind::Group => &mut self.group,
            FloodKind::Unknown => &mut self.unknown,
        };
        bucket.take(wire_frames, interval_ns, interval_ns * u64::from(self.per_sec - 1), now)
    }
}

/// The theoretical arrival time of the next frame, in the clock of [`Nanos`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    arrival_ns: u64,
}

impl Bucket {
    fn take(&mut self, frames: u64, interval_ns: u64, ahead_ns: u64, now: Nanos) -> bool {
        let arrival_ns = self.arrival_ns.max(now.0);
        let conforms = arrival_ns - now.0 <= ahead_ns;
        if conforms {
            self.arrival_ns = arrival_ns.saturating_add(interval_ns.saturating_mul(frames));
        }
        conforms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOS_PER_SEC;

    fn conforming(buckets: &mut FloodBuckets, kind: FloodKind, tries: u32, now: u64) -> u32 {
        (0..tries).map(|_| u32::from(buckets.take(kind, 1, Nanos(now)))).sum()
    }

    #[test]
    fn a_burst_is_one_seconds_worth() {
        for per_sec in [1, 7, 2000] {
            let mut buckets = FloodBuckets::new(per_sec);
            assert_eq!(conforming(&mut buckets, FloodKind::Group, 10_000, 5 * SECOND), per_sec);
        }
    }

    #[test]
    fn an_empty_bucket_fills_at_its_rate() {
        let mut buckets = FloodBuckets::new(1000);
        assert_eq!(conforming(&mut buckets, FloodKind::Unknown, 5000, SECOND), 1000);
        assert_eq!(conforming(&mut buckets, FloodKind::Unknown, 5000, SECOND + SECOND / 10), 100);
        assert_eq!(conforming(&mut buckets, FloodKind::Unknown, 5000, 100 * SECOND), 1000);
    }

    #[test]
    fn a_sender_at_the_rate_loses_nothing() {
        let mut buckets = FloodBuckets::new(2000);
        let step = SECOND / 2000;
        assert!((0..20_000).all(|n| buckets.take(FloodKind::Group, 1, Nanos(n * step))));
    }

    #[test]
    fn the_two_buckets_do_not_know_each_other() {
        let mut buckets = FloodBuckets::new(10);
        assert_eq!(conforming(&mut buckets, FloodKind::Unknown, 1000, SECOND), 10);
        assert_eq!(conforming(&mut buckets, FloodKind::Group, 1000, SECOND), 10);
    }

    #[test]
    fn a_super_frame_is_charged_all_its_wire_frames() {
        let mut buckets = FloodBuckets::new(10);
        assert!(buckets.take(FloodKind::Group, 45, Nanos(SECOND)));
        assert!(!buckets.take(FloodKind::Group, 1, Nanos(4 * SECOND)));
        assert!(buckets.take(FloodKind::Group, 1, Nanos(5 * SECOND)));
    }

    #[test]
    fn a_rate_of_zero_floods_nothing_and_a_huge_one_everything() {
        assert!(!FloodBuckets::new(0).take(FloodKind::Group, 1, Nanos(SECOND)));
        let mut buckets = FloodBuckets::new(u32::MAX);
        assert_eq!(conforming(&mut buckets, FloodKind::Group, 10_000, SECOND), 10_000);
        assert!(buckets.take(FloodKind::Group, u64::MAX, Nanos(u64::MAX)));
    }
}
