//! Frames of a hostile guest, heard by the register: no panic, no growth beyond its bounds, nothing that speaks to a terminal.
//!
//! The input is what some ports say: `[port][seconds][length × 2][bytes …]`, over and over. The register lives as long as the input, so
//! that answers find their queries and claims their rivals.
//!
//! `cargo +nightly fuzz run names` from the root of the project; what it once crashed on is kept in `corpus/names`.
#![no_main]

use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use weft::config::Names;
use weft::fdb::Nanos;
use weft::names::{Limits, Register};

const BINDINGS_MAX: usize = 16;

fn next<'a>(input: &mut &'a [u8]) -> Option<(u8, Duration, &'a [u8])> {
    let ([port, seconds, high, low], rest) = input.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
    *input = rest;
    Some((port % 4, Duration::from_secs((*seconds).into()), bytes))
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let mut register = Register::new(Limits { bindings_max: BINDINGS_MAX, ..Names::default().limits });
    let (mut now, mut wall) = (Nanos(0), Timestamp::UNIX_EPOCH);
    while let Some((port, pause, bytes)) = next(&mut input) {
        (now, wall) = (now + pause, wall + pause);
        let port = format!("p{port}").into();
        let mut events = register.hear(&port, bytes, |_| true, (now, wall));
        events.extend(register.give_up(now));
        for event in events {
            assert!(event.sentence().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{event:?}");
        }
        assert!(register.bindings() <= BINDINGS_MAX);
    }
});
