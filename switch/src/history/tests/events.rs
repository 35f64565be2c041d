//! Events: found by everything that a question may name, told once whoever has them, over daemons.

use super::*;
use crate::events::{Event, EventFilter, EventKind, Events, Limit, RECENT_MAX};
use crate::fdb::Nanos;

fn event(number: i64, kind: EventKind, port: &str) -> Event {
    Event::new(at(number), kind, Some(port.to_owned()))
}

fn asking(words: &[(&str, &str)], since: Option<i64>, until: Option<i64>) -> EventFilter {
    let mut filter = EventFilter::default();
    for (word, value) in words {
        filter.add(word, value).unwrap();
    }
    filter.between(since.map(at), until.map(at));
    filter
}

/// A hub whose events are kept.
fn told_to(history: &History) -> Events {
    let events = Events::new(Limit { per_second: 1_000_000, burst: 1_000_000 });
    events.keep_with(history.keeper());
    events
}

async fn asked(history: &History, events: &Events, filter: EventFilter, last: usize) -> Vec<i64> {
    let told = events.told(&filter, last);
    let found = history.complete_events(told, filter, last).await.unwrap();
    found.iter().map(|event| event.time.as_second() - at(0).as_second()).collect()
}

#[tokio::test]
async fn events_are_found_by_time_kind_and_port_as_memory_finds_them() {
    let place = Place::new();
    let history = place.start();
    let events = told_to(&history);
    for number in 0..12 {
        let kind = if number % 2 == 0 { EventKind::NewStation } else { EventKind::StationMoved };
        let mut event = event(number, kind, &format!("p{}", number % 3));
        event.other_port = (number == 7).then(|| "p9".to_owned());
        events.tell(event, Nanos(0));
    }
    history.stop().await;
    let history = place.start();
    for (words, since, until, expected) in [
        (&[][..], None, Some(99), &[8, 9, 10, 11][..]),
        (&[], Some(10), None, &[10, 11]),
        (&[], None, Some(2), &[0, 1]),
        (&[("kind", "new_station")], Some(0), None, &[4, 6, 8, 10]),
        (&[("kind", "new_station"), ("kind", "station_moved")], Some(0), None, &[8, 9, 10, 11]),
        (&[("kind", "dns_answer")], Some(0), None, &[]),
        (&[("port", "p1")], Some(0), None, &[1, 4, 7, 10]),
        (&[("port", "p1"), ("port", "p2")], Some(7), None, &[7, 8, 10, 11]),
        (&[("port", "p9")], Some(0), None, &[7]),
        (&[("port", "p9"), ("kind", "new_station")], Some(0), None, &[]),
        (&[("port", "' OR 1 = 1 --")], Some(0), None, &[]),
    ] {
        let filter = asking(words, since, until);
        // What a new daemon's memory has not, the file has; what the old one's memory has is the same.
        assert_eq!(asked(&history, &Events::default(), filter.clone(), 4).await, expected, "{words:?}");
        let remembered = events.recent(&filter, 4);
        assert_eq!(remembered.len(), expected.len(), "{words:?}");
        let kept = history.events(filter, 4).await.unwrap();
        assert!(kept.iter().zip(&remembered).all(|((_, kept), told)| *kept == **told), "{kept:?}");
    }
    assert_eq!(asked(&history, &Events::default(), asking(&[], None, None), 4).await, [0; 0], "no time, no file");
}

#[tokio::test]
async fn what_memory_and_file_have_is_told_once_and_what_memory_forgot_is_not_missing() {
    let place = Place::new();
    let recent = i64::try_from(RECENT_MAX).unwrap();
    for daemon in 0..3 {
        let history = place.start();
        let events = told_to(&history);
        let begin = daemon * 10_000;
        // One of a kind that memory keeps for long, and more of another than it keeps.
        events.tell(event(begin, EventKind::DuplicateAddress, "a"), Nanos(0));
        for number in 1..recent + 50 {
            events.tell(event(begin + number, EventKind::DnsAnswer, "a"), Nanos(0));
        }
        let all: Vec<i64> =
            (0..=daemon).flat_map(|daemon| (0..recent + 50).map(move |it| daemon * 10_000 + it)).collect();
        assert_eq!(asked(&history, &events, asking(&[], Some(0), None), usize::MAX).await, all);
        let last = all.split_at(all.len() - 1049).1;
        assert_eq!(asked(&history, &events, asking(&[], Some(0), None), 1049).await, last);
        assert_eq!(events.recent(&EventFilter::default(), usize::MAX).len(), RECENT_MAX + 1);
        assert_eq!(history.lost(), 0);
        history.stop().await;
    }
}

#[tokio::test]
async fn a_question_that_memory_can_answer_asks_no_file() {
    let place = Place::new();
    let history = place.start();
    let events = told_to(&history);
    events.tell(event(5, EventKind::NewStation, "a"), Nanos(0));
    assert_eq!(asked(&history, &events, asking(&[], Some(1), None), 10).await, [5]);
    history.stop().await;
    // Its thread has ended, so whoever asks it is told.
    assert_eq!(asked(&history, &events, asking(&[], Some(1), None), 10).await, [5]);
    let filter = asking(&[], None, Some(9));
    let refused = history.complete_events(events.told(&filter, 10), filter, 10).await;
    assert!(matches!(refused, Err(HistoryError::Ended)), "{refused:?}");
    events.tell(event(6, EventKind::NewStation, "a"), Nanos(0));
    assert_eq!(history.lost(), 1, "what cannot be kept is counted");
}
