//! Two Linux guests on KVM talk through the switch, and its books say what the guests' own counters say.
//!
//! Runs where KVM runs a whole Linux: on a machine of one's own, or in the machine of `cargo xtask test --kernel 6.12`.

use anyhow::{Context as _, Result, ensure};
use weft_tests::cli::Tally;
use weft_tests::linux::{self, LinuxGuest};
use weft_tests::{Arena, Daemon, Mode, Need, frames, micro, topology, wait};

/// What each guest fetches from the other.
const BLOB_BYTES: u64 = 5_000_000;
const PINGS: u64 = 10;
/// Serves a random file, fetches the peer's, pings it, and then says what its interface counted, again and again.
const SCRIPT: &str = "\
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/eth0/router_solicitations
for family in ipv4 ipv6; do echo 3600000 > /proc/sys/net/$family/neigh/eth0/base_reachable_time_ms; done
ip addr add $own/24 dev eth0
ip addr add $own6/64 dev eth0
ip link set eth0 up
head -c 5000000 /dev/urandom > /www/blob
say own $(sha256sum < /www/blob)
httpd -p 80 -h /www
until wget -q -O /got http://$peer/blob; do sleep 1; done
say got $(sha256sum < /got)
say ping $(ping -q -c 10 -W 30 $peer)
say ping6 $(ping6 -q -c 10 -W 30 $peer6)
cd /sys/class/net/eth0/statistics
while :; do say counted $(cat tx_packets tx_bytes rx_packets rx_bytes); sleep 1; done";

/// What a guest's interface sent and received.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    sent: (u64, u64),
    received: (u64, u64),
}

impl Counted {
    fn read(words: &str) -> Result<Self> {
        let numbers = words.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [frames_out, bytes_out, frames_in, bytes_in] = numbers[..] else { anyhow::bail!("{words}") };
        Ok(Self { sent: (frames_out, bytes_out), received: (frames_in, bytes_in) })
    }

    /// What the switch says of the port: its ingress is what the guest sent.
    fn of_port(daemon: &Daemon, name: &str) -> Result<Self> {
        let port = daemon.cli().port(name)?;
        let pair = |tally: Tally| (tally.frames, tally.bytes);
        Ok(Self { sent: pair(port.ingress), received: pair(port.egress) })
    }
}

fn talk(arena: &Arena, mode: Mode) -> Result<()> {
    let kernel = linux::kernel()?;
    let daemon = Daemon::start(arena, mode)?;
    let bystander = topology::station(&daemon, "bystander")?;
    for number in [1, 2] {
        micro::port(&daemon, number, &format!("--mac {}", frames::station(number.into())))?;
    }
    let mut guests = [LinuxGuest::boot(&kernel, 1, 2, SCRIPT)?, LinuxGuest::boot(&kernel, 2, 1, SCRIPT)?];
    let mut own = Vec::new();
    for guest in &mut guests {
        own.push(guest.hear("own")?);
    }
    own.reverse();
    for (guest, sum) in guests.iter_mut().zip(&own) {
        let got = guest.hear("got")?;
        ensure!(got == *sum, "{got} was received, {sum} was sent");
        for family in ["ping", "ping6"] {
            let said = guest.hear(family)?;
            ensure!(said.contains(&format!(" {PINGS} packets received")), "{said}");
        }
    }

    // The guests are quiet now, or will be after their last word of multicast: then the numbers are the same.
    for (guest, port) in guests.iter_mut().zip(["m1", "m2"]) {
        let mut differ = String::new();
        let agree = wait::until_true("guest and switch agree", wait::SOON, || {
            let counted = Counted::read(guest.said("counted")?.unwrap_or("0 0 0 0"))?;
            let booked = Counted::of_port(&daemon, port)?;
            differ = format!("{port}: guest {counted:?}, switch {booked:?}");
            Ok(counted.sent.1 > BLOB_BYTES && counted.received.1 > BLOB_BYTES && counted == booked)
        });
        agree.with_context(|| differ)?;
    }
    let mut stations: Vec<_> = daemon.cli().stations()?.into_iter().map(|entry| (entry.port, entry.mac)).collect();
    stations.sort();
    let expected = [1, 2].map(|number: u32| (format!("m{number}"), frames::station(number).to_string()));
    ensure!(stations == expected, "{stations:?}");
    // Super-frames went through whole: fewer frames than a wire would have carried, though there are acknowledgements too.
    let port = daemon.cli().port("m1")?;
    for tally in [port.ingress, port.egress] {
        ensure!(tally.wire_frames > tally.frames, "no super-frame came through: {port:?}");
    }
    // Who is not meant sees what is for everybody, and nothing else.
    let seen = bystander.drain()?;
    ensure!(!seen.is_empty() && seen.iter().all(|frame| frame[0] & 1 == 1), "{seen:02x?}");
    daemon.settle()?;

    for (guest, port) in guests.into_iter().zip(["m1", "m2"]) {
        guest.kill()?;
        daemon.until_state(port, "no_carrier", wait::SOON)?;
    }
    daemon.stop(arena)
}

#[test]
fn two_linux_guests_on_kvm_talk_and_the_books_say_what_they_sent() {
    Arena::run(&[Need::Bpf, Need::LinuxGuest], |arena| talk(arena, Mode::Kernel));
}

#[test]
fn two_linux_guests_on_kvm_talk_without_cached_verdicts() {
    Arena::run(&[Need::Bpf, Need::LinuxGuest], |arena| talk(arena, Mode::Userspace));
}
