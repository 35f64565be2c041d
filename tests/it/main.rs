//! Weft as an operator meets it: the real binary, real taps and namespaces, guests that mean harm.
#![expect(clippy::indexing_slicing, reason = "a test that reads past the end fails, which is its purpose")]

mod harness_itself;
mod scenarios;
