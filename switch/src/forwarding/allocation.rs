//! Proof that deciding about known stations, and the loop around it, allocates nothing: an allocator that counts, per
//! thread.
#![expect(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait; this one hands everything on and counts")]
#![expect(clippy::unwrap_used, reason = "a test ends where an assumption fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use super::*;
use crate::dataplane::verdicts::NoCache;
use crate::dataplane::{Loop, Step};
use crate::frame::Offload;
use crate::port::memory::Treadmill;
use crate::reflex::BrainPage;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every request is handed on unchanged to the system's allocator, which keeps the promises of the trait; the
// counter is a thread-local number whose initialisation and access do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout, by `alloc` above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Three guests' ports.
fn three_ports() -> (Tables, [PortId; 3]) {
    let mut tables = Tables::new(FdbLimits::default());
    let ids = [1, 2, 3].map(|id| PortId::new(id).unwrap());
    for id in ids {
        tables.set_port(PortView {
            id,
            up: true,
            carrier: true,
            role: Role::Guest,
            macs: vec![MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])],
            station_limit: Some(16),
            flood_per_sec: u32::MAX,
            frame_bytes_max: 1514,
            trust: Trust::Guest,
        });
    }
    (tables, ids)
}

#[test]
fn deciding_about_known_stations_allocates_nothing() {
    let (mut tables, ids) = three_ports();
    let [one, two, _] = ids;
    let there = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let back = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let group = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut now = Nanos(1);
    let mut round = |tables: &mut Tables| {
        now = now + Duration::from_micros(50);
        for (ingress, bytes) in [(one, &there), (two, &back), (one, &group)] {
            let frame = Frame::check(bytes, Offload::default(), Trust::Guest).unwrap();
            assert!(!matches!(decide(tables, ingress, &frame, now).verdict, Verdict::Drop(_)));
            assert_eq!(tables.flood_ports(ingress).count(), 2);
        }
    };
    let start = allocations();
    round(&mut tables);
    assert!(allocations() > start, "learning does allocate, so the counter counts");
    let start = allocations();
    for _ in 0..10_000 {
        round(&mut tables);
    }
    assert_eq!(allocations() - start, 0);
}

#[test]
fn the_loop_allocates_nothing_for_frames_of_known_stations() {
    let (tables, [one, two, three]) = three_ports();
    let frame = |bytes: [u8; 14]| [bytes.as_slice(), &[0; 46]].concat();
    let frames = vec![
        (one, frame([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0])),
        (two, frame([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0])),
        (one, frame([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0])),
        // Refused: an address that port 3 does not have.
        (three, frame([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0])),
    ];
    let page = std::sync::Arc::new(BrainPage::in_memory());
    let aging = Duration::from_mins(5);
    let mut brain = Loop::new(Treadmill::new(frames), NoCache, tables, page, aging);
    let mut now = Nanos(1);
    let mut run = |frames: usize| {
        brain.medium().run(frames);
        loop {
            now = now + Duration::from_micros(50);
            let step = brain.step(now).unwrap();
            brain.tick(now);
            if step == Step::Idle {
                return brain.medium().copies();
            }
        }
    };
    let start = allocations();
    let learned = run(40);
    assert!(allocations() > start, "learning does allocate, so the counter counts");
    let start = allocations();
    let copies = run(400_000) - learned;
    assert_eq!(allocations() - start, 0);
    // Of four frames two have one copy each, one has two, one has none.
    assert_eq!(copies, 400_000);
}
