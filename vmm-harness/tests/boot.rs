//! Guests of a few hand-assembled bytes on KVM and a tap: what boots, and what each bad end and bad input looks like.
//!
//! Without `/dev/kvm` the tests say so and pass, unless `WEFT_TESTS_REQUIRE` names `kvm`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmm_harness::{Config, Ending, Error, Fault, Guest, Image, LinuxGuest, MacAddr, MicroGuest, Payload, Role};

/// Writes the first eight bytes at RDI to the console, then 0 to the exit port.
const HELLO: &[u8] = &[
    0x48, 0x89, 0xfe, // mov rsi, rdi
    0xb9, 8, 0, 0, 0, // mov ecx, 8
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // lodsb
    0xee, // out dx, al
    0xe2, 0xfc, // loop
    0x31, 0xc0, // xor eax, eax
    0xe6, 0xf4, // out 0xf4, al
    0xf4, // hlt
];
/// An undefined instruction without an interrupt table.
const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];
/// Sleeps for good.
const SLEEP: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
/// Kicks queue 1 for good.
const KICK_LOOP: &[u8] = &[
    0xbb, 0x50, 0, 0, 0xd0, // mov ebx, 0xd0000050
    0xb8, 1, 0, 0, 0, // mov eax, 1
    0x89, 0x03, // mov [rbx], eax
    0xeb, 0xfc, // jmp
];
/// Acknowledges the device without any agreement: `DRIVER_OK` at once.
const PREMATURE: &[u8] = &[
    0xbb, 0x70, 0, 0, 0xd0, // mov ebx, 0xd0000070
    0xb8, 4, 0, 0, 0, // mov eax, 4
    0x89, 0x03, // mov [rbx], eax
    0xf4, // hlt
];
/// Spins for good.
const SPIN: &[u8] = &[0xeb, 0xfe];

/// An ELF64 file with one segment at 1 MiB.
fn elf(code: &[u8]) -> Vec<u8> {
    let address = 0x10_0000_u64;
    let bytes = u64::try_from(code.len()).expect("small");
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(address.to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    for field in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [120, address, address, bytes, bytes, 0x1000] {
        file.extend(field.to_le_bytes());
    }
    file.extend(code);
    file
}

fn has_kvm() -> bool {
    let there = Path::new("/dev/kvm").exists() && Path::new("/dev/net/tun").exists();
    let required = std::env::var("WEFT_TESTS_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "kvm"));
    assert!(there || !required, "WEFT_TESTS_REQUIRE names kvm, and it is not here");
    if !there {
        eprintln!("skipped: no /dev/kvm or no /dev/net/tun");
    }
    there
}

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
    let named = Payload::Micro(MicroGuest { attack: "x".repeat(32), ..micro.clone() });
    assert!(matches!(refused(named, 32), Error::AttackName(_)));
}
