//! What the integration tests stand on: private arenas, stations, the real daemon, and scenarios as data.
//!
//! A test runs inside an [`arena`]: a network and mount namespace of its own, in which the daemon, its socket, its state
//! and its pins live under their default paths without meeting anybody else's. [`station`]s are what a guest is to the
//! switch: a tap's file descriptor. [`daemon`] starts the real binary and takes it away again; [`scenario`]s are files
//! that the [`fabric`]s run: memory, a Linux bridge (the oracle), and Weft on taps with and without cached verdicts.
//!
//! **Nothing sleeps.** [`wait`] polls a condition until a deadline; that nothing arrives is proven by a sentinel that does.

pub mod arena;
pub mod cli;
pub mod command;
pub mod daemon;
pub mod fabric;
pub mod frames;
pub mod guest;
pub mod http;
pub mod linux;
pub mod micro;
pub mod namespace;
pub mod numbered;
pub mod pcap;
pub mod play;
pub mod requirements;
pub mod scenario;
pub mod scrape;
pub mod sniffer;
pub mod station;
pub mod stream;
mod sys;
pub mod topology;
pub mod wait;

pub use arena::Arena;
pub use cli::Cli;
pub use daemon::{Daemon, Mode};
pub use frames::Builder;
pub use namespace::Namespace;
pub use requirements::Need;
pub use sniffer::Sniffer;
pub use station::Station;
