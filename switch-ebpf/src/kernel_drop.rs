//! What the kernel itself drops on our ports' netdevs, behind the backs of both halves: a full tap ring, a full backlog, a
//! netdev that went down.
//!
//! [`kernel_drop`] hangs on the tracepoint `kfree_skb` as long as the instance lives, and only jumps into the program that
//! [`KERNEL_DROP`] holds. A new daemon puts its own program there, in one step of the kernel: no drop is counted twice, and
//! none is missed, though a link of this kind cannot be given another program.
//!
//! Whether a frame was on its way in or out is told by the interface it came in by: it is the netdev's own, or another's.
//! One that came in by none is either just being received, or the host's own.
//!
//! **Limit**: the kernel does not run a program of this kind within itself. A frame that an interrupt frees while the
//! program runs on the same processor is not seen.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::BtfTracePointContext;
use switch_common::{
    DropCell, EVIDENCE_BYTES_MAX, EVIDENCE_KERNEL, KERNEL_DROPS_MAX, KernelDropCell, KernelDropKey, KernelLayout,
    PORT_SLOTS, WAY_UNKNOWN, Way,
};

use crate::booking::add_shared;
use crate::evidence::{bounded, put_tag, reserve, take_turn};
use crate::{capture, port_of, watch};

#[map]
static KERNEL_DROP: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static KERNEL_DROPS: HashMap<KernelDropKey, KernelDropCell> = HashMap::with_max_entries(KERNEL_DROPS_MAX as u32, 0);
#[map]
static KERNEL_DROPS_REST: Array<KernelDropCell> = Array::with_max_entries(PORT_SLOTS as u32, 0);

/// Where things are in this kernel; put here when the object is loaded.
#[unsafe(no_mangle)]
static KERNEL: KernelLayout = KernelLayout {
    netns: 0,
    skb_dev: 0,
    skb_iif: 0,
    skb_len: 0,
    skb_data_len: 0,
    skb_head: 0,
    skb_data: 0,
    skb_mac_header: 0,
    skb_vlan_proto: 0,
    skb_vlan_tci: 0,
    skb_vlan_word: 0,
    skb_vlan_mask: 0,
    skb_mark: 0,
    dev_ifindex: 0,
    dev_net: 0,
    net_inum: 0,
    reason_tc_ingress: 0,
    reason_packet_socket: 0,
};

/// A field of [`KERNEL`], which the verifier knows and the compiler must not.
macro_rules! kernel {
    ($field:ident) => {
        // SAFETY: a field of a constant.
        unsafe { (&raw const KERNEL.$field).read_volatile() }
    };
}

/// A header that was never set (`skb_mac_header_was_set`, include/linux/skbuff.h).
const NO_HEADER: u16 = 0xffff;

/// Jumps into the program that counts.
#[btf_tracepoint(function = "kfree_skb")]
fn kernel_drop(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: no value of this function needs to be dropped.
    unsafe { KERNEL_DROP.tail_call(&ctx, 0) };
    0
}

/// Books what the kernel drops on a port.
#[btf_tracepoint(function = "kfree_skb")]
fn book_kernel(ctx: BtfTracePointContext) -> i32 {
    let reason = ctx.arg::<u64>(2) as u32;
    if reason != kernel!(reason_tc_ingress) && reason != kernel!(reason_packet_socket) {
        // Without an answer: not a port's, or nothing to be read.
        let _ = book(Buffer(ctx.arg::<usize>(0)), reason);
        serve_shown();
    }
    0
}

/// A drop that sessions may want, laid down for [`serve_shown`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Shown {
    /// The sessions; 0: nothing is laid down.
    sessions: u64,
    skb: u64,
    start: u64,
    linear: u32,
    bytes: u32,
    tagged: u32,
    id: u32,
    way: u32,
    reason: u32,
}

/// In a map, because there the verifier forgets what it knew of each way to come to it: it walks [`serve_shown`] once.
#[map]
static SHOWN: PerCpuArray<Shown> = PerCpuArray::with_max_entries(1, 0);

/// Lays a drop down for the captures that want the port's.
#[inline(always)]
fn show(id: u32, reason: u32, way: u16, frame: &Frame) {
    let sessions = capture::wanting_drops(id);
    let Some(shown) = SHOWN.get_ptr_mut(0).filter(|_| sessions != 0) else { return };
    let Frame { skb, start, linear, bytes, tagged } = *frame;
    let (skb, start, tagged, way) = (skb.0 as u64, start as u64, u32::from(tagged), u32::from(way));
    // SAFETY: this processor's own element; the kernel does not run this program within itself.
    unsafe { shown.write(Shown { sessions, skb, start, linear, bytes, tagged, id, way, reason }) };
}

/// Serves the captures that want what was laid down.
#[inline(never)]
fn serve_shown() {
    let Some(shown) = SHOWN.get_ptr_mut(0) else { return };
    // SAFETY: this processor's own element.
    let Shown { sessions, skb, start, linear, bytes, tagged, id, way, reason } = unsafe { shown.read_volatile() };
    if sessions == 0 {
        return;
    }
    // SAFETY: as above.
    let laid_down = unsafe { &raw mut (*shown).sessions };
    // SAFETY: as above.
    unsafe { laid_down.write_volatile(0) };
    let frame = Frame { skb: Buffer(skb as usize), start: start as usize, linear, bytes, tagged: tagged != 0 };
    capture::capture_drop(sessions, reason, (id, way as u16), bytes, |to| {
        frame.load::<{ capture::DROP_BYTES_MAX as u32 }>(to)
    });
}

/// The kernel's socket buffer, by its address.
#[derive(Clone, Copy)]
struct Buffer(usize);

#[inline(always)]
fn book(skb: Buffer, reason: u32) -> Option<()> {
    let dev: usize = read(skb.0, kernel!(skb_dev))?;
    let ifindex: u32 = read(dev, kernel!(dev_ifindex))?;
    let id = port_of(ifindex);
    let mark = if id == 0 { read(skb.0, kernel!(skb_mark))? } else { 0 };
    if id == 0 && !watch::is_mirrors(mark) {
        return None;
    }
    // The number is another netdev's in another namespace.
    let net: usize = read(dev, kernel!(dev_net))?;
    if read::<u32>(net, kernel!(net_inum))? != kernel!(netns) {
        return None;
    }
    if id == 0 {
        watch::target_dropped(mark, ifindex, Frame::of(skb)?.bytes);
        return None;
    }
    let came_in_by: u32 = read(skb.0, kernel!(skb_iif))?;
    let way = match came_in_by {
        0 => WAY_UNKNOWN,
        one if one == ifindex => Way::Ingress as u16,
        _ => Way::Egress as u16,
    };
    let frame = Frame::of(skb)?;
    let cell = cell(KernelDropKey { reason, port: id as u16, way })?;
    // SAFETY: a field of an element of a map, found by a lookup.
    add_shared(unsafe { &raw mut (*cell).dropped.frames }, 1);
    // SAFETY: as above.
    add_shared(unsafe { &raw mut (*cell).dropped.bytes }, u64::from(frame.bytes));
    show(id, reason, way, &frame);
    // SAFETY: as above.
    let time_ns = take_turn(unsafe { &raw mut (*cell).evidence_second })?;
    let mut entry = reserve()?;
    let evidence = entry.as_mut_ptr();
    // SAFETY: a field of the entry, which is ours until it is submitted.
    let captured =
        frame.load::<{ EVIDENCE_BYTES_MAX as u32 }>(unsafe { &raw mut (*evidence).bytes }.cast::<u8>()) as u16;
    // SAFETY: the entry is ours until it is submitted.
    let evidence = unsafe { &mut *evidence };
    evidence.time_ns = time_ns;
    evidence.reason = reason;
    evidence.length = frame.bytes;
    evidence.port = id as u16;
    evidence.way = way;
    evidence.origin = EVIDENCE_KERNEL;
    evidence.captured = captured;
    entry.submit(0);
    Some(())
}

/// Where to book: the cell of the key, or when there is no room for one the port's own rest, which is always there.
#[inline(always)]
fn cell(key: KernelDropKey) -> Option<*mut KernelDropCell> {
    if let Some(cell) = KERNEL_DROPS.get_ptr_mut(key) {
        return Some(cell);
    }
    let zero = KernelDropCell { dropped: DropCell { frames: 0, bytes: 0 }, evidence_second: 0, reserved: 0 };
    // Another CPU may have been faster, or there is no room: both are seen below.
    let _ = KERNEL_DROPS.insert(key, zero, u64::from(BPF_NOEXIST));
    KERNEL_DROPS.get_ptr_mut(key).or_else(|| KERNEL_DROPS_REST.get_ptr_mut(u32::from(key.port)))
}

/// A frame as its sender wrote it, in the kernel's memory.
struct Frame {
    skb: Buffer,
    /// Where its first byte lies.
    start: usize,
    /// How many bytes lie there in a row.
    linear: u32,
    /// All its bytes, a tag beside them included.
    bytes: u32,
    /// Whether there is such a tag.
    tagged: bool,
}

impl Frame {
    #[inline(always)]
    fn of(skb: Buffer) -> Option<Self> {
        let len: u32 = read(skb.0, kernel!(skb_len))?;
        let data_len: u32 = read(skb.0, kernel!(skb_data_len))?;
        let head: usize = read(skb.0, kernel!(skb_head))?;
        let data: usize = read(skb.0, kernel!(skb_data))?;
        let mac: u16 = read(skb.0, kernel!(skb_mac_header))?;
        let vlan: u32 = read(skb.0, kernel!(skb_vlan_word))?;
        let tagged = vlan & kernel!(skb_vlan_mask) != 0;
        let link = head.wrapping_add(usize::from(mac));
        let start = if mac != NO_HEADER && link <= data { link } else { data };
        // What was pulled off in front.
        let pulled = data.wrapping_sub(start) as u32;
        let linear = len.saturating_sub(data_len) + pulled;
        Some(Self { skb, start, linear, bytes: len + pulled + if tagged { 4 } else { 0 }, tagged })
    }

    /// Copies what the frame begins with to where there is room for `N` bytes; says how many that are.
    #[inline(always)]
    fn load<const N: u32>(&self, bytes: *mut u8) -> u32 {
        if !self.tagged {
            return copy(self.start, self.linear, bytes, N);
        }
        let (Some(proto), Some(tci)) =
            (read(self.skb.0, kernel!(skb_vlan_proto)), read(self.skb.0, kernel!(skb_vlan_tci)))
        else {
            return 0;
        };
        if copy(self.start, 12, bytes, 12) == 0 {
            return 0;
        }
        put_tag(bytes, proto, tci);
        // SAFETY: within the room.
        let rest = unsafe { bytes.add(16) };
        16 + copy(self.start + 12, self.linear.saturating_sub(12), rest, N - 16)
    }
}

/// Copies up to `most` of the `left` bytes at an address; says how many.
#[inline(always)]
fn copy(from: usize, left: u32, to: *mut u8, most: u32) -> u32 {
    let bytes = bounded(left, most);
    // SAFETY: the helper reads an address of the kernel's with care, and there is room for `most` bytes.
    let failed = unsafe { generated::bpf_probe_read_kernel(to.cast(), bytes, from as *const _) };
    if failed == 0 { bytes } else { 0 }
}

/// A value in the kernel's memory.
#[inline(always)]
fn read<T>(base: usize, offset: u32) -> Option<T> {
    // SAFETY: the helper reads an address of the kernel's with care; any bytes are a value of the integers asked for here.
    unsafe { bpf_probe_read_kernel((base + offset as usize) as *const T) }.ok()
}
