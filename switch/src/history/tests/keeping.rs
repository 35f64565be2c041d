//! How much is kept.

use super::*;
use store::{Batch, Looked, Store};

fn records(span: std::ops::Range<u64>) -> Batch {
    let record = |number: u64| (number, Arc::new(sample(at(i64::try_from(number).unwrap()))));
    Batch { records: span.map(record).collect(), ..Batch::default() }
}

fn spans(store: &Store) -> (i64, i64) {
    let (first, last) = store.ends().unwrap();
    (first.unwrap().as_second() - at(0).as_second(), last.unwrap().as_second() - at(0).as_second())
}

fn count(store: &Store, table: &str) -> i64 {
    store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_older_than_it_may_be_goes_from_every_table() {
    let place = Place::new();
    let mut store = Store::open(&place.config().path, 1 << 30).unwrap();
    let mut batch = records(0..100);
    for number in 0..100_i64 {
        batch.events.push(EventRow {
            number: number.cast_unsigned(),
            time: at(number),
            kind: "k".to_owned(),
            port: None,
            json: "{}".to_owned(),
        });
        let dropped = u64::try_from(number).unwrap() + 1;
        let total = DropTotal {
            port: "a".to_owned(),
            side: Side::Egress,
            reason: "r".to_owned(),
            frames: dropped,
            bytes: dropped,
        };
        batch.drops.push((at(number), vec![total]));
    }
    store.write(&batch, Bases::default(), &mut Looked::since(at(-1))).unwrap();
    assert!(!store.retain(at(100), Duration::from_secs(40), 1 << 30).unwrap());
    assert_eq!(spans(&store), (60, 99));
    for table in ["flow", "record", "event", "dropped"] {
        assert_eq!(count(&store, table), 40, "{table}");
    }
}

#[test]
fn the_file_stays_within_its_size_and_the_oldest_records_go_first() {
    const MAX: u64 = 16 << 20;
    let place = Place::new();
    let mut store = Store::open(&place.config().path, MAX).unwrap();
    let mut looked = Looked::default();
    store
        .write(
            &Batch {
                events: vec![EventRow {
                    number: 0,
                    time: at(0),
                    kind: "k".to_owned(),
                    port: None,
                    json: "{}".to_owned(),
                }],
                ..Batch::default()
            },
            Bases::default(),
            &mut looked,
        )
        .unwrap();
    let mut next = 0;
    let mut largest = 0;
    // Three times what there is room for.
    while next < 60_000 {
        store.write(&records(next..next + 2000), Bases::default(), &mut looked).unwrap();
        next += 2000;
        while store.retain(at(0), Duration::from_hours(24), MAX).unwrap() {}
        let sizes =
            place.files().iter().map(|file| std::fs::metadata(place.0.path().join(file)).unwrap().len()).sum::<u64>();
        largest = largest.max(sizes);
    }
    let (first, last) = spans(&store);
    assert!(largest <= MAX, "{largest} bytes are taken");
    assert!(first > 0 && last == 59_999 && last - first > 10_000, "{first} to {last} are kept");
    assert_eq!(count(&store, "flow"), count(&store, "record"));
    assert_eq!(count(&store, "event"), 1, "records pushed out an event");
    // Less room than before: the file shrinks, and is written meanwhile.
    let mut store = {
        drop(store);
        Store::open(&place.config().path, MAX / 4).unwrap()
    };
    for _ in 0..100 {
        store.retain(at(0), Duration::from_hours(24), MAX / 4).unwrap();
    }
    store.write(&records(next..next + 10), Bases::default(), &mut looked).unwrap();
    assert!(store.bytes().unwrap() <= MAX / 4);
    drop(store);
    assert!(std::fs::metadata(place.config().path).unwrap().len() <= MAX / 4 + (1 << 20));
}
