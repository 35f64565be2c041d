//! What the micro guest is made of, relative to the repository's root.

/// Files, and folders with all that is in them.
pub(crate) const PLACES: &[&str] = &[
    "vmm-harness/guest/Cargo.toml",
    "vmm-harness/guest/Cargo.lock",
    "vmm-harness/guest/link.ld",
    "vmm-harness/guest/src",
    "vmm-harness/abi/Cargo.toml",
    "vmm-harness/abi/src",
];
