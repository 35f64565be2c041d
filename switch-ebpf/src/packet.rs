//! A frame in the kernel's hands: its bytes between two pointers, its outermost tag beside them.
//!
//! The kernel takes the outermost VLAN tag out of the bytes before any hook sees them. [`Packet`] puts it back for
//! whoever reads through [`Bytes`], so that the reflex parses the very bytes that the brain would have read.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;
use switch_common::MacAddr;
use switch_common::wire::{Bytes, ETHERNET_BYTES, TAG_BYTES, Tagged};

use crate::maps::FORGOTTEN;

/// Where the tag sits in a frame: behind the two addresses.
const TAG_AT: usize = 12;

/// How far headers are looked for: Ethernet, three tags, IPv4 or IPv6 with options, TCP with options.
const HEADER_BYTES_MAX: u32 = 256;

/// The kernel's socket buffer, by the fields that matter here.
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        impl Skb {
            $($(#[doc = $doc])+
            #[inline(always)]
            pub(crate) fn $name(self) -> u32 {
                // SAFETY: the context of a running classifier; the verifier turns this into a load of its own.
                unsafe { (*self.0).$name }
            })+
        }
    };
}

fields! {
    /// Interface the frame came in on.
    ifindex;
    /// Bytes from the destination address on, without a tag that was taken out.
    len;
    /// Payload bytes per segment of a super-frame, 0 for an ordinary frame.
    gso_size;
    /// Whether the outermost tag was taken out of the bytes.
    vlan_present;
    /// A number that the host's rules see.
    mark;
}

macro_rules! loads {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        impl Skb {
            $($(#[doc = $doc])+
            #[inline(always)]
            #[cfg(target_arch = "bpf")]
            pub(crate) fn $name(self) -> usize {
                let pointer: usize;
                // SAFETY: a load of a field of the context, as the compiler would make it.
                unsafe {
                    core::arch::asm!(
                        "{pointer} = *(u32 *)({skb} + {offset})",
                        pointer = out(reg) pointer,
                        skb = in(reg) self.0,
                        offset = const core::mem::offset_of!(__sk_buff, $name),
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                pointer
            }

            $(#[doc = $doc])+
            #[inline(always)]
            #[cfg(not(target_arch = "bpf"))]
            pub(crate) fn $name(self) -> usize {
                // SAFETY: the context of a running classifier.
                unsafe { (*self.0).$name as usize }
            })+
        }
    };
}

// The context shows the first two as 32 bits and the verifier makes pointers of them in the load itself. Were the load the
// compiler's, it would widen the 32 bits somewhere behind, and the verifier takes what comes of that for a number. Of the two
// others the compiler would choose one by moving the context's pointer, which the verifier does not take.
loads! {
    /// Where the bytes begin that can be read directly.
    data;
    /// And where they end.
    data_end;
    /// The content of the tag that was taken out of the bytes.
    vlan_tci;
    /// That tag's type, in network order.
    vlan_proto;
}

impl Skb {
    /// Sets the mark.
    #[inline(always)]
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: the context of a running classifier; the verifier turns this into a store of its own.
        let at = unsafe { &raw mut (*self.0).mark };
        // SAFETY: as above.
        unsafe { at.write_volatile(mark) };
    }

    /// A word of the control block, 0 to 4: what one program leaves to the next.
    #[inline(always)]
    pub(crate) fn control(self, word: usize) -> u32 {
        // SAFETY: as above.
        let words = unsafe { &raw const (*self.0).cb }.cast::<u32>();
        // SAFETY: one of five.
        let at = unsafe { words.add(word) };
        // SAFETY: as above.
        unsafe { at.read_volatile() }
    }

    /// Sets a word of the control block.
    #[inline(always)]
    pub(crate) fn set_control(self, word: usize, value: u32) {
        // SAFETY: as above.
        let words = unsafe { &raw mut (*self.0).cb }.cast::<u32>();
        // SAFETY: one of five.
        let at = unsafe { words.add(word) };
        // SAFETY: as above.
        unsafe { at.write_volatile(value) };
    }

    /// Bytes of the frame as its sender wrote it, its tags included.
    #[inline(always)]
    pub(crate) fn frame_bytes(self) -> u32 {
        self.len() + if self.vlan_present() != 0 { TAG_BYTES as u32 } else { 0 }
    }

    /// Makes the headers readable directly, when they are scattered. Invalidates every [`Packet`] of this buffer.
    #[inline(always)]
    pub(crate) fn pull_headers(self) {
        // SAFETY: the context of a running classifier. Failure shows in what can be read afterwards.
        unsafe { bpf_skb_pull_data(self.0, self.header_bytes()) };
    }

    /// Whether headers may lie where they cannot be read directly.
    #[inline(always)]
    pub(crate) fn is_scattered(self) -> bool {
        self.data() + self.header_bytes() as usize > self.data_end()
    }

    /// Bytes that headers may take.
    #[inline(always)]
    fn header_bytes(self) -> u32 {
        let len = self.len();
        if len < HEADER_BYTES_MAX { len } else { HEADER_BYTES_MAX }
    }
}

/// The bytes that can be read directly, and the tag that was taken out of them.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    data: usize,
    end: usize,
    tagged: bool,
    /// By how much the bytes behind the tag have moved.
    shift: usize,
    skb: Skb,
}

impl Packet {
    /// The frame as it lies now.
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Self {
        let tagged = skb.vlan_present() != 0;
        Self { data: skb.data(), end: skb.data_end(), tagged, shift: if tagged { TAG_BYTES } else { 0 }, skb }
    }

    /// The first fourteen bytes, or `None` when there are not as many.
    #[inline(always)]
    pub(crate) fn ethernet(&self) -> Option<*const RawEthernet> {
        if self.data + size_of::<RawEthernet>() > self.end { None } else { Some(self.data as *const RawEthernet) }
    }

    /// Whether the outermost tag was taken out of the bytes.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.tagged
    }

    /// `N` words from where the sender wrote them at `at`, behind all tags.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let from = self.at::<Words<N>>(at - self.shift)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(unsafe { (*from).0 })
    }

    /// A pointer to `T` at an offset of the bytes, with the tag still out of them.
    #[inline(always)]
    pub(crate) fn at<T>(&self, at: usize) -> Option<*const T> {
        let from = sum(self.data, at);
        if from + size_of::<T>() > self.end { None } else { Some(from as *const T) }
    }

    /// Where the byte that the sender wrote at `at` lies now; `None`: in the tag.
    #[inline(always)]
    fn place(&self, at: usize) -> Option<usize> {
        if !self.tagged || at < TAG_AT {
            Some(at)
        } else if at >= TAG_AT + TAG_BYTES {
            Some(at - TAG_BYTES)
        } else {
            None
        }
    }
}

/// `data + at`, as one value that the compiler does not take apart again: the verifier knows a pointer to be within the
/// packet only when it is the very one that was compared.
#[inline(always)]
#[cfg(target_arch = "bpf")]
fn sum(data: usize, at: usize) -> usize {
    let mut from = data;
    // SAFETY: an addition.
    unsafe { core::arch::asm!("{0} += {1}", inout(reg) from, in(reg) at, options(nomem, nostack, preserves_flags)) };
    from
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
fn sum(data: usize, at: usize) -> usize {
    data + at
}

/// A [`Packet`] for who reads behind its tags, where every offset is off by the same.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Behind(Packet);

impl Tagged for Packet {
    type Behind = Behind;

    #[inline(always)]
    fn behind_tags(&self, at: usize) -> (&Behind, usize) {
        // SAFETY: transparent.
        let behind = unsafe { &*(&raw const *self).cast::<Behind>() };
        (behind, within_headers(forget(at as u64) as usize))
    }
}

impl Bytes for Behind {
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        let from = self.0.at::<u8>(at - self.0.shift)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(unsafe { *from })
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        let from = self.0.at::<[u8; 2]>(at - self.0.shift)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(u16::from_be_bytes(unsafe { *from }))
    }

    #[inline(always)]
    fn mac(&self, at: usize) -> Option<MacAddr> {
        let from = self.0.at::<[u8; 6]>(at - self.0.shift)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(MacAddr(unsafe { *from }))
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        // The parser reads single bytes only behind all tags.
        let from = self.at::<u8>(self.place(at)?)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(unsafe { *from })
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        let Some(at) = self.place(at) else {
            let word =
                if at == TAG_AT { u16::from_be(self.skb.vlan_proto() as u16) } else { self.skb.vlan_tci() as u16 };
            return Some(word);
        };
        let from = self.at::<[u8; 2]>(at)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(u16::from_be_bytes(unsafe { *from }))
    }

    #[inline(always)]
    fn mac(&self, at: usize) -> Option<MacAddr> {
        let from = self.at::<[u8; 6]>(at)?;
        // SAFETY: `at` has compared it with the end of the packet.
        Some(MacAddr(unsafe { *from }))
    }
}

/// Words in a frame: never better aligned than two bytes.
#[repr(C, packed(2))]
struct Words<const N: usize>([u64; N]);

/// The beginning of a frame, as two-byte words: the bytes of a frame are never better aligned than that.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub(crate) struct RawEthernet {
    /// Destination address and the first two bytes of the source.
    pub(crate) first: u64,
    /// The rest of the source.
    pub(crate) second: u32,
    /// The type, in network order.
    pub(crate) ethertype: u16,
}

/// An offset behind the Ethernet header and at most 31 bytes further, as the verifier sees it.
#[inline(always)]
pub(crate) fn within_headers(at: usize) -> usize {
    ETHERNET_BYTES + (at.wrapping_sub(ETHERNET_BYTES) & 0x1f)
}

/// The same value, of which the verifier knows nothing any more: it goes on once, instead of once for each way to come to it.
#[inline(always)]
pub(crate) fn forget(value: u64) -> u64 {
    let Some(word) = FORGOTTEN.get_ptr_mut(0) else { return value };
    // SAFETY: this processor's own element.
    unsafe { word.write_volatile(value) };
    // SAFETY: as above.
    unsafe { word.read_volatile() }
}
