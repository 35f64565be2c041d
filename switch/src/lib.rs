//! Weft, an intra-host virtual network switch: the brain in user space, and the reflex it teaches in the kernel.
//!
//! Arrows go down: `cli → api`, `daemon → control → dataplane → forwarding → {policy, fdb} → frame`. `forwarding`, `fdb`,
//! `policy`, `flow`, `names`, `frame`, `ledger` and `config` touch no file descriptor, clock, thread or log: time is passed in.

pub mod api;
pub mod capture;
pub mod clerk;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod describe;
pub mod events;
pub mod evidence;
pub mod explain;
pub mod export;
pub mod fdb;
pub mod filter;
pub mod flow;
pub mod forwarding;
pub mod frame;
pub mod history;
pub mod ledger;
pub mod metrics;
pub mod mirror;
pub mod names;
pub mod notes;
pub mod observer;
pub mod policy;
pub mod port;
pub mod reflex;
pub mod state;
