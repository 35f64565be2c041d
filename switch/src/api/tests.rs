//! The API over a real socket: what it answers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod events;
mod flows;
mod hostile;
mod top;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::client::{Client, ClientError};
use super::fake::Fake;
use super::schema::{
    Applied, DropInfo, Flushed, Intent, LedgerReport, NewStation, PortInfo, Sample, Side, StationInfo, Status,
};
use super::server::{BindError, Socket};
use super::{Limits, Witnessed, web};
use crate::config::Config;
use crate::port::spec::{Origin, PortSpec};

/// Long enough for anything that is going to happen.
const DEADLINE: Duration = Duration::from_secs(20);

struct Daemon {
    dir: tempfile::TempDir,
    fake: Fake,
    /// Ends the server when dropped.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Daemon {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let socket = Socket::bind(&dir.path().join("run/weft.sock")).unwrap().with_limits(limits);
        let (stop, stopped) = oneshot::channel::<()>();
        let control = fake.clone();
        let task = tokio::spawn(socket.serve(control, async move {
            stopped.await.ok();
        }));
        Self { dir, fake, stop: Some(stop), task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/weft.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.path())
    }

    /// Sends bytes as they are and returns what comes back until the server closes.
    async fn raw(&self, bytes: Vec<u8>) -> String {
        let path = self.path();
        spawn_blocking(move || exchange(UnixStream::connect(path).unwrap(), &bytes)).await.unwrap()
    }

    /// The server still serves.
    async fn assert_well(&self) {
        let status: Status = self.client().get("/v1/status").await.unwrap();
        assert_eq!(status.name, "weft-test");
    }
}

fn exchange(mut stream: UnixStream, bytes: &[u8]) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    // A server that has had enough closes while we still write.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The ports of a configuration.
fn specs(text: &str) -> Vec<PortSpec> {
    Config::parse(std::path::Path::new("test"), text).unwrap().ports
}

fn web1() -> PortSpec {
    specs("[[port]]\nname = \"web1\"\nnetdev = \"vnet3\"\n").remove(0)
}

fn intent(ports: Vec<PortSpec>) -> Intent {
    Intent { ports, ..Intent::default() }
}

fn status_of(outcome: Result<(), ClientError>) -> u16 {
    match outcome {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn ports_are_added_shown_and_removed() {
    let daemon = Daemon::start(Limits::default());
    let client = daemon.client();
    let added: PortInfo = client.post("/v1/ports", &web1()).await.unwrap();
    assert_eq!((added.name.as_str(), added.origin), ("web1", Origin::Command), "a command is no file");
    assert_eq!(client.get::<Vec<PortInfo>>("/v1/ports").await.unwrap(), std::slice::from_ref(&added));
    assert_eq!(client.get::<PortInfo>("/v1/ports/web1").await.unwrap(), added);
    assert_eq!(status_of(client.post_only("/v1/ports", &web1()).await), 409);
    client.post_only("/v1/ports?may_exist=true", &web1()).await.unwrap();
    client.delete_only("/v1/ports/web1").await.unwrap();
    assert_eq!(status_of(client.delete_only("/v1/ports/web1").await), 404);
    client.delete_only("/v1/ports/web1?if_exists=true").await.unwrap();
}

#[tokio::test]
async fn the_same_is_refused_that_a_file_could_not_say() {
    let daemon = Daemon::start(Limits::default());
    let client = daemon.client();
    let mut spec = web1();
    spec.macs = vec!["01:00:5e:00:00:01".parse().unwrap()];
    assert_eq!(status_of(client.post_only("/v1/ports", &spec).await), 422);
    assert_eq!(status_of(client.post_only("/v1/apply", &intent(vec![web1(), web1()])).await), 422);
    assert_eq!(status_of(client.post_only("/v1/ports?wiat=true", &web1()).await), 400);
    assert_eq!(status_of(client.get::<PortInfo>("/v1/ports/a%2fb").await.map(|_| ())), 422);
    assert!(daemon.fake.world().specs.is_empty());
}

#[tokio::test]
async fn a_file_is_applied_and_exported() {
    let daemon = Daemon::start(Limits::default());
    let client = daemon.client();
    let diff: Applied = client.post("/v1/apply?dry_run=true", &intent(vec![web1()])).await.unwrap();
    assert_eq!((diff.ports.add.len(), diff.ports.applied), (1, false));
    assert!(daemon.fake.world().specs.is_empty(), "a dry run changes nothing");
    let diff: Applied = client.post("/v1/apply", &intent(vec![web1()])).await.unwrap();
    assert!(diff.ports.applied && diff.mirrors.is_empty());
    assert_eq!(specs(&client.get_text("/v1/config").await.unwrap()), [web1()]);
}

#[tokio::test]
async fn stations_are_pinned_listed_and_forgotten() {
    let daemon = Daemon::start(Limits::default());
    let client = daemon.client();
    client.post_only("/v1/apply", &intent(vec![web1()])).await.unwrap();
    let station = |port: &str, mac: &str| NewStation { port: port.parse().unwrap(), mac: mac.parse().unwrap() };
    client.post_only("/v1/stations", &station("web1", "52:54:00:00:00:01")).await.unwrap();
    assert_eq!(status_of(client.post_only("/v1/stations", &station("web2", "52:54:00:00:00:01")).await), 404);
    assert_eq!(status_of(client.post_only("/v1/stations", &station("web1", "ff:ff:ff:ff:ff:ff")).await), 422);
    let stations: Vec<StationInfo> = client.get("/v1/stations").await.unwrap();
    assert_eq!(stations.len(), 1);
    assert_eq!(status_of(client.delete_only("/v1/stations/52:54:00:00:00:02").await), 404);
    assert_eq!(client.delete::<Flushed>("/v1/stations?port=web1").await.unwrap().stations, 1);
}

#[tokio::test]
async fn the_ledger_waits_for_quiet_as_long_as_it_is_told() {
    let daemon = Daemon::start(Limits::default());
    let ledger: LedgerReport = daemon.client().get("/v1/ledger?settle_secs=3").await.unwrap();
    assert!(ledger.holds);
    assert_eq!(daemon.fake.world().settled, Some(Duration::from_secs(3)));
    daemon.client().get::<LedgerReport>("/v1/ledger").await.unwrap();
    assert_eq!(daemon.fake.world().settled, None);
}

fn dropped(frames: u64) -> DropInfo {
    DropInfo {
        port: "web1".to_owned(),
        side: Side::Ingress,
        reason: "flood_limited".to_owned(),
        description: "too much".to_owned(),
        frames,
        bytes: frames * 60,
        evidence: Vec::new(),
    }
}

#[tokio::test]
async fn a_follower_is_told_what_is_dropped_from_now_on() {
    let daemon = Daemon::start(Limits { followers: 1, ..Limits::default() });
    daemon.fake.world().drops = vec![dropped(10)];
    let mut stream = UnixStream::connect(daemon.path()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/drops?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut stream = spawn_blocking(move || {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(String::from_utf8_lossy(&head).contains("application/x-ndjson"));
        stream
    })
    .await
    .unwrap();
    let crowd = daemon.client().follow::<ClientError>("/v1/drops?follow=true", |_| Ok(())).await;
    assert_eq!(status_of(crowd), 503, "one may follow here");
    daemon.fake.world().drops = vec![dropped(13)];
    let line = spawn_blocking(move || {
        let mut seen = Vec::new();
        while !seen.ends_with(b"}\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    })
    .await
    .unwrap();
    let json = line.split("\r\n").nth(1).unwrap();
    assert_eq!(serde_json::from_str::<DropInfo>(json).unwrap(), dropped(3), "the ten before are not told");
}

#[tokio::test]
async fn a_follower_is_shown_frames_of_what_is_dropped() {
    let daemon = Daemon::start(Limits::default());
    let fake = daemon.fake.clone();
    let sample = Sample { time: "2026-11-22T07:00:00Z".to_owned(), length: 60, bytes: "ffff".to_owned() };
    let seen = sample.clone();
    let more = tokio::spawn(async move {
        for frames in 1.. {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.world().drops = vec![dropped(frames)];
            let DropInfo { port, side, reason, .. } = dropped(frames);
            let witnessed = Witnessed { port, side, reason, sample: seen.clone() };
            fake.world().evidence.send(Arc::new(witnessed)).ok();
        }
    });
    let client = daemon.client();
    let follow = client.follow("/v1/drops?follow=true", |line| Err(anyhow::anyhow!(line.to_owned())));
    let line = tokio::time::timeout(DEADLINE, follow).await.unwrap().unwrap_err().to_string();
    let fresh: DropInfo = serde_json::from_str(&line).unwrap();
    assert!(fresh.frames > 0 && fresh.evidence.first() == Some(&sample), "{fresh:?}");
    more.abort();
}

#[tokio::test]
async fn a_daemon_that_ends_while_it_answers_is_gone_and_not_garbled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let dies = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n").unwrap();
    });
    let mut lines = 0;
    let outcome = Client::new(&path)
        .follow::<ClientError>("/v1/drops?follow=true", |_| {
            lines += 1;
            Ok(())
        })
        .await;
    dies.join().unwrap();
    assert!(matches!(outcome, Err(ClientError::Gone { .. })), "{outcome:?}");
    assert_eq!(lines, 1);
    assert!(outcome.unwrap_err().to_string().contains("not reachable"));
}

#[tokio::test]
async fn the_client_follows_and_a_seat_is_free_again_when_it_goes() {
    let daemon = Daemon::start(Limits { followers: 1, ..Limits::default() });
    for _ in 0..2 {
        daemon.fake.world().drops = vec![dropped(1)];
        let fake = daemon.fake.clone();
        let more = tokio::spawn(async move {
            for frames in 2.. {
                tokio::time::sleep(Duration::from_millis(100)).await;
                fake.world().drops = vec![dropped(frames)];
            }
        });
        let client = daemon.client();
        let follow = async {
            loop {
                let outcome =
                    client.follow("/v1/drops?follow=true", |line| Err(anyhow::anyhow!(line.to_owned()))).await;
                match outcome.unwrap_err().downcast::<ClientError>() {
                    Ok(ClientError::Refused { status: 503, .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Ok(e) => panic!("{e}"),
                    Err(line) => return line.to_string(),
                }
            }
        };
        let line = tokio::time::timeout(DEADLINE, follow).await.unwrap();
        assert!(serde_json::from_str::<DropInfo>(&line).unwrap().frames > 0);
        more.abort();
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let mut daemon = Daemon::start(Limits::default());
    let path = daemon.path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let own = i32::try_from(std::process::id()).unwrap();
    let twice = Socket::bind(&path).unwrap_err();
    assert!(matches!(twice, BindError::InUse { pid, .. } if pid == own), "{twice}");
    assert!(twice.to_string().contains(&format!("pid {own}")));
    daemon.assert_well().await;
    drop(daemon.stop.take());
    (&mut daemon.task).await.unwrap();
    assert!(!path.exists(), "an orderly end leaves no socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "what a killed daemon leaves");
    drop(Socket::bind(&path).unwrap());
    fs::write(&path, "precious").unwrap();
    assert!(matches!(Socket::bind(&path).unwrap_err(), BindError::NotASocket { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(&dir.path().join("none")).get::<Status>("/v1/status").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.to_string().contains("start it with `weft run`"), "{error}");
}

#[tokio::test]
async fn every_documented_path_is_served_and_every_served_path_documented() {
    let daemon = Daemon::start(Limits::default());
    let document: serde_json::Value = daemon.client().get("/openapi.json").await.unwrap();
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            calls.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    for call in &calls {
        let request = format!("{call} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let answer =
            daemon.raw(request.replace("{name}", "a").replace("{mac}", "52:54:00:00:00:01").into_bytes()).await;
        assert!(!answer.contains("no such path") && !answer.contains("no such method"), "{call}: {answer}");
    }
    insta::assert_snapshot!(calls.join("\n"));
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let daemon = Daemon::start(Limits::default());
    assert_eq!(status_of(daemon.client().get::<Status>("/v2/status").await.map(|_| ())), 404);
    assert_eq!(status_of(daemon.client().delete_only("/v1/status").await), 405);
}

#[tokio::test]
async fn monitoring_sees_a_daemon_that_is_healthy_before_it_is_ready() {
    let fake = Fake::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(web::serve(listener, fake.clone(), web::LIMITS, std::future::pending()));
    let get = async |path: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/-/healthy").await.starts_with("HTTP/1.1 200 "));
    assert!(get("/-/ready").await.starts_with("HTTP/1.1 503 "));
    fake.world().is_ready = true;
    assert!(get("/-/ready").await.starts_with("HTTP/1.1 200 "));
    assert!(get("/").await.contains("<h1>Weft weft-test</h1>"));
    assert!(get("/v1/ports").await.starts_with("HTTP/1.1 404 "), "the API is not served over TCP");
    task.abort();
}
