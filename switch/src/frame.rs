//! A frame whose bytes were checked once; accessors do not fail afterwards.

/// Length of the virtio-net header in front of a frame on a tap with `IFF_VNET_HDR`.
pub const VNET_HDR_BYTES: usize = 10;

/// `struct virtio_net_hdr` as the kernel writes it: an offload request, carried along unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload(pub [u8; VNET_HDR_BYTES]);
