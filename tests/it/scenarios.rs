//! Every scenario file on every fabric, a test for each.

use std::collections::BTreeSet;

use anyhow::Result;
use weft_tests::fabric::Fabric;
use weft_tests::fabric::bridge::Bridge;
use weft_tests::fabric::memory::Memory;
use weft_tests::fabric::taps::Taps;
use weft_tests::play::play;
use weft_tests::requirements::skip;
use weft_tests::scenario::{self, Scenario};
use weft_tests::{Arena, Mode, Need};

fn on(fabric: &mut dyn Fabric, scenario: &Scenario) -> Result<()> {
    if !play(scenario, fabric)? {
        skip(&format!("this fabric lacks some of {:?}", scenario.needs));
    }
    fabric.finish()
}

fn on_taps(name: &str, mode: Mode) {
    Arena::run(&[Need::Bpf], |arena| {
        let scenario = scenario::read(name)?;
        on(&mut Taps::new(arena, mode, &scenario)?, &scenario)
    });
}

fn in_memory(name: &str) -> Result<()> {
    let scenario = scenario::read(name)?;
    on(&mut Memory::new(&scenario), &scenario)
}

/// The oracle: what a Linux bridge can do it must do the same way.
fn on_a_linux_bridge(name: &str) {
    Arena::run(&[], |arena| on(&mut Bridge::new(arena)?, &scenario::read(name)?));
}

macro_rules! scenarios {
    ($($name:ident)+) => {
        mod memory {
            $(#[test] fn $name() -> anyhow::Result<()> { super::in_memory(stringify!($name)) })+
        }
        mod linux_bridge {
            $(#[test] fn $name() { super::on_a_linux_bridge(stringify!($name)); })+
        }
        mod taps_cached {
            $(#[test] fn $name() { super::on_taps(stringify!($name), weft_tests::Mode::Kernel); })+
        }
        mod taps_uncached {
            $(#[test] fn $name() { super::on_taps(stringify!($name), weft_tests::Mode::Userspace); })+
        }
        mod taps_clsact {
            $(#[test] fn $name() { super::on_taps(stringify!($name), weft_tests::Mode::Clsact); })+
        }
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

scenarios! {
    aging aging_static broadcast eviction_fairness flood_limited flush group_source hairpin known_unicast learning
    multicast no_egress oversize port_down port_removed reserved_addresses spoofed_source static_entries station_limit station_limit_static
    station_move unknown_unicast
}

#[test]
fn every_scenario_file_has_its_tests() -> Result<()> {
    let files: BTreeSet<String> = scenario::names()?.into_iter().collect();
    let tests: BTreeSet<String> = NAMES.iter().map(ToString::to_string).collect();
    assert_eq!(files, tests);
    Ok(())
}
