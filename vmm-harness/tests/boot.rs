//! Guests of a few hand-assembled bytes on KVM and a tap: what boots, and what each bad end and bad input looks like.
//!
//! Without `/dev/kvm` the tests say so and pass, unless `WEFT_TESTS_REQUIRE` names `kvm`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "rig/image.rs"]
mod image;

use image::{HELLO, KICK_LOOP, PREMATURE, SLEEP, TRIPLE_FAULT, elf, has_kvm};
use vmm_harness::{Config, Ending, Error, Fault, Guest, Image, LinuxGuest, MacAddr, MicroGuest, Payload, Role};

/// Spins for good.
const SPIN: &[u8] = &[0xeb, 0xfe];

fn config(tap: &str, code: &[u8]) -> Config {
    Config {
        payload: Payload::Micro(MicroGuest {
            image: Image::Bytes(elf(code)),
            role: Role::Echo,
            ip: Ipv4Addr::new(198, 18, 0, 2),
            ip6: Ipv6Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            peer6: Ipv6Addr::UNSPECIFIED,
            peer_mac: MacAddr::default(),
            victim: MacAddr::default(),
            count: 0,
            attack: String::new(),
        }),
        tap: tap.to_owned(),
        offloads: true,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        mtu: 1500,
        memory_mib: 32,
        cpus: 1,
        driver_timeout: Duration::from_secs(5),
    }
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no thread panics with it").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ending_of(config: &Config) -> Ending {
    let guest = Guest::start(config, Box::new(io::sink())).expect("boots");
    let tap = Path::new("/sys/class/net").join(&config.tap);
    assert!(tap.exists(), "the tap is there while the guest runs");
    guest.wait_for(Duration::from_secs(20)).expect("ends within 20 s");
    let (ending, _) = guest.stop();
    assert!(!tap.exists(), "the tap is gone with the guest");
    ending
}

#[test]
fn a_guest_reads_its_configuration_writes_to_the_console_and_exits() {
    if !has_kvm() {
        return;
    }
    let screen = Screen::default();
    let guest = Guest::start(&config("vmmt-hello", HELLO), Box::new(screen.clone())).expect("boots");
    let ending = guest.wait_for(Duration::from_secs(20));
    assert_eq!(ending, Some(Ending::Exited(0)));
    assert_eq!(screen.0.lock().expect("no thread panics with it").as_slice(), b"WEFTGST1");
}

#[test]
fn a_guest_boots_on_a_plain_tap() {
    if has_kvm() {
        assert_eq!(ending_of(&Config { offloads: false, ..config("vmmt-plain", HELLO) }), Ending::Exited(0));
    }
}

#[test]
fn a_triple_fault_is_named() {
    if has_kvm() {
        assert_eq!(ending_of(&config("vmmt-fault", TRIPLE_FAULT)), Ending::TripleFault);
    }
}

#[test]
fn a_guest_without_a_driver_is_ended() {
    if has_kvm() {
        let config = Config { driver_timeout: Duration::from_secs(1), ..config("vmmt-nodrv", SLEEP) };
        assert_eq!(ending_of(&config), Ending::NoDriver(1));
    }
}

#[test]
fn a_guest_that_kicks_in_a_loop_is_ended() {
    if has_kvm() {
        let ending = ending_of(&Config { driver_timeout: Duration::from_mins(1), ..config("vmmt-kick", KICK_LOOP) });
        assert!(matches!(ending, Ending::Device(Fault::IdleKicks { queue: 1, .. })), "{ending}");
    }
}

#[test]
fn driver_ok_without_agreement_ends_the_guest() {
    if has_kvm() {
        assert_eq!(ending_of(&config("vmmt-early", PREMATURE)), Fault::Premature("FEATURES_OK").into());
    }
}

#[test]
fn a_dropped_guest_releases_its_tap_at_once_even_when_it_spins() {
    if !has_kvm() {
        return;
    }
    let config = Config { cpus: 2, ..config("vmmt-drop", SPIN) };
    let guest = Guest::start(&config, Box::new(io::sink())).expect("boots");
    drop(guest);
    assert!(!Path::new("/sys/class/net/vmmt-drop").exists());
}

#[test]
fn a_tap_in_use_is_refused() {
    if !has_kvm() {
        return;
    }
    let config = config("vmmt-busy", SLEEP);
    let _first = Guest::start(&config, Box::new(io::sink())).expect("boots");
    let second = Guest::start(&config, Box::new(io::sink())).err().expect("busy");
    assert!(matches!(second, Error::TapBusy(_)), "{second}");
}

#[test]
fn what_is_no_kernel_and_what_does_not_fit_are_refused() {
    if !has_kvm() {
        return;
    }
    let files = tempfile::tempdir().expect("a directory");
    let kernel = files.path().join("kernel");
    std::fs::write(&kernel, vec![0x41; 70_000]).expect("written");
    let refused = |payload: Payload, memory_mib: u64| {
        let config = Config { payload, memory_mib, ..config("vmmt-bad", SLEEP) };
        let error = Guest::start(&config, Box::new(io::sink())).err().expect("refused");
        assert!(!Path::new("/sys/class/net/vmmt-bad").exists());
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        error
    };
    let linux = |kernel: &Path| {
        Payload::Linux(LinuxGuest { kernel: kernel.to_owned(), initrd: None, cmdline: "console=ttyS0".to_owned() })
    };
    assert!(matches!(refused(linux(&kernel), 64), Error::Kernel { .. }));
    assert!(matches!(refused(linux(&files.path().join("none")), 64), Error::File { .. }));
    assert!(matches!(refused(linux(&kernel), 8), Error::MemorySize(8)));
    let Payload::Micro(micro) = config("x", SLEEP).payload else { unreachable!("made so above") };
    let image = |image| Payload::Micro(MicroGuest { image, ..micro.clone() });
    assert!(matches!(refused(image(Image::File(kernel)), 32), Error::Kernel { .. }));
    assert!(matches!(refused(image(Image::Bytes(Vec::new())), 32), Error::NoMicroGuest));
    let named = Payload::Micro(MicroGuest { role: Role::Hostile, attack: "x".repeat(32), ..micro.clone() });
    assert!(matches!(refused(named, 32), Error::AttackName(_)));
}
