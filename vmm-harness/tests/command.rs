//! Guests that end badly, as who typed the command sees it: exit code 1, one line that says why, and no tap left.

#[path = "rig/image.rs"]
mod image;

use std::path::Path;
use std::process::{Command, Output};

use image::{HELLO, KICK_LOOP, PREMATURE, SLEEP, TRIPLE_FAULT, elf, has_kvm};

/// Runs a guest of these bytes on a tap of its own.
fn run(tap: &str, code: &[u8]) -> Output {
    let files = tempfile::tempdir().expect("a directory");
    let image = files.path().join("guest.elf");
    std::fs::write(&image, elf(code)).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-harness"));
    command.args(["run", "--guest", "echo", "--mac", "52:54:00:00:00:01", "--driver-timeout", "2", "--tap", tap]);
    let output = command.arg("--kernel").arg(image).output().expect("started");
    assert!(!Path::new("/sys/class/net").join(tap).exists(), "{tap} was left behind");
    output
}

/// The guest ends badly; what the command says of it.
fn ends_badly(tap: &str, code: &[u8], why: &str) {
    if !has_kvm() {
        return;
    }
    let output = run(tap, code);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("vmm-harness: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(errors.iter().all(|line| line.contains(why)), "{said}");
    // The counters are the only other line.
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_guest_that_ends_well_ends_the_command_well() {
    if has_kvm() {
        let output = run("vmmc-hello", HELLO);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"WEFTGST1");
    }
}

#[test]
fn a_triple_fault_is_said_in_one_line() {
    ends_badly("vmmc-fault", TRIPLE_FAULT, "guest ended: triple fault");
}

#[test]
fn a_guest_that_never_sets_driver_ok_is_said_in_one_line() {
    ends_badly("vmmc-sleep", SLEEP, "no driver took the network device within 2 s");
}

#[test]
fn a_guest_that_kicks_in_a_loop_is_said_in_one_line() {
    ends_badly("vmmc-kick", KICK_LOOP, "with nothing to do");
}

#[test]
fn a_guest_that_breaks_the_rules_is_said_in_one_line() {
    ends_badly("vmmc-early", PREMATURE, "DRIVER_OK before FEATURES_OK");
}
