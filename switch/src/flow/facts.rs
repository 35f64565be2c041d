//! What filters look at: of a record, or of a conversation of which no record was made. Both are read into the same [`Facts`],
//! so that there is one truth of what matches, and nothing has to be built only to be left out.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use switch_common::{MacAddr, PortId};

use super::conversation::{Conversation, Verdict};
use super::key::{Network, Ports};
use super::record::{self, Names, Record};

/// The facts of one record, borrowed where it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The port of who began.
    pub from_port: Cow<'a, str>,
    /// The port of who answered.
    pub to_port: Option<Cow<'a, str>>,
    /// Both stations.
    pub macs: [MacAddr; 2],
    /// Both addresses.
    pub addresses: [Option<IpAddr>; 2],
    /// Both tags.
    pub vlans: [Option<u16>; 2],
    /// The network's name, and the protocol's above it.
    pub protocols: [Option<Cow<'a, str>>; 2],
    /// Both TCP or UDP ports.
    pub l4_ports: [Option<u16>; 2],
    /// What became of the frames.
    pub verdict: Verdict,
    /// Why some were dropped.
    pub drop_reason: Option<Cow<'a, str>>,
    /// When the last frame came.
    pub end: Timestamp,
}

impl<'a> From<&'a Record> for Facts<'a> {
    fn from(record: &'a Record) -> Self {
        let text = |text: &'a String| Cow::Borrowed(text.as_str());
        Self {
            from_port: text(&record.source_port_name),
            to_port: record.destination_port_name.as_ref().map(text),
            macs: [record.source_mac.0, record.destination_mac.0],
            addresses: [record.source_address, record.destination_address],
            vlans: [record.vlan, record.inner_vlan],
            protocols: [Some(text(&record.network_type)), record.network_transport.as_ref().map(text)],
            l4_ports: [record.source_port, record.destination_port],
            verdict: record.verdict,
            drop_reason: record.drop_reason.as_ref().map(text),
            end: record.end,
        }
    }
}

impl<'a> Facts<'a> {
    /// Those that the conversation's record would have.
    pub fn of(conversation: &Conversation, names: &'a impl Names) -> Self {
        let key = &conversation.key;
        let name = |id: PortId| names.port(id).map_or_else(|| record::unnamed(id).into(), |named| named.name.into());
        let mut facts = Self {
            from_port: name(key.ingress),
            to_port: conversation.egress.map(name),
            macs: [key.source, key.destination],
            addresses: [None; 2],
            vlans: [key.tags.outer, key.tags.inner].map(|tag| tag.map(|tag| tag.vlan)),
            protocols: [None, None],
            l4_ports: [None; 2],
            verdict: conversation.verdict,
            drop_reason: conversation.drop_reason.map(|reason| reason.label().into()),
            end: conversation.ended,
        };
        match key.network {
            Network::Link { ethertype } => facts.protocols = [Some(record::ethertype_name(ethertype)), None],
            Network::Ip { source, destination, protocol, ports } => {
                facts.addresses = [Some(source), Some(destination)];
                facts.protocols = [Some(record::network_name(source)), Some(record::protocol_name(protocol))];
                if let Ports::L4 { source, destination } = ports {
                    facts.l4_ports = [Some(source), Some(destination)];
                }
            }
        }
        facts
    }
}
