//! A port's life on the host: attached, changed, lost, back, detached.

use serde::{Deserialize, Serialize};
use switch_common::{PORT_GUEST_OFFLOADS, PORT_UP, PortConfig, PortId};

use super::{Control, ControlError, Port, errors};
use crate::dataplane::Link;
use crate::dataplane::commands::Command;
use crate::forwarding::PortView;
use crate::frame::Trust;
use crate::port::attach::{AttachError, Attached};
use crate::port::restore::Restore;
use crate::port::{IfName, PortName, PortSpec, PortState, Role};
use crate::reflex::{Reflex, ReflexError};

/// Frames to unknown stations that the brain takes from one port, per second in the long run.
const PUNTS_PER_SEC: u64 = 20_000;
/// How many of them may come at once.
const PUNT_BURST: u64 = 4096;
/// Length of an Ethernet header, which an MTU does not count.
const ETHERNET_BYTES: u32 = 14;
const NANOS_PER_SEC: u64 = 1_000_000_000;
/// How often two reads of a netdev's counters may differ before the last one has to do.
const READS_MAX: usize = 8;

/// A netdev that is attached.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    /// The netdev, and how to give it back.
    pub(super) attached: Attached,
    /// Where its own counters stood when ours were 0.
    pub(super) before: Before,
}

/// What is kept on disk of an attachment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedAttachment {
    /// How to give it back.
    pub(super) restore: Restore,
    /// See [`Attachment::before`].
    pub(super) before: Before,
}

/// A netdev's counters when ours were 0. Ours may be older than the netdev, so these may be less than nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    /// Frames it had received.
    pub(super) rx_frames: i64,
    /// Frames it had transmitted or dropped.
    pub(super) tx_frames: i64,
}

impl Attachment {
    pub(super) fn saved(&self) -> SavedAttachment {
        SavedAttachment { restore: self.attached.restore.clone(), before: self.before }
    }
}

/// What the reflex needs to know of a port.
pub(super) fn config(spec: &PortSpec, attached: &Attached, up: bool) -> PortConfig {
    let punt_interval_ns = NANOS_PER_SEC / PUNTS_PER_SEC;
    let floods = u64::from(spec.flood_per_sec.max(1));
    let group_interval_ns = NANOS_PER_SEC / floods;
    let offloads = if attached.guest_offloads { PORT_GUEST_OFFLOADS } else { 0 };
    PortConfig {
        ifindex: attached.ifindex,
        flags: offloads | if up { PORT_UP } else { 0 },
        punt_interval_ns,
        punt_ahead_ns: punt_interval_ns * (PUNT_BURST - 1),
        group_interval_ns,
        group_ahead_ns: group_interval_ns * (floods - 1),
    }
}

/// What deciding needs to know of a port.
pub(super) fn view(id: PortId, spec: &PortSpec, state: PortState, attached: Option<&Attached>) -> PortView {
    PortView {
        id,
        up: matches!(state, PortState::Up | PortState::NoCarrier),
        carrier: state == PortState::Up,
        role: spec.role,
        macs: spec.macs.iter().map(|mac| mac.0).collect(),
        station_limit: match spec.role {
            Role::Guest => Some(spec.station_limit),
            Role::Uplink => None,
        },
        flood_per_sec: spec.flood_per_sec,
        frame_bytes_max: attached.map_or(0, |attached| attached.mtu.saturating_add(ETHERNET_BYTES)),
        trust: if attached.is_some_and(|attached| attached.guest_offloads) { Trust::Guest } else { Trust::Kernel },
    }
}

impl Control {
    /// Adds a port; the caller saves. `wait`: a netdev that is missing is waited for.
    pub(super) async fn add(&mut self, spec: PortSpec, wait: bool) -> Result<(), ControlError> {
        let name = spec.name.clone();
        if self.ports.contains_key(&name) {
            return Err(ControlError::Exists(format!(
                "port '{name}' exists already; choose another name, remove it with 'weft port del {name}', or say --may-exist"
            )));
        }
        self.refuse_taken_netdev(&spec)?;
        let Some(id) = self.give_id(&name) else {
            return Err(ControlError::Invalid(format!(
                "{} ports exist, which is the most one instance has; remove one, or start another instance with --name",
                self.ports.len()
            )));
        };
        self.reset_counters(id).await;
        let mut port = Port { id, spec, state: PortState::Absent, problem: None, attachment: None, retry_after: None };
        match self.attach(&mut port).await {
            Ok(()) => {}
            Err(AttachError::NoSuchNetdev { .. }) if wait => {
                self.show_absent(&port).await?;
            }
            Err(error) => return Err(error.into()),
        }
        self.ports.insert(name.clone(), port);
        tracing::info!(port = %name, %id, "port added");
        Ok(())
    }

    /// One netdev is one port.
    pub(super) fn refuse_taken_netdev(&self, spec: &PortSpec) -> Result<(), ControlError> {
        let Some(wanted) = wanted_netdev(spec) else { return Ok(()) };
        if let Some(mirror) = self.mirror_to(wanted) {
            return Err(super::targets::taken(wanted, mirror));
        }
        let holder = self.ports.iter().find(|(_, port)| {
            let attached = port.attachment.as_ref().map(|attachment| &attachment.attached.ifname);
            attached == Some(wanted) || wanted_netdev(&port.spec) == Some(wanted)
        });
        holder.map_or(Ok(()), |(name, _)| {
            Err(ControlError::Exists(format!(
                "'{wanted}' is already the netdev of port '{name}'; remove that port first"
            )))
        })
    }

    /// Counters of a port that is to begin at 0. Frames of an earlier port of this id are settled or booked as lost first, or
    /// the switch's sums would hold them in flight for ever.
    async fn reset_counters(&mut self, id: PortId) {
        // An earlier port of this id has gone altogether before this one begins, its name too.
        if self.gone.contains(&id) {
            self.end_flows().await;
        }
        if self.leaving.remove(&id) {
            self.observer.has_caught_up().await;
        }
        // One that a daemon took away and did not live to clear up has left its flows.
        if self.has_flows(id) {
            self.observer.ports_gone(vec![id]).await;
        }
        // They are of the epoch that is, or of the one that was being closed just now: two turns close both.
        for _ in 0..2 {
            if self.in_flight(id) > 0 {
                self.book_lost().await;
            }
        }
        if self.in_flight(id) > 0 {
            tracing::warn!(%id, "the port's counters go on from an earlier port's, whose frames are still on their way");
        } else if let Err(error) = self.reflex.reset_counters(id) {
            tracing::warn!(%id, %error, "the port's counters go on from an earlier port's");
        }
    }

    /// Whether flows of this port were opened that are not freed.
    fn has_flows(&self, id: PortId) -> bool {
        let opened = self.reflex.buckets(id).unwrap_or_default().flows_used;
        opened != self.brain.port(id.index()).flows_freed.get()
    }

    /// Frames of this port that were punted and are not settled.
    pub(super) fn in_flight(&self, id: PortId) -> u64 {
        let account = self.brain.port(id.index());
        let punted = self.reflex.buckets(id).unwrap_or_default().punted;
        punted.saturating_sub(account.settled.get() + account.unobserved.get())
    }

    /// Makes the port's netdev, or takes it, and lets it forward. On failure everything is as before.
    pub(super) async fn attach(&mut self, port: &mut Port) -> Result<(), AttachError> {
        let mut attached = self.host.prepare(&port.spec, &self.runtime.name, self.punt_ifindex, port.id).await?;
        // Until it is up nothing may leave by it, or copies would vanish in a netdev that is down.
        let free = refuse_switched(&attached);
        let wired = match free {
            Ok(()) => self.wire(port, PortState::NoCarrier, &attached).await,
            Err(error) => {
                self.host.release(&attached.restore).await?;
                return Err(error);
            }
        };
        let raised = match wired {
            Ok(()) => self.host.activate(&attached).await,
            Err(error) => Err(error),
        };
        match raised {
            Ok(state) => {
                attached.state = state;
                port.state = state;
                port.problem = None;
                let before = self.before(port.id, attached.ifindex).await;
                self.show(port.id, &port.spec, state, Some(&attached)).await;
                port.attachment = Some(Attachment { attached, before });
                self.pin_again(port).await;
                Ok(())
            }
            Err(error) => {
                self.unwire(port.id, &attached).await;
                if let Err(error) = self.host.release(&attached.restore).await {
                    tracing::warn!(port = %port.spec.name, %error, "not everything could be undone");
                }
                Err(error)
            }
        }
    }

    /// Tells the reflex, then the loop, then attaches the program: in this order, so that no frame meets a port that is
    /// unknown to either, and no copy is injected for one that the reflex does not know.
    pub(super) async fn wire(&mut self, port: &Port, state: PortState, attached: &Attached) -> Result<(), AttachError> {
        let refused =
            |error: ControlError| AttachError::Refused { netdev: attached.ifname.clone(), reason: error.to_string() };
        let told = match self.tell_reflex(port, attached) {
            Ok(()) => self.tell(port.id, &port.spec, state, Some(attached)).await,
            Err(error) => Err(error.into()),
        };
        told.map_err(refused)?;
        let wired = self.reflex.attach_port(port.id, attached.ifname.as_str(), attached.ifindex);
        wired.map(drop).map_err(|error| refused(error.into()))
    }

    fn tell_reflex(&mut self, port: &Port, attached: &Attached) -> Result<(), ReflexError> {
        self.reflex.set_port(port.id, config(&port.spec, attached, true))?;
        self.reflex.link(attached.ifindex, port.id)
    }

    /// Takes back what [`Self::wire`] did; a step that was not done is no error.
    pub(super) async fn unwire(&mut self, id: PortId, attached: &Attached) {
        if let Err(error) = self.commands.ask(|done| Command::RemovePort { port: id, done }).await {
            tracing::error!(%id, %error, "the loop could not be told");
        }
        let undone = [
            self.reflex.clear_port(id),
            Reflex::grace(),
            self.reflex.detach_port(id).map(drop),
            self.reflex.unlink(attached.ifindex),
        ];
        for error in undone.into_iter().filter_map(Result::err) {
            tracing::debug!(%id, %error, "while detaching");
        }
    }

    /// Tells the loop what a port is now, and the observer what it is called.
    async fn tell(
        &self,
        id: PortId,
        spec: &PortSpec,
        state: PortState,
        attached: Option<&Attached>,
    ) -> Result<(), ControlError> {
        self.observer.name(id, spec.into());
        self.name_for_captures(id, spec, attached);
        let view = view(id, spec, state, attached);
        let link = attached.map(|attached| Link { ifindex: attached.ifindex, peer_mac: attached.peer_mac });
        Ok(self.commands.ask(|done| Command::SetPort { view, link, done }).await?)
    }

    /// Tells loop and reflex what a port is now.
    pub(super) async fn show(&mut self, id: PortId, spec: &PortSpec, state: PortState, attached: Option<&Attached>) {
        let told = self.tell(id, spec, state, attached).await;
        let set = attached.map_or(Ok(()), |attached| {
            let up = matches!(state, PortState::Up | PortState::NoCarrier);
            self.reflex.set_port(id, config(spec, attached, up)).map_err(ControlError::from)
        });
        for error in [told, set].into_iter().filter_map(Result::err) {
            tracing::error!(port = %spec.name, %error, "a change of the port did not take effect");
        }
    }

    /// A port whose netdev does not exist is known to the loop all the same: static stations may live there.
    pub(super) async fn show_absent(&mut self, port: &Port) -> Result<(), ControlError> {
        self.tell(port.id, &port.spec, PortState::Absent, None).await
    }

    /// Has the flows ended of all ports that were removed since the last time. What it returns waits for that, without a need of control:
    /// reading a large table takes its time, and nobody else is to wait for it.
    pub(super) fn end_flows(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let gone = std::mem::take(&mut self.gone);
        self.leaving.extend(&gone);
        let ended = (!gone.is_empty()).then(|| self.observer.ports_gone(gone));
        async move {
            if let Some(ended) = ended {
                ended.await;
            }
        }
    }

    /// Removes a port and restores its netdev; the caller saves, and calls [`Self::end_flows`].
    pub(super) async fn remove(&mut self, name: &PortName) -> Result<(), ControlError> {
        let mut port = self.ports.remove(name).ok_or_else(|| errors::no_such_port(name))?;
        let detached = self.detach(&mut port).await;
        if let Err(error) = self.commands.ask(|done| Command::RemovePort { port: port.id, done }).await {
            tracing::error!(port = %name, %error, "the loop could not be told");
        }
        self.gone.push(port.id);
        tracing::info!(port = %name, id = %port.id, "port removed");
        detached
    }

    /// Detaches a port's netdev and restores it; the port stays.
    pub(super) async fn detach(&mut self, port: &mut Port) -> Result<(), ControlError> {
        let Some(attachment) = port.attachment.take() else { return Ok(()) };
        self.lower(&attachment.attached).await;
        self.unwire(port.id, &attachment.attached).await;
        port.state = PortState::Absent;
        self.host.release(&attachment.attached.restore).await.map_err(|error| {
            ControlError::Failed(format!("port '{}' is detached, but: {}", port.spec.name, errors::chain(&error)))
        })
    }

    /// A netdev that is ours, or was down when it was found, goes down before its program goes, so that nothing the guest
    /// sends meanwhile reaches the host's stack.
    pub(super) async fn lower(&self, attached: &Attached) {
        if let Err(error) = self.host.lower(&attached.restore).await {
            tracing::debug!(netdev = %attached.ifname, error = %errors::chain(&error), "could not be set down");
        }
    }

    /// Where the netdev's counters stood when ours were 0: read while both stand still, or as near as may be.
    async fn before(&self, id: PortId, ifindex: u32) -> Before {
        let mut before = Before::default();
        for _ in 0..READS_MAX {
            let Ok(Some(first)) = self.host.look_index(ifindex).await else { break };
            let ours = self.reflex.counters(id).unwrap_or_default();
            let Ok(Some(second)) = self.host.look_index(ifindex).await else { break };
            let (first, second) = (first.stats, second.stats);
            let less = |theirs: u64, ours: u64| theirs.cast_signed().wrapping_sub(ours.cast_signed());
            before = Before {
                rx_frames: less(first.rx_frames, ours.ingress.frames),
                tx_frames: less(first.tx_frames + first.tx_dropped, ours.egress.frames),
            };
            if first == second {
                break;
            }
        }
        before
    }
}

/// A netdev that another instance switches is not ours to take.
fn refuse_switched(attached: &Attached) -> Result<(), AttachError> {
    let refused = |reason: String| AttachError::Refused { netdev: attached.ifname.clone(), reason };
    match Reflex::is_switched(attached.ifname.as_str(), attached.ifindex) {
        Ok(false) => Ok(()),
        Ok(true) => Err(refused("it is a port of another instance already; remove it there first".to_owned())),
        Err(error) => Err(refused(errors::chain(&error))),
    }
}

/// The netdev an attachment names on the host.
pub(super) fn wanted_netdev(spec: &PortSpec) -> Option<&IfName> {
    match &spec.attachment {
        crate::port::Attachment::Netdev { netdev, .. } => Some(netdev),
        crate::port::Attachment::Tap { tap, .. } => Some(tap),
        crate::port::Attachment::Netns { .. } | crate::port::Attachment::Host { .. } => None,
    }
}

/// The interface to show for a port: the one it has, or the one it waits for.
pub(super) fn shown_netdev(port: &Port) -> String {
    let attached = port.attachment.as_ref().map(|attachment| attachment.attached.ifname.to_string());
    attached.or_else(|| wanted_netdev(&port.spec).map(ToString::to_string)).unwrap_or_default()
}

/// Whether two specs differ only in what can be changed while traffic flows.
pub(super) fn same_netdev(old: &PortSpec, new: &PortSpec) -> bool {
    old.attachment == new.attachment && old.mtu == new.mtu && old.role == new.role
}
