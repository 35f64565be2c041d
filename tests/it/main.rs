//! Weft as an operator meets it: the real binary, real taps and namespaces, guests that mean harm.
#![expect(clippy::indexing_slicing, reason = "a test that reads past the end fails, which is its purpose")]

/// Tests that hold in every [`weft_tests::Mode`]: with cached verdicts, without, and attached by clsact.
macro_rules! in_every_mode {
    ($($(#[$doc:meta])* fn $name:ident($arena:ident, $mode:ident) $body:block)+) => {
        mod in_every_mode {
            use super::*;
            $($(#[$doc])* pub(super) fn $name(mode: weft_tests::Mode) {
                weft_tests::Arena::run(&[weft_tests::Need::Bpf], |$arena| -> anyhow::Result<()> {
                    let $mode = mode;
                    $body
                });
            })+
        }
        mod cached { $(#[test] fn $name() { super::in_every_mode::$name(weft_tests::Mode::Kernel); })+ }
        mod uncached { $(#[test] fn $name() { super::in_every_mode::$name(weft_tests::Mode::Userspace); })+ }
        mod clsact { $(#[test] fn $name() { super::in_every_mode::$name(weft_tests::Mode::Clsact); })+ }
    };
}

mod applying;
mod bad_api;
mod bad_frames;
mod bad_guests;
mod bad_requests;
mod capture;
mod captures;
mod configuration;
mod containers;
mod dashboards;
mod demo;
mod drops;
mod events;
mod exact;
mod explain;
mod extcap;
mod floods;
mod flow_log;
mod flows;
mod frames_in_order;
mod guests;
mod harness_itself;
mod history;
mod hostile_guests;
mod lifecycle;
mod links;
mod linux_guests;
mod memory;
mod metrics;
mod micro_guests;
mod mirrors;
mod names;
mod reasons;
mod replay;
mod rules;
mod scenarios;
mod top;
