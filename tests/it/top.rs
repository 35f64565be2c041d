//! `weft top` as somebody sees it: the real binary on a pseudo-terminal, real traffic, keys pressed, the screen read.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Cli, Daemon, Mode, Need, Station, Terminal, cli, wait};

/// Keys as a terminal sends them.
const ENTER: &str = "\r";
const ESCAPE: &str = "\u{1b}";
const DOWN: &str = "\u{1b}[B";
const CONTROL_C: &str = "\u{3}";

/// Somebody who pings without end.
fn pinging(from: &Container, to: &Container) -> Result<Running> {
    let mut command = from.namespace().command(&format!("ping -q -n -i 0.02 {}", to.v4()));
    Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// A TCP connection between two containers over which something was sent, and that is not closed.
fn connected(from: &Container, to: &Container) -> Result<(TcpStream, TcpStream)> {
    let listener = to.namespace().within(|| Ok(TcpListener::bind((to.v4(), 8080))?))?;
    let address = SocketAddr::from((to.v4(), 8080));
    let mut client = from.namespace().within(|| Ok(TcpStream::connect_timeout(&address, wait::SOON)?))?;
    let (server, _) = listener.accept()?;
    client.write_all(&[b'w'; 10_000])?;
    Ok((client, server))
}

/// The line that a row with this word is on.
fn row<'a>(screen: &'a str, word: &str) -> Result<&'a str> {
    screen.lines().find(|line| line.contains(word)).with_context(|| format!("no {word} on\n{screen}"))
}

/// The word in a row that stands below a heading, which ends where the heading ends.
fn number<'a>(screen: &'a str, heading: &str, word: &str) -> Result<&'a str> {
    let headings = row(screen, heading)?;
    let end = headings.find(heading).map_or(0, |at| at + heading.len());
    let line = row(screen, word)?;
    let cells = line.get(..end).with_context(|| format!("{line} is too short"))?;
    cells.split_whitespace().last().context("no cell")
}

/// Whether a number as it is shown is more than nothing.
fn is_some(number: &str) -> bool {
    number.chars().any(|c| ('1'..='9').contains(&c))
}

fn fits(screen: &str, columns: usize, rows: usize) -> Result<()> {
    ensure!(screen.lines().count() <= rows, "more than {rows} lines:\n{screen}");
    ensure!(screen.lines().all(|line| line.chars().count() <= columns), "wider than {columns}:\n{screen}");
    Ok(())
}

in_every_mode! {
    fn a_person_sees_ports_conversations_drops_stations_and_events(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (one, other) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        let stranger = topology::station(&daemon, "web1")?;
        let pings = pinging(&one, &other)?;
        let connection = connected(&one, &other)?;
        let mut terminal = Terminal::weft(daemon.cli(), "top", 80, 24)?;

        let screen = terminal.until("rates of ports", |screen| number(screen, "IN-FR/S", "c1").is_ok_and(is_some))?;
        terminal.assert_taken()?;
        fits(&screen, 80, 24)?;
        ensure!(screen.starts_with("weft weft0") && screen.contains(" 3 ports"), "{screen}");
        ensure!(row(&screen, "c2")?.contains("up") && is_some(number(&screen, "OUT-BIT/S", "c2")?), "{screen}");
        ensure!(terminal.has_reverse(), "nothing is chosen:\n{screen}");

        terminal.press("2")?;
        let screen = terminal.until("rates of conversations", |screen| number(screen, "FR/S", "icmp").is_ok_and(is_some))?;
        fits(&screen, 80, 24)?;
        ensure!(row(&screen, "icmp")?.starts_with("c1/198.18.0.1 "), "{screen}");
        ensure!(row(&screen, "icmp")?.contains(" c2/198.18.0.2 "), "{screen}");
        ensure!(row(&screen, "tcp")?.contains("c2/198.18.0.2:8080"), "{screen}");

        // The connection alone, and everything that is known of it.
        terminal.press("/tcp 8080\r")?;
        let screen = terminal.until("what was looked for", |screen| screen.contains("/tcp 8080") && !screen.contains("icmp"))?;
        ensure!(screen.contains(" of "), "{screen}");
        terminal.press(ENTER)?;
        // The whole picture, its last line too.
        let screen = terminal.until("all of it", |screen| screen.contains("community_id 1:") && screen.contains(" line "))?;
        fits(&screen, 80, 24)?;
        terminal.press(DOWN)?;
        terminal.until("a line further", |now| now.lines().nth(5) == screen.lines().nth(6))?;
        terminal.resize(100, 50)?;
        let screen = terminal.until_shows("verdict forwarded")?;
        for field in ["source.port_name c1", "destination.port 8080", "tcp.handshake_rtt_us ", "tcp.flags syn", "tcp.retransmits "] {
            ensure!(screen.contains(field), "no {field} on\n{screen}");
        }
        fits(&screen, 100, 50)?;
        terminal.resize(80, 24)?;
        // The new size is seen first: crossterm forgets a key that comes in the same moment until the next one.
        terminal.until_shows(" line ")?;
        terminal.press(ESCAPE)?;
        terminal.until_shows("SOURCE")?;
        terminal.press(ESCAPE)?;
        terminal.until_shows("icmp")?;

        // A frame that no switch forwards.
        stranger.send(&Builder::new(MacAddr([1, 0, 0, 0, 0, 7]), frames::station(1)).number(1).build())?;
        terminal.press("3")?;
        let screen = terminal.until("a drop", |screen| number(screen, "FRAMES", "group_source").is_ok_and(is_some))?;
        ensure!(row(&screen, "group_source")?.starts_with("web1 ") && screen.contains("ingress"), "{screen}");

        stranger.send(&Builder::new(frames::station(7), MacAddr::BROADCAST).number(2).build())?;
        terminal.press("4")?;
        let mac = frames::station(7).to_string();
        let screen = terminal.until_shows(&mac)?;
        ensure!(row(&screen, &mac)?.contains("web1") && row(&screen, &mac)?.contains("learnt"), "{screen}");

        // The station that was heard first a moment ago, above what happened before.
        terminal.press("5")?;
        let screen = terminal.until_shows(&format!("new station {mac} at port web1"))?;
        fits(&screen, 80, 24)?;
        ensure!(row(&screen, "TIME")?.split_whitespace().eq(["TIME", "KIND", "PORT", "WHAT"]), "{screen}");
        ensure!(row(&screen, &mac)?.contains(" new_station") && row(&screen, &mac)?.contains(" web1 "), "{screen}");
        let at = |word: &str| screen.lines().position(|line| line.contains(word));
        ensure!(at(&mac) < at("at port c1") && at("at port c1").is_some(), "{screen}");
        terminal.press("/web1 new_station\r")?;
        terminal.until("what was looked for", |screen| !screen.contains("port c1") && screen.contains(&mac))?;
        terminal.press(ENTER)?;
        terminal.until("its conversations", |screen| screen.contains("SOURCE") && screen.contains(&format!("/{mac}")))?;

        terminal.press("q")?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        terminal.assert_as_before()?;
        drop((pings, connection, one, other, stranger, terminal));
        daemon.stop(arena)
    }
}

/// A daemon with two taps.
fn small(arena: &Arena) -> Result<(Daemon, Station, Station)> {
    let daemon = Daemon::start(arena, Mode::Kernel)?;
    let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
    Ok((daemon, a, b))
}

/// Sends a numbered frame from a to everybody.
fn shout(a: &Station, number: u64) -> Result<()> {
    Ok(a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(number).build())?)
}

/// The first words of the rows of a table.
fn names(screen: &str) -> Vec<&str> {
    let rows = screen.lines().skip(3).take_while(|line| !line.is_empty() && !line.starts_with("q quit"));
    rows.filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn rows_are_sorted_turned_round_searched_and_held() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = small(arena)?;
        for number in 0..3 {
            shout(&a, number)?;
        }
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2))?;
        let mut terminal = Terminal::weft(daemon.cli(), "top --sort name", 120, 24)?;
        terminal.until("by name", |screen| names(screen) == ["a", "b"])?;
        terminal.press("r")?;
        terminal.until("the other way round", |screen| names(screen) == ["b", "a"])?;
        // By what came in: eight columns to the right, where a wide screen has them.
        terminal.press(&">".repeat(9))?;
        terminal.until("by bytes", |screen| names(screen) == ["a", "b"] && screen.contains("IN-BYTES"))?;
        terminal.press("/B\r")?;
        terminal.until("what was looked for", |screen| names(screen) == ["b"] && screen.contains("1 of 2"))?;
        terminal.press("/nothing of the kind\r")?;
        terminal.until_shows("nothing to show")?;
        terminal.press(ESCAPE)?;
        terminal.until("all again", |screen| names(screen) == ["a", "b"])?;

        terminal.press(" ")?;
        let held = terminal.until_shows("PAUSED")?;
        let bytes = number(&held, "IN-BYTES", "a ")?.to_owned();
        for number in 3..6 {
            shout(&a, number)?;
        }
        // Somebody else who looks sees it, twice over.
        let other = Terminal::weft(daemon.cli(), "top", 120, 24)?;
        let is_news = |screen: &str| number(screen, "IN-BYTES", "a ").is_ok_and(|now| now != bytes);
        let first = other.until("news", is_news)?;
        other.until("the next look", |screen| is_news(screen) && screen.lines().next() != first.lines().next())?;
        terminal.press("?")?;
        terminal.until_shows("Rates are of wire frames")?;
        terminal.press(ESCAPE)?;
        terminal.until("what was held, and nothing newer", |screen| screen == held)?;
        terminal.press(" ")?;
        terminal.until("it goes on", is_news)?;

        // Those of a port, by a key.
        terminal.press(ENTER)?;
        terminal.until("the port's conversations", |screen| screen.contains("a/02:00") && screen.contains("0x88b5"))?;
        terminal.press(CONTROL_C)?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        terminal.assert_as_before()?;
        drop((a, b, terminal, other));
        daemon.stop(arena)
    });
}

#[test]
fn a_screen_may_be_small_grow_and_be_too_small() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = small(arena)?;
        let mut terminal = Terminal::weft(daemon.cli(), "top", 80, 24)?;
        let screen = terminal.until_shows("DROP/S")?;
        ensure!(!screen.contains("NETDEV"), "{screen}");
        terminal.resize(140, 40)?;
        fits(&terminal.until_shows("NETDEV")?, 140, 40)?;
        terminal.resize(40, 8)?;
        let screen =
            terminal.until("a small one", |screen| screen.contains("IN-BIT/S") && !screen.contains("NETDEV"))?;
        fits(&screen, 40, 8)?;
        ensure!(names(&screen) == ["a", "b"] && !screen.contains("DROPS"), "{screen}");
        terminal.resize(30, 5)?;
        terminal.until_shows("too small: 40 x 8")?;
        for (columns, rows) in [(1, 1), (200, 2), (2, 60)] {
            terminal.resize(columns, rows)?;
        }
        terminal.resize(80, 24)?;
        terminal.until_shows("DROP/S")?;
        terminal.press("q")?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        drop((a, b, terminal));
        daemon.stop(arena)
    });
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = small(arena)?;
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let mut terminal = Terminal::weft(daemon.cli(), "top", 80, 24)?;
            terminal.until_shows("IN-BIT/S")?;
            terminal.assert_taken()?;
            terminal.running()?.signal(signal)?;
            ensure!(terminal.end(wait::SOON)? == Some(0), "{signal:?}");
            terminal.assert_as_before()?;
            ensure!(!terminal.screen().contains("IN-BIT/S"), "{}", terminal.screen());
        }
        let mut terminal = Terminal::run(&cli::built("panics_on_a_screen")?, &[], 80, 24, &[])?;
        terminal.until_shows("about to panic")?;
        terminal.assert_taken()?;
        terminal.press("\n")?;
        ensure!(terminal.end(wait::SOON)? == Some(101));
        terminal.assert_as_before()?;
        let screen = terminal.until_shows("as this program is meant to")?;
        ensure!(!screen.contains("about to panic"), "{screen}");
        drop((a, b, terminal));
        daemon.stop(arena)
    });
}

#[test]
fn a_daemon_that_is_gone_leaves_its_last_picture_and_is_seen_again_when_it_is_back() {
    Arena::run(&[Need::Bpf], |arena| {
        let (mut daemon, a, b) = small(arena)?;
        let mut terminal = Terminal::weft(daemon.cli(), "top --sort name", 80, 24)?;
        terminal.until("rates", |screen| number(screen, "IN-FR/S", "a ").is_ok_and(|rate| rate == "0"))?;
        daemon.kill()?;
        let screen = terminal.until_shows("NO DAEMON since ")?;
        ensure!(names(&screen) == ["a", "b"], "the picture is lost:\n{screen}");
        let since = row(&screen, "NO DAEMON")?.get(..24).context("short")?.to_owned();
        let later =
            terminal.until("it says for how long", |screen| screen.contains("(1s)") || screen.contains("(2s)"))?;
        ensure!(row(&later, "NO DAEMON")?.starts_with(&since), "{since}\n{later}");
        daemon.launch()?;
        let screen = terminal.until("it is back", |screen| !screen.contains("NO DAEMON"))?;
        ensure!(names(&screen) == ["a", "b"], "{screen}");
        shout(&a, 1)?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        terminal.press(&">".repeat(9))?;
        terminal.press("\u{1b}[6~q")?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        terminal.assert_as_before()?;
        drop((a, b, terminal));
        daemon.stop(arena)
    });
}

#[test]
fn where_nothing_can_be_drawn_or_asked_that_is_said_with_what_to_do() {
    Arena::run(&[Need::Bpf], |arena| {
        let nobody = Cli::new("weft9")?;
        let refusal = nobody.refused("top")?;
        ensure!(refusal.code == 2 && refusal.message.contains("standard output is no terminal"), "{refusal:?}");
        ensure!(refusal.message.contains("weft -o json port list"), "{refusal:?}");
        ensure!(nobody.refused("-o json top")?.code == 2 && nobody.refused("top --every 0")?.code == 2);

        let ends = |line: &str, code: i32, says: &str, variables: &[(&str, &str)]| -> Result<()> {
            let words: Vec<&str> = ["--name", nobody.name()].into_iter().chain(line.split(' ')).collect();
            let mut terminal = Terminal::run(nobody.binary(), &words, 100, 24, variables)?;
            let ended = terminal.end(wait::SOON)?;
            let screen = terminal.until_shows(says)?;
            ensure!(ended == Some(code), "{line}: {ended:?}\n{screen}");
            terminal.assert_as_before()?;
            ensure!(!terminal.written().contains(&0x1b), "{line}: it drew\n{screen}");
            Ok(())
        };
        ends("top", 3, "no daemon answers", &[])?;
        ends("top", 2, "TERM is dumb", &[("TERM", "dumb")])?;
        ends("top stations --sort colour", 2, "there are mac, port, kind, age, moves", &[])?;
        ensure!(arena.netdevs()?.is_empty());
        Ok(())
    });
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = small(arena)?;
        for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
            let words = ["--name", "weft0", "top"];
            let mut terminal = Terminal::run(daemon.cli().binary(), &words, 80, 24, variables)?;
            terminal.until_shows("IN-BIT/S")?;
            ensure!(terminal.has_colour() == is_coloured, "{variables:?}");
            ensure!(terminal.has_reverse(), "what is chosen is seen without colours, too");
            terminal.press("q")?;
            ensure!(terminal.end(wait::SOON)? == Some(0));
        }
        drop((a, b));
        daemon.stop(arena)
    });
}

#[test]
fn a_label_cannot_steer_the_terminal_of_who_watches() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let a = Station::plain("a")?;
        let added = daemon.cli().output_of(&["port", "add", "a", "--netdev", "a", "--label", "note=\u{202e}up"])?;
        ensure!(added.status.success(), "{added:?}");
        daemon.until_state("a", "up", wait::SOON)?;
        shout(&a, 1)?;
        let mut terminal = Terminal::weft(daemon.cli(), "top conversations", 100, 40)?;
        terminal.until_shows("a/02:00")?;
        terminal.press(ENTER)?;
        terminal.until("the label", |screen| {
            let labels = screen.lines().find(|line| line.contains("source.labels")).unwrap_or_default();
            labels.contains("note") && labels.contains("\\u{202e}up")
        })?;
        ensure!(!String::from_utf8_lossy(&terminal.written()).contains('\u{202e}'), "it reached the terminal");
        terminal.press("q")?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        drop((a, terminal));
        daemon.stop(arena)
    });
}

/// A line with numbers of any size, and any number of blanks.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for word in line.split_whitespace() {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(':') && !word.contains('-');
        shape.push_str(if is_number { "#" } else { word });
        shape.push(' ');
    }
    shape
}

#[test]
fn the_screen_in_the_manual_is_one_that_is_seen() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (one, other) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        let pings = pinging(&one, &other)?;
        let connection = connected(&one, &other)?;
        let mut terminal = Terminal::weft(daemon.cli(), "top conversations", 80, 12)?;
        let screen = terminal.until("both conversations", |screen| {
            number(screen, "FR/S", "icmp").is_ok_and(is_some) && screen.contains("tcp") && screen.contains(" up ")
        })?;
        let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operate.md"))?;
        let block = manual.split("```text\nweft weft0").nth(1).and_then(|rest| rest.split("\n```").next());
        let expected = format!("weft weft0{}", block.context("no screen in docs/operate.md")?);
        ensure!(expected.lines().count() == 12, "80 x 12, not {} lines", expected.lines().count());
        fits(&expected, 80, 12)?;
        for (at, what) in [(1, "the views"), (2, "the headings"), (11, "the keys")] {
            let (seen, promised) = (screen.lines().nth(at), expected.lines().nth(at));
            ensure!(seen.map(shape) == promised.map(shape), "{what}: {seen:?}, but the manual has {promised:?}");
        }
        ensure!(row(&screen, "icmp ").map(shape)? == row(&expected, "icmp ").map(shape)?, "{screen}\n{expected}");
        terminal.press("q")?;
        ensure!(terminal.end(wait::SOON)? == Some(0));
        drop((pings, connection, one, other, terminal));
        daemon.stop(arena)
    });
}
