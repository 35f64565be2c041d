//! What this room asks of rtnetlink, and what it learns from it: a link as facts, and a handful of requests.
//!
//! A connection belongs to the network namespace of the thread that made it, for good; [`super::netns`] makes use of that.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use serde::{Deserialize, Serialize};
use switch_common::MacAddr;

use super::spec::PortState;

/// An answer that has not come by then never comes (it could not be decoded).
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A request the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct NetlinkError {
    /// What was being done, and to which netdev.
    pub doing: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl NetlinkError {
    pub(super) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// The kernel's error number.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether the netdev is not, or no longer, there.
    pub(super) fn is_gone(&self) -> bool {
        self.errno() == Some(libc::ENODEV)
    }
}

/// A netdev's own counters since it was made, in the netdev's view: `rx` is what came from it into the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Frames received from the wire or the guest.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received and dropped before any hook.
    pub rx_dropped: u64,
    /// Frames sent to the wire or the guest.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that found no room (a full tap ring).
    pub tx_dropped: u64,
}

/// What a tun device was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunFacts {
    /// Ethernet frames (a tap), not IP packets.
    pub tap: bool,
    /// A virtio-net header stands in front of each frame.
    pub vnet_header: bool,
    /// It outlives its opener.
    pub persistent: bool,
    /// It has several queues.
    pub multi_queue: bool,
    /// The user who may open it.
    pub owner: Option<u32>,
}

/// A netdev as netlink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Interface index.
    pub ifindex: u32,
    /// Name now.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Somebody holds the other end.
    pub carrier: bool,
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Smallest MTU the device takes; 0: not said.
    pub mtu_min: u32,
    /// Largest MTU the device takes; 0: not said.
    pub mtu_max: u32,
    /// `tun`, `veth`, `bond`, …; empty for hardware.
    pub kind: String,
    /// Interface index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Interface index of its other end (veth) or lower device.
    pub link: Option<u32>,
    /// The other end is in another network namespace.
    pub link_elsewhere: bool,
    /// Its own address.
    pub mac: Option<MacAddr>,
    /// The operator's remark.
    pub alias: String,
    /// Root queueing discipline.
    pub qdisc: String,
    /// Carries Ethernet frames.
    pub ethernet: bool,
    /// Is the loopback device.
    pub loopback: bool,
    /// Answers no ARP.
    pub noarp: bool,
    /// Promiscuous by the operator's wish.
    pub promisc: bool,
    /// Present for taps and tuns.
    pub tun: Option<TunFacts>,
    /// Its counters.
    pub stats: LinkStats,
}

impl LinkFacts {
    /// What a port on this netdev is doing.
    pub fn state(&self) -> PortState {
        match (self.up, self.carrier) {
            (true, true) => PortState::Up,
            (true, false) => PortState::NoCarrier,
            (false, _) => PortState::Down,
        }
    }

    /// Reads a link message.
    pub(super) fn read(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut facts = Self {
            ifindex: message.header.index,
            up: flags.contains(LinkFlags::Up),
            noarp: flags.contains(LinkFlags::Noarp),
            promisc: flags.contains(LinkFlags::Promisc),
            loopback: flags.contains(LinkFlags::Loopback),
            carrier: flags.contains(LinkFlags::LowerUp),
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name.clone_from(name),
                LinkAttribute::Carrier(carrier) => facts.carrier = *carrier != 0,
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::MinMtu(mtu) => facts.mtu_min = *mtu,
                LinkAttribute::MaxMtu(mtu) => facts.mtu_max = *mtu,
                LinkAttribute::Controller(index) => facts.master = Some(*index).filter(|index| *index != 0),
                LinkAttribute::Link(index) => facts.link = Some(*index).filter(|index| *index != 0),
                LinkAttribute::LinkNetNsId(_) => facts.link_elsewhere = true,
                LinkAttribute::Address(bytes) => facts.mac = bytes.as_slice().try_into().ok().map(MacAddr),
                LinkAttribute::IfAlias(alias) => facts.alias.clone_from(alias),
                LinkAttribute::Qdisc(qdisc) => facts.qdisc.clone_from(qdisc),
                LinkAttribute::Stats64(stats) => {
                    facts.stats = LinkStats {
                        rx_frames: stats.rx_packets,
                        rx_bytes: stats.rx_bytes,
                        rx_dropped: stats.rx_dropped,
                        tx_frames: stats.tx_packets,
                        tx_bytes: stats.tx_bytes,
                        tx_dropped: stats.tx_dropped,
                    };
                }
                LinkAttribute::LinkInfo(infos) => facts.read_infos(infos),
                _ => {}
            }
        }
        facts
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Tun(attributes)) => self.tun = Some(read_tun(attributes)),
                _ => {}
            }
        }
    }
}

/// Attributes of a tun (include/uapi/linux/if_link.h, `IFLA_TUN_*`), which the packet crate hands over as bytes.
fn read_tun(attributes: &[InfoTun]) -> TunFacts {
    let mut facts = TunFacts::default();
    for attribute in attributes {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        let first = value.first().copied().unwrap_or(0);
        match attribute.kind() {
            1 => facts.owner = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
            3 => facts.tap = i32::from(first) == libc::IFF_TAP,
            5 => facts.vnet_header = first != 0,
            6 => facts.persistent = first != 0,
            7 => facts.multi_queue = first != 0,
            _ => {}
        }
    }
    facts
}

/// A change to make to a link: `request(ifindex).up()`.
pub(super) fn change(ifindex: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(ifindex)
}

/// A connection to the kernel, in one network namespace.
#[derive(Clone, Debug)]
pub(super) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Connects; the connection runs as a task of the current tokio runtime until this is dropped.
    pub(super) fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| NetlinkError::new("opening a netlink socket", source))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The link of that name; `None` when there is none.
    pub(super) async fn by_name(&self, name: &str) -> Result<Option<LinkFacts>, NetlinkError> {
        let request = self.handle.link().get().match_name(name);
        one(request.execute()).await.or_else(|source| absent(format!("looking up '{name}'"), source))
    }

    /// The link of that index; `None` when there is none.
    pub(super) async fn by_index(&self, ifindex: u32) -> Result<Option<LinkFacts>, NetlinkError> {
        let request = self.handle.link().get().match_index(ifindex);
        one(request.execute()).await.or_else(|source| absent(format!("looking up netdev {ifindex}"), source))
    }

    /// All links.
    pub(super) async fn all(&self) -> Result<Vec<LinkFacts>, NetlinkError> {
        let links = self.handle.link().get().execute().map_ok(|message| LinkFacts::read(&message)).try_collect();
        answer(links).await.map_err(|source| NetlinkError::new("listing netdevs", source))
    }

    /// The link's addresses with their prefix lengths.
    pub(super) async fn addresses(&self, ifindex: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let request = self.handle.address().get().set_link_index_filter(ifindex).execute();
        let messages: Vec<_> =
            answer(request.try_collect()).await.map_err(|source| NetlinkError::new("listing addresses", source))?;
        let own = |attribute: &AddressAttribute| match attribute {
            // IFA_LOCAL where there is one (a point-to-point IFA_ADDRESS is the other end's).
            AddressAttribute::Local(address) => Some((0, *address)),
            AddressAttribute::Address(address) => Some((1, *address)),
            _ => None,
        };
        Ok(messages
            .iter()
            .filter_map(|message| {
                let (_, address) = message.attributes.iter().filter_map(own).min_by_key(|(rank, _)| *rank)?;
                Some((address, message.header.prefix_len))
            })
            .collect())
    }

    /// Gives a link an address.
    pub(super) async fn add_address(&self, ifindex: u32, address: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let request = self.handle.address().add(ifindex, address, prefix);
        answer(request.execute())
            .await
            .map_err(|source| NetlinkError::new(format!("adding address {address}/{prefix}"), source))
    }

    /// Applies a change made by [`change`].
    pub(super) async fn set(&self, doing: &str, change: LinkMessageBuilder<LinkUnspec>) -> Result<(), NetlinkError> {
        answer(self.handle.link().set(change.build()).execute())
            .await
            .map_err(|source| NetlinkError::new(doing, source))
    }

    /// Makes a link.
    pub(super) async fn add(&self, doing: &str, link: LinkMessage) -> Result<(), NetlinkError> {
        answer(self.handle.link().add(link).execute()).await.map_err(|source| NetlinkError::new(doing, source))
    }

    /// Deletes a link; that it was gone already is no error.
    pub(super) async fn delete(&self, ifindex: u32) -> Result<(), NetlinkError> {
        match answer(self.handle.link().del(ifindex).execute()).await {
            Err(source) if source.raw_os_error() != Some(libc::ENODEV) => {
                Err(NetlinkError::new(format!("deleting netdev {ifindex}"), source))
            }
            _ => Ok(()),
        }
    }

    /// Makes the link's root queueing discipline `noqueue`: frames go straight into the device's ring.
    pub(super) async fn set_noqueue(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let failed = |source: io::Error| NetlinkError::new("setting qdisc noqueue", source);
        let mut message =
            TcMessage::with_index(i32::try_from(ifindex).map_err(|error| failed(io::Error::other(error)))?);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = self.handle.clone().request(request).map_err(|error| failed(io::Error::other(error)))?;
        while let Some(message) = answers.next().await {
            if let NetlinkPayload::Error(error) = message.payload {
                return Err(failed(error.to_io()));
            }
        }
        Ok(())
    }
}

/// Waits for an answer, and turns the library's error into the kernel's.
async fn answer<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(message.to_io()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(late) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
    }
}

async fn one(
    links: impl futures_util::Stream<Item = Result<LinkMessage, rtnetlink::Error>>,
) -> io::Result<Option<LinkFacts>> {
    let mut links = std::pin::pin!(links);
    Ok(answer(links.try_next()).await?.map(|message| LinkFacts::read(&message)))
}

fn absent(doing: String, source: io::Error) -> Result<Option<LinkFacts>, NetlinkError> {
    if source.raw_os_error() == Some(libc::ENODEV) { Ok(None) } else { Err(NetlinkError::new(doing, source)) }
}

/// A socket to ask the ioctls of netdevs on, in the calling thread's network namespace.
pub(super) fn plain_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}
