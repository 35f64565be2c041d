//! What others ask of the loop; carried out between two batches, so that the loop's tables have one owner and no lock.

use switch_common::{MacAddr, PairKey, PairVerdict, PortId, VERDICT_ARMED, VERDICT_DROP, VERDICT_FORWARD_PEER, VlanId};
use tokio::sync::oneshot;

use super::verdicts::VerdictCache;
use super::{Link, Loop};
use crate::capture::sieve::Sieve;
use crate::fdb::{FdbError, Nanos, Station};
use crate::forwarding::{PortView, Tables};
use crate::port::Medium;

/// Where an answer goes. A caller that no longer waits is no error.
pub type Reply<T> = oneshot::Sender<T>;

/// What the loop knows, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Stations in the filtering database.
    pub stations: usize,
    /// Stations that turned up on another port, since start.
    pub moves: u64,
    /// Verdicts that the reflex repeats.
    pub verdicts: usize,
}

/// One request.
#[derive(Debug)]
pub enum Command {
    /// A new port, or new facts about one. Cached verdicts that the change could make wrong are forgotten.
    SetPort {
        /// What deciding needs.
        view: PortView,
        /// What the reflex needs; `None` while the netdev is absent.
        link: Option<Link>,
        /// Answered when it is in effect.
        done: Reply<()>,
    },
    /// A port is no more; its stations and verdicts go with it.
    RemovePort {
        /// Which.
        port: PortId,
        /// How many stations went.
        done: Reply<usize>,
    },
    /// Every station.
    Stations(Reply<Vec<Station>>),
    /// A copy of all that deciding depends on, for who asks what would be decided.
    Tables(Reply<Box<Tables>>),
    /// A station pinned to a port by the operator.
    AddStation {
        /// Where it is.
        port: PortId,
        /// Its address.
        mac: MacAddr,
        /// Whether it could be.
        done: Reply<Result<(), FdbError>>,
    },
    /// Forget a station, learned or pinned.
    RemoveStation {
        /// Its address.
        mac: MacAddr,
        /// What was known of it.
        done: Reply<Option<Station>>,
    },
    /// Forget the learned stations, of one port or of all.
    Flush {
        /// Only this port's.
        port: Option<PortId>,
        /// How many went.
        done: Reply<usize>,
    },
    /// Wait for every frame that is in the punt tap's ring now.
    Drained {
        /// Answered when all of them are settled. Others may have come meanwhile.
        done: Reply<()>,
    },
    /// What captures want from now on; nothing: there are none.
    Sieve {
        /// What.
        sieve: Option<Box<Sieve>>,
        /// Answered when it is in effect.
        done: Reply<()>,
    },
    /// Whether the kernel half is to be told where the frames came from whose copies are injected: for mirrors.
    TellOrigins {
        /// Whether.
        tell: bool,
        /// Answered when it is in effect.
        done: Reply<()>,
    },
    /// Numbers.
    Census(Reply<Census>),
    /// End the loop.
    Stop,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Continue,
    /// It was told to stop.
    Stop,
}

impl<M: Medium, C: VerdictCache> Loop<M, C> {
    /// Carries out one request.
    pub fn obey(&mut self, command: Command, now: Nanos) -> Next {
        match command {
            Command::SetPort { view, link, done } => {
                self.set_port(view, link);
                answer(done, ());
            }
            Command::RemovePort { port, done } => answer(done, self.remove_port(port)),
            Command::Stations(done) => answer(done, self.tables.fdb.iter().copied().collect()),
            Command::Tables(done) => answer(done, Box::new(self.tables.clone())),
            Command::AddStation { port, mac, done } => {
                self.verdicts.forget_station(VlanId::default(), mac);
                answer(done, self.tables.fdb.add_static(VlanId::default(), mac, port, now));
            }
            Command::RemoveStation { mac, done } => {
                self.verdicts.forget_station(VlanId::default(), mac);
                answer(done, self.tables.fdb.remove(VlanId::default(), mac));
            }
            Command::Flush { port, done } => answer(done, self.flush(port)),
            Command::Drained { done } => self.drain.wait(done),
            Command::TellOrigins { tell, done } => {
                self.tells_origins = tell;
                answer(done, ());
            }
            Command::Census(done) => {
                let fdb = &self.tables.fdb;
                let verdicts = self.verdicts.held();
                answer(done, Census { stations: fdb.len(), moves: fdb.moves_total(), verdicts });
            }
            Command::Sieve { sieve, done } => {
                self.sieve = sieve;
                answer(done, ());
            }
            Command::Stop => return Next::Stop,
        }
        Next::Continue
    }

    /// Adds a port or changes it.
    pub fn set_port(&mut self, view: PortView, link: Option<Link>) {
        let id = view.id;
        let Some(slot) = self.links.get_mut(id.index()) else { return };
        match self.tables.port(id) {
            // Verdicts of an earlier daemon may be there; those stay that this one would have made.
            None => self.verdicts.forget_where(&mut |key, verdict| is_stale(&view, link, key, verdict)),
            Some(known) if *known != view || *slot != link => self.verdicts.forget_port(id),
            Some(_) => {}
        }
        *slot = link;
        for station in self.tables.set_port(view) {
            self.verdicts.forget_station(station.vlan, station.mac);
        }
        self.brain.set_flood_ports(self.tables.delivering().map(|port| port.id));
    }

    /// Removes a port with its stations and verdicts; says how many stations there were.
    pub fn remove_port(&mut self, id: PortId) -> usize {
        if let Some(slot) = self.links.get_mut(id.index()) {
            *slot = None;
        }
        self.verdicts.forget_port(id);
        let stations = self.tables.remove_port(id);
        self.brain.set_flood_ports(self.tables.delivering().map(|port| port.id));
        for station in &stations {
            self.verdicts.forget_station(station.vlan, station.mac);
        }
        stations.len()
    }

    /// Forgets the learned stations of one port, or of all; says how many.
    pub fn flush(&mut self, port: Option<PortId>) -> usize {
        let stations = match port {
            Some(port) => self.tables.fdb.flush_port(port, true),
            None => self.tables.fdb.flush(true),
        };
        for station in &stations {
            self.verdicts.forget_station(station.vlan, station.mac);
        }
        stations.len()
    }
}

/// Whether an adopted verdict contradicts what a port is now.
fn is_stale(view: &PortView, link: Option<Link>, key: &PairKey, verdict: &PairVerdict) -> bool {
    let enters = key.ingress == view.id.get();
    let admitted = view.macs.is_empty() || view.macs.contains(&MacAddr(key.source));
    if enters && (!admitted || !view.up || verdict.action == VERDICT_DROP) {
        return true;
    }
    let leaves = verdict.egress == view.id.get();
    let Some(link) = link else { return enters || leaves };
    let peer = link.peer_mac == Some(MacAddr(key.destination));
    let same = verdict.ifindex == link.ifindex
        && verdict.frame_bytes_max == view.frame_bytes_max
        && (verdict.action & !VERDICT_ARMED == VERDICT_FORWARD_PEER) == peer;
    leaves && !(same && view.delivers())
}

pub(super) fn answer<T>(to: Reply<T>, value: T) {
    // The asker may have gone away; what it asked for is done all the same.
    drop(to.send(value));
}
