//! A conversation as a record: flat, with names instead of numbers; what the flow log, the API and `weft flows` show.
//!
//! Field names are those of OpenTelemetry where it has one. Times are RFC 3339, durations whole microseconds. A conversation
//! that goes on for long has several records of one `id`, each with what was added since the last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switch_common::PortId;
use utoipa::ToSchema;

use super::community_id;
use super::conversation::{Conversation, EndReason, Verdict};
use super::counters::Counters;
use super::key::{FlowKey, Network, Ports, Tag};
use super::tcp::TcpFlags;
use crate::port::spec::{Mac, Role};

/// Labels of a port: one copy for all records that name it.
pub type Labels = Arc<BTreeMap<String, String>>;

/// What an operator calls a port.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// What lives behind it.
    pub role: Role,
}

/// Who knows the ports' names.
pub trait Names {
    /// What a port is called; nothing when there is none of this id (any more).
    fn port(&self, id: PortId) -> Option<Named<'_>>;
}

/// Whether a conversation stays on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ends are local.
    EastWest,
    /// One end is behind an uplink.
    NorthSouth,
}

/// One record. `source` is who began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// The conversation's name: the same in all its records, and in no other's of this switch.
    pub id: String,
    /// When the conversation began.
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    /// Where the time begins that this record is about: the conversation's beginning, or the end of the record before.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// When the last frame came.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
    /// Why the record was made; nothing while the conversation lives.
    pub end_reason: Option<EndReason>,
    /// It went on already when the daemon started: records of an earlier daemon may hold part of this one's counts.
    pub resumed: bool,
    /// The switch's name.
    pub switch: String,
    /// The VLAN of the frame's own outer tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The VLAN of the tag behind the outer one.
    #[serde(rename = "vlan.inner", default, skip_serializing_if = "Option::is_none")]
    pub inner_vlan: Option<u16>,
    /// The port of who began.
    #[serde(rename = "source.port_name")]
    pub source_port_name: String,
    /// Labels of the port of who began.
    #[serde(rename = "source.labels", default, skip_serializing_if = "has_none")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub source_labels: Labels,
    /// Station of who began.
    #[serde(rename = "source.mac")]
    #[schema(value_type = String)]
    pub source_mac: Mac,
    /// Address of who began.
    #[serde(rename = "source.address", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source_address: Option<IpAddr>,
    /// TCP or UDP port of who began.
    #[serde(rename = "source.port", default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The port of who answered, or that it was sent to; nothing when it was sent to all, or to none.
    #[serde(rename = "destination.port_name", default, skip_serializing_if = "Option::is_none")]
    pub destination_port_name: Option<String>,
    /// Labels of the destination's port.
    #[serde(rename = "destination.labels", default, skip_serializing_if = "has_none")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub destination_labels: Labels,
    /// Station, or group, that it was sent to.
    #[serde(rename = "destination.mac")]
    #[schema(value_type = String)]
    pub destination_mac: Mac,
    /// Address that it was sent to.
    #[serde(rename = "destination.address", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub destination_address: Option<IpAddr>,
    /// TCP or UDP port that it was sent to.
    #[serde(rename = "destination.port", default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// `ipv4`, `ipv6`, or what the EtherType stands for (`arp`, `lldp`, …, `0x88b5`, `802.3`).
    #[serde(rename = "network.type")]
    pub network_type: String,
    /// `tcp`, `udp`, `icmp`, `ipv6-icmp`, … or the protocol's number.
    #[serde(rename = "network.transport", default, skip_serializing_if = "Option::is_none")]
    pub network_transport: Option<String>,
    /// Whether these are fragments, which have no ports.
    pub fragment: bool,
    /// ICMP type of who began.
    #[serde(rename = "icmp.type", default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code of who began.
    #[serde(rename = "icmp.code", default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Whether it stayed on this host, as far as is known.
    pub direction: Direction,
    /// What became of the frames of who began.
    pub verdict: Verdict,
    /// Why frames were dropped, if some were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// Frames of who began; a super-frame counts once.
    #[serde(rename = "forward.frames")]
    pub forward_frames: u64,
    /// Frames of who began as a wire would have carried them.
    #[serde(rename = "forward.wire_frames")]
    pub forward_wire_frames: u64,
    /// Bytes of who began, tags included, FCS not; a super-frame counts once.
    #[serde(rename = "forward.bytes")]
    pub forward_bytes: u64,
    /// Bytes of who began as a wire would have carried them.
    #[serde(rename = "forward.wire_bytes")]
    pub forward_wire_bytes: u64,
    /// Of the frames of who began: those that were dropped as they came in.
    #[serde(rename = "forward.dropped_frames")]
    pub forward_dropped_frames: u64,
    /// Frames sent back; a super-frame counts once.
    #[serde(rename = "reverse.frames")]
    pub reverse_frames: u64,
    /// Frames sent back as a wire would have carried them.
    #[serde(rename = "reverse.wire_frames")]
    pub reverse_wire_frames: u64,
    /// Bytes sent back, tags included, FCS not; a super-frame counts once.
    #[serde(rename = "reverse.bytes")]
    pub reverse_bytes: u64,
    /// Bytes sent back as a wire would have carried them.
    #[serde(rename = "reverse.wire_bytes")]
    pub reverse_wire_bytes: u64,
    /// Of the frames sent back: those that were dropped as they came in.
    #[serde(rename = "reverse.dropped_frames")]
    pub reverse_dropped_frames: u64,
    /// What TCP says; absent for everything else.
    #[serde(flatten)]
    pub tcp: Option<TcpRecord>,
    /// Community ID, version 1, seed 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community_id: Option<String>,
}

/// What TCP says in a record: sums of both directions, and each one's own where that tells who suffers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TcpRecord {
    /// Flags seen in either direction, since the conversation began.
    #[serde(rename = "tcp.flags")]
    #[schema(value_type = Vec<String>)]
    pub flags: TcpFlags,
    /// A SYN that nobody answered.
    #[serde(rename = "tcp.half_open")]
    pub half_open: bool,
    /// Round trip of the handshake, as the source would have measured it, in µs.
    #[serde(rename = "tcp.handshake_rtt_us", default, skip_serializing_if = "Option::is_none")]
    pub handshake_rtt_us: Option<u64>,
    /// The handshake's part between the switch and the source, in µs.
    #[serde(rename = "tcp.handshake_rtt_source_us", default, skip_serializing_if = "Option::is_none")]
    pub handshake_rtt_source_us: Option<u64>,
    /// The handshake's part between the switch and the destination, in µs.
    #[serde(rename = "tcp.handshake_rtt_destination_us", default, skip_serializing_if = "Option::is_none")]
    pub handshake_rtt_destination_us: Option<u64>,
    /// Segments sent again, by both.
    #[serde(rename = "tcp.retransmits")]
    pub retransmits: u64,
    /// Segments sent again by who began.
    #[serde(rename = "forward.tcp_retransmits")]
    pub forward_retransmits: u64,
    /// Segments sent again by who answered.
    #[serde(rename = "reverse.tcp_retransmits")]
    pub reverse_retransmits: u64,
    /// Payload bytes sent again, by both.
    #[serde(rename = "tcp.retransmitted_bytes")]
    pub retransmitted_bytes: u64,
    /// Segments that closed the window, by both.
    #[serde(rename = "tcp.zero_windows")]
    pub zero_windows: u64,
    /// Segments with RST, by both.
    #[serde(rename = "tcp.resets")]
    pub resets: u64,
}

impl Record {
    /// A conversation with names.
    pub fn new(conversation: &Conversation, switch: &str, names: &impl Names) -> Self {
        let Conversation { key, forward, reverse, .. } = conversation;
        let source = names.port(key.ingress);
        let destination = conversation.egress.map(|id| (id, names.port(id)));
        let Reading { addresses, ports, icmp, fragment, network_type, transport, community_id } = Reading::of(key);
        let labels = |named: Option<Named<'_>>| named.map(|named| Arc::clone(named.labels)).unwrap_or_default();
        let outside = |named: Option<Named<'_>>| named.is_some_and(|named| named.role == Role::Uplink);
        let north_south = outside(source) || destination.is_some_and(|(_, named)| outside(named));
        let vlan = |tag: Option<Tag>| tag.map(|tag| tag.vlan);
        Self {
            id: format!("{:x}-{:x}", conversation.started.as_microsecond(), conversation.number),
            began: conversation.started,
            start: conversation.since,
            end: conversation.ended,
            end_reason: conversation.end_reason,
            resumed: conversation.resumed,
            switch: switch.to_owned(),
            vlan: vlan(key.tags.outer),
            inner_vlan: vlan(key.tags.inner),
            source_port_name: name(key.ingress, source),
            source_labels: labels(source),
            source_mac: Mac(key.source),
            source_address: addresses.map(|(source, _)| source),
            source_port: ports.map(|(source, _)| source),
            destination_port_name: destination.map(|(id, named)| name(id, named)),
            destination_labels: labels(destination.and_then(|(_, named)| named)),
            destination_mac: Mac(key.destination),
            destination_address: addresses.map(|(_, destination)| destination),
            destination_port: ports.map(|(_, destination)| destination),
            network_type,
            network_transport: transport,
            fragment,
            icmp_type: icmp.map(|(kind, _)| kind),
            icmp_code: icmp.map(|(_, code)| code),
            direction: if north_south { Direction::NorthSouth } else { Direction::EastWest },
            verdict: conversation.verdict,
            drop_reason: conversation.drop_reason.map(|reason| reason.label().to_owned()),
            forward_frames: forward.tally.frames,
            forward_wire_frames: forward.tally.wire_frames(),
            forward_bytes: forward.tally.bytes,
            forward_wire_bytes: forward.tally.wire_bytes(),
            forward_dropped_frames: forward.dropped_frames,
            reverse_frames: reverse.tally.frames,
            reverse_wire_frames: reverse.tally.wire_frames(),
            reverse_bytes: reverse.tally.bytes,
            reverse_wire_bytes: reverse.tally.wire_bytes(),
            reverse_dropped_frames: reverse.dropped_frames,
            tcp: tcp(conversation, forward, reverse),
            community_id,
        }
    }
}

fn name(id: PortId, named: Option<Named<'_>>) -> String {
    named.map_or_else(|| unnamed(id), |named| named.name.to_owned())
}

/// What a port is called that nobody has named.
pub(super) fn unnamed(id: PortId) -> String {
    format!("#{id}")
}

fn has_none(labels: &Labels) -> bool {
    labels.is_empty()
}

fn tcp(conversation: &Conversation, forward: &Counters, reverse: &Counters) -> Option<TcpRecord> {
    let health = conversation.tcp?;
    let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Some(TcpRecord {
        flags: health.flags,
        half_open: health.half_open,
        handshake_rtt_us: health.handshake.map(|handshake| us(handshake.whole())),
        handshake_rtt_source_us: health.handshake.map(|handshake| us(handshake.source)),
        handshake_rtt_destination_us: health.handshake.map(|handshake| us(handshake.destination)),
        retransmits: forward.retransmitted_segments + reverse.retransmitted_segments,
        forward_retransmits: forward.retransmitted_segments,
        reverse_retransmits: reverse.retransmitted_segments,
        retransmitted_bytes: forward.retransmitted_bytes + reverse.retransmitted_bytes,
        zero_windows: forward.zero_windows + reverse.zero_windows,
        resets: forward.resets + reverse.resets,
    })
}

/// What a key says of network and transport.
struct Reading {
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    fragment: bool,
    network_type: String,
    transport: Option<String>,
    community_id: Option<String>,
}

impl Reading {
    fn of(key: &FlowKey) -> Self {
        match key.network {
            Network::Link { ethertype } => Self {
                addresses: None,
                ports: None,
                icmp: None,
                fragment: false,
                network_type: ethertype_name(ethertype).into_owned(),
                transport: None,
                community_id: None,
            },
            Network::Ip { source, destination, protocol, ports } => Self {
                addresses: Some((source, destination)),
                ports: if let Ports::L4 { source, destination } = ports { Some((source, destination)) } else { None },
                icmp: if let Ports::Icmp { kind, code } = ports { Some((kind, code)) } else { None },
                fragment: ports == Ports::Fragment,
                network_type: network_name(source).into_owned(),
                transport: Some(protocol_name(protocol).into_owned()),
                community_id: Some(community_id::v1(0, source, destination, protocol, ports)),
            },
        }
    }
}

/// Protocols that have a name here (IANA, Assigned Internet Protocol Numbers).
const PROTOCOLS: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (89, "ospf"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];

/// Types of frames that have a name here (IEEE 802 numbers).
const ETHERTYPES: &[(u16, &str)] = &[
    (0, "802.3"),
    (0x0806, "arp"),
    (0x8035, "rarp"),
    (0x8100, "802.1q"),
    (0x8847, "mpls"),
    (0x8863, "pppoe-discovery"),
    (0x8864, "pppoe"),
    (0x888e, "eapol"),
    (0x88a8, "802.1ad"),
    (0x88cc, "lldp"),
    (0x88f7, "ptp"),
];

fn named<N: Copy + PartialEq>(table: &[(N, &'static str)], number: N) -> Option<Cow<'static, str>> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| Cow::Borrowed(*name))
}

/// What is called the network above which an address is.
pub(super) fn network_name(address: IpAddr) -> Cow<'static, str> {
    Cow::Borrowed(if address.is_ipv4() { "ipv4" } else { "ipv6" })
}

/// A protocol's name, or its number.
pub(super) fn protocol_name(protocol: u8) -> Cow<'static, str> {
    named(PROTOCOLS, protocol).unwrap_or_else(|| protocol.to_string().into())
}

/// What a protocol's name or number is called in records; nothing when it is neither.
pub(super) fn protocol_named(text: &str) -> Option<String> {
    let text = if text == "icmpv6" { "ipv6-icmp" } else { text };
    let known = PROTOCOLS.iter().any(|(_, name)| *name == text) || ETHERTYPES.iter().any(|(_, name)| *name == text);
    if known { Some(text.to_owned()) } else { text.parse().ok().map(|number| protocol_name(number).into_owned()) }
}

/// Writes what records call a conversation's protocol: that above IP, or the frame's type.
///
/// # Errors
/// It cannot be written to.
pub fn write_protocol(key: &FlowKey, into: &mut impl fmt::Write) -> fmt::Result {
    match key.network {
        Network::Ip { protocol, .. } => match PROTOCOLS.iter().find(|(known, _)| *known == protocol) {
            Some((_, name)) => into.write_str(name),
            None => write!(into, "{protocol}"),
        },
        Network::Link { ethertype } => match ETHERTYPES.iter().find(|(known, _)| *known == ethertype) {
            Some((_, name)) => into.write_str(name),
            None => write!(into, "{ethertype:#06x}"),
        },
    }
}

/// What the EtherType stands for, or its number.
pub(super) fn ethertype_name(ethertype: u16) -> Cow<'static, str> {
    named(ETHERTYPES, ethertype).unwrap_or_else(|| format!("{ethertype:#06x}").into())
}
