//! `brain FRAMES`: the loop over a medium in memory, so many frames of known stations; for `cargo xtask gate`, which counts
//! its instructions.
//!
//! Of four frames two go to another guest, one is a broadcast to two others, and one is refused because its source is not
//! the port's. Learning is over before the counted frames begin, and costs the same however many there are.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use switch_common::{MacAddr, PortId};
use weft::dataplane::verdicts::NoCache;
use weft::dataplane::{Loop, Step};
use weft::fdb::{FdbLimits, Nanos};
use weft::forwarding::{PortView, Tables};
use weft::frame::Trust;
use weft::port::Role;
use weft::port::memory::Treadmill;
use weft::reflex::BrainPage;

fn main() -> io::Result<()> {
    let frames: usize = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other("usage: brain FRAMES"))?;
    let ports: Vec<PortId> = (1..=3).filter_map(PortId::new).collect();
    let mut tables = Tables::new(FdbLimits::default());
    for id in &ports {
        tables.set_port(PortView {
            id: *id,
            up: true,
            carrier: true,
            role: Role::Guest,
            macs: vec![station(1), station(2)],
            station_limit: Some(16),
            flood_per_sec: u32::MAX,
            frame_bytes_max: 1514,
            trust: Trust::Guest,
        });
    }
    let [one, two, three] = ports[..] else { return Err(io::Error::other("port ids begin at 1")) };
    let medium = Treadmill::new(vec![
        (one, frame(station(2), station(1))),
        (two, frame(station(1), station(2))),
        (one, frame(MacAddr([0xff; 6]), station(1))),
        (three, frame(station(1), station(9))),
    ]);
    let aging = Duration::from_mins(5);
    let mut brain = Loop::new(medium, NoCache, tables, Arc::new(BrainPage::in_memory()), aging);
    let mut now = Nanos(1);
    for frames in [400, frames] {
        brain.medium().run(frames);
        while {
            now = now + Duration::from_micros(50);
            let step = brain.step(now)?;
            brain.tick(now);
            step == Step::More
        } {}
    }
    writeln!(io::stdout(), "{} copies", brain.medium().copies())
}

fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

/// A UDP frame of 60 bytes, as far as a switch looks at it.
fn frame(destination: MacAddr, source: MacAddr) -> Vec<u8> {
    [destination.0.as_slice(), &source.0, &[8, 0, 0x45], &[0; 45]].concat()
}
