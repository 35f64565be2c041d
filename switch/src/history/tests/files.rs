//! Files that are not what they should be, and disks that take nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;

async fn keep(history: &History, span: std::ops::Range<i64>) {
    let mut outlet = history.outlet();
    span.for_each(|number| outlet.offer(&Arc::new(sample(at(number)))));
    history.settle().await.unwrap();
}

async fn kept(history: &History) -> usize {
    ask(history, "since=1h", usize::MAX).await.unwrap().len()
}

fn asides(place: &Place, why: &str) -> usize {
    place.files().iter().filter(|file| file.contains(why) && file.ends_with('Z')).count()
}

#[tokio::test]
async fn a_file_that_is_no_database_is_moved_aside_and_begun_anew() {
    let place = Place::new();
    fs::write(place.config().path, "no database at all, but long enough to be looked at".repeat(100)).unwrap();
    let history = place.start();
    keep(&history, 0..3).await;
    assert_eq!((kept(&history).await, history.lost(), asides(&place, ".corrupt-")), (3, 0, 1));
    let status = history.status();
    assert_eq!(status.problem, None);
    assert!(status.set_aside.unwrap().contains("history.sqlite.corrupt-20"));
    assert_eq!(fs::metadata(place.config().path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn a_file_with_another_layout_is_moved_aside_under_its_version() {
    let place = Place::new();
    let history = place.start();
    keep(&history, 0..3).await;
    history.stop().await;
    let db = rusqlite::Connection::open(place.config().path).unwrap();
    db.pragma_update(None, "user_version", 7).unwrap();
    drop(db);
    let history = place.start();
    keep(&history, 0..1).await;
    assert_eq!((kept(&history).await, asides(&place, ".version-7-")), (1, 1));
    history.stop().await;
    // The control: one that has the version it should have stays.
    let history = place.start();
    assert_eq!((kept(&history).await, asides(&place, "Z")), (1, 1));
}

#[tokio::test]
async fn a_file_that_breaks_while_it_is_used_is_found_out_by_who_asks_or_writes() {
    let place = Place::new();
    let history = place.start();
    keep(&history, 0..3000).await;
    // Everything behind the first pages is garbage, whoever reads it next.
    history.stop().await;
    let file = fs::File::options().write(true).open(place.config().path).unwrap();
    let pages = file.metadata().unwrap().len() / 8192;
    for page in 12..pages {
        file.write_all_at(&[0xa5; 8192], page * 8192).unwrap();
    }
    let history = place.start();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while asides(&place, ".corrupt-") == 0 {
        let mut outlet = history.outlet();
        outlet.offer(&Arc::new(sample(at(1))));
        ask(&history, "since=1h", usize::MAX).await.ok();
        assert!(std::time::Instant::now() < deadline, "nobody found out");
    }
    keep(&history, 0..5).await;
    assert!(kept(&history).await >= 5);
    assert_eq!(history.status().problem, None);
}

#[tokio::test]
async fn of_the_files_that_were_moved_aside_the_youngest_three_are_kept() {
    let place = Place::new();
    for daemon in 0..5 {
        fs::write(place.config().path, format!("broken {daemon}")).unwrap();
        let history = place.start();
        keep(&history, 0..1).await;
        history.stop().await;
    }
    assert_eq!(asides(&place, ".corrupt-"), 3);
    let contents: Vec<String> = place
        .files()
        .iter()
        .filter(|file| file.contains(".corrupt-"))
        .map(|file| fs::read_to_string(place.0.path().join(file)).unwrap())
        .collect();
    assert_eq!(contents, ["broken 2", "broken 3", "broken 4"]);
}

#[tokio::test]
async fn a_place_that_takes_nothing_costs_what_is_offered_and_is_used_again_when_it_does() {
    let place = Place::new();
    let dir = place.0.path().join("later");
    let config = HistoryConfig { path: dir.join("history.sqlite"), ..place.config() };
    let history = History::start(&config, true).unwrap();
    keep(&history, 0..7).await;
    assert_eq!(history.lost(), 7);
    assert!(history.status().problem.unwrap().contains("No such file"), "{:?}", history.status());
    let error = ask(&history, "since=1h", 9).await.unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains("without --since"), "{error}");
    fs::create_dir(&dir).unwrap();
    keep(&history, 7..10).await;
    assert_eq!((history.lost(), history.status().problem, kept(&history).await), (7, None, 3));
}

#[tokio::test]
async fn a_file_that_is_removed_underneath_is_begun_anew() {
    let place = Place::new();
    let history = place.start();
    keep(&history, 0..7).await;
    fs::remove_file(place.config().path).unwrap();
    keep(&history, 7..10).await;
    assert_eq!((history.lost(), kept(&history).await), (0, 3));
}

#[tokio::test]
async fn what_finds_no_room_in_the_queue_is_lost_and_counted_and_nobody_waits() {
    let place = Place::new();
    let (history, writer) = History::with_queue(&place.config(), true, 10);
    let mut outlet = history.outlet();
    (0..25).for_each(|number| outlet.offer(&Arc::new(sample(at(number)))));
    history.offer_event(EventRow { number: 0, time: at(0), kind: "x".to_owned(), port: None, json: "{}".to_owned() });
    assert_eq!(history.lost(), 16);
    let thread = thread::spawn(move || writer.run());
    assert_eq!(kept(&history).await, 10);
    history.stop().await;
    thread.join().unwrap();
    outlet.offer(&Arc::new(sample(at(30))));
    assert_eq!(history.lost(), 17, "what is offered after the end is lost, too");
    assert!(matches!(history.settle().await, Err(HistoryError::Ended)));
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let place = Place::new();
    // Nobody takes anything from this queue: as if the thread waited for its disk.
    let (history, _writer) = History::with_queue(&place.config(), true, 1);
    let mut outlet = history.outlet();
    (0..3).for_each(|number| outlet.offer(&Arc::new(sample(at(number)))));
    let began = Instant::now();
    history.stop().await;
    assert!(began.elapsed() <= END_WITHIN + Duration::from_secs(1));
    assert_eq!(history.lost(), 2);
}

#[tokio::test]
async fn a_log_that_was_left_half_written_loses_no_more_than_its_last_batch() {
    let place = Place::new();
    let history = place.start();
    keep(&history, 0..50).await;
    keep(&history, 50..60).await;
    // As a kill leaves it: the log is not in the file, and its end is cut off.
    let copy = Place::new();
    for file in ["history.sqlite", "history.sqlite-wal"] {
        fs::copy(place.0.path().join(file), copy.0.path().join(file)).unwrap();
    }
    let log = fs::File::options().append(true).open(copy.0.path().join("history.sqlite-wal")).unwrap();
    let length = log.metadata().unwrap().len();
    log.set_len(length - 1000).unwrap();
    (&log).write_all(&[0x5a; 300]).unwrap();
    let again = copy.start();
    assert_eq!((kept(&again).await, asides(&copy, "Z")), (50, 0));
    keep(&again, 60..61).await;
    assert_eq!(kept(&again).await, 51);
}
