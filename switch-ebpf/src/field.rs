//! Fields of map elements that several processors, or user space, look at: each read and written as a whole, in the order of the
//! program.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_or, atomic_xadd};

use switch_common::flow::FlowValue;

use crate::booking::add_shared;

/// A field of an element of a map.
#[derive(Clone, Copy)]
pub(crate) struct Field<T>(*mut T);

impl<T: Copy> Field<T> {
    /// The field at `at`, which lies in an element that a lookup found.
    #[inline(always)]
    pub(crate) fn at(at: *mut T) -> Self {
        Self(at)
    }

    /// Its value now, after everything that was read before in this way.
    #[inline(always)]
    pub(crate) fn get(self) -> T {
        // SAFETY: it lies in an element of a map; elements stay readable until the program ends.
        unsafe { self.0.read_volatile() }
    }

    /// Its value; where the order does not matter, and one look is as good as another.
    #[inline(always)]
    pub(crate) fn peek(self) -> T {
        // SAFETY: as in `get`.
        unsafe { *self.0 }
    }

    /// Replaces its value, after everything that was replaced before in this way; for fields that nobody adds to.
    #[inline(always)]
    pub(crate) fn set(self, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.0.write_volatile(value) };
    }
}

impl Field<u64> {
    /// Adds, whoever else adds at the same time.
    #[inline(always)]
    pub(crate) fn add(self, value: u64) {
        add_shared(self.0, value);
    }

    /// Replaces `old` by `new`, unless another has replaced it; whether it did.
    #[inline(always)]
    pub(crate) fn replace(self, old: u64, new: u64) -> bool {
        // SAFETY: it lies in an element of a map, and is aligned as `u64` is.
        let (_, replaced) =
            unsafe { atomic_cxchg::<u64, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(self.0, old, new) };
        replaced
    }
}

impl Field<u32> {
    /// Adds, whoever else adds at the same time.
    #[inline(always)]
    pub(crate) fn add(self, value: u32) {
        // SAFETY: it lies in an element of a map, and is aligned as `u32` is.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(self.0, value) };
    }

    /// Replaces `old` by `new`, unless another has replaced it; whether it did.
    #[inline(always)]
    pub(crate) fn replace(self, old: u32, new: u32) -> bool {
        // SAFETY: as in `add`.
        let (_, replaced) =
            unsafe { atomic_cxchg::<u32, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(self.0, old, new) };
        replaced
    }

    /// Sets bits, whoever else sets others at the same time.
    #[inline(always)]
    pub(crate) fn set_bits(self, bits: u32) {
        // SAFETY: as in `add`.
        unsafe { atomic_or::<u32, u32, { AtomicOrdering::Relaxed }>(self.0, bits) };
    }
}

/// A flow that a lookup found, by the fields of [`FlowValue`].
#[derive(Clone, Copy)]
pub(crate) struct Flow(pub(crate) *mut FlowValue);

macro_rules! fields {
    ($($name:ident: $type:ty,)+) => {
        impl Flow {
            $(#[inline(always)]
            pub(crate) fn $name(self) -> Field<$type> {
                // SAFETY: an element of a map, found by a lookup.
                Field::at(unsafe { &raw mut (*self.0).$name })
            })+
        }
    };
}

fields! {
    echo: u32,
    last_jiffies: u32,
    frames: u64,
    bytes: u64,
    route: u64,
    guard: u64,
    seq_end: u32,
    marks: u32,
    extra_frames: u64,
    extra_bytes: u64,
    dropped_frames: u64,
    first_ns: u64,
    ack_after: u32,
    missing_bytes: u32,
    retransmitted_bytes: u64,
    retransmitted_segments: u32,
    zero_windows: u32,
    resets: u32,
    drop_reason: u8,
}
