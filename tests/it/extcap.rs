//! Wireshark finds the switch's ports: asked by tshark, as nobody's window would.

use anyhow::{Context as _, Result, ensure};
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::{Arena, Cli, Daemon, Mode, Need, command, http, topology, wait};

/// Makes the folder of all ours alone, in this test's view of the file system: root's tshark looks into no other.
fn own_folder() -> Result<String> {
    let folders = command::run("tshark -G folders")?;
    let folder = folders.lines().find_map(|line| line.strip_prefix("Extcap path:")).context("no folder")?.trim();
    std::fs::create_dir("/run/extcap")?;
    command::run(&format!("mount --bind /run/extcap {folder}"))?;
    Ok(folder.to_owned())
}

/// Interfaces that tshark lists of ours.
fn listed() -> Result<Vec<String>> {
    let text = command::run("tshark -D")?;
    Ok(text.lines().filter(|line| line.contains("weft:")).map(str::to_owned).collect())
}

#[test]
fn wireshark_lists_the_ports_of_every_switch_that_runs() {
    Arena::run(&[Need::Bpf], |arena| {
        let folder = own_folder()?;
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

in_every_mode! {
    fn wireshark_captures_a_port_with_a_filter_and_what_became_of_each_frame(arena, mode) {
        own_folder()?;
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        daemon.cli().run("extcap --install")?;
        // Wireshark asks before it captures: nothing is said of what is right.
        let about = |filter| daemon.cli().output_of(&["extcap", "--extcap-interface", "weft:weft0", "--extcap-capture-filter", filter]);
        ensure!(about("tcp port 80")?.stdout.is_empty());
        let wrong = about("tcp[")?;
        ensure!(wrong.status.success() && String::from_utf8_lossy(&wrong.stdout).contains("character"), "{wrong:?}");

        let file = "/run/seen.pcapng";
        let mut tshark = std::process::Command::new("tshark");
        tshark.args(["-i", "weft:weft0:a", "-f", "ether proto 0x88b5 and len > 100", "-c", "5", "-w", file]);
        let said = std::fs::File::create("/run/tshark.err")?;
        let mut running = Running::start(tshark.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(said))?;
        wait::until_true("tshark has five frames", wait::LATER, || {
            for bytes in [60, 200] {
                a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).bytes(bytes).number(1).build())?;
            }
            Ok(running.ended()?.is_some())
        })?;
        let said = std::fs::read_to_string("/run/tshark.err")?;
        ensure!(running.wait(wait::SOON)?.success(), "{said}");
        let shown = command::run(&format!("tshark -n -r {file} -T fields -e frame.len -e frame.comment"))?;
        let shown: Vec<_> = shown.lines().filter_map(|line| line.split_once('\t')).collect();
        ensure!(shown.len() == 5, "{shown:?}");
        for (length, comment) in shown {
            ensure!(length == "200" && comment.starts_with("in a; "), "{length} {comment}");
        }
        wait::until_true("the capture has ended", wait::SOON, || {
            Ok(http::request(&daemon.socket(), "GET", "/v1/captures", b"")?.body.matches("\"session\"").count() == 0)
        })?;
        let refusal = daemon.cli().refused("extcap --capture --extcap-interface weft:weft0:nobody --fifo /dev/null")?;
        ensure!(refusal.code != 0 && refusal.message.contains("nobody"), "{refusal:?}");
        drop((a, b));
        daemon.stop(arena)
    }
}
