//! What parsing took, given back.
#![expect(unsafe_code, reason = "malloc_trim; the block says why it is sound")]

/// Gives free memory in the middle of the heap back to the kernel. The kernel's types, a few hundred thousand small pieces, are read
/// once at the start; the C library by itself gives back only what lies at the heap's end.
pub(in crate::reflex) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: without pointers; it takes the allocator's own locks. Whether there was anything to give back does not matter.
    unsafe {
        libc::malloc_trim(0);
    }
}
