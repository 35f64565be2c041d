//! The talker: sends numbered datagrams to a peer's echo service and reports what came back.
//!
//! At most [`WINDOW`] datagrams are under way. When nothing comes back for [`PATIENCE_MS`], those are given up and the next
//! ones sent (a late one still counts); after [`SILENCES`] such silences in a row the talker gives up altogether.

use guest_abi::GuestConfig;

use crate::cpu::{self, Exit, Woken, console};
use crate::net::{Frame, Net};
use crate::wire;

/// Datagrams under way.
const WINDOW: u32 = 16;
/// Milliseconds.
const PATIENCE_MS: u32 = 500;
const SILENCES: u32 = 10;
/// Our port.
const PORT: u16 = 4242;
/// Buffers to receive into; the rest is to send.
const SHARE: u16 = 40;
/// First bytes of the payload, before the number.
const MARK: [u8; 8] = *b"WEFTTALK";
/// Mark, number, and what fills the shortest frame.
const PAYLOAD: usize = 18;

/// What came of it.
#[derive(Default)]
struct Report {
    sent: u32,
    returned: u32,
    reordered: u32,
    corrupt: u32,
    /// Given up.
    lost: u32,
    next: u64,
}

impl Report {
    /// Looks at a frame; `false` when it is not an answer to one of ours.
    fn note(&mut self, config: &GuestConfig, frame: &Frame, length: usize) -> bool {
        let ours = wire::field(frame, 34) == wire::ECHO_PORT && wire::field(frame, 36) == PORT;
        if length < 42 || wire::field(frame, 12) != wire::IPV4 || frame[23] != wire::UDP || !ours {
            return false;
        }
        let mut number = [0; 8];
        number.copy_from_slice(&frame[50..58]);
        let number = u64::from_be_bytes(number);
        let sound = length >= 60 && frame[26..30] == config.peer_ip && frame[42..50] == MARK;
        if !sound || number >= u64::from(self.sent) {
            self.corrupt += 1;
            return true;
        }
        self.returned += 1;
        self.reordered += u32::from(number < self.next);
        self.next = self.next.max(number + 1);
        true
    }

    fn under_way(&self) -> u32 {
        self.sent.saturating_sub(self.returned + self.lost)
    }
}

/// Talks, and reports.
pub fn run(config: &GuestConfig) -> Exit {
    let mut net = match Net::start(config, 0, SHARE) {
        Ok(net) => net,
        Err(refusal) => {
            console!("{{\"error\":\"{refusal:?}\"}}");
            return Exit::Refused;
        }
    };
    let Some(peer) = resolve(config, &mut net) else {
        console!("{{\"role\":\"talker\",\"error\":\"nobody answers for the peer's address\"}}");
        return Exit::Unanswered;
    };
    let mut report = Report::default();
    let mut silences = 0;
    while silences < SILENCES && report.returned < config.count {
        while report.sent < config.count && report.under_way() < WINDOW {
            let number = u64::from(report.sent);
            if !net.send_new(|_, frame| datagram(config, peer, number, frame)) {
                break;
            }
            report.sent += 1;
        }
        let before = report.returned;
        cpu::alarm(PATIENCE_MS);
        net.turn(
            |frame, length| {
                if report.note(config, frame, length) { None } else { wire::answer(config, frame, length) }
            },
        );
        if report.returned != before {
            silences = 0;
        } else if net.wait() == Woken::ByTimer {
            silences += 1;
            report.lost = report.sent.saturating_sub(report.returned);
        }
    }
    let Report { sent, returned, reordered, corrupt, .. } = report;
    console!(
        "{{\"role\":\"talker\",\"sent\":{sent},\"returned\":{returned},\"reordered\":{reordered},\"corrupt\":{corrupt}}}"
    );
    if returned == config.count && corrupt == 0 { Exit::Done } else { Exit::Unanswered }
}

/// The peer's station address: told, or asked for by ARP.
fn resolve(config: &GuestConfig, net: &mut Net) -> Option<[u8; 6]> {
    let mut found = (config.peer_mac != [0; 6]).then_some(config.peer_mac);
    let mut silences = 0;
    let mut ask = true;
    while found.is_none() && silences < SILENCES {
        if ask {
            net.send_new(|_, frame| {
                wire::ethernet(frame, [0xff; 6], config.mac, 0);
                wire::arp(frame, 1, (config.mac, config.ip), ([0; 6], config.peer_ip))
            });
            cpu::alarm(PATIENCE_MS);
        }
        net.turn(|frame, length| {
            let reply = length >= 42 && frame[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
            if reply && frame[28..32] == config.peer_ip {
                found = frame[22..28].first_chunk().copied();
                return None;
            }
            wire::answer(config, frame, length)
        });
        ask = found.is_none() && net.wait() == Woken::ByTimer;
        silences += u32::from(ask);
    }
    found
}

/// A numbered datagram to the peer's echo service. IPv4 lets a checksum be absent.
fn datagram(config: &GuestConfig, peer: [u8; 6], number: u64, frame: &mut Frame) -> usize {
    wire::ethernet(frame, peer, config.mac, wire::IPV4);
    let length = wire::ipv4(frame, wire::UDP, config.ip, config.peer_ip, 8 + PAYLOAD);
    frame[34..36].copy_from_slice(&PORT.to_be_bytes());
    frame[36..38].copy_from_slice(&wire::ECHO_PORT.to_be_bytes());
    frame[38..42].copy_from_slice(&[0, 8 + PAYLOAD as u8, 0, 0]);
    frame[42..50].copy_from_slice(&MARK);
    frame[50..58].copy_from_slice(&number.to_be_bytes());
    frame[58..60].copy_from_slice(&[0; 2]);
    length
}
