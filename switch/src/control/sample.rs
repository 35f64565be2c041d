//! What metrics tell: collected while control is locked, so in few system calls, whatever the number of ports.

use std::borrow::Cow;
use std::collections::BTreeMap;

use switch_common::{DropCell, PORT_ID_MAX, VERDICTS_MAX};

use super::accounts::{Numbers, dropped, side};
use super::attachment::shown_netdev;
use super::{Control, Port};
use crate::api::schema::Side;
use crate::dataplane::commands::Census;
use crate::history::History;
use crate::metrics::sample::{DropSample, MapSample, PortSample, ProgramSample, Sample, Stage};
use crate::observer::Losses;
use crate::port::PortState;
use crate::port::spec::{Origin, Role};
use crate::reflex::{Counted, HeardSums, KernelDrop, ReflexError};

impl Control {
    /// All but what the loop knows, and the process.
    pub(super) fn sample(&self) -> Result<Sample, ReflexError> {
        let highest = self.ports.values().map(|port| port.id.get()).max().unwrap_or(0);
        let counted = self.reflex.counted(highest)?;
        let of = |id: usize| counted.get(id).copied().unwrap_or_default();
        let kernel = self.reflex.kernel_drops()?;
        let numbers = |id: usize, Counted { counters, drops, buckets }| Numbers {
            counters,
            drops,
            brain: self.brain.port(id).snapshot(),
            punted: buckets.punted,
        };
        let ports = self.ports.iter().map(|(name, port)| {
            let id = port.id.index();
            let sample = port_sample(name.to_string(), port, &numbers(id, of(id)), &kernel);
            PortSample { heard: self.reflex.heard_sums(port.id).unwrap_or_default(), ..sample }
        });
        let ports: Vec<PortSample> = ports.collect();
        // The brain's slot 0 holds the sums over all ports, which are no strangers' drops.
        let mut strangers = numbers(0, of(0));
        let seen = self.observer.seen();
        let Losses { records_log, records_follow, sweeps } = seen.losses;
        let evidence = self.reflex.evidence_sums()?.plus(self.witness.sums()).lost;
        let events = self.events.counts();
        let mirrors = self.mirror_samples();
        let lost = vec![
            (Stage::Punt, strangers.brain.unobserved),
            (Stage::FlowLog, records_log),
            (Stage::Follow, records_follow),
            (Stage::Evidence, evidence),
            (Stage::Sweep, sweeps),
            (Stage::Names, ports.iter().map(|port| port.heard.limited + port.heard.lost).sum()),
            (Stage::Events, events.follow_lost + self.sighted.sums().lost),
            (Stage::Notes, self.notes.lost()),
            (Stage::History, self.history.as_ref().map_or(0, History::lost)),
            (Stage::Mirror, mirrors.iter().map(|mirror| mirror.lost_frames).sum()),
        ];
        let map = |map, entries, entries_max| MapSample { map, entries, entries_max };
        let (flows4, flows6) = seen.flows_max;
        let clerk = self.clerk.seen();
        let maps = vec![
            map("flows", seen.flows, u64::from(flows4) + u64::from(flows6)),
            map("bindings", clerk.bindings, clerk.bindings_max),
            map("ports", self.ports.len() as u64, u64::from(PORT_ID_MAX)),
        ];
        strangers.brain = switch_common::BrainPort::default();
        let runs = self.reflex.runs().into_iter();
        Ok(Sample {
            name: self.runtime.name.to_string(),
            datapath: self.runtime.datapath.to_string(),
            hook: self.reflex.hook().to_string(),
            ports,
            strangers: drop_samples(&strangers, &[], 0),
            seen,
            events,
            clerk,
            lost,
            mirrors,
            maps,
            threads: [
                ("observer", Some(self.observer.is_alive())),
                ("history", self.history.as_ref().map(History::is_alive)),
            ]
            .into_iter()
            .filter_map(|(thread, is_alive)| Some((thread, is_alive?)))
            .collect(),
            programs: runs.map(|it| ProgramSample { name: it.program, runs: it.runs, run_time: it.run_time }).collect(),
            ..Sample::default()
        })
    }
}

impl Sample {
    /// Adds what the loop knows.
    pub(super) fn count_in(&mut self, census: &Census, stations_max: usize) {
        self.stations = census.stations as u64;
        self.station_moves = census.moves;
        let map = |map, entries: usize, max: usize| MapSample { map, entries: entries as u64, entries_max: max as u64 };
        self.maps.push(map("stations", census.stations, stations_max));
        self.maps.push(map("verdicts", census.verdicts, VERDICTS_MAX));
    }
}

fn port_sample(name: String, port: &Port, numbers: &Numbers, kernel: &[KernelDrop]) -> PortSample {
    PortSample {
        id: port.id.get(),
        name,
        kind: port.spec.attachment.kind(),
        role: match port.spec.role {
            Role::Guest => "guest",
            Role::Uplink => "uplink",
        },
        origin: match port.spec.origin {
            Origin::File => "file",
            Origin::Command => "command",
        },
        netdev: shown_netdev(port),
        is_up: port.state == PortState::Up,
        ingress: numbers.counters.ingress,
        egress: numbers.counters.egress,
        overflow_frames: numbers.counters.overflow.frames,
        unparsable_frames: numbers.counters.unparsable.frames,
        flood_frames: numbers.brain.flooded,
        punted_frames: numbers.punted,
        heard: HeardSums::default(),
        drops: drop_samples(numbers, kernel, port.id.get()),
    }
}

/// Our own drops and the kernel's of a port; each side and reason once, whatever the kernel calls alike.
fn drop_samples(numbers: &Numbers, kernel: &[KernelDrop], port: u16) -> Vec<DropSample> {
    let mut sums: BTreeMap<(Side, Cow<'static, str>), DropCell> = BTreeMap::new();
    let ours = dropped(numbers).map(|(side, reason, cell)| (side, Cow::Borrowed(reason.label()), cell));
    let kernel = kernel.iter().filter(|drop| drop.port == port);
    for (side, reason, cell) in ours.chain(kernel.map(|drop| (side(drop.way), drop.label.clone(), drop.dropped))) {
        let sum = sums.entry((side, reason)).or_default();
        sum.frames += cell.frames;
        sum.bytes += cell.bytes;
    }
    sums.into_iter().map(|((side, reason), cell)| DropSample { side, reason, cell }).collect()
}
