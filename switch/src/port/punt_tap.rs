//! The punt tap: where the reflex hands frames to the brain, and the brain hands copies back.
//!
//! ```text
//! read or written at once:  ┌──────────────┬─────────────────────┬───────────────┬───────────────┐
//!                           │ vnet header  │ dst, src addresses  │ 802.1ad tag   │ EtherType …   │
//!                           │ 10 bytes     │ 12 bytes            │ 4: port,epoch │               │
//!                           └──────────────┴─────────────────────┴───────────────┴───────────────┘
//! FrameBuffer:                offload        room[..12]            (on the stack)  room[12..]
//! ```
//!
//! Four vectors per call keep the frame in one piece without the tag, so nothing is ever copied aside. A checksum request
//! (`csum_start`) counts from the start of the frame as it is on the tap, tag included; it is shifted here, so that a
//! [`FrameBuffer`]'s offload always speaks of the frame in it.
//!
//! The tap is persistent: it survives the death of the daemon, and with it the programs and pins that refer to it. It never
//! gets a send-buffer limit (TUNSETSNDBUF), or writes would block behind a slow port.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use switch_common::{FLOOD_ID, INJECT_AGAIN_BIT, INJECT_ORIGIN_BIT, PUNT_EPOCH_BIT, PUNT_ID_MASK, PUNT_TPID, PortId};

use super::medium::{FrameBuffer, Medium, TransmitError};
use super::spec::IfName;
use super::sys::{self, TapMode};
use crate::frame::{Offload, VNET_HDR_BYTES};

/// Frames the punt tap's ring holds (its transmit queue length).
pub const PUNT_RING: u32 = 8192;

const ADDRESSES_BYTES: usize = 12;
const TAG_BYTES: usize = 4;
/// An `EtherType`, and the payload without which the kernel does not take a tag off (net/core/skbuff.c,
/// `skb_vlan_untag`).
const TYPE_BYTES: usize = 2;
const PAYLOAD_BYTES_MIN: usize = 2;
/// What stands before the `EtherType` when everything is there.
const LEAD_BYTES: usize = VNET_HDR_BYTES + ADDRESSES_BYTES + TAG_BYTES;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM` (`include/uapi/linux/virtio_net.h`).
const NEEDS_CHECKSUM: u8 = 1;

/// Why the punt tap could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PuntTapError {
    /// No `/dev/net/tun`.
    #[error("/dev/net/tun cannot be opened ({source}); load the tun module (modprobe tun)")]
    NoTun {
        /// What the kernel said.
        source: io::Error,
    },
    /// No privilege.
    #[error("making the punt tap '{name}' needs CAP_NET_ADMIN; run weft as root")]
    NotPermitted {
        /// The tap.
        name: IfName,
    },
    /// Somebody holds it open.
    #[error("the punt tap '{name}' is held open by another program; is another daemon of this name running?")]
    Busy {
        /// The tap.
        name: IfName,
    },
    /// The name belongs to something else.
    #[error(
        "a netdev '{name}' exists already and is not a punt tap; choose another --name or remove it (ip link del {name})"
    )]
    Taken {
        /// The netdev.
        name: IfName,
    },
    /// Something else.
    #[error("the punt tap '{name}': {doing}: {source}")]
    Failed {
        /// The tap.
        name: IfName,
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The brain's end of the punt tap. Opening makes or adopts the device; [`super::attach::Host::raise_punt_tap`] does the rest.
#[derive(Debug)]
pub struct PuntTap {
    name: IfName,
    ifindex: u32,
    tap: OwnedFd,
    skipped: u64,
}

impl PuntTap {
    /// Makes the tap, or takes over one that a daemon of this name left behind.
    pub fn open(name: &IfName) -> Result<Self, PuntTapError> {
        let tap = sys::open_tap(name, TapMode::CreateOrAdopt).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => PuntTapError::NoTun { source },
            Some(libc::EPERM | libc::EACCES) => PuntTapError::NotPermitted { name: name.clone() },
            Some(libc::EBUSY) => PuntTapError::Busy { name: name.clone() },
            // The name belongs to a netdev of another kind, or to a tap with several queues.
            Some(libc::EINVAL) => PuntTapError::Taken { name: name.clone() },
            _ => PuntTapError::Failed { name: name.clone(), doing: "opening it", source },
        })?;
        let failed = |doing| move |source| PuntTapError::Failed { name: name.clone(), doing, source };
        sys::set_persistent(&tap, true).map_err(failed("making it persistent"))?;
        sys::set_vnet_header_bytes(&tap, VNET_HDR_BYTES).map_err(failed("setting its header length"))?;
        sys::take_all_offloads(&tap).map_err(failed("setting its offloads"))?;
        let ifindex = ifindex(name).map_err(failed("finding its interface index"))?;
        Ok(Self { name: name.clone(), ifindex, tap, skipped: 0 })
    }

    /// The netdev's name.
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// The netdev's interface index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Reads that were no punted frame: too short, longer than a [`FrameBuffer`], or without the tag. The host itself, or
    /// somebody with a packet socket, sent them to the tap; the reflex never does.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// One read: `None` when what came was no punted frame.
    fn read(&self, into: &mut FrameBuffer) -> Result<Option<PortId>, Errno> {
        let mut header = [0; VNET_HDR_BYTES];
        let mut tag = [0; TAG_BYTES];
        let room = into.room();
        let room_bytes = room.len();
        let Some((addresses, rest)) = room.split_at_mut_checked(ADDRESSES_BYTES) else { return Ok(None) };
        let read = rustix::io::readv(
            &self.tap,
            &mut [
                IoSliceMut::new(&mut header),
                IoSliceMut::new(addresses),
                IoSliceMut::new(&mut tag),
                IoSliceMut::new(rest),
            ],
        )?;
        if read < LEAD_BYTES {
            return Ok(None);
        }
        let [tpid_high, tpid_low, tci_high, tci_low] = tag;
        if u16::from_be_bytes([tpid_high, tpid_low]) != PUNT_TPID {
            return Ok(None);
        }
        // What does not fit is cut by the kernel, which says so only by filling the room: `FrameBuffer::is_full`.
        into.set_len((read - VNET_HDR_BYTES - TAG_BYTES).min(room_bytes));
        into.offload = shifted(header, Shift::TagAway);
        let tci = u16::from_be_bytes([tci_high, tci_low]);
        into.odd = tci & PUNT_EPOCH_BIT != 0;
        Ok(PortId::new(tci & PUNT_ID_MASK))
    }
}

impl AsFd for PuntTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Medium for PuntTap {
    fn receive(&mut self, into: &mut FrameBuffer) -> io::Result<Option<PortId>> {
        loop {
            match self.read(into) {
                Ok(Some(port)) => return Ok(Some(port)),
                // EINVAL: the kernel could not describe this frame in the header, and has freed it.
                Ok(None) | Err(Errno::INVAL) => self.skipped += 1,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn transmit(&mut self, frame: &FrameBuffer, egress: PortId) -> Result<(), TransmitError> {
        let Some(origin) = frame.origin.get() else { return self.write(frame, &[tag_of(egress.get())]) };
        let again = if origin.again { INJECT_AGAIN_BIT } else { 0 };
        // Behind the first tag a second one, because there is something to tell.
        self.write(frame, &[tag_of(egress.get() | INJECT_ORIGIN_BIT), tag_of(origin.ingress.get() | again)])
    }

    fn floods(&self) -> bool {
        true
    }

    fn flood(&mut self, frame: &FrameBuffer, ingress: PortId) -> Result<(), TransmitError> {
        self.write(frame, &[tag_of(FLOOD_ID), tag_of(ingress.get())])
    }
}

impl PuntTap {
    /// Writes a frame with tags of ours in front of its type.
    fn write(&self, frame: &FrameBuffer, tags: &[[u8; TAG_BYTES]]) -> Result<(), TransmitError> {
        let header = tags.iter().fold(frame.offload.0, |header, _| shifted(header, Shift::TagIn).0);
        let Some((addresses, rest)) = frame.frame().split_at_checked(ADDRESSES_BYTES) else {
            return Err(TransmitError::Refused(libc::EINVAL));
        };
        // The kernel takes a tag off only when two bytes follow the type behind it, and frees the frame otherwise. A wire
        // would have padded it anyway (IEEE 802.3-2022, clause 4.2.3.3).
        let padding = [0; PAYLOAD_BYTES_MIN];
        let missing = (TYPE_BYTES + PAYLOAD_BYTES_MIN).saturating_sub(rest.len()).min(PAYLOAD_BYTES_MIN);
        let padding = padding.get(..missing).unwrap_or_default();
        let vectors = [
            IoSlice::new(&header),
            IoSlice::new(addresses),
            IoSlice::new(tags.as_flattened()),
            IoSlice::new(rest),
            IoSlice::new(padding),
        ];
        rustix::io::retry_on_intr(|| rustix::io::writev(&self.tap, &vectors))
            .map(drop)
            .map_err(|error| TransmitError::Refused(error.raw_os_error()))
    }
}

#[derive(Clone, Copy)]
enum Shift {
    TagAway,
    TagIn,
}

/// A tag of the kind that only the switch itself uses on the punt tap.
fn tag_of(content: u16) -> [u8; TAG_BYTES] {
    let ([tpid_high, tpid_low], [high, low]) = (PUNT_TPID.to_be_bytes(), content.to_be_bytes());
    [tpid_high, tpid_low, high, low]
}

/// The same request for the frame without, or with, the tag in front of its `EtherType`.
fn shifted(header: [u8; VNET_HDR_BYTES], shift: Shift) -> Offload {
    // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; the last four 16 bits wide.
    let [flags, kind, length_0, length_1, size_0, size_1, start_0, start_1, offset_0, offset_1] = header;
    if flags & NEEDS_CHECKSUM == 0 {
        return Offload(header);
    }
    let start = u16::from_le_bytes([start_0, start_1]);
    let tag = 4;
    let start = match shift {
        Shift::TagAway => start.saturating_sub(tag),
        Shift::TagIn => start.saturating_add(tag),
    };
    let [start_0, start_1] = start.to_le_bytes();
    Offload([flags, kind, length_0, length_1, size_0, size_1, start_0, start_1, offset_0, offset_1])
}

fn ifindex(name: &IfName) -> io::Result<u32> {
    let socket = super::netlink::plain_socket()?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name.as_str())?)
}
