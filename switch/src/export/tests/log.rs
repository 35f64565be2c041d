//! The queue and its books: what was offered is written or counted as lost.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::log::{Said, Telling};
use super::*;

/// The sample as the n-th conversation.
fn numbered(number: usize) -> Arc<Record> {
    Arc::new(sample_with(&json!({"id": format!("{number:08}")})))
}

/// Ids in the order in which they are in the log, the oldest file first.
fn ids(config: &LogConfig) -> Vec<String> {
    let file = |number: u32| match number {
        0 => config.path.clone(),
        number => format!("{}.{number}", config.path.display()).into(),
    };
    (0..=config.files).rev().flat_map(|number| records(&file(number))).map(|record| record.id).collect()
}

#[test]
fn an_overflow_of_the_queue_is_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path(), 1000, 2);
    let (log, writer) = FlowLog::with_queue(&config, 4).unwrap();
    for number in 0..10 {
        log.offer(&numbered(number));
    }
    assert_eq!(log.counts(), LogCounts { offered: 10, queue_full: 6, ..LogCounts::default() });
    assert_eq!(log.lost(), 6);
    let counts = log.watch();
    drop(log);
    writer.run();
    assert_eq!(counts.read(), LogCounts { offered: 10, written: 4, queue_full: 6, write_failed: 0 });
    assert_eq!(ids(&config), ["00000000", "00000001", "00000002", "00000003"]);
}

#[test]
fn what_cannot_be_written_is_counted_exactly_and_the_log_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let config = small(&dir.path().join("sub"), 1000, 2);
    let log = FlowLog::open(&config).unwrap();
    let settled = |offered: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while log.counts().written + log.lost() < offered {
            assert!(Instant::now() < deadline, "{:?}", log.counts());
            thread::yield_now();
        }
        log.counts()
    };
    log.offer(&numbered(0));
    assert_eq!(settled(1), LogCounts { offered: 1, written: 1, ..LogCounts::default() });
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    (1..4).for_each(|number| log.offer(&numbered(number)));
    assert_eq!(settled(4), LogCounts { offered: 4, written: 1, queue_full: 0, write_failed: 3 });
    fs::create_dir(dir.path().join("sub")).unwrap();
    log.offer(&numbered(4));
    assert_eq!(settled(5), LogCounts { offered: 5, written: 2, queue_full: 0, write_failed: 3 });
    drop(log);
    assert_eq!(ids(&config), ["00000004"]);
}

#[test]
fn records_of_many_threads_are_written_or_lost_and_never_both() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path(), 100, 999);
    let (log, writer) = FlowLog::with_queue(&config, 64).unwrap();
    let counts = log.watch();
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.run());
        thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || (0..1000).for_each(|number| log.offer(&numbered(thread * 1000 + number))));
            }
        });
        drop(log);
        writing.join().unwrap();
    });
    let counts = counts.read();
    assert_eq!((counts.offered, counts.write_failed), (4000, 0));
    assert_eq!(counts.written + counts.lost(), 4000, "{counts:?}");
    let mut ids = ids(&config);
    assert_eq!(ids.len() as u64, counts.written);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, counts.written, "one was written twice");
}

#[test]
fn what_is_queued_is_written_before_the_log_ends_and_a_new_one_appends() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path(), 7, 500);
    for start in [0, 500] {
        let log = FlowLog::open(&config).unwrap();
        (start..start + 500).for_each(|number| log.offer(&numbered(number)));
        assert_eq!(log.lost(), 0);
    }
    let expected: Vec<_> = (0..1000).map(|number| format!("{number:08}")).collect();
    assert_eq!(ids(&config), expected);
}

#[test]
fn a_place_that_cannot_be_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |path: &str| FlowLog::open(&LogConfig::at(dir.path().join(path))).unwrap_err().to_string();
    let missing = refusal("missing/log");
    assert!(missing.contains("does not exist; make it (mkdir -p ") && missing.contains("--flow-log"), "{missing}");
    fs::create_dir(dir.path().join("log")).unwrap();
    assert!(refusal("log").contains("Is a directory"), "{}", refusal("log"));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(refusal("file/log").contains("Not a directory"), "{}", refusal("file/log"));
}

#[test]
fn losses_are_spoken_of_once_a_minute_and_the_end_of_them_too() {
    let mut telling = Telling::default();
    let start = Instant::now();
    let mut say = |secs: u64, lost: u64, failing: bool| telling.say(lost, failing, start + Duration::from_secs(secs));
    assert_eq!(say(0, 0, false), None);
    assert_eq!(say(1, 3, true), Some(Said { lost: 3, failing: true }));
    assert_eq!(say(2, 4, true), None);
    assert_eq!(say(60, 9, true), None);
    assert_eq!(say(61, 9, true), Some(Said { lost: 6, failing: true }));
    assert_eq!(say(62, 9, false), None);
    assert_eq!(say(130, 9, false), Some(Said { lost: 0, failing: false }));
    assert_eq!(say(200, 9, false), None);
    assert_eq!(say(201, 11, false), Some(Said { lost: 2, failing: false }));
    assert_eq!(say(300, 11, false), None);
}
