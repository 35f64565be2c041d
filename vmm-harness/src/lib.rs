//! A small virtual machine monitor on KVM that boots guests on the taps of the switch.
//!
//! ```text
//!   main.rs      the command line                 device.rs     frames between queues and port
//!   config.rs    what a guest is to be            ring.rs       a virtqueue, with nothing believed
//!   guest.rs     threads, and the handle          registers.rs  virtio-mmio
//!   machine.rs   memory, lines, I/O ports         port.rs       a tap
//!   boot.rs      64-bit mode, micro guest         sys.rs        the unsafe corner
//!   linux.rs     64-bit Linux protocol            acpi.rs       its tables
//!   ending.rs    how guests end
//! ```
//!
//! **Invariant:** whatever a guest writes to its rings, registers and ports, the worst that follows is its own
//! [`Ending`]; nothing it does makes a thread of the monitor panic, block for good, or touch memory that is not the guest's.

mod acpi;
mod boot;
pub mod config;
pub mod device;
mod ending;
mod guest;
mod linux;
mod machine;
pub mod port;
pub mod registers;
pub mod ring;
mod sys;

pub use config::{ATTACKS, Config, Image, LinuxGuest, MacAddr, MicroGuest, Payload};
pub use device::Stats;
pub use ending::{Ending, Error, Fault};
pub use guest::Guest;
pub use guest_abi::Role;
pub use machine::Console;

/// The image of the micro guest, which `cargo xtask micro` builds.
pub const MICRO_GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/micro-guest.elf"));
