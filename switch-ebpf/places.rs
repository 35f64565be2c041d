//! What the kernel half is made of, relative to the repository's root.

/// Files, and folders with all that is in them.
pub(crate) const PLACES: &[&str] = &[
    "switch-ebpf/Cargo.toml",
    "switch-ebpf/Cargo.lock",
    "switch-ebpf/src",
    "switch-common/Cargo.toml",
    "switch-common/src",
];
