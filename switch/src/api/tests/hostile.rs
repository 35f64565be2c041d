//! Peers that mean ill: garbage, too much, too little, never reading, or not allowed at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::{DEADLINE, Daemon, exchange};
use crate::api::Limits;
use crate::api::schema::StationInfo;

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let daemon = Daemon::start(Limits::default());
    let garbage: [&[u8]; 5] = [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/ports HTTP/1.1\r\nhost: x\r\ncontent-length: minus\r\n\r\n",
        b"POST /v1/ports HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ];
    for bytes in garbage {
        let answer = daemon.raw(bytes.to_vec()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
    let long = [b"GET /".to_vec(), vec![b'x'; 1 << 20], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    let answer = daemon.raw(long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "a long path: {answer}");
    for body in ["", "{", "[]", "null", "\u{0}", "{\"name\":5}", "{\"name\":\"a\",\"kind\":\"tap\",\"tap\":\"../x\"}"] {
        let head = format!(
            "POST /v1/ports HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = daemon.raw((head + body).into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("{\"error\":"), "{body}: {answer}");
    }
    assert!(daemon.fake.world().specs.is_empty());
    daemon.assert_well().await;
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_too_large() {
    let daemon = Daemon::start(Limits::default());
    for path in ["/v1/ports", "/v1/apply", "/nowhere"] {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n").into_bytes();
        request.resize(request.len() + 10_000_000, b' ');
        let answer = daemon.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
    daemon.assert_well().await;
}

#[tokio::test]
async fn half_open_connections_end_and_make_room() {
    let patience = Duration::from_millis(300);
    let daemon = Daemon::start(Limits { connections: 3, patience, ..Limits::default() });
    let halves: [&[u8]; 3] = [b"", b"GET /v1/po", b"POST /v1/ports HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"];
    let mut open = Vec::new();
    for half in halves {
        let mut stream = UnixStream::connect(daemon.path()).unwrap();
        stream.write_all(half).unwrap();
        open.push(stream);
    }
    let began = Instant::now();
    daemon.assert_well().await;
    assert!(began.elapsed() >= patience / 2, "all three connections were taken: {:?}", began.elapsed());
    let answers =
        spawn_blocking(|| open.into_iter().map(|stream| exchange(stream, b"")).collect::<Vec<_>>()).await.unwrap();
    assert!(answers[2].starts_with("HTTP/1.1 408 "), "{answers:?}");
}

#[tokio::test]
async fn an_idle_connection_ends_too() {
    let daemon = Daemon::start(Limits { patience: Duration::from_millis(200), ..Limits::default() });
    let answer = daemon.raw(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_shown_out() {
    let patience = Duration::from_millis(300);
    let daemon = Daemon::start(Limits { connections: 1, patience, ..Limits::default() });
    let station = StationInfo {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        vlan: 0,
        port: "web1".parse().unwrap(),
        is_static: false,
        age_secs: 0,
        moves: 0,
    };
    daemon.fake.world().stations = vec![station; 50_000];
    let mut stream = UnixStream::connect(daemon.path()).unwrap();
    stream.write_all(b"GET /v1/stations HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    tokio::time::timeout(DEADLINE, daemon.assert_well()).await.unwrap();
    drop(stream);
}

#[tokio::test]
async fn who_is_neither_root_nor_a_member_is_refused() {
    if !rustix::process::geteuid().is_root() {
        assert!(!std::env::var("WEFT_TESTS_REQUIRE").unwrap_or_default().contains("root"), "needs root");
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let daemon = Daemon::start(Limits::default());
    // Somebody opened the doors; the credentials are looked at all the same.
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let path = daemon.path();
    let request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let nobody = std::thread::spawn(move || {
        // Credentials belong to threads in the kernel, so this one alone becomes somebody else.
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(65_534)).unwrap();
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        exchange(UnixStream::connect(path).unwrap(), request)
    });
    let refused = spawn_blocking(move || nobody.join().unwrap()).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("group weft"), "{refused}");
    let served = daemon.raw(request.to_vec()).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
}
