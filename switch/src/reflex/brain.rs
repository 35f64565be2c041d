//! The brain's own counters, in a map that is mapped into its memory: they survive it, and the kernel half reads them.
//!
//! Each cell has one thread that writes it, and any thread reads it. So an addition is a load and a store, and costs no lock.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use switch_common::{BrainPort, DropCell, DropReason, Freeing, PORT_SLOTS, PortId, REASON_SLOTS, Tally, Way};

use super::sys::BrainMapping;

/// One counter with one writer.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; for the one thread that writes this cell.
    pub fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Replaces the value; for the one thread that writes this cell.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
}

/// [`DropCell`], shared.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DropCells {
    /// Frames; a super-frame counts once.
    pub frames: Cell,
    /// Bytes.
    pub bytes: Cell,
}

/// [`Tally`], shared.
#[repr(C)]
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is the field of `Tally` of the same name")]
pub struct TallyCells {
    pub frames: Cell,
    pub bytes: Cell,
    pub extra_frames: Cell,
    pub extra_bytes: Cell,
}

impl TallyCells {
    /// Replaces the values; for the one thread that writes these cells.
    pub fn set(&self, tally: &Tally) {
        self.frames.set(tally.frames);
        self.bytes.set(tally.bytes);
        self.extra_frames.set(tally.extra_frames);
        self.extra_bytes.set(tally.extra_bytes);
    }

    /// The values now.
    pub fn snapshot(&self) -> Tally {
        Tally {
            frames: self.frames.get(),
            bytes: self.bytes.get(),
            extra_frames: self.extra_frames.get(),
            extra_bytes: self.extra_bytes.get(),
        }
    }
}

/// [`Freeing`], shared.
#[repr(C)]
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is the field of `Freeing` of the same name")]
pub struct FreeingCells {
    pub port: Cell,
    pub echo: Cell,
    pub first_ns: Cell,
    pub flows_freed: Cell,
    pub freed: TallyCells,
}

impl FreeingCells {
    /// Writes down what is to be; the port last, because it says that the rest is whole.
    pub(super) fn write(&self, freeing: &Freeing) {
        self.port.set(0);
        self.echo.set(freeing.echo);
        self.first_ns.set(freeing.first_ns);
        self.flows_freed.set(freeing.flows_freed);
        self.freed.set(&freeing.freed);
        self.port.set(freeing.port);
    }

    /// The values now.
    pub fn snapshot(&self) -> Freeing {
        Freeing {
            port: self.port.get(),
            echo: self.echo.get(),
            first_ns: self.first_ns.get(),
            flows_freed: self.flows_freed.get(),
            freed: self.freed.snapshot(),
        }
    }
}

/// [`BrainPort`], shared; the meaning of each field is told there.
#[repr(C)]
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the field of `BrainPort` of the same name")]
pub struct BrainCells {
    pub settled: Cell,
    pub forwarded: Cell,
    pub flooded: Cell,
    pub unobserved: Cell,
    pub copies: Cell,
    pub flood_copies: Cell,
    pub flood_eligible: Cell,
    pub forced_installs: Cell,
    pub settled_even: Cell,
    pub settled_odd: Cell,
    pub unobserved_even: Cell,
    pub unobserved_odd: Cell,
    pub ingress_drops: [DropCells; REASON_SLOTS],
    pub egress_drops: [DropCells; REASON_SLOTS],
    pub flows_freed: Cell,
    pub alternates_freed: Cell,
    pub generation: Cell,
    pub flood_port: Cell,
    pub freed: TallyCells,
    pub freeing: FreeingCells,
}

impl Default for BrainCells {
    fn default() -> Self {
        let drops = || std::array::from_fn(|_| DropCells::default());
        Self {
            settled: Cell::default(),
            forwarded: Cell::default(),
            flooded: Cell::default(),
            unobserved: Cell::default(),
            copies: Cell::default(),
            flood_copies: Cell::default(),
            flood_eligible: Cell::default(),
            forced_installs: Cell::default(),
            settled_even: Cell::default(),
            settled_odd: Cell::default(),
            unobserved_even: Cell::default(),
            unobserved_odd: Cell::default(),
            ingress_drops: drops(),
            egress_drops: drops(),
            flows_freed: Cell::default(),
            alternates_freed: Cell::default(),
            generation: Cell::default(),
            flood_port: Cell::default(),
            freed: TallyCells::default(),
            freeing: FreeingCells::default(),
        }
    }
}

impl BrainCells {
    /// Books a frame, or a copy of it, as dropped.
    pub fn drop_frame(&self, way: Way, reason: DropReason, bytes: u64) {
        let cells = match way {
            Way::Ingress => &self.ingress_drops,
            Way::Egress => &self.egress_drops,
        };
        if let Some(cell) = cells.get(reason as usize) {
            cell.frames.add(1);
            cell.bytes.add(bytes);
        }
    }

    /// Books a punted frame as done; for the loop.
    pub fn settle(&self, odd: bool) {
        self.settled.add(1);
        (if odd { &self.settled_odd } else { &self.settled_even }).add(1);
    }

    /// Books frames of an epoch as lost on the way to the loop; for control.
    pub(super) fn lose(&self, odd: bool, frames: u64) {
        self.unobserved.add(frames);
        (if odd { &self.unobserved_odd } else { &self.unobserved_even }).add(frames);
    }

    /// Of an epoch's frames those that are settled or lost.
    pub(super) fn answered(&self, odd: bool) -> u64 {
        if odd {
            self.settled_odd.get() + self.unobserved_odd.get()
        } else {
            self.settled_even.get() + self.unobserved_even.get()
        }
    }

    /// The values now.
    pub fn snapshot(&self) -> BrainPort {
        let drops = |cells: &[DropCells; REASON_SLOTS]| {
            cells.each_ref().map(|cell| DropCell { frames: cell.frames.get(), bytes: cell.bytes.get() })
        };
        BrainPort {
            settled: self.settled.get(),
            forwarded: self.forwarded.get(),
            flooded: self.flooded.get(),
            unobserved: self.unobserved.get(),
            copies: self.copies.get(),
            flood_copies: self.flood_copies.get(),
            flood_eligible: self.flood_eligible.get(),
            forced_installs: self.forced_installs.get(),
            settled_even: self.settled_even.get(),
            settled_odd: self.settled_odd.get(),
            unobserved_even: self.unobserved_even.get(),
            unobserved_odd: self.unobserved_odd.get(),
            ingress_drops: drops(&self.ingress_drops),
            egress_drops: drops(&self.egress_drops),
            flows_freed: self.flows_freed.get(),
            alternates_freed: self.alternates_freed.get(),
            generation: self.generation.get(),
            flood_port: self.flood_port.get(),
            freed: self.freed.snapshot(),
            freeing: self.freeing.snapshot(),
        }
    }

    /// Completes what a killed brain was booking: a frame is booked as forwarded, flooded or dropped before it is settled,
    /// and a copy before it is injected. `injected` copies of this port reached the reflex.
    pub(super) fn make_whole(&self, injected: u64) {
        let now = self.snapshot();
        let sum = |cells: &[DropCell]| cells.iter().map(|cell| cell.frames).sum::<u64>();
        let decided = now.forwarded + now.flooded + sum(&now.ingress_drops);
        self.settled.add(decided.saturating_sub(now.settled));
        let missing = now.copies.saturating_sub(injected + sum(&now.egress_drops));
        for _ in 0..missing {
            self.drop_frame(Way::Egress, DropReason::InjectFailed, 0);
        }
    }

    /// All zeros: for a port id that is given to a new port, while nobody else writes.
    pub fn reset(&self) {
        let counters = [
            &self.settled,
            &self.forwarded,
            &self.flooded,
            &self.unobserved,
            &self.copies,
            &self.flood_copies,
            &self.flood_eligible,
            &self.forced_installs,
            &self.settled_even,
            &self.settled_odd,
            &self.unobserved_even,
            &self.unobserved_odd,
            &self.flows_freed,
            &self.alternates_freed,
            &self.freed.frames,
            &self.freed.bytes,
            &self.freed.extra_frames,
            &self.freed.extra_bytes,
        ];
        let drops = self.ingress_drops.iter().chain(&self.egress_drops).flat_map(|cell| [&cell.frames, &cell.bytes]);
        counters.into_iter().chain(drops).for_each(|cell| cell.set(0));
    }
}

const _: () = assert!(size_of::<BrainCells>() == size_of::<BrainPort>());
const _: () = assert!(align_of::<BrainCells>() == align_of::<BrainPort>());

#[derive(Debug)]
enum Page {
    Mapped(BrainMapping),
    Heap(Box<[BrainCells]>),
}

/// Every port's [`BrainCells`] by port id; slot 0 holds the sums over all ports.
#[derive(Debug)]
pub struct BrainPage(Page);

impl BrainPage {
    /// A page of its own, without a kernel half: for tests in memory.
    pub fn in_memory() -> Self {
        Self(Page::Heap(std::iter::repeat_with(BrainCells::default).take(PORT_SLOTS).collect()))
    }

    pub(super) fn of_map(map: BorrowedFd<'_>) -> io::Result<Self> {
        BrainMapping::new(map, PORT_SLOTS).map(|mapping| Self(Page::Mapped(mapping)))
    }

    /// Every slot, from 0 on.
    pub fn ports(&self) -> &[BrainCells] {
        match &self.0 {
            Page::Mapped(mapping) => mapping.cells(),
            Page::Heap(cells) => cells,
        }
    }

    /// Says which ports a flood goes to, in the order of their ids. For the loop, between two frames.
    pub fn set_flood_ports(&self, ports: impl Iterator<Item = PortId>) {
        let mut count = 0;
        for (place, port) in self.ports().iter().skip(1).zip(ports) {
            place.flood_port.set(port.get().into());
            count += 1;
        }
        self.port(0).flood_port.set(count);
    }

    /// Makes every copy of a verdict in a port's flows stale: it is looked up anew with the flow's next frame. For the loop, after
    /// it has changed or removed the pairs concerned.
    pub fn bump_generation(&self, port: usize) {
        let generation = &self.port(port).generation;
        // 31 bits are used: 0 is no generation, nor is the mark of a copy that is being written.
        let next = generation.get().wrapping_add(1) & u64::from(u32::MAX >> 1);
        generation.set(next.max(1));
    }

    /// The same for all ports, those that may come among them.
    pub fn bump_generations(&self) {
        (0..self.ports().len()).for_each(|port| self.bump_generation(port));
    }

    /// A port's cells; 0: the switch's own. An index that is no port's is answered with the switch's.
    pub fn port(&self, index: usize) -> &BrainCells {
        let cells = self.ports();
        cells.get(index).or(cells.first()).expect("a page has PORT_SLOTS cells")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_in_the_snapshot_under_its_way_and_reason() {
        let page = BrainPage::in_memory();
        let cells = page.port(7);
        cells.drop_frame(Way::Egress, DropReason::TooBig, 1600);
        cells.settled.add(2);
        let seen = cells.snapshot();
        let too_big = DropReason::TooBig as usize;
        assert_eq!(seen.egress_drops.get(too_big), Some(&DropCell { frames: 1, bytes: 1600 }));
        assert_eq!(seen.ingress_drops.get(too_big), Some(&DropCell::default()));
        assert_eq!(seen.settled, 2);
        cells.reset();
        assert_eq!(cells.snapshot(), BrainPort::default());
        assert_eq!(page.port(6).snapshot(), BrainPort::default());
    }

    #[test]
    fn a_brain_killed_between_two_bookings_leaves_books_that_can_be_made_whole() {
        let page = BrainPage::in_memory();
        let port = page.port(1);
        // Two frames settled; a third was forwarded, its copy decided, and neither injected nor settled.
        port.settled.add(2);
        port.forwarded.add(3);
        port.copies.add(3);
        port.make_whole(2);
        let now = port.snapshot();
        assert_eq!((now.settled, now.forwarded), (3, 3));
        let dropped = now.egress_drops.get(DropReason::InjectFailed as usize).map(|cell| cell.frames);
        assert_eq!(dropped, Some(1), "the copy that never left");
        // The control: whole books stay as they are.
        port.make_whole(2);
        assert_eq!(port.snapshot(), now);
    }
}
