//! A veth pair whose host end is the port and whose far end is in a container, or beside it on the host.
//!
//! The far end is made where it belongs, under its final name, in one request: it is never seen under another name, and a
//! name that is taken inside refuses the whole pair. Its checksum and segmentation offloads are left on, so that super-frames
//! travel the switch unsegmented.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use switch_common::MacAddr;

use super::netlink::{Netlink, NetlinkError, change};
use super::netns::Netns;
use super::refusal::{AttachError, MADE_MTU, check_mtu};
use super::spec::IfName;

/// What the far end is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Far {
    pub(super) ifname: IfName,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u32>,
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

impl Far {
    /// Checks what was asked for.
    pub(super) fn new(
        ifname: &IfName,
        addresses: &[String],
        mac: Option<MacAddr>,
        mtu: Option<u32>,
    ) -> Result<Self, AttachError> {
        if let Some(mac) = mac.filter(|mac| !mac.is_station()) {
            return Err(AttachError::BadMac { mac });
        }
        check_mtu(ifname, mtu, MADE_MTU)?;
        let addresses = addresses.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
        Ok(Self { ifname: ifname.clone(), mac, mtu, addresses })
    }
}

/// Where the far end is to be.
#[derive(Debug)]
pub(super) enum Place {
    Inside(Netns),
    Here,
}

impl Place {
    /// Refuses a name that is taken there.
    pub(super) async fn check_free(&self, netlink: &Netlink, ifname: &IfName) -> Result<(), AttachError> {
        let name = ifname.clone();
        let taken = match self {
            Self::Here => netlink.by_name(name.as_str()).await?,
            Self::Inside(netns) => {
                netns.within(async move |inside: Netlink| inside.by_name(name.as_str()).await).await?
            }
        };
        if taken.is_some() { Err(AttachError::NameTakenInside { ifname: ifname.clone() }) } else { Ok(()) }
    }

    /// Makes the pair: `host` here, the far end there.
    pub(super) async fn make(&self, netlink: &Netlink, host: &str, far: &Far) -> Result<(), AttachError> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(far.ifname.as_str());
        if let Some(mac) = far.mac {
            peer = peer.address(mac.0.to_vec());
        }
        if let Self::Inside(netns) = self {
            peer = peer.setns_by_fd(netns.as_fd().as_raw_fd());
        }
        let mut pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(host);
        if let Some(mtu) = far.mtu {
            peer = peer.mtu(mtu);
            pair = pair.mtu(mtu);
        }
        let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        let doing = format!("making the veth pair '{host}' – '{}'", far.ifname);
        netlink.add(&doing, pair).await.map_err(|error| match error.errno() {
            Some(libc::EEXIST) => AttachError::NameTakenInside { ifname: far.ifname.clone() },
            _ => error.into(),
        })
    }

    /// Gives the far end its addresses, and says its MAC address.
    pub(super) async fn furnish(&self, netlink: &Netlink, far: &Far) -> Result<Option<MacAddr>, NetlinkError> {
        let far = far.clone();
        let errand = async move |there: Netlink| {
            let facts = there.by_name(far.ifname.as_str()).await?.ok_or_else(|| vanished(&far.ifname))?;
            for (address, prefix) in &far.addresses {
                there.add_address(facts.ifindex, *address, *prefix).await?;
            }
            Ok(facts.mac)
        };
        match self {
            Self::Here => errand(netlink.clone()).await,
            Self::Inside(netns) => netns.within(errand).await,
        }
    }

    /// Sets the far end up.
    pub(super) async fn raise(&self, netlink: &Netlink, ifname: &IfName) -> Result<(), NetlinkError> {
        let ifname = ifname.clone();
        let errand = async move |there: Netlink| {
            let facts = there.by_name(ifname.as_str()).await?.ok_or_else(|| vanished(&ifname))?;
            there.set(&format!("setting '{ifname}' up"), change(facts.ifindex).up()).await
        };
        match self {
            Self::Here => errand(netlink.clone()).await,
            Self::Inside(netns) => netns.within(errand).await,
        }
    }
}

fn address(text: &str) -> Result<(IpAddr, u8), AttachError> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let usable = prefix <= bits && !address.is_unspecified() && !address.is_multicast();
        usable.then_some((address, prefix))
    };
    parse().ok_or_else(|| AttachError::BadAddress { address: text.escape_default().to_string() })
}

fn vanished(ifname: &IfName) -> NetlinkError {
    NetlinkError::new(format!("looking for '{ifname}'"), std::io::Error::from_raw_os_error(libc::ENODEV))
}
