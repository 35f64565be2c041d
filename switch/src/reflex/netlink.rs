//! The few traffic-control requests that clsact needs, each one message and its answer.
//!
//! Our filter has a priority and a handle of its own. A request to make it replaces it when it is there, so a new daemon
//! takes over a filter without a moment in which there is none, and never adds a second one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// First in line: whatever comes behind it sees no frame.
const PRIORITY: u16 = 1;
/// "WEFT": nobody else's.
const HANDLE: TcHandle = TcHandle { major: 0x5745, minor: 0x4654 };
/// `ETH_P_ALL` of `include/uapi/linux/if_ether.h`, in network order: frames of every type.
const ALL_TYPES: u16 = 0x0003_u16.to_be();
/// Where ingress filters of a clsact queueing discipline hang.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
/// Where its egress filters hang.
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };
/// Room for one answer: the kernel sends at most 32 KiB at once.
const ANSWER_BYTES: usize = 64 * 1024;

/// A filter on a netdev's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// `bpf`, `flower`, …
    pub(super) kind: String,
    /// The program's name, where there is one.
    pub(super) program: Option<String>,
    /// Whether an instance of Weft put it there, this one or another.
    pub(super) ours: bool,
}

/// Makes the queueing discipline that filters hang on; `false` when there is one.
pub(super) fn add_clsact(ifindex: u32) -> io::Result<bool> {
    let message = message(ifindex, TcHandle { major: 0xffff, minor: 0 }, TcHandle::CLSACT, 0, kind("clsact"));
    match request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the queueing discipline away, unless somebody's filter hangs on it, or it is gone already.
pub(super) fn delete_idle_clsact(ifindex: u32) -> io::Result<()> {
    let hanging = dump(ifindex, INGRESS).and_then(|ingress| Ok(ingress.len() + dump(ifindex, EGRESS)?.len()));
    let deleted = hanging.and_then(|hanging| {
        if hanging == 0 {
            let message = message(ifindex, TcHandle { major: 0xffff, minor: 0 }, TcHandle::CLSACT, 0, kind("clsact"));
            request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK)?;
        }
        Ok(())
    });
    match deleted {
        Err(error) if is_absent(&error) => Ok(()),
        answer => answer,
    }
}

/// Puts a program on a netdev's ingress as our filter; `true` when it replaced the one that was there.
pub(super) fn set_filter(ifindex: u32, name: &str, program: BorrowedFd<'_>) -> io::Result<bool> {
    let options = vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ];
    let mut attributes = kind(TcFilterBpf::KIND);
    attributes.push(TcAttribute::Options(options));
    let message = message(ifindex, HANDLE, INGRESS, filter_info(), attributes);
    match request(RouteNetlinkMessage::NewTrafficFilter(message.clone()), NLM_F_ACK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
            Ok(false)
        }
        answer => answer.map(|_| true),
    }
}

/// Takes our filter away; nothing is said when there is none.
pub(super) fn delete_filter(ifindex: u32) -> io::Result<()> {
    let message = message(ifindex, HANDLE, INGRESS, filter_info(), Vec::new());
    match request(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK) {
        Err(error) if is_absent(&error) => Ok(()),
        answer => answer.map(drop),
    }
}

/// The filters on a netdev's ingress.
pub(super) fn filters(ifindex: u32) -> io::Result<Vec<Filter>> {
    let filters = match dump(ifindex, INGRESS) {
        Err(error) if is_absent(&error) => Vec::new(),
        filters => filters?,
    };
    Ok(filters.iter().filter_map(describe).collect())
}

/// No such filter, no such queueing discipline, no such netdev: what was to be taken away is not there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV))
}

fn describe(filter: &TcMessage) -> Option<Filter> {
    let kind = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    // The kernel lists each priority's head without options before its filters.
    let program = options?.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    Some(Filter { kind, program, ours: filter.header.handle == HANDLE })
}

fn kind(kind: &str) -> Vec<TcAttribute> {
    vec![TcAttribute::Kind(kind.to_owned())]
}

fn filter_info() -> u32 {
    u32::from(PRIORITY) << 16 | u32::from(ALL_TYPES)
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, info: u32, attributes: Vec<TcAttribute>) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message.header.info = info;
    message.attributes = attributes;
    message
}

fn dump(ifindex: u32, parent: TcHandle) -> io::Result<Vec<TcMessage>> {
    let message = message(ifindex, TcHandle::UNSPEC, parent, 0, Vec::new());
    let answers = request(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
            _ => None,
        })
        .collect())
}

/// Sends one request and reads its answers, up to the acknowledgement or the end of the dump.
fn request(payload: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    // No protocol is protocol 0, NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut message = NetlinkMessage::from(payload);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    rustix::net::send(&socket, &bytes, SendFlags::empty())?;

    let mut answers = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let (_, received) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut left = buffer.get(..received).unwrap_or_default();
        while !left.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(left)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = (answer.header.length as usize).next_multiple_of(4).max(16);
            left = left.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Error(error) => {
                    return if error.code.is_none() { Ok(answers) } else { Err(error.to_io()) };
                }
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
        }
    }
}
