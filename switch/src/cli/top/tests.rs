//! What keys do, what is asked, and what a large switch costs who watches it, against a daemon that answers from memory.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::app::Picture;
use super::ask::Rows;
use super::*;
use crate::api::schema::{DropInfo, Side, StationInfo};
use crate::api::top::{LIMIT_MAX, Top};
use crate::cli::asks::Daemon;
use crate::events::{Event, EventKind, Events, Limit};
use crate::fdb::Nanos;
use crate::flow::{Carried, Pace, Record};
use crate::observer::{Busiest, BusiestBy, Busy};
use crate::port::spec::{Mac, Origin};

fn at(view: View) -> App {
    App::new(Start { view, ..Start::default() })
}

fn press(app: &mut App, code: KeyCode) -> Reaction {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn typed(app: &mut App, text: &str) -> Reaction {
    text.chars().map(|letter| press(app, KeyCode::Char(letter))).last().unwrap_or(Reaction::Draw)
}

fn record(number: u64) -> Record {
    let mut record = json!({
        "id": format!("1-{number:x}"), "began": "2026-11-22T07:00:00Z", "start": "2026-11-22T07:00:00Z",
        "end": "2026-11-22T07:00:01Z", "end_reason": null, "resumed": false, "switch": "weft-test",
        "source.port_name": format!("web{number}"), "source.mac": "52:54:00:00:00:01", "source.address": "198.18.0.1",
        "source.port": number, "destination.port_name": "db", "destination.mac": "52:54:00:00:00:02",
        "destination.address": "2001:db8::2", "destination.port": 5432, "network.type": "ipv4",
        "network.transport": "tcp", "fragment": false, "direction": "east_west", "verdict": "forwarded",
        "tcp.flags": ["syn", "ack"], "tcp.half_open": false, "tcp.handshake_rtt_us": 25,
        "community_id": "1:wCb3OG7yAFWelaUydu0D+125CLM="
    });
    for side in ["forward", "reverse"] {
        for count in ["frames", "wire_frames", "bytes", "wire_bytes", "dropped_frames", "tcp_retransmits"] {
            record[format!("{side}.{count}")] = json!(number);
        }
    }
    for count in ["retransmits", "retransmitted_bytes", "zero_windows", "resets"] {
        record[format!("tcp.{count}")] = json!(0);
    }
    serde_json::from_value(record).unwrap()
}

fn busy(number: u64) -> Busy {
    let carried = Carried { frames: number, bytes: number * 1000 };
    let pace = Pace { total: carried, rate: carried };
    Busy { record: record(number), forward: pace, reverse: pace }
}

fn answer(rows: Vec<Busy>) -> Answer {
    let total = rows.len() as u64;
    let rows = rows.into_iter().map(Into::into).collect();
    let rows = Rows::Conversations(Top { at_ns: 1, total, matched: total, rows });
    let status = json!({"name": "weft0", "pid": 1, "version": "0", "datapath": "kernel", "hook": "tcx", "uptime_secs": 1,
        "ready": true, "ports": 2, "stations": 3});
    Answer { status: serde_json::from_value(status).unwrap(), rows }
}

#[test]
fn keys_choose_what_is_asked() {
    let mut app = at(View::Ports);
    assert_eq!(app.question().by, None, "ports are sorted here");
    assert_eq!(press(&mut app, KeyCode::Char('2')), Reaction::Ask);
    assert_eq!((app.question().by, app.question().descending), (Some("rate"), true));
    assert_eq!(press(&mut app, KeyCode::Left), Reaction::Ask);
    assert_eq!((app.question().by, app.question().descending), (Some("destination"), false));
    assert_eq!(press(&mut app, KeyCode::Char('r')), Reaction::Ask);
    assert!(app.question().descending);
    assert_eq!(typed(&mut app, "/Web q"), Reaction::Draw, "q is a letter here");
    assert_eq!(app.question().text, "", "not before it is wanted");
    assert_eq!(press(&mut app, KeyCode::Enter), Reaction::Ask);
    assert_eq!(app.question().text, "Web q");
    typed(&mut app, "/x");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.question().text, "Web q", "as it was");
    assert_eq!(press(&mut app, KeyCode::Esc), Reaction::Ask);
    assert_eq!(app.question().text, "");
    assert_eq!(press(&mut app, KeyCode::Tab), Reaction::Ask);
    assert_eq!(app.view, View::Drops);
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Reaction::Quit);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Reaction::Quit);
}

#[test]
fn every_order_is_one_that_the_daemon_knows() {
    for (view, knows) in [
        (View::Conversations, (|name| serde_json::from_value::<BusiestBy>(json!(name)).is_ok()) as fn(&str) -> bool),
        (View::Stations, |name| serde_json::from_value::<crate::api::top::StationsBy>(json!(name)).is_ok()),
        (View::Events, |name| serde_json::from_value::<crate::api::top::EventsBy>(json!(name)).is_ok()),
    ] {
        let mut app = at(view);
        for _ in 0..20 {
            press(&mut app, KeyCode::Left);
        }
        for _ in view.orders() {
            assert!(knows(app.question().by.unwrap()), "{:?}", app.question());
            press(&mut app, KeyCode::Right);
        }
    }
}

#[test]
fn who_scrolls_is_given_more_and_never_more_than_there_may_be() {
    let mut app = at(View::Conversations);
    app.page = 20;
    assert_eq!(app.question().limit, 40);
    app.answered(&app.question(), Ok(answer((0..40).map(busy).collect())), Timestamp::now());
    assert_eq!(press(&mut app, KeyCode::End), Reaction::Ask);
    assert_eq!((app.selected, app.question().limit), (39, 60));
    app.answered(&app.question(), Ok(answer((0..LIMIT_MAX as u64).map(busy).collect())), Timestamp::now());
    press(&mut app, KeyCode::End);
    assert_eq!((app.selected, app.question().limit), (LIMIT_MAX - 1, LIMIT_MAX));
    app.answered(&app.question(), Ok(answer(vec![busy(1)])), Timestamp::now());
    assert_eq!((app.selected, app.scroll), (0, 0), "the rows have gone");
    assert_eq!(press(&mut app, KeyCode::Enter), Reaction::Ask);
    assert_eq!(app.question().id.as_deref(), Some("1-1"));
}

#[test]
fn an_answer_to_what_is_not_asked_any_more_is_thrown_away() {
    let mut app = at(View::Conversations);
    let before = app.question();
    typed(&mut app, "/web");
    press(&mut app, KeyCode::Enter);
    app.answered(&before, Ok(answer(vec![busy(1)])), Timestamp::now());
    assert_eq!(app.picture.len(), 0);
    app.answered(&app.question(), Ok(answer(vec![busy(1)])), Timestamp::now());
    assert_eq!(app.picture.len(), 1);
}

#[test]
fn a_picture_is_kept_while_there_is_no_answer_and_it_is_said_since_when() {
    let mut app = at(View::Conversations);
    let time = |secs| Timestamp::from_second(secs).unwrap();
    app.answered(&app.question(), Ok(answer(vec![busy(1)])), time(10));
    for secs in [11, 15] {
        app.answered(&app.question(), Err("no such file".to_owned()), time(secs));
    }
    assert_eq!((app.picture.len(), app.taken), (1, time(10)));
    assert_eq!(app.silence.as_ref().map(|silence| silence.since), Some(time(11)));
    app.answered(&app.question(), Ok(answer(vec![])), time(16));
    assert!(app.silence.is_none() && matches!(&app.picture, Picture::Conversations(rows) if rows.is_empty()));
}

#[test]
fn the_column_that_rows_are_sorted_by_is_seen_however_narrow_it_is() {
    let headings = |view: View| view.orders();
    for view in View::ALL {
        for (place, (heading, _)) in headings(view).into_iter().enumerate() {
            let mut app = App::new(Start { view, order: Some(place), ..Start::default() });
            app.picture = Picture::empty(view);
            for (width, height) in [(80, 24), (50, 8), (400, 100)] {
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| draw::draw(frame, &mut app, Theme::of_environment(), Timestamp::now())).unwrap();
                let screen = terminal.backend().to_string();
                assert!(screen.contains(heading), "{heading} at {width}:\n{screen}");
            }
        }
    }
}

#[test]
fn the_latest_events_come_first_and_no_more_than_the_screen_has_use_for() {
    let daemon = Daemon::start();
    populate(&daemon);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut app = at(View::Events);
    let look = |app: &mut App| {
        let question = app.question();
        let answer = runtime.block_on(ask::ask(daemon.client(), question.clone())).unwrap();
        app.answered(&question, Ok(answer), Timestamp::now());
    };
    let times = |app: &App| match &app.picture {
        Picture::Events(rows) => rows.iter().map(|event| event.time.as_second()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    look(&mut app);
    assert_eq!((app.counts, times(&app).len()), ((2000, 2000), app.question().limit));
    assert_eq!((times(&app)[0], times(&app)[99]), (1199, 1150));
    press(&mut app, KeyCode::Char('r'));
    look(&mut app);
    assert_eq!(times(&app)[0], 200, "the oldest that is remembered");
    typed(&mut app, "/DNS_answer port1199");
    press(&mut app, KeyCode::Enter);
    look(&mut app);
    assert_eq!((app.counts, times(&app)), ((2000, 1), vec![1199]));
    press(&mut app, KeyCode::Enter);
    assert_eq!((app.view, app.text.as_str()), (View::Conversations, "port1199"));
}

/// What this thread has worked so far.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

fn station(number: u64) -> StationInfo {
    let [.., a, b, c] = number.to_be_bytes();
    StationInfo {
        mac: Mac(switch_common::MacAddr([2, 0, 0, a, b, c])),
        vlan: 0,
        port: format!("port{}", number % 1000).parse().unwrap(),
        is_static: false,
        age_secs: number,
        moves: 0,
    }
}

/// 1,000 ports, 3,000 lines of drops, 65,536 stations, and an answer about 100,000 conversations.
fn populate(daemon: &Daemon) {
    let mut world = daemon.fake.world();
    for number in 0..1000 {
        let text = format!("[[port]]\nname = \"port{number}\"\nnetdev = \"vnet{number}\"\n");
        let spec = crate::config::Config::parse(std::path::Path::new("test"), &text).unwrap().ports.remove(0);
        assert_eq!(spec.origin, Origin::File);
        world.specs.insert(spec.name.clone(), spec);
        world.drops.extend(["flood_limited", "spoofed_source", "ring_full"].map(|reason| DropInfo {
            port: format!("port{number}"),
            side: Side::Ingress,
            reason: reason.to_owned(),
            description: "a sentence that nobody reads here".to_owned(),
            frames: number,
            bytes: number * 60,
            evidence: Vec::new(),
        }));
    }
    // As many as are kept of two kinds.
    world.events = Events::new(Limit { per_second: 1_000_000, burst: 1_000_000 });
    for kind in [EventKind::NewStation, EventKind::DnsAnswer] {
        for number in 0..1200 {
            let mut event = Event::new(Timestamp::from_second(number).unwrap(), kind, Some(format!("port{number}")));
            event.name = Some("a-name-as-long-as-names-are.example".to_owned());
            world.events.tell(event, Nanos(0));
        }
    }
    world.stations = (0..65_536).map(station).collect();
    world.busiest =
        Busiest { total: 100_000, matched: 100_000, rows: (0..120).map(busy).collect(), ..Busiest::default() };
}

/// Once a second is asked, so 100 ms are 10 % of a core: on a screen that is larger than most, and without optimisation.
#[test]
fn who_watches_a_thousand_ports_and_a_hundred_thousand_conversations_works_a_tenth_of_the_time_at_most() {
    const LOOKS: u32 = 8;
    let daemon = Daemon::start();
    populate(&daemon);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for view in View::ALL {
        let mut app = at(view);
        let mut terminal = Terminal::new(TestBackend::new(200, 60)).unwrap();
        let before = worked();
        for _ in 0..LOOKS {
            let question = app.question();
            let answer = runtime.block_on(ask::ask(daemon.client(), question.clone())).unwrap();
            app.answered(&question, Ok(answer), Timestamp::now());
            terminal.draw(|frame| draw::draw(frame, &mut app, Theme::of_environment(), Timestamp::now())).unwrap();
        }
        let each = worked().saturating_sub(before) / LOOKS;
        eprintln!("{view:?}: {each:?}");
        assert!(app.picture.len() >= 100, "{view:?}: {} rows", app.picture.len());
        assert!(each <= Duration::from_millis(100), "{view:?}: {each:?} for a look");
    }
    let wanted = daemon.fake.world().wanted.clone();
    assert!(wanted.iter().all(|wanted| wanted.limit <= 120), "{wanted:?}");
}
