//! The flow log as an operator meets it: a place that cannot be, a disk that fills up, a daemon that dies, hostile labels.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde_json::{Value, json};
use weft::config::LogConfig;
use weft::export::FlowLog;
use weft::flow::Record;
use weft_tests::frames::{self, Builder};
use weft_tests::topology::talk;
use weft_tests::{Arena, Cli, Daemon, Mode, Need, Station, topology, wait};

const LOG: &str = "/run/log/flows.jsonl";
const FILE: &str = "/run/test.toml";

/// A tmpfs at `/run/log`, unmounted when dropped.
pub(crate) struct Disk;

impl Disk {
    pub(crate) fn new(options: &CStr) -> Result<Self> {
        fs::create_dir("/run/log")?;
        mount("tmpfs", "/run/log", "tmpfs", MountFlags::empty(), options)?;
        Ok(Self)
    }

    /// Takes every byte that is left.
    pub(crate) fn fill() -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open("/run/log/filler")?;
        while file.write(&[0; 4096]).is_ok() {}
        ensure!(file.write(&[0]).is_err(), "there is room left");
        Ok(())
    }

    pub(crate) fn empty() -> Result<()> {
        Ok(fs::remove_file("/run/log/filler")?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = unmount("/run/log", UnmountFlags::DETACH);
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

/// A daemon with a log and with records every second, and two stations.
fn logging(arena: &Arena, mode: Mode) -> Result<(Daemon, Station, Station)> {
    fs::write(FILE, format!("[flows]\nactive_secs = 1\n[flows.log]\npath = \"{LOG}\"\nmax_mib = 1\nfiles = 2\n"))?;
    let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
    let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
    Ok((daemon, a, b))
}

/// The whole lines of the log that are JSON, and how many are not.
fn lines() -> (Vec<Value>, usize) {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read: Vec<_> = whole.lines().map(serde_json::from_str).collect();
    let wrong = read.iter().filter(|line| line.is_err()).count();
    (read.into_iter().flatten().collect(), wrong)
}

/// Frames of the conversation of [`talk`] in the log.
fn logged_frames() -> u64 {
    let ours = |line: &&Value| line["source.mac"] == frames::station(1).to_string();
    let (lines, _) = lines();
    lines.iter().filter(ours).filter_map(|line| line["forward.frames"].as_u64()).sum()
}

fn until_logged(frames: u64) -> Result<()> {
    wait::until_true(&format!("{frames} frames are logged"), wait::SOON, || Ok(logged_frames() >= frames))?;
    ensure!(logged_frames() == frames, "{} frames are logged instead of {frames}", logged_frames());
    Ok(())
}

#[test]
fn a_log_that_cannot_be_is_refused_before_anything_is_changed() {
    Arena::run(&[Need::Bpf], |arena| {
        let (cli, before) = (Cli::new("weft0")?, arena.netdevs()?);
        let refused = |path: &str, word: &str| {
            let refusal = cli.refused_of(&["run", "--flow-log", path])?;
            ensure!(refusal.code == 1 && refusal.message.contains(word), "{path}: {refusal:?} says not {word:?}");
            ensure!(refusal.message.contains("choose another"), "{refusal:?} says not what to do");
            ensure!(!Path::new("/sys/fs/bpf/weft").exists() && arena.netdevs()? == before, "{path}: something is left");
            ensure!(!Path::new("/run/weft/weft0.sock").exists(), "{path}: there is a socket");
            Ok(())
        };
        refused("/run/log/flows.jsonl", "mkdir -p /run/log")?;
        let disk = Disk::new(c"size=64k")?;
        fs::create_dir(LOG)?;
        refused(LOG, "Is a directory")?;
        fs::remove_dir(LOG)?;
        mount_remount("/run/log", MountFlags::RDONLY, c"")?;
        refused(LOG, "Read-only file system")?;
        mount_remount("/run/log", MountFlags::empty(), c"")?;
        // The control: the same place, once it is one.
        let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["--flow-log", LOG])?;
        ensure!(fs::metadata(LOG)?.permissions().mode() & 0o7777 == 0o640, "others may read it");
        let second = Cli::new("weft1")?.refused_of(&["run", "--metrics", "off", "--flow-log", LOG])?;
        ensure!(second.message.contains("another process writes it"), "{second:?}");
        daemon.stop(arena)?;
        drop(disk);
        Ok(())
    });
}

#[test]
fn every_frame_is_logged_once_over_an_orderly_stop_and_a_restart() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=8m")?;
        let (daemon, a, b) = logging(arena, Mode::Kernel)?;
        talk(&a, &b, 0..100)?;
        // What goes on is told at the end at the latest.
        daemon.stop(arena)?;
        ensure!(logged_frames() == 100, "{:#?}", lines());
        drop((a, b));
        // What a crash of the host may leave.
        OpenOptions::new().append(true).open(LOG)?.write_all(b"{\"id\":\"half")?;
        let (daemon, a, b) = logging(arena, Mode::Kernel)?;
        talk(&a, &b, 0..50)?;
        daemon.stop(arena)?;
        let (_, wrong) = lines();
        ensure!(logged_frames() == 150 && wrong == 1, "{:#?}", lines());
        drop((a, b, disk));
        Ok(())
    });
}

#[test]
fn a_full_disk_stops_neither_the_traffic_nor_the_log_for_good() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=256k")?;
        let (daemon, a, b) = logging(arena, Mode::Kernel)?;
        talk(&a, &b, 0..10)?;
        until_logged(10)?;
        Disk::fill()?;
        // More conversations than what is left of the log's last page could hold.
        for number in 100..150 {
            a.send(&Builder::new(frames::station(number), frames::station(2)).number(10).build())?;
        }
        wait::until_true("the loss is said", wait::SOON, || Ok(daemon.log().contains("cannot be written")))?;
        talk(&a, &b, 20..30)?;
        daemon.settle()?;
        Disk::empty()?;
        let before = logged_frames();
        talk(&a, &b, 30..40)?;
        wait::until_true("the log goes on", wait::SOON, || Ok(logged_frames() > before))?;
        let (_, wrong) = lines();
        ensure!(wrong == 0, "a line was left half written: {:#?}", lines());
        ensure!(daemon.log().matches("flow log").count() == 1, "{}", daemon.log());
        daemon.stop(arena)?;
        drop((a, b, disk));
        Ok(())
    });
}

#[test]
fn a_log_that_is_removed_underneath_is_begun_anew() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=8m")?;
        let (daemon, a, b) = logging(arena, Mode::Kernel)?;
        talk(&a, &b, 0..10)?;
        until_logged(10)?;
        fs::remove_file(LOG)?;
        talk(&a, &b, 10..30)?;
        until_logged(20)?;
        daemon.stop(arena)?;
        drop((a, b, disk));
        Ok(())
    });
}

#[test]
fn hostile_labels_stay_one_line_of_json() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=8m")?;
        let (daemon, a, b) = logging(arena, Mode::Kernel)?;
        let values = ["\"}\\", "{\"id\":\"forged\"}", "\u{202e}é", "a=b,c='d'"];
        let hostile = Station::plain("hostile")?;
        let labels: Vec<_> = values.iter().enumerate().map(|(n, value)| format!("k{n}={value}")).collect();
        let mut add = vec!["port", "add", "hostile", "--netdev", "hostile"];
        add.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        let added = daemon.cli().output_of(&add)?;
        ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        daemon.until_state("hostile", "up", wait::SOON)?;
        talk(&hostile, &b, 0..5)?;
        until_logged(5)?;
        let (lines, wrong) = lines();
        let labelled = lines.iter().find(|line| line["source.port_name"] == "hostile").context("no record")?;
        ensure!(wrong == 0 && labelled["id"] != "forged");
        for (number, value) in values.iter().enumerate() {
            ensure!(labelled["source.labels"][format!("k{number}")] == *value, "{labelled:#}");
        }
        // The same conversation for Hubble, and only conversations.
        let told = daemon.cli().run("flows --from-port hostile -o hubble")?;
        let told: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(
            !told.is_empty() && told.iter().all(|line| line["flow"]["source"]["pod_name"] == "hostile"),
            "{told:#?}"
        );
        ensure!(
            told.iter().all(|line| line["flow"]["source"]["labels"][0] == format!("k0={}", values[0])),
            "{told:#?}"
        );
        ensure!(daemon.cli().refused("port list -o hubble")?.code == 2);
        daemon.stop(arena)?;
        drop((a, b, hostile, disk));
        Ok(())
    });
}

/// A record of the n-th conversation.
fn record(number: usize) -> Result<Arc<Record>> {
    let counts = ["frames", "wire_frames", "bytes", "wire_bytes", "dropped_frames"];
    let mut record = json!({"id": format!("{number:06}"), "began": "2027-01-15T08:00:00Z", "start": "2027-01-15T08:00:00Z",
        "end": "2027-01-15T08:00:00Z", "end_reason": "idle", "resumed": false, "switch": "weft0", "source.port_name": "a",
        "source.mac": "52:54:00:00:00:01", "destination.mac": "52:54:00:00:00:02", "network.type": "0x88b5",
        "fragment": false, "direction": "east_west", "verdict": "forwarded"});
    for count in counts {
        record[format!("forward.{count}")] = json!(1);
        record[format!("reverse.{count}")] = json!(0);
    }
    Ok(Arc::new(serde_json::from_value(record)?))
}

#[test]
fn what_a_disk_that_fills_up_takes_and_loses_is_known_to_the_record() {
    Arena::run(&[], |_| {
        let disk = Disk::new(c"size=256k")?;
        let log = FlowLog::open(&LogConfig { path: LOG.into(), max_bytes: 100_000, files: 8 })?;
        let settled =
            |offered: u64| {
                wait::until_true("all is written or lost", wait::SOON, || {
                    Ok(log.counts().written + log.lost() >= offered)
                })?;
                let counts = log.counts();
                ensure!(counts.offered == offered && counts.written + counts.lost() == offered, "{counts:?}");
                Ok(counts)
            };
        let offer = |mut numbers: std::ops::Range<usize>| -> Result<()> {
            numbers.try_for_each(|number| {
                log.offer(&record(number)?);
                Ok(())
            })
        };
        offer(0..2000)?;
        let full = settled(2000)?;
        ensure!(full.written > 100 && full.write_failed > 100 && full.queue_full == 0, "{full:?}");
        // Whole lines only, as many as were counted, in every file.
        let mut texts = String::new();
        for file in fs::read_dir("/run/log")? {
            texts += &fs::read_to_string(file?.path())?;
        }
        ensure!(texts.lines().count() as u64 == full.written, "{full:?}");
        ensure!(texts.ends_with('\n') && texts.lines().all(|line| serde_json::from_str::<Record>(line).is_ok()));
        // Space returns.
        fs::remove_file(format!("{LOG}.1"))?;
        offer(2000..2100)?;
        let again = settled(2100)?;
        ensure!(again.written == full.written + 100, "{full:?} {again:?}");
        drop(log);
        drop(disk);
        Ok(())
    });
}
