//! A QEMU Linux guest on a tap and a container talk through the switch.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};
use weft_tests::guest::{self, Guest, Kernel};
use weft_tests::topology::Container;
use weft_tests::{Arena, Daemon, Mode, Need, requirements, wait};

/// What is transferred each way.
const BLOB_BYTES: u32 = 50 << 20;
const MAC: &str = "52:54:00:12:34:56";

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn sum_of(printed: &str) -> &str {
    printed.split_whitespace().next().unwrap_or_default()
}

fn in_arena(mode: Mode) -> Result<()> {
    if !requirements::met(&[Need::Root, Need::Bpf, Need::Qemu]) {
        return Ok(());
    }
    // Outside of the arena, where apt finds its lists and its mirror.
    let kernel = guest::kernel(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    Arena::run(&[], |arena| talk(arena, mode, &kernel));
    Ok(())
}

fn talk(arena: &Arena, mode: Mode, kernel: &Kernel) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let container = Container::new(&daemon, 1)?;
    daemon.cli().run(&format!("port add guest --tap vm0 --mac {MAC}"))?;
    let mut guest = Guest::boot(kernel, "vm0", MAC)?;
    daemon.until_state("guest", "up", wait::SOON)?;
    guest.run("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")?;
    guest.run("ip link set eth0 up && ip addr add 198.18.0.100/24 dev eth0 && ip addr add 2001:db8::64/64 dev eth0")?;

    let drops = daemon.cli().port("guest")?.drops;

    // Ping, both ways, both families.
    guest.run("ping -c 3 -w 60 198.18.0.1")?;
    guest.run("ping6 -c 3 -w 60 2001:db8::1")?;
    container.ping("198.18.0.100".parse::<std::net::Ipv4Addr>()?)?;
    container.ping("2001:db8::64".parse::<std::net::Ipv6Addr>()?)?;

    // From the container to the guest: 50 MB, exact, over both families.
    let blob: Vec<u8> = (0..BLOB_BYTES / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::create_dir_all("/run/www")?;
    fs::write("/run/www/blob", &blob)?;
    let sum = hex(&Sha256::digest(&blob));
    let _httpd = container.serve("busybox httpd -f -p 80 -h /run/www", 80)?;
    for host in ["198.18.0.1", "[2001:db8::1]"] {
        let printed = guest.run(&format!("wget -q -O - http://{host}/blob | sha256sum"))?;
        ensure!(sum_of(&printed) == sum, "{host}: {printed} instead of {sum}");
    }

    // And from the guest to the container.
    guest.run("dd if=/dev/urandom of=/www/own bs=1M count=50 2>/dev/null && httpd -p 80 -h /www")?;
    let sum = guest.run("sha256sum /www/own")?;
    for host in ["198.18.0.100", "[2001:db8::64]"] {
        container.namespace().run(&format!("curl -sfg -m 120 -o /run/own http://{host}/own"))?;
        ensure!(sum_of(&sum) == hex(&Sha256::digest(fs::read("/run/own")?)), "{host}: the transfer differs");
    }

    // Super-frames went through whole, in both directions: far fewer frames than a wire would have carried.
    let port = daemon.cli().port("guest")?;
    ensure!(port.ingress.wire_frames > 2 * port.ingress.frames, "the guest's super-frames were cut: {port:?}");
    ensure!(port.egress.wire_frames > 2 * port.egress.frames, "super-frames to the guest were cut: {port:?}");
    ensure!(port.drops == drops, "{drops:?} became {port:?}");

    guest.power_off()?;
    daemon.until_state("guest", "no_carrier", wait::SOON)?;
    drop(container);
    daemon.stop(arena)
}

#[test]
fn a_linux_guest_and_a_container_talk_with_cached_verdicts() -> Result<()> {
    in_arena(Mode::Kernel)
}

#[test]
fn a_linux_guest_and_a_container_talk_without_cached_verdicts() -> Result<()> {
    in_arena(Mode::Userspace)
}
