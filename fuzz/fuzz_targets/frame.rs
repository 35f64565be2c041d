//! Frames of a hostile guest: checked, decided, and the decision held against the invariants of the switch.
//!
//! The input is one guest's life: `[port][seconds][offload × 10][length × 2][bytes …]`, over and over. The tables live as
//! long as the input, so that learning, moving, evicting and limits are reached too.
//!
//! `cargo +nightly fuzz run frame` from the root of the project; what it once crashed on is kept in `corpus/frame`.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use switch_common::PortId;
use weft::fdb::{FdbLimits, Nanos};
use weft::forwarding::{PortView, Tables, Verdict, decide, fits};
use weft::frame::{Frame, Offload, Trust, VNET_HDR_BYTES};
use weft::port::Role;

const STATIONS_MAX: usize = 8;
const PORTS: u16 = 4;

fn port(id: u16) -> PortId {
    PortId::new(id).expect("a small number above 0 is a port's id")
}

fn switch() -> Tables {
    let mut tables = Tables::new(FdbLimits { stations_max: STATIONS_MAX, aging: Duration::from_mins(5) });
    for id in 1..=PORTS {
        tables.set_port(PortView {
            id: port(id),
            up: true,
            role: if id == PORTS { Role::Uplink } else { Role::Guest },
            macs: Vec::new(),
            station_limit: Some(4),
            flood_per_sec: 20,
            frame_bytes_max: 1514,
            trust: if id == PORTS { Trust::Kernel } else { Trust::Guest },
        });
    }
    tables
}

/// Takes one frame off the front of the input.
fn next(input: &mut &[u8]) -> Option<(PortId, Duration, Offload, Vec<u8>)> {
    let (head, rest) = input.split_first_chunk::<{ 2 + VNET_HDR_BYTES + 2 }>()?;
    let [id, seconds, offload @ .., high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (bytes, rest) = rest.split_at(length);
    *input = rest;
    let ingress = port(u16::from(id) % (PORTS + 1) + 1);
    Some((ingress, Duration::from_secs(seconds.into()), Offload(offload), bytes.to_vec()))
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut tables = switch();
    let mut now = Nanos(0);
    while let Some((ingress, pause, offload, bytes)) = next(&mut input) {
        now = now + pause;
        let trust = tables.port(ingress).map_or(Trust::Guest, |view| view.trust);
        let Ok(frame) = Frame::check(&bytes, offload, trust) else { continue };
        assert!((1..=frame.len_bytes()).contains(&frame.wire_frames()));
        let decision = decide(&mut tables, ingress, &frame, now);
        match decision.verdict {
            Verdict::Forward(egress) => {
                assert_ne!(egress, ingress);
                let view = tables.port(egress).expect("a frame is forwarded to a port that there is");
                assert!(view.up);
                assert!(fits(view, &frame) || frame.len_bytes() > 1514);
            }
            Verdict::Flood => {
                assert!(!decision.cacheable);
                assert!(tables.flood_ports(ingress).count() > 0);
                assert!(tables.flood_ports(ingress).all(|view| view.id != ingress && view.up));
            }
            Verdict::Drop(_) => {}
        }
        assert!(tables.fdb.len() <= STATIONS_MAX);
        assert!(tables.fdb.iter().all(|station| station.mac.is_station()));
    }
});
