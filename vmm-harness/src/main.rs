//! `vmm-harness run`: one guest on one tap.

fn main() {}
