//! A bare-metal guest for x86-64: it answers, talks or attacks through a virtio network device, and sleeps in between.
//!
//! ```text
//!   monitor ──GuestConfig──▶ main ──▶ role: echo │ talker │ hostile
//!                                       │  wire: frames in place; net: which buffer is where; virtio: the rings
//!                                       ▼
//!                             cpu: ports, interrupts, HLT, the console's line of JSON
//! ```
//!
//! Where only the kernel's emulator runs it, an instruction costs about a microsecond. So an echo is made in the buffer
//! that the request came in, checksums are adjusted instead of summed, and waiting is `HLT`.
#![no_std]
#![no_main]

mod cpu;
mod echo;
mod hostile;
mod net;
mod talker;
mod virtio;
mod wire;

use guest_abi::{GuestConfig, Role};

use crate::cpu::{Exit, console, exit};

/// What the monitor enters, through the few instructions of [`cpu`] that call it.
fn run(config: &GuestConfig) -> ! {
    cpu::prepare();
    let outcome = match config.role {
        role if role == Role::Echo as u32 => echo::run(config),
        role if role == Role::Talker as u32 => talker::run(config),
        role if role == Role::Hostile as u32 => hostile::run(config),
        role => {
            console!("{{\"error\":\"no role has number {role}\"}}");
            Exit::Refused
        }
    };
    exit(outcome)
}

#[cfg(not(test))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    console!("{{\"error\":\"the guest panicked\"}}");
    exit(Exit::Fault)
}
