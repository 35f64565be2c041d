//! Making a netdev a port of the switch, and taking it back.
//!
//! ```text
//! prepare   validate everything · make what is to be made · ARP and IPv6 off · uplinks: promiscuous, GRO and LRO off
//! (caller)  programs attached, port table written: policy and counting are on
//! activate  set up, first our end, then the far one
//! release   delete what was made, put back what was found
//! ```
//!
//! **Invariant**: a `prepare` that fails leaves the host as it was. What it has changed by then is undone before it returns,
//! so it must be polled to its end. All of it belongs to the network namespace of the thread that called
//! [`Host::connect`], which every thread of the daemon shares.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use switch_common::{MacAddr, PortId};

use super::link::LinkFacts;
use super::netlink::{Netlink, NetlinkError, change};
use super::netns::Netns;
use super::punt_tap::{PUNT_RING, PuntTap};
pub use super::refusal::AttachError;
use super::refusal::{self, MADE_MTU, PUNT_ALIAS, is_link_local};
use super::restore::{self, Found, Restore, Undo};
use super::spec::{Attachment, IfName, PortSpec, PortState, Role};
use super::sys::{self, TapMode};
use super::veth::{Far, Place};

/// A netdev that is a port, as far as the host is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The netdev on our side.
    pub ifname: IfName,
    /// Its interface index.
    pub ifindex: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// What it is doing.
    pub state: PortState,
    /// Offload requests come from a program in user space (tap), not from a kernel: check them.
    pub guest_offloads: bool,
    /// The container interface's own address: unicast to it may take `redirect_peer`. Only when the far end is in another
    /// namespace.
    pub peer_mac: Option<MacAddr>,
    /// How to take it back; belongs into the state file.
    pub restore: Restore,
    /// The far end of a pair we made.
    far: Option<FarEnd>,
}

/// The far end of a veth pair: where, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FarEnd {
    netns: Option<String>,
    ifname: IfName,
}

/// The host's netdevs.
#[derive(Clone, Debug)]
pub struct Host {
    netlink: Netlink,
}

impl Host {
    /// Connects to the kernel. Must be called within a tokio runtime with its time driver.
    pub fn connect() -> Result<Self, AttachError> {
        Ok(Self { netlink: Netlink::connect()? })
    }

    /// The netdev of that name.
    pub async fn look(&self, name: &IfName) -> Result<Option<LinkFacts>, AttachError> {
        Ok(self.netlink.by_name(name.as_str()).await?)
    }

    /// The netdev of that index.
    pub async fn look_index(&self, ifindex: u32) -> Result<Option<LinkFacts>, AttachError> {
        Ok(self.netlink.by_index(ifindex).await?)
    }

    /// All netdevs, with their counters, in one request.
    pub async fn links(&self) -> Result<Vec<LinkFacts>, AttachError> {
        Ok(self.netlink.all().await?)
    }

    /// Brings the netdev side of the punt tap up: no ARP, no IPv6, a ring of [`PUNT_RING`], no queueing discipline.
    pub async fn raise_punt_tap(&self, tap: &PuntTap) -> Result<(), AttachError> {
        let (name, ifindex) = (tap.name(), tap.ifindex());
        restore::set_ipv6(name.as_str(), false)?;
        let quiet = change(ifindex).arp(false).txqueuelen(PUNT_RING).alias(format!("weft {name}{PUNT_ALIAS}"));
        self.netlink.set(&format!("configuring the punt tap '{name}'"), quiet).await?;
        // Replacing a discipline stops the queue for a moment; one that was adopted has it already.
        if self.look_index(ifindex).await?.is_none_or(|facts| facts.qdisc != "noqueue") {
            self.netlink.set_noqueue(ifindex).await?;
        }
        self.netlink.set(&format!("setting the punt tap '{name}' up"), change(ifindex).up()).await?;
        Ok(())
    }

    /// Deletes an instance's punt tap, also under a daemon that holds it. A netdev of that name that is no tap stays.
    pub async fn remove_punt_tap(&self, name: &IfName) -> Result<(), AttachError> {
        match self.look(name).await? {
            Some(facts) if facts.tun.is_some() => Ok(self.netlink.delete(facts.ifindex).await?),
            _ => Ok(()),
        }
    }

    /// Makes the netdev ready to be a port. Devices made here are left down; see the head of this file.
    pub async fn prepare(
        &self,
        spec: &PortSpec,
        instance: &IfName,
        punt_ifindex: u32,
        id: PortId,
    ) -> Result<Attached, AttachError> {
        match &spec.attachment {
            Attachment::Netdev { netdev, force } => {
                let facts =
                    self.look(netdev).await?.ok_or_else(|| AttachError::NoSuchNetdev { netdev: netdev.clone() })?;
                refusal::check(&self.netlink, netdev, &facts, spec.mtu, punt_ifindex, *force).await?;
                self.take(netdev, &facts, spec).await
            }
            Attachment::Tap { tap, user } => self.prepare_tap(tap, user.as_deref(), spec, instance, punt_ifindex).await,
            Attachment::Netns { netns, ifname, addresses, mac } => {
                let far = Far::new(ifname, addresses, mac.map(|mac| mac.0), spec.mtu)?;
                let place = Place::Inside(open_other(netns)?);
                let mut attached = self.prepare_pair(&place, &far, spec, instance, (punt_ifindex, id)).await?;
                attached.far = Some(FarEnd { netns: Some(netns.clone()), ifname: ifname.clone() });
                Ok(attached)
            }
            Attachment::Host { ifname, addresses, mac } => {
                let far = Far::new(ifname, addresses, mac.map(|mac| mac.0), spec.mtu)?;
                let mut attached = self.prepare_pair(&Place::Here, &far, spec, instance, (punt_ifindex, id)).await?;
                attached.peer_mac = None;
                attached.far = Some(FarEnd { netns: None, ifname: ifname.clone() });
                Ok(attached)
            }
        }
    }

    /// Sets the port up, then the far end of a pair; says what it is doing then.
    pub async fn activate(&self, attached: &Attached) -> Result<PortState, AttachError> {
        let ifname = &attached.ifname;
        self.netlink.set(&format!("setting '{ifname}' up"), change(attached.ifindex).up()).await?;
        if let Some(far) = &attached.far {
            let place = match &far.netns {
                Some(netns) => Place::Inside(open_other(netns)?),
                None => Place::Here,
            };
            place.raise(&self.netlink, &far.ifname).await?;
        }
        let facts = self.look_index(attached.ifindex).await?;
        Ok(facts.ok_or_else(|| AttachError::NoSuchNetdev { netdev: ifname.clone() })?.state())
    }

    /// Takes a port that an earlier daemon attached, without touching it. `None` when its netdev is gone, or no longer has
    /// that name (then what was changed on it is put back).
    pub async fn adopt(&self, spec: &PortSpec, restore: &Restore) -> Result<Option<Attached>, AttachError> {
        let Some(facts) = restore.netdev(&self.netlink).await? else { return Ok(None) };
        if facts.name != restore.ifname.as_str() {
            self.release(restore).await?;
            return Ok(None);
        }
        let mut attached = attached(&restore.ifname, &facts, restore.clone());
        attached.peer_mac = self.peer_mac(spec).await?;
        attached.far = match &spec.attachment {
            Attachment::Netns { netns, ifname, .. } => {
                Some(FarEnd { netns: Some(netns.clone()), ifname: ifname.clone() })
            }
            Attachment::Host { ifname, .. } => Some(FarEnd { netns: None, ifname: ifname.clone() }),
            Attachment::Netdev { .. } | Attachment::Tap { .. } => None,
        };
        Ok(Some(attached))
    }

    /// Takes a port back: deletes what was made for it, puts back what was found. A netdev that is gone is no error.
    pub async fn release(&self, restore: &Restore) -> Result<(), AttachError> {
        Ok(restore.run(&self.netlink).await?)
    }

    /// Sets a netdev down that was made for the port, or was down when it was found. One that is gone is no error.
    pub async fn lower(&self, restore: &Restore) -> Result<(), AttachError> {
        let ours = match &restore.undo {
            Undo::Delete => true,
            Undo::PutBack(found) => found.down,
        };
        match restore.netdev(&self.netlink).await? {
            Some(facts) if ours && facts.up => {
                let down = change(facts.ifindex).down();
                Ok(self.netlink.set(&format!("setting '{}' down", restore.ifname), down).await?)
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::release`], but a tap that a VMM holds open stays: its guest would lose its network for good, where it
    /// can be attached again once there is a switch.
    pub async fn leave(&self, restore: &Restore) -> Result<(), AttachError> {
        let held = restore.netdev(&self.netlink).await?.is_some_and(|facts| facts.tun.is_some() && facts.carrier);
        if held && restore.undo == Undo::Delete { Ok(()) } else { self.release(restore).await }
    }

    /// The address the container's own interface has now; `None` for ports without a container, or when it is gone.
    pub async fn peer_mac(&self, spec: &PortSpec) -> Result<Option<MacAddr>, AttachError> {
        let Attachment::Netns { netns, ifname, .. } = &spec.attachment else { return Ok(None) };
        let Ok(netns) = open_other(netns) else { return Ok(None) };
        let name = ifname.clone();
        let facts = netns.within(async move |inside: Netlink| inside.by_name(name.as_str()).await).await?;
        Ok(facts.and_then(|facts| facts.mac))
    }

    /// Changes a netdev that was there, and notes how to put it back.
    async fn take(&self, ifname: &IfName, facts: &LinkFacts, spec: &PortSpec) -> Result<Attached, AttachError> {
        let found = self.found(facts, spec).await?;
        let restore = Restore { ifname: ifname.clone(), ifindex: facts.ifindex, undo: Undo::PutBack(found.clone()) };
        self.or_release(&restore, self.quieten(facts, spec, &found)).await?;
        let mut attached = attached(ifname, facts, restore);
        attached.mtu = spec.mtu.unwrap_or(facts.mtu);
        Ok(attached)
    }

    /// What [`Self::quieten`] is going to change.
    async fn found(&self, facts: &LinkFacts, spec: &PortSpec) -> Result<Found, NetlinkError> {
        let uplink = spec.role == Role::Uplink;
        let ipv6 = if restore::has_ipv6(&facts.name)? {
            let addresses = self.netlink.addresses(facts.ifindex).await?;
            let kept = addresses.iter().filter(|(address, _)| !is_link_local(address));
            Some(kept.filter_map(|(address, prefix)| v6(address).map(|address| (address, *prefix))).collect())
        } else {
            None
        };
        let (gro, lro) = if uplink { restore::merges(&facts.name)? } else { (false, false) };
        Ok(Found {
            down: !facts.up,
            arp: !facts.noarp,
            not_promisc: uplink && !facts.promisc,
            ipv6,
            mtu: spec.mtu.filter(|mtu| *mtu != facts.mtu).map(|_| facts.mtu),
            gro,
            lro,
        })
    }

    /// Stops the host from speaking through a netdev, and makes an uplink hear everything as the wire had it.
    async fn quieten(&self, facts: &LinkFacts, spec: &PortSpec, found: &Found) -> Result<(), NetlinkError> {
        if found.ipv6.is_some() {
            restore::set_ipv6(&facts.name, false)?;
        }
        restore::merging(facts, found, false)?;
        let mut flags = change(facts.ifindex).arp(false);
        if spec.role == Role::Uplink {
            flags = flags.promiscuous(true);
        }
        if let Some(mtu) = spec.mtu {
            flags = flags.mtu(mtu);
        }
        self.netlink.set(&format!("configuring '{}'", facts.name), flags).await
    }

    /// Attaches a tap made for a VMM, or one that was made like it before; a VMM may hold it open already.
    async fn prepare_tap(
        &self,
        tap: &IfName,
        user: Option<&str>,
        spec: &PortSpec,
        instance: &IfName,
        punt_ifindex: u32,
    ) -> Result<Attached, AttachError> {
        let owner = user.map(user_id).transpose()?;
        if let Some(facts) = self.look(tap).await? {
            refusal::check(&self.netlink, tap, &facts, spec.mtu, punt_ifindex, false).await?;
            refusal::check_tap(tap, &facts, owner)?;
            return self.take(tap, &facts, spec).await;
        }
        refusal::check_mtu(tap, spec.mtu, MADE_MTU)?;
        make_tap(tap, owner).map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { doing: format!("making the tap '{tap}'") },
            _ => AttachError::Tap { netdev: tap.clone(), source },
        })?;
        self.made(tap, spec, instance).await
    }

    /// Makes a veth pair, its far end furnished, and attaches its host end.
    async fn prepare_pair(
        &self,
        place: &Place,
        far: &Far,
        spec: &PortSpec,
        instance: &IfName,
        (punt_ifindex, id): (u32, PortId),
    ) -> Result<Attached, AttachError> {
        let host = format!("wv{punt_ifindex}p{id}");
        let host: IfName = host.parse().map_err(|error| NetlinkError::new(host, io::Error::other(error)))?;
        place.check_free(&self.netlink, &far.ifname).await?;
        // A daemon that died between making a pair and noting it left one that nobody else can have made.
        if let Some(left) = self.look(&host).await? {
            self.netlink.delete(left.ifindex).await?;
        }
        place.make(&self.netlink, host.as_str(), far).await?;
        let mut attached = self.made(&host, spec, instance).await?;
        attached.peer_mac = self.or_release(&attached.restore, place.furnish(&self.netlink, far)).await?;
        Ok(attached)
    }

    /// Quietens a netdev made here, or deletes it.
    async fn made(&self, ifname: &IfName, spec: &PortSpec, instance: &IfName) -> Result<Attached, AttachError> {
        let facts = self.look(ifname).await?.ok_or_else(|| AttachError::NoSuchNetdev { netdev: ifname.clone() })?;
        let restore = Restore { ifname: ifname.clone(), ifindex: facts.ifindex, undo: Undo::Delete };
        let work = async {
            // An operator sees whose it is, and a tap's frames go straight into its ring, as a veth's do by nature.
            let alias = change(facts.ifindex).alias(format!("weft {instance} port {}", spec.name));
            self.netlink.set(&format!("naming '{ifname}'"), alias).await?;
            if facts.tun.is_some() {
                self.netlink.set_noqueue(facts.ifindex).await?;
            }
            let found = self.found(&facts, spec).await?;
            self.quieten(&facts, spec, &found).await
        };
        self.or_release(&restore, work).await?;
        let mut attached = attached(ifname, &facts, restore);
        attached.mtu = spec.mtu.unwrap_or(facts.mtu);
        Ok(attached)
    }

    /// Does a step; when it fails, undoes what was done before it.
    async fn or_release<T>(
        &self,
        restore: &Restore,
        step: impl Future<Output = Result<T, NetlinkError>>,
    ) -> Result<T, AttachError> {
        match step.await {
            Ok(value) => Ok(value),
            Err(error) => {
                if let Err(second) = self.release(restore).await {
                    tracing::warn!(netdev = %restore.ifname, error = %second, "could not be put back as it was found");
                }
                Err(error.into())
            }
        }
    }
}

fn attached(ifname: &IfName, facts: &LinkFacts, restore: Restore) -> Attached {
    Attached {
        ifname: ifname.clone(),
        ifindex: facts.ifindex,
        mtu: facts.mtu,
        state: facts.state(),
        guest_offloads: facts.tun.is_some(),
        peer_mac: None,
        restore,
        far: None,
    }
}

fn open_other(netns: &str) -> Result<Netns, AttachError> {
    let no_such = |source| AttachError::NoSuchNetns { netns: netns.escape_default().to_string(), source };
    let file = Netns::open(netns).map_err(no_such)?;
    if file.is_own().map_err(no_such)? { Err(AttachError::OwnNetns { netns: netns.to_owned() }) } else { Ok(file) }
}

fn make_tap(name: &IfName, owner: Option<u32>) -> io::Result<()> {
    let tap = sys::open_tap(name, TapMode::CreateNew)?;
    if let Some(uid) = owner {
        sys::set_owner(&tap, uid)?;
    }
    // Last: until here the tap goes with its descriptor, and a failure leaves nothing behind.
    sys::set_persistent(&tap, true)
}

fn user_id(user: &str) -> Result<u32, AttachError> {
    let unknown = || AttachError::NoSuchUser { user: user.escape_default().to_string() };
    match user.parse() {
        Ok(uid) => Ok(uid),
        Err(_) => sys::user_id(user).ok().flatten().ok_or_else(unknown),
    }
}

fn v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    }
}
