//! What this room asks of rtnetlink: a handful of requests, each with an answer.
//!
//! A connection belongs to the network namespace of the thread that made it, for good; [`super::netns`] makes use of that.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::link::LinkFacts;
use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

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

/// A change to make to a link: `change(ifindex).up()`.
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
        let mut request = self.handle.address().add(ifindex, address, prefix);
        // The operator chose it; waiting seconds for duplicates would make a container start without its address.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
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
