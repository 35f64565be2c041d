//! Peers of the control socket that speak nonsense, too much, or not at all.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use weft_tests::command::Running;
use weft_tests::{Arena, Daemon, Mode, Need, http, topology, wait};

#[test]
fn garbage_is_answered_with_an_error_and_changes_nothing() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let socket = daemon.socket();
        let _a = topology::station(&daemon, "a")?;
        let bad: [(&str, &str, &[u8], &[u16]); 9] = [
            ("GET", "/nowhere", b"", &[404]),
            ("PATCH", "/v1/ports", b"", &[405]),
            ("POST", "/v1/ports", b"", &[400, 415, 422]),
            ("POST", "/v1/ports", b"{", &[400, 422]),
            ("POST", "/v1/ports", b"[]", &[400, 422]),
            ("POST", "/v1/ports", b"{\"name\":\"\",\"kind\":\"netdev\",\"netdev\":\"x\"}", &[400, 422]),
            ("POST", "/v1/ports", &[0xff; 100], &[400, 422]),
            ("DELETE", "/v1/ports/..%2f..%2fetc", b"", &[400, 404, 422]),
            ("GET", "/v1/ports?no_such_option=1", b"", &[200, 400]),
        ];
        for (method, path, body, statuses) in bad {
            let reply = http::request(&socket, method, path, body)?;
            ensure!(statuses.contains(&reply.status), "{method} {path}: {reply:?}");
        }
        for bytes in
            [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", &vec![b'A'; 100_000], b"\x16\x03\x01\x02\0\x01"]
        {
            // Cut off or answered with an error; never with anything else.
            if let Ok(reply) = http::raw(&socket, bytes) {
                ensure!(reply.status == 0 || reply.status >= 400, "{reply:?}");
            }
        }
        ensure!(daemon.cli().ports()?.len() == 1);
        daemon.stop(arena)
    });
}

#[test]
fn a_body_of_10_megabytes_is_refused_and_costs_no_memory() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let before = daemon.resident_kib()?;
        for _ in 0..5 {
            let reply = http::request(&daemon.socket(), "POST", "/v1/ports", &vec![b' '; 10 << 20]);
            ensure!(reply.as_ref().map_or(true, |reply| matches!(reply.status, 0 | 413)), "{reply:?}");
        }
        let after = daemon.resident_kib()?;
        ensure!(after < before + 8 * 1024, "{before} KiB became {after} KiB");
        daemon.stop(arena)
    });
}

#[test]
fn half_open_connections_do_not_keep_others_out() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let mut silent = Vec::new();
        for number in 0..200 {
            let mut stream = UnixStream::connect(daemon.socket())?;
            if number % 2 == 0 {
                stream.write_all(b"POST /v1/ports HTTP/1.1\r\nhost: weft\r\ncontent-length: 100\r\n\r\n{")?;
            }
            silent.push(stream);
        }
        let _a = topology::station(&daemon, "a")?;
        drop(silent);
        daemon.stop(arena)
    });
}

#[test]
fn only_root_and_the_group_may_speak() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let mode = std::fs::metadata(daemon.socket())?.permissions().mode() & 0o777;
        ensure!(mode == 0o660, "{mode:o}");
        let binary = "/run/weft-copy";
        std::fs::copy(daemon.cli().binary(), binary)?;
        let line = format!("setpriv --reuid 65534 --regid 65534 --clear-groups {binary} port list");
        let stranger = weft_tests::command::output(&mut weft_tests::command::words(&line))?;
        ensure!(!stranger.status.success(), "a stranger was served");
        // Even if somebody opened the socket to all, who it is decides.
        std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666))?;
        let stranger = weft_tests::command::output(&mut weft_tests::command::words(&line))?;
        ensure!(!stranger.status.success(), "a stranger was served by an open socket");
        daemon.stop(arena)
    });
}

#[test]
fn health_is_served_over_tcp_and_the_document_over_the_socket() {
    Arena::run(&[Need::Bpf], |arena| -> Result<()> {
        let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["--metrics", "127.0.0.1:9798"])?;
        for path in ["-/healthy", "-/ready", ""] {
            weft_tests::command::run(&format!("curl -sf -m 20 -o /dev/null http://127.0.0.1:9798/{path}"))?;
        }
        let document = http::request(&daemon.socket(), "GET", "/openapi.json", b"")?;
        ensure!(document.status == 200 && document.body.contains("openapi"), "{document:?}");
        daemon.stop(arena)
    });
}

#[test]
fn a_change_goes_to_its_end_though_its_asker_goes_away() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let ports = (1..=20).map(|n| format!("[[port]]\nname = \"t{n}\"\ntap = \"t{n}\"\n"));
        std::fs::write("/run/many.toml", ports.collect::<Vec<_>>().concat())?;
        let mut command = std::process::Command::new(daemon.cli().binary());
        let asker = Running::start(command.args(["apply", "/run/many.toml"]))?;
        wait::until_true("the first tap", wait::SOON, || {
            Ok(arena.netdevs()?.iter().any(|name| name.starts_with('t')))
        })?;
        // Killed.
        drop(asker);
        wait::until_true("all ports", wait::SOON, || Ok(daemon.cli().ports()?.len() == 20))?;
        daemon.stop(arena)
    });
}
