//! Guests that cannot be started: one line that says why and what to do, the right exit code, nothing left behind.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Arena, Need, Station, guest, micro, requirements};

/// An echo guest on the tap `t0`.
const ECHO: [&str; 6] = ["--guest", "echo", "--tap", "t0", "--mac", "52:54:00:00:00:01"];

/// The same with these options, in place of those of the same name.
fn with<'a>(options: &[&'a str]) -> Vec<&'a str> {
    let kept = ECHO.chunks(2).filter(|pair| !options.contains(&pair[0])).flatten();
    kept.chain(options).copied().collect()
}

/// The guest, with further options, is refused in one line with these words.
fn refused_behind(arena: &Arena, prefix: &str, options: &[&str], words: &[&str]) -> Result<()> {
    let before = arena.netdevs()?;
    let refusal = micro::refused(prefix, &with(options))?;
    ensure!(refusal.code == 1, "{options:?}: {refusal:?}");
    ensure!(refusal.message.starts_with("vmm-harness: ") && refusal.message.lines().count() == 1, "{refusal:?}");
    for word in words {
        ensure!(refusal.message.contains(word), "{word:?} is not in {:?}", refusal.message);
    }
    ensure!(arena.netdevs()? == before, "{options:?}: {:?} were {before:?}", arena.netdevs()?);
    Ok(())
}

fn refused(arena: &Arena, options: &[&str], words: &[&str]) -> Result<()> {
    refused_behind(arena, "", options, words)
}

#[test]
fn a_machine_without_kvm_or_taps_says_which_module_to_load() {
    Arena::run(&[], |arena| {
        arena.keep_devices(&["null", "net/tun"])?;
        refused(arena, &[], &["/dev/kvm: No such file", "load kvm_intel or kvm_amd"])
    });
    Arena::run(&[], |arena| {
        arena.keep_devices(&["null"])?;
        refused(arena, &[], &["/dev/net/tun: No such file", "modprobe tun"])
    });
}

#[test]
fn who_may_not_use_kvm_or_taps_is_told_how_to() {
    Arena::run(&[Need::Kvm], |arena| {
        let without_admin = "setpriv --bounding-set=-net_admin --inh-caps=-all";
        refused_behind(arena, without_admin, &[], &["no permission for tap t0", "run as root", "ip tuntap add"])?;
        arena.forbid_device("/dev/kvm")?;
        refused(arena, &[], &["/dev/kvm: Permission denied", "run as root, or join the group"])?;
        arena.forbid_device("/dev/net/tun")?;
        refused(arena, &[], &["no permission for tap t0", "run as root"])
    });
}

#[test]
fn a_tap_that_is_busy_none_or_misnamed_is_refused_and_left_as_it_was() {
    Arena::run(&[Need::Kvm], |arena| {
        let holder = Station::offloading("t0")?;
        for plain in [&[][..], &["--plain"]] {
            refused(arena, plain, &["tap t0 is in use", "name another"])?;
        }
        drop(holder);
        arena.ip("link add v0 type veth peer name v1")?;
        arena.ip("tuntap add dev many mode tap multi_queue")?;
        arena.ip("tuntap add dev routed mode tun")?;
        for netdev in ["lo", "v0", "many", "routed"] {
            refused(arena, &["--tap", netdev], &[&format!("{netdev} is there and no tap"), "name another"])?;
        }
        for name in ["", "a/b", "a b", "x%d", "sixteen-letters-"] {
            refused(arena, &["--tap", name], &["is no name for a tap", "1 to 15 bytes"])?;
        }
        Ok(())
    });
}

#[test]
fn a_guest_that_cannot_be_is_refused_before_anything_is_opened() {
    Arena::run(&[], |arena| {
        // Were anything opened, this would be what is complained about.
        arena.keep_devices(&["null"])?;
        for (options, words) in [
            (&["--mac", "01:00:5e:00:00:01"][..], ["can be no guest's address", "--mac"]),
            (&["--mac", "00:00:00:00:00:00"], ["can be no guest's address", "--mac"]),
            (&["--mem", "8"], ["8 MiB is out of range", "--mem 16 to 3072"]),
            (&["--cpus", "0"], ["0 processors", "--cpus 1 to 16"]),
            (&["--guest", "hostile"], ["no attack \"\"", "spoofed-source, "]),
            (&["--guest", "hostile", "--attack", "kindness"], ["no attack \"kindness\"", "--attack one of"]),
            (&["--guest", "talker"], ["needs a peer", "--peer"]),
            (&["--guest", "linux"], ["needs a kernel", "--kernel"]),
            (&["--console", "/run/none/console"], ["/run/none/console", "No such file"]),
        ] {
            refused(arena, options, &words).with_context(|| format!("{options:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn wrong_usage_names_the_option_and_exits_with_2() {
    Arena::run(&[], |arena| {
        for (options, word) in [
            (&["--mac", "52:54:00:12:34"][..], "six octets, as in 52:54:00:00:00:01"),
            (&["--mac", "52:54:00:12:34:5g"], "--mac"),
            (&["--ip", "198.18.0.256"], "--ip"),
            (&["--guest", "windows"], "echo, talker, hostile, linux"),
            (&["--mem", "much"], "--mem"),
        ] {
            let refusal = micro::refused("", &with(options))?;
            ensure!(refusal.code == 2 && refusal.message.starts_with("error: "), "{refusal:?}");
            ensure!(refusal.message.contains(word), "{word:?} is not in {:?}", refusal.message);
        }
        ensure!(arena.netdevs()?.is_empty());
        Ok(())
    });
}

#[test]
fn what_is_no_kernel_and_what_does_not_fit_is_named() -> Result<()> {
    if !requirements::met(&[Need::Root, Need::Kvm, Need::Qemu]) {
        return Ok(());
    }
    // Outside of the arena, where apt finds its lists and its mirror.
    let kernel = guest::kernel(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    Arena::run(&[], |arena| {
        fs::write("/run/text", "not a kernel\n".repeat(9000))?;
        fs::write("/run/empty", [])?;
        fs::File::create("/run/initrd")?.set_len(600 << 20)?;
        for file in ["/run/text", "/run/empty", "/run"] {
            refused(arena, &["--kernel", file], &[file, "no kernel that can be booted", "cargo xtask micro"])?;
            let linux = ["--guest", "linux", "--kernel", file];
            refused(arena, &linux, &[file, "no kernel that can be booted", "takes a bzImage"])?;
        }
        refused(arena, &["--kernel", "/run/none"], &["cannot read /run/none", "No such file"])?;
        let image = kernel.image().to_str().context("a path in UTF-8")?;
        refused(arena, &["--kernel", image], &["no kernel that can be booted"])?;
        let linux = |initrd| ["--guest", "linux", "--kernel", image, "--initrd", initrd];
        refused(arena, &linux("/run/none"), &["cannot read /run/none", "No such file"])?;
        refused(arena, &linux("/run/initrd"), &["does not fit into 256 MiB", "--mem"])
    });
    Ok(())
}
