//! Performs a scenario on a fabric.
//!
//! **How "nothing arrives" is proven without sleeping.** Every frame carries a number of its own. After a step's frames
//! the player sends a *sentinel*, a broadcast, in by the same port; a fabric that keeps the order cannot deliver it before
//! it has dealt with them. When the sentinel has arrived everywhere (and a second one, from another port, at the
//! sender's), whatever else was to arrive has arrived. Each port's sentinels come from one station of the player's own, for
//! which the fabrics leave room in every limit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use switch_common::MacAddr;

use crate::fabric::Fabric;
use crate::frames::{self, Builder};
use crate::scenario::{Address, Scenario, Send, Step};
use crate::wait;

/// The station from which the player sends sentinels at the port with this index.
pub fn sentinel(index: usize) -> MacAddr {
    MacAddr([0x02, 0x5e, 0x00, 0x00, 0x00, u8::try_from(index).unwrap_or(u8::MAX)])
}

struct Player<'a> {
    scenario: &'a Scenario,
    fabric: &'a mut dyn Fabric,
    /// Ports that exist and are up.
    live: BTreeSet<usize>,
    /// What was sent, by number.
    sent: Vec<Vec<u8>>,
    /// What arrived and was not yet looked at: by port, the numbers.
    arrived: BTreeMap<usize, Vec<usize>>,
}

/// Plays a scenario to its end; `false` when the fabric lacks what it needs.
pub fn play(scenario: &Scenario, fabric: &mut dyn Fabric) -> Result<bool> {
    if !scenario.needs.iter().all(|need| fabric.features().contains(need)) {
        return Ok(false);
    }
    let mut player = Player { scenario, fabric, live: BTreeSet::new(), sent: Vec::new(), arrived: BTreeMap::new() };
    for (index, port) in scenario.port.iter().enumerate() {
        if !port.late {
            player.add(index)?;
        }
    }
    for (number, entry) in scenario.step.iter().enumerate() {
        if entry.needs.iter().all(|need| player.fabric.features().contains(need)) {
            player.step(&entry.step).with_context(|| format!("step {} of {:?}", number + 1, scenario.title))?;
        }
    }
    Ok(true)
}

impl Player<'_> {
    fn index(&self, name: &str) -> Result<usize> {
        self.scenario.port.iter().position(|port| port.name == name).with_context(|| format!("no port {name}"))
    }

    fn name(&self, index: usize) -> &str {
        self.scenario.port.get(index).map_or("?", |port| &port.name)
    }

    fn add(&mut self, index: usize) -> Result<()> {
        let plan = self.scenario.port.get(index).context("no such port")?;
        self.fabric.add_port(index, plan)?;
        self.live.insert(index);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(send) => return self.send(send),
            Step::Down { port } => {
                let index = self.index(port)?;
                self.live.remove(&index);
                self.fabric.set_up(index, false)?;
            }
            Step::Up { port } => {
                let index = self.index(port)?;
                self.fabric.set_up(index, true)?;
                self.live.insert(index);
            }
            Step::Remove { port } => {
                let index = self.index(port)?;
                self.live.remove(&index);
                self.fabric.remove_port(index)?;
            }
            Step::Add { port } => return self.add(self.index(port)?),
            Step::Advance { secs } => self.fabric.advance(*secs)?,
            Step::Pin { port, station } => self.fabric.pin(self.index(port)?, station.0)?,
            Step::Unpin { station } => self.fabric.unpin(station.0)?,
            Step::Flush { port } => {
                let index = port.as_ref().map(|port| self.index(port)).transpose()?;
                self.fabric.flush(index)?;
            }
            Step::Stations { known, unknown, at_least, at_most } => {
                return self.look_at_stations(known, unknown, at_least, at_most);
            }
        }
        Ok(())
    }

    fn send(&mut self, send: &Send) -> Result<()> {
        let ingress = self.index(&send.port)?;
        let reach = send.reach.iter().map(|port| self.index(port)).collect::<Result<BTreeSet<_>>>()?;
        let drop_at = self.index(send.drop_at.as_ref().unwrap_or(&send.port))?;
        let reason = send.drop.as_deref().filter(|_| self.fabric.counts_drops());
        let before = reason.map(|reason| self.fabric.drops(drop_at, reason)).transpose()?;

        let first = self.sent.len();
        for number in 0..send.count {
            let frame = Builder::new(send.from.plus(number).0, send.to.0).bytes(send.bytes);
            self.emit(ingress, frame)?;
        }
        self.flush_out(ingress)?;
        self.compare(&reach, first, send.count as usize)?;

        if let (Some(before), Some(reason)) = (before, reason) {
            let booked = self.fabric.drops(drop_at, reason)? - before;
            ensure!(
                booked == u64::from(send.count),
                "{booked} frames were booked as {reason} at {}",
                self.name(drop_at)
            );
        }
        Ok(())
    }

    /// Sends one numbered frame. A port that is not up may refuse it, which is how a guest sees that.
    fn emit(&mut self, ingress: usize, frame: Builder) -> Result<usize> {
        let number = self.sent.len();
        let frame = frame.number(number as u64).build();
        let taken = self.fabric.send(ingress, &frame);
        if self.live.contains(&ingress) {
            taken.with_context(|| format!("send by port {}", self.name(ingress)))?;
        }
        self.sent.push(frame);
        Ok(number)
    }

    /// Sends sentinels until whatever the fabric was to deliver has been delivered.
    fn flush_out(&mut self, ingress: usize) -> Result<()> {
        let mut ports: Vec<usize> = self.live.iter().copied().collect();
        ports.sort_by_key(|port| *port != ingress);
        let [first, second, ..] = ports[..] else { return self.fabric.settle() };
        let others: Vec<usize> = ports.into_iter().filter(|port| *port != first).collect();
        self.await_sentinel(first, &others)?;
        self.await_sentinel(second, &[first])
    }

    fn await_sentinel(&mut self, from: usize, at: &[usize]) -> Result<()> {
        let number = self.emit(from, Builder::new(sentinel(from), MacAddr::BROADCAST))?;
        wait::until_true(&format!("the sentinel {number} from {} arrives", self.name(from)), wait::SOON, || {
            self.collect()?;
            Ok(at.iter().all(|port| self.arrived.get(port).is_some_and(|numbers| numbers.contains(&number))))
        })
    }

    /// Takes in what arrived, and checks it byte for byte.
    fn collect(&mut self) -> Result<()> {
        for index in 0..self.scenario.port.len() {
            for frame in self.fabric.receive(index)? {
                let number = frames::number_of(&frame).and_then(|number| usize::try_from(number).ok());
                let Some((number, sent)) = number.and_then(|number| Some((number, self.sent.get(number)?))) else {
                    bail!("a frame nobody sent reached port {}: {frame:02x?}", self.name(index));
                };
                ensure!(*sent == frame, "frame {number} was altered: {sent:02x?} became {frame:02x?}");
                self.arrived.entry(index).or_default().push(number);
            }
        }
        Ok(())
    }

    /// Compares what arrived of the numbers from `first` on with the ports that were to be reached.
    fn compare(&mut self, reach: &BTreeSet<usize>, first: usize, count: usize) -> Result<()> {
        self.collect()?;
        let arrived = std::mem::take(&mut self.arrived);
        let wanted: Vec<usize> = (first..first + count).collect();
        for index in 0..self.scenario.port.len() {
            let numbers = arrived.get(&index).into_iter().flatten().copied();
            let got: Vec<usize> = numbers.filter(|number| wanted.contains(number)).collect();
            let due: &[usize] = if reach.contains(&index) { &wanted } else { &[] };
            ensure!(got == due, "port {} got frames {got:?}, {due:?} were due", self.name(index));
        }
        Ok(())
    }

    fn look_at_stations(
        &mut self,
        known: &BTreeMap<Address, String>,
        unknown: &[Address],
        at_least: &BTreeMap<String, usize>,
        at_most: &BTreeMap<String, usize>,
    ) -> Result<()> {
        let stations = self.fabric.stations()?;
        for (station, port) in known {
            let found = stations.get(&station.0).map(|index| self.name(*index));
            ensure!(found == Some(port), "{} is behind {found:?}, not {port}", station.0);
        }
        for station in unknown {
            ensure!(!stations.contains_key(&station.0), "{} is still known", station.0);
        }
        let of = |port: &str| -> Result<usize> {
            let index = self.index(port)?;
            Ok(stations.iter().filter(|(mac, at)| **at == index && **mac != sentinel(index)).count())
        };
        for (port, least) in at_least {
            ensure!(of(port)? >= *least, "{port} has {} stations, at least {least} were due", of(port)?);
        }
        for (port, most) in at_most {
            ensure!(of(port)? <= *most, "{port} has {} stations, at most {most} were due", of(port)?);
        }
        Ok(())
    }
}
