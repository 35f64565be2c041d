//! The observer over a source in memory.
#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod busiest;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use switch_common::flow::{FlowKey4, FlowPair, FlowTail, FlowValue, KIND_IPV4, Route};
use switch_common::{PortId, VERDICT_FORWARD};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::*;
use crate::flow::{EndReason, Labels, RawKey};
use crate::port::Role;

const HZ: u32 = 100;

/// Entries that a test changes as the programs would, and a clock that it turns.
#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u16, Entry>,
    clock: Duration,
    is_broken: bool,
    /// Reading ends the thread.
    is_defective: bool,
    /// A frame comes before every look.
    is_restless: bool,
    reads: u32,
    graces: u32,
    freed: u32,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Table>>);

impl Fake {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap()
    }

    /// A datagram of 100 bytes from the source port `number` at port `ingress` to port 2, now.
    fn send(&self, ingress: u16, number: u16) {
        let mut table = self.table();
        let clock = table.clock;
        let entry = table.entries.entry(number).or_insert_with(|| Entry {
            key: RawKey::V4(FlowKey4 {
                pair: FlowPair { destination: [2; 6], source: [4; 6], ingress, outer: 0 },
                source_address: [198, 18, 0, 1],
                destination_address: [198, 18, 0, 2],
                tail: FlowTail { source_port: number, destination_port: 53, protocol: 17, kind: KIND_IPV4, inner: 0 },
            }),
            value: FlowValue {
                first_ns: u64::try_from(clock.as_nanos()).unwrap(),
                route: Route::new(1, 2, VERDICT_FORWARD, 0).0,
                ..FlowValue::default()
            },
        });
        entry.value.frames += 1;
        entry.value.bytes += 100;
        entry.value.last_jiffies = jiffies(clock);
    }

    fn pass(&self, secs: u64) {
        self.table().clock += Duration::from_secs(secs);
    }
}

fn jiffies(clock: Duration) -> u32 {
    u32::try_from(clock.as_secs()).unwrap() * HZ
}

impl Source for Fake {
    fn is_empty(&mut self) -> bool {
        self.table().entries.is_empty()
    }

    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), ReflexError> {
        let mut table = self.table();
        if table.is_broken {
            return Err(ReflexError::NotPermitted);
        }
        if table.is_defective {
            drop(table);
            panic!("a defect, for the test");
        }
        table.reads += 1;
        if table.is_restless {
            table.entries.values_mut().for_each(|entry| entry.value.frames += 1);
        }
        into.extend(table.entries.values().copied());
        Ok(())
    }

    fn now(&mut self) -> Result<Moment, ReflexError> {
        let clock = self.table().clock;
        let ktime_ns = u64::try_from(clock.as_nanos()).unwrap();
        Ok(Moment { wall: Timestamp::UNIX_EPOCH + clock, ktime_ns, jiffies: jiffies(clock), hz: HZ })
    }

    fn grace(&mut self) -> Result<(), ReflexError> {
        self.table().graces += 1;
        Ok(())
    }

    fn free(&mut self, dead: &[Entry]) -> Result<(), ReflexError> {
        let mut table = self.table();
        for entry in dead {
            let before = table.entries.len();
            table.entries.retain(|_, other| other.key != entry.key);
            table.freed += u32::try_from(before - table.entries.len()).unwrap();
        }
        Ok(())
    }
}

/// What an outlet was offered; it loses every third.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Arc<Record>>>>);

impl Outlet for Log {
    fn offer(&mut self, record: &Arc<Record>) {
        self.0.lock().unwrap().push(Arc::clone(record));
    }

    fn lost(&self) -> u64 {
        self.0.lock().unwrap().len() as u64 / 3
    }
}

fn id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

fn named(name: &str) -> PortIdentity {
    let (labels, macs, origin) = (Labels::default(), Vec::new(), crate::port::Origin::File);
    PortIdentity { name: name.to_owned(), labels, role: Role::Guest, macs, origin }
}

fn observe(source: &Fake) -> (Observer, Log) {
    let mut names = PortNames::default();
    names.insert(id(1), named("one"));
    names.insert(id(2), named("two"));
    let log = Log::default();
    let setup = Setup { switch: "weft-test".to_owned(), limits: Limits::default(), flows_max: (64, 32), names };
    (Observer::start(source.clone(), setup, vec![Box::new(log.clone())]).unwrap(), log)
}

async fn asked(observer: &Observer, filter: Filter, last: usize) -> Vec<Arc<Record>> {
    observer.records(filter, last).await.unwrap_or_default().records
}

async fn all(observer: &Observer) -> Vec<Arc<Record>> {
    asked(observer, Filter::default(), usize::MAX).await
}

/// Sweeps until what is dead by now is deleted.
async fn bury(observer: &Observer) {
    for _ in 0..2 {
        observer.sweep_now().await;
    }
}

#[tokio::test]
async fn what_is_silent_is_deleted_after_a_second_look_and_given_out_once() {
    let source = Fake::default();
    let (observer, log) = observe(&source);
    let mut followed = observer.subscribe();
    source.send(1, 1000);
    observer.sweep_now().await;
    let live = all(&observer).await;
    assert_eq!(live.len(), 1);
    assert!(live.iter().all(|record| record.end_reason.is_none() && record.forward_frames == 1), "{live:?}");
    assert_eq!(observer.seen().flows, 1);
    source.pass(63);
    bury(&observer).await;
    assert!(source.table().entries.is_empty());
    assert!(source.table().graces > 0, "deleted without a grace period");
    let told = followed.try_recv().unwrap();
    assert_eq!((told.end_reason, told.forward_bytes), (Some(EndReason::Idle), 100));
    assert_eq!((told.source_port_name.as_str(), told.destination_port_name.as_deref()), ("one", Some("two")));
    assert_eq!(followed.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(log.0.lock().unwrap().as_slice(), std::slice::from_ref(&told));
    assert_eq!(all(&observer).await, [told]);
    assert_eq!((observer.seen().flows, observer.seen().totals.closed.udp), (0, 1));
}

#[tokio::test]
async fn a_dead_entry_that_changes_before_the_second_look_is_not_deleted_then() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    source.send(1, 1000);
    source.pass(63);
    source.table().is_restless = true;
    for _ in 0..3 {
        bury(&observer).await;
    }
    assert_eq!(source.table().freed, 0);
    source.table().is_restless = false;
    let counted = source.table().entries.values().map(|entry| entry.value.frames).sum::<u64>();
    bury(&observer).await;
    assert_eq!(source.table().freed, 1);
    let told = all(&observer).await;
    assert_eq!(told.iter().map(|record| record.forward_frames).sum::<u64>(), counted, "{told:?}");
}

#[tokio::test]
async fn a_port_that_is_gone_takes_its_entries_along_and_no_others() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    source.send(1, 1000);
    source.send(3, 3000);
    observer.sweep_now().await;
    observer.ports_gone(vec![id(1)]).await;
    assert_eq!(source.table().entries.keys().copied().collect::<Vec<_>>(), [3000]);
    let told = all(&observer).await;
    let gone: Vec<_> = told.iter().filter(|record| record.end_reason == Some(EndReason::PortGone)).collect();
    assert_eq!(gone.iter().map(|record| record.source_port_name.as_str()).collect::<Vec<_>>(), ["one"]);
    // The id is another's now, and begins anew.
    observer.name(id(1), named("other"));
    source.send(1, 1000);
    observer.sweep_now().await;
    let live: Vec<_> = all(&observer).await.into_iter().filter(|record| record.end_reason.is_none()).collect();
    let other = live.iter().find(|record| record.source_port_name == "other").unwrap();
    assert_eq!(other.forward_frames, 1);
    assert!(!observer.seen().totals.ports.contains_key(&4));
}

#[tokio::test]
async fn ports_that_are_gone_are_looked_for_in_one_reading() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    for port in 3..=40 {
        source.send(port, 1000 + port);
    }
    source.send(1, 1000);
    observer.sweep_now().await;
    let reads = source.table().reads;
    let told = observer.ports_gone((3..=40).map(id).collect());
    // A name that is given while that is under way is not forgotten.
    observer.has_caught_up().await;
    observer.name(id(3), named("another"));
    told.await;
    assert_eq!(source.table().reads, reads + 1);
    assert_eq!(source.table().entries.keys().copied().collect::<Vec<_>>(), [1000]);
    let gone = |record: &&Arc<Record>| record.end_reason == Some(EndReason::PortGone);
    assert_eq!(all(&observer).await.iter().filter(gone).count(), 38);
    source.send(3, 3000);
    observer.sweep_now().await;
    assert!(all(&observer).await.iter().any(|record| record.source_port_name == "another"));
}

#[tokio::test]
async fn an_observer_that_has_ended_by_a_defect_says_so_and_answers_nobody() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    observer.sweep_now().await;
    assert!(observer.is_alive());
    assert!(observer.records(Filter::default(), 1).await.is_some());
    source.send(1, 1000);
    source.table().is_defective = true;
    observer.sweep_now().await;
    while observer.is_alive() {
        thread::yield_now();
    }
    assert_eq!(observer.records(Filter::default(), 1).await, None);
    observer.ports_gone(vec![id(1)]).await;
    observer.stop(true).await;
}

#[tokio::test]
async fn the_last_are_chosen_by_their_last_frame_and_by_the_filter() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    for number in [5, 3, 4, 1, 2] {
        source.pass(1);
        source.send(1, number);
    }
    observer.sweep_now().await;
    let ports = |records: Vec<Arc<Record>>| records.iter().filter_map(|record| record.source_port).collect::<Vec<_>>();
    assert_eq!(ports(all(&observer).await), [5, 3, 4, 1, 2]);
    assert_eq!(ports(asked(&observer, Filter::default(), 2).await), [1, 2]);
    assert_eq!(ports(asked(&observer, Filter::default(), 0).await), [0_u16; 0]);
    let mut filter = Filter::default();
    filter.add("l4-port", "5", false, Timestamp::UNIX_EPOCH).unwrap();
    filter.add("l4-port", "4", false, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(ports(asked(&observer, filter, 9).await), [5, 4]);
}

#[tokio::test]
async fn who_is_followed_by_another_observer_tells_nothing_at_the_end_and_who_is_not_tells_all() {
    for tell in [false, true] {
        let source = Fake::default();
        let (observer, log) = observe(&source);
        source.send(1, 1000);
        observer.stop(tell).await;
        let told: Vec<_> = log.0.lock().unwrap().iter().map(|record| record.end_reason).collect();
        assert_eq!(told, if tell { vec![Some(EndReason::Forced)] } else { vec![] });
        assert_eq!(source.table().entries.len(), 1, "what goes on is not deleted");
        assert!(all(&observer).await.is_empty(), "nobody answers any more");
    }
}

#[tokio::test]
async fn a_successor_tells_the_whole_and_says_that_it_is_resumed() {
    let source = Fake::default();
    source.send(1, 1000);
    source.send(1, 1000);
    let (first, _) = observe(&source);
    assert_eq!(all(&first).await.len(), 1);
    first.stop(false).await;
    let (second, _) = observe(&source);
    let live = all(&second).await;
    assert!(live.iter().all(|record| record.resumed && record.forward_frames == 2), "{live:?}");
    assert!(second.seen().totals.pairs.is_empty(), "what an earlier observer counted");
}

#[tokio::test]
async fn a_read_that_fails_is_counted_and_the_next_one_makes_up_for_it() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    source.send(1, 1000);
    source.table().is_broken = true;
    observer.sweep_now().await;
    assert!(observer.seen().losses.sweeps > 0);
    source.table().is_broken = false;
    observer.sweep_now().await;
    assert_eq!(all(&observer).await.len(), 1);
}

#[tokio::test]
async fn an_empty_table_is_not_read() {
    let source = Fake::default();
    let (observer, _) = observe(&source);
    observer.sweep_now().await;
    let reads = source.table().reads;
    for _ in 0..10 {
        observer.sweep_now().await;
    }
    assert_eq!(source.table().reads, reads);
    source.send(1, 1000);
    observer.sweep_now().await;
    assert!(source.table().reads > reads);
}

#[tokio::test]
async fn a_follower_that_is_too_slow_loses_the_oldest_and_what_ended_is_bounded() {
    let source = Fake::default();
    let (observer, log) = observe(&source);
    let mut followed = observer.subscribe();
    let many = u16::try_from(FOLLOW_MAX).unwrap() + 100;
    for number in 0..many {
        source.send(1, number);
    }
    source.pass(63);
    bury(&observer).await;
    assert_eq!(log.0.lock().unwrap().len(), usize::from(many));
    let Err(RecvError::Lagged(lost)) = followed.recv().await else { panic!("nothing was lost") };
    assert_eq!(lost, 100);
    observer.lagged(lost);
    source.send(1, 0);
    observer.sweep_now().await;
    let Losses { records_follow, records_log, .. } = observer.seen().losses;
    assert_eq!((records_follow, records_log), (100, u64::from(many) / 3));
    assert_eq!(all(&observer).await.len(), RECENT_MAX + 1);
}
