//! Wireshark finds the switch's ports: asked by tshark, as nobody's window would.

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Arena, Cli, Daemon, Mode, Need, command, topology};

/// Interfaces that tshark lists of ours.
fn listed() -> Result<Vec<String>> {
    let text = command::run("tshark -D")?;
    Ok(text.lines().filter(|line| line.contains("weft:")).map(str::to_owned).collect())
}

#[test]
fn wireshark_lists_the_ports_of_every_switch_that_runs() {
    Arena::run(&[Need::Bpf], |arena| {
        // Root's tshark looks into the folder of all only, and this is ours alone here.
        let folders = command::run("tshark -G folders")?;
        let folder = folders.lines().find_map(|line| line.strip_prefix("Extcap path:")).context("no folder")?.trim();
        std::fs::create_dir("/run/extcap")?;
        command::run(&format!("mount --bind /run/extcap {folder}"))?;
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "web-1")?);
        ensure!(listed()?.is_empty(), "there is no link yet");
        let link = daemon.cli().run("extcap --install")?;
        ensure!(link == format!("{folder}/weft-extcap\n"), "{link}");
        ensure!(daemon.cli().run("extcap --install")? == link, "twice is once");

        let found = listed()?;
        for (line, (value, shown)) in found.iter().zip([
            ("weft:weft0", "(Weft weft0: all ports)"),
            ("weft:weft0:a", "(Weft weft0: a)"),
            ("weft:weft0:web-1", "(Weft weft0: web-1)"),
        ]) {
            ensure!(line.ends_with(&format!(". {value} {shown}")), "{found:#?}");
        }
        ensure!(found.len() == 3, "{found:#?}");
        let other = Daemon::start_with(arena, "weft1", Mode::Userspace, &["--metrics", "off"])?;
        ensure!(listed()?.iter().any(|line| line.contains("weft:weft1 ")), "a second one is not seen");

        let types = command::output(&mut command::words("tshark -L -i weft:weft0:a"))?;
        let types = String::from_utf8_lossy(&types.stdout).into_owned() + &String::from_utf8_lossy(&types.stderr);
        ensure!(types.contains("EN10MB"), "{types}");

        std::fs::remove_file("/run/extcap/weft-extcap")?;
        std::fs::write("/run/extcap/weft-extcap", "somebody's own")?;
        let refusal = daemon.cli().refused("extcap --install")?;
        ensure!(refusal.code == 1 && refusal.message.contains("remove it first"), "{refusal:?}");
        drop((a, b));
        other.stop(arena)?;
        daemon.stop(arena)?;
        // Without a switch there is nothing to list, and that is no failure: Wireshark would complain of one.
        let text = Cli::new("weft0")?.run("extcap --extcap-interfaces --extcap-version=4.0")?;
        ensure!(text.starts_with("extcap {version=") && text.lines().count() == 1, "{text}");
        ensure!(Cli::new("weft0")?.refused("extcap --extcap-dlts --extcap-interface eth0")?.code == 1);
        Ok(())
    });
}
