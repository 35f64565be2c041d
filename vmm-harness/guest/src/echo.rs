//! The echo: answers whoever asks, and sleeps.

use guest_abi::GuestConfig;

use crate::cpu::{Exit, console};
use crate::net::Net;
use crate::virtio::SIZE;
use crate::wire;

/// Answers until the monitor ends the guest.
pub fn run(config: &GuestConfig) -> Exit {
    let mut net = match Net::start(config, 0, SIZE) {
        Ok(net) => net,
        Err(refusal) => {
            console!("{{\"error\":\"{refusal:?}\"}}");
            return Exit::Refused;
        }
    };
    console!("{{\"role\":\"echo\",\"ready\":true}}");
    loop {
        net.turn(|frame, length| wire::answer(config, frame, length));
        net.wait();
    }
}
