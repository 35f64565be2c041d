//! What the kernel does to netdevs, as it happens: one subscription to rtnetlink's link group.
//!
//! The kernel does not wait for a slow listener, and neither does this: when its socket or our queue is full, what came
//! meanwhile is thrown away and a single [`LinkEvent::Resync`] says so. Memory stays bounded however often a guest flaps.
//!
//! Everything is told at once but a lost carrier (a VMM that closed its tap): the kernel itself holds those back, for up to
//! a second when there was one just before (`net/core/link_watch.c`).

use futures_util::StreamExt as _;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use super::link::LinkFacts;
use super::netlink::NetlinkError;

/// Events that may wait for the listener.
const EVENTS_MAX: usize = 1024;

/// Something happened to a netdev of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is new, or something about it changed: name, up, carrier, MTU, master; or nothing that matters here.
    Changed(LinkFacts),
    /// It is no longer in this namespace.
    Gone {
        /// Its interface index.
        ifindex: u32,
        /// Its last name here.
        name: String,
        /// It was not deleted but moved into another namespace.
        moved: bool,
    },
    /// Events were lost: look at every netdev again.
    Resync,
}

/// Listens to the links of the calling thread's network namespace. Must be called within a tokio runtime; the listening
/// ends when the receiver is dropped, and the receiver ends if the kernel closes the subscription.
pub fn watch() -> Result<mpsc::Receiver<LinkEvent>, NetlinkError> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|source| NetlinkError::new("subscribing to link events", source))?;
    tokio::spawn(connection);
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let mut events = messages.filter_map(|(message, _)| std::future::ready(event(message)));
    tokio::spawn(async move {
        let mut lost = false;
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                Ok(place) = sender.reserve(), if lost => {
                    place.send(LinkEvent::Resync);
                    lost = false;
                }
                event = events.next() => match event {
                    None => return,
                    Some(_) if lost => {}
                    Some(LinkEvent::Resync) => lost = true,
                    Some(event) => lost = sender.try_send(event).is_err(),
                },
            }
        }
    });
    Ok(receiver)
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkEvent> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if concerns_the_link(&link) => {
            Some(LinkEvent::Changed(LinkFacts::read(&link)))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if concerns_the_link(&link) => {
            let facts = LinkFacts::read(&link);
            let moved = link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::NewNetnsId(_)));
            Some(LinkEvent::Gone { ifindex: facts.ifindex, name: facts.name, moved })
        }
        NetlinkPayload::Overrun(_) => Some(LinkEvent::Resync),
        _ => None,
    }
}

/// A bridge announces its ports in the same group, and that a port left it as the deletion of a link.
fn concerns_the_link(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Unspec
}
