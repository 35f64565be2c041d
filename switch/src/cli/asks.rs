//! Every command that asks a daemon, against one that answers from memory.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use clap::Parser;
use tokio::sync::oneshot;

use super::{Cli, dispatch, exit_code};
use crate::api::client::Client;
use crate::api::fake::Fake;
use crate::api::server::Socket;
use crate::port::spec::{Attachment, Origin, Role};

/// A daemon in a thread of its own; it ends when this is dropped.
pub(super) struct Daemon {
    dir: tempfile::TempDir,
    pub(super) fake: Fake,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let (control, path) = (fake.clone(), dir.path().join("sock"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
                let socket = Socket::bind(&path).unwrap();
                ready.send(()).unwrap();
                let stop = async move {
                    stopped.await.ok();
                };
                socket.serve(control, stop).await;
            });
        });
        is_ready.recv().unwrap();
        Self { dir, fake, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.dir.path().join("sock"))
    }

    /// Runs a command and says its exit code.
    fn weft(&self, words: &str) -> u8 {
        let socket = self.dir.path().join("sock");
        let global = ["weft", "--socket", socket.to_str().unwrap()];
        let cli = Cli::try_parse_from(global.into_iter().chain(words.split(' '))).unwrap();
        dispatch(cli).map_or_else(|e| exit_code(&e), |()| 0)
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("weft.toml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_port_is_added_as_it_was_typed() {
    let daemon = Daemon::start();
    let add = "port add blue --netns blue --ifname eth1 --address 198.18.0.2/24 --address 2001:db8::2/64 \
               --mac 52:54:00:00:00:01 --label app=web --mtu 1400 --station-limit 3 --role uplink";
    assert_eq!(daemon.weft(add), 0);
    assert_eq!(daemon.weft(add), 5);
    assert_eq!(daemon.weft(&format!("{add} --may-exist")), 0);
    let spec = daemon.fake.world().specs.values().next().cloned().unwrap();
    let Attachment::Netns { netns, ifname, addresses, mac } = &spec.attachment else { panic!("{spec:?}") };
    assert_eq!((netns.as_str(), ifname.as_str(), addresses.len()), ("blue", "eth1", 2));
    assert_eq!(mac.as_ref(), spec.macs.first());
    assert_eq!((spec.mtu, spec.station_limit, spec.role), (Some(1400), 3, Role::Uplink));
    assert_eq!((spec.origin, spec.labels.get("app").map(String::as_str)), (Origin::Command, Some("web")));
    for look in ["port list", "-o wide port list", "-o json port list", "-o jsonl port list", "port show blue"] {
        assert_eq!(daemon.weft(look), 0, "{look}");
    }
    assert_eq!(daemon.weft("port show green"), 4);
    assert_eq!(daemon.weft("port del green"), 4);
    assert_eq!(daemon.weft("port del green --if-exists"), 0);
    assert_eq!(daemon.weft("port del blue"), 0);
    assert!(daemon.fake.world().specs.is_empty());
}

#[test]
fn stations_drops_and_ledger_are_asked_for() {
    let daemon = Daemon::start();
    assert_eq!(daemon.weft("port add tap1 --tap tap1"), 0);
    for (words, code) in [
        ("fdb add tap1 52:54:00:00:00:01", 0),
        ("fdb add tap2 52:54:00:00:00:01", 4),
        ("fdb", 0),
        ("-o json fdb", 0),
        ("fdb del 52:54:00:00:00:01", 0),
        ("fdb del 52:54:00:00:00:01", 4),
        ("fdb flush", 0),
        ("-o json fdb flush --port tap1", 0),
        ("drops", 0),
        ("-o jsonl drops", 0),
        ("drops --since 2h --until 2026-11-22T07:00:00Z", 0),
        ("flows", 0),
        ("-o wide flows --last 5 --not --port tap1 --since 5m", 0),
        ("-o jsonl flows --ip 198.18.0.0/15", 0),
        ("events", 0),
        ("-o jsonl events --kind new_station --kind dns_answer --port a --last 3", 0),
        ("events --since 2h --until 2026-11-22T07:00:00Z --port a", 0),
        ("who 198.18.0.7", 0),
        ("-o json who 2001:db8::1 --at 2h", 0),
        ("-o wide who 52:54:00:00:00:01 --at 2026-11-22T07:00:00Z", 0),
        ("explain tap1 52:54:00:00:00:01", 0),
        ("-o json explain tap1 tap1 --source 52:54:00:00:00:02", 0),
        ("explain tap1 tap2", 4),
        ("explain 198.18.0.1 tap1", 4),
        ("ledger", 0),
        ("ledger --settle", 0),
        ("-o json ledger --settle=1", 0),
    ] {
        assert_eq!(daemon.weft(words), code, "{words}");
    }
    assert_eq!(daemon.fake.world().settled, Some(std::time::Duration::from_secs(1)));
}

#[test]
fn a_mirror_is_added_as_it_was_typed() {
    let daemon = Daemon::start();
    let add = "mirror add m --from web:1:ingress --from b --filter tcp --snaplen 128 --to look";
    assert_eq!(daemon.weft(add), 0);
    let spec = daemon.fake.world().mirrors.values().next().cloned().unwrap();
    let from: Vec<String> = spec.from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["web:1:ingress", "b"]);
    assert_eq!((spec.filter.as_deref(), spec.snaplen, spec.to.as_str()), (Some("tcp"), Some(128), "look"));
    for (words, code) in [
        (add, 5),
        ("mirror list", 0),
        ("-o wide mirror list", 0),
        ("-o json mirror list", 0),
        ("mirror del n", 4),
        ("mirror del m", 0),
    ] {
        assert_eq!(daemon.weft(words), code, "{words}");
    }
}

#[test]
fn a_ledger_that_does_not_balance_is_a_failure() {
    let daemon = Daemon::start();
    daemon.fake.world().is_unbalanced = true;
    assert_eq!(daemon.weft("ledger"), 1);
}

#[test]
fn a_file_is_checked_applied_and_exported() {
    let daemon = Daemon::start();
    let file = daemon.file("[[port]]\nname = \"a\"\ntap = \"a\"\n");
    let shown = file.display();
    assert_eq!(daemon.weft(&format!("check {shown}")), 0);
    assert_eq!(daemon.weft(&format!("apply {shown} --dry-run")), 0);
    assert!(daemon.fake.world().specs.is_empty());
    assert_eq!(daemon.weft(&format!("apply {shown}")), 0);
    assert_eq!(daemon.fake.world().specs.len(), 1);
    for format in ["table", "json", "jsonl"] {
        assert_eq!(daemon.weft(&format!("-o {format} export")), 0);
    }
    daemon.file("[[port]]\nname = \"a\"\ntap = \"a\"\nwrong = 1\n");
    assert_eq!(daemon.weft(&format!("check {shown}")), 1);
    assert_eq!(daemon.weft(&format!("apply {shown} --prune")), 1);
    assert_eq!(daemon.fake.world().specs.len(), 1, "a wrong file changes nothing");
    daemon.file("");
    assert_eq!(daemon.weft(&format!("apply {shown} --prune")), 0);
    assert!(daemon.fake.world().specs.is_empty());
}

#[test]
fn without_a_daemon_there_is_nobody_to_ask() {
    for words in [
        "port list",
        "fdb",
        "ledger",
        "drops",
        "drops -f",
        "explain a b",
        "flows",
        "flows -f",
        "events",
        "events -f",
        "who a",
        "export",
    ] {
        let global = ["weft", "--socket", "/nonexistent/weft.sock"];
        let cli = Cli::try_parse_from(global.into_iter().chain(words.split(' '))).unwrap();
        assert_eq!(exit_code(&dispatch(cli).unwrap_err()), 3, "{words}");
    }
    assert!(!Path::new("/nonexistent").exists());
}
