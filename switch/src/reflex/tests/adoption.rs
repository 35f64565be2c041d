//! What outlives the daemon, and what a new one takes over; a ping runs all the while and loses nothing.

use std::fs;
use std::process::Child;

use switch_common::{LAYOUT_VERSION, PortBuckets, SETTING_EPOCH, SETTING_PUNT, VERDICT_FORWARD, VERDICT_FORWARD_PEER};

use super::bench::{Bench, PLAIN, balance, frame, id};
use super::lab::{A, B, Lab, attach, enter, ifindex, pair, run, settings, teach, wait_for};
use crate::reflex::{Adopted, Attachment, Hook, Load, Reflex};

const PINGS: u64 = 400;

/// A ping of two seconds, or as many times longer as this machine takes to load programs.
struct Ping(Child);

impl Ping {
    fn start(lab: &Lab) -> Self {
        let interval = 0.005 * f64::from(super::lab::patience());
        Self(lab.spawn(A, &format!("ping -q -c {PINGS} -i {interval:.3} {}", B.address)))
    }

    /// Waits until it is over: at most so many were lost, none came twice.
    fn lost_at_most(self, lost: u64) {
        let output = self.0.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let received = said.split(" received").next().unwrap().rsplit(' ').next().unwrap();
        assert!(received.parse::<u64>().unwrap() + lost >= PINGS && !said.contains("duplicates"), "{said}");
    }
}

fn forwarded(reflex: &Reflex) -> u64 {
    reflex.counters(A.id).unwrap().forwarded
}

/// The daemon dies under traffic, and another takes over.
fn succeed(lab: &Lab, first: Hook, second: Hook, action: u8) {
    lab.wire();
    let (mut reflex, _) = lab.open(first);
    let verdicts = teach(&mut reflex, action);
    attach(&mut reflex);
    let ping = Ping::start(lab);
    wait_for("the ping runs", || forwarded(&reflex) > 20);
    drop((reflex, verdicts));

    let (mut reflex, adopted) = lab.open(second);
    assert_eq!(adopted, Adopted::All);
    let seen = forwarded(&reflex);
    assert!(seen > 20, "counters are kept");
    wait_for("the ping goes on without a daemon", || forwarded(&reflex) > seen + 20);
    assert_eq!(reflex.attached_ports().unwrap(), [A.id, B.id]);
    assert_eq!(reflex.settings().unwrap(), settings());
    assert!(reflex.verdicts().unwrap().get(&pair(A, B)).unwrap().is_some(), "verdicts are kept");
    assert_eq!(attach(&mut reflex), [Attachment::Adopted; 2]);
    // To add or remove a clsact queueing discipline the kernel stops the netdev's transmitter for a moment
    // (net/sched/sch_api.c, `qdisc_graft`), so a change of hook is not free. A change of daemon is.
    ping.lost_at_most(if first == second { 0 } else { 4 });
    let (sent, arrived) = (reflex.counters(A.id).unwrap().ingress, reflex.counters(B.id).unwrap().egress);
    assert_eq!((sent.frames, arrived.frames), (PINGS, PINGS), "no frame passed without a program");
    balance(&reflex, &[1, 2]);
}

#[test]
fn tcx_links_are_adopted_while_a_ping_runs() {
    let Some(lab) = enter("adoption::tcx_links_are_adopted_while_a_ping_runs") else { return };
    succeed(&lab, Hook::Tcx, Hook::Tcx, VERDICT_FORWARD_PEER);
}

#[test]
fn clsact_filters_are_adopted_while_a_ping_runs() {
    let Some(lab) = enter("adoption::clsact_filters_are_adopted_while_a_ping_runs") else { return };
    succeed(&lab, Hook::Clsact, Hook::Clsact, VERDICT_FORWARD);
    let filters = run(&format!("tc filter show dev {} ingress", A.port));
    assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
}

#[test]
fn clsact_filters_give_way_to_tcx_links_while_a_ping_runs() {
    let Some(lab) = enter("adoption::clsact_filters_give_way_to_tcx_links_while_a_ping_runs") else { return };
    succeed(&lab, Hook::Clsact, Hook::Tcx, VERDICT_FORWARD);
    let qdiscs = run(&format!("tc qdisc show dev {}", A.port));
    assert!(!qdiscs.contains("clsact"), "{qdiscs}");
}

#[test]
fn tcx_links_give_way_to_clsact_filters_while_a_ping_runs() {
    let Some(lab) = enter("adoption::tcx_links_give_way_to_clsact_filters_while_a_ping_runs") else { return };
    succeed(&lab, Hook::Tcx, Hook::Clsact, VERDICT_FORWARD);
}

/// Pins that cannot be adopted: made so by `spoil`. The ports go on, the counters begin anew.
fn replace(lab: &Lab, hook: Hook, spoil: impl FnOnce(&Lab)) {
    lab.wire();
    let (mut reflex, _) = lab.open(hook);
    let verdicts = teach(&mut reflex, VERDICT_FORWARD);
    attach(&mut reflex);
    let ping = Ping::start(lab);
    wait_for("the ping runs", || forwarded(&reflex) > 20);
    drop((reflex, verdicts));
    spoil(lab);

    let (mut reflex, adopted) = lab.open(hook);
    assert!(matches!(adopted, Adopted::Reset { .. }), "{adopted:?}");
    eprintln!("{adopted:?}");
    assert_eq!(forwarded(&reflex), 0);
    assert_eq!(reflex.attached_ports().unwrap(), [A.id, B.id]);
    let _verdicts = teach(&mut reflex, VERDICT_FORWARD);
    assert_eq!(attach(&mut reflex), [Attachment::Adopted; 2]);
    wait_for("the new programs count", || forwarded(&reflex) > 20);
    ping.lost_at_most(0);
    assert!(forwarded(&reflex) < PINGS);
    let left = fs::read_dir(lab.pins()).unwrap().count();
    assert_eq!(left, 1, "only this layout's pins are left");
}

#[test]
fn programs_of_another_layout_are_replaced_while_a_ping_runs() {
    let Some(lab) = enter("adoption::programs_of_another_layout_are_replaced_while_a_ping_runs") else { return };
    replace(&lab, Hook::Auto, |lab| {
        let here = lab.pins().join(format!("v{LAYOUT_VERSION}"));
        fs::rename(here, lab.pins().join("v999")).unwrap();
    });
}

#[test]
fn filters_of_another_layout_are_replaced_while_a_ping_runs() {
    let Some(lab) = enter("adoption::filters_of_another_layout_are_replaced_while_a_ping_runs") else { return };
    replace(&lab, Hook::Clsact, |lab| {
        let here = lab.pins().join(format!("v{LAYOUT_VERSION}"));
        fs::rename(here, lab.pins().join("v999")).unwrap();
    });
}

#[test]
fn a_pinned_map_of_another_size_is_not_adopted() {
    let Some(lab) = enter("adoption::a_pinned_map_of_another_size_is_not_adopted") else { return };
    replace(&lab, Hook::Auto, |lab| {
        let here = lab.pins().join(format!("v{LAYOUT_VERSION}"));
        fs::remove_file(here.join("BUCKETS")).unwrap();
        fs::rename(here.join("PORTS"), here.join("BUCKETS")).unwrap();
        fs::rename(here.join("DROPS"), here.join("PORTS")).unwrap();
        fs::rename(here.join("BRAIN"), here.join("DROPS")).unwrap();
        fs::rename(here.join("LINKS"), here.join("BRAIN")).unwrap();
    });
}

#[test]
fn a_detached_port_and_a_removed_instance_leave_nothing_behind() {
    for hook in [Hook::Auto, Hook::Clsact] {
        let Some(lab) = enter("adoption::a_detached_port_and_a_removed_instance_leave_nothing_behind") else { return };
        if hook == Hook::Auto {
            lab.wire();
        }
        let before = run(&format!("tc qdisc show dev {}", A.port));
        let programs = |station: super::lab::Station| {
            let netdev = super::super::attach::Netdev { ifname: station.port, ifindex: ifindex(station.port) };
            super::super::attach::survey(netdev, &[]).unwrap().foreign
        };
        let (mut reflex, adopted) = lab.open(hook);
        assert_eq!(adopted, Adopted::Fresh);
        attach(&mut reflex);
        assert_eq!(Reflex::foreign_programs(A.port, ifindex(A.port)).unwrap(), []);
        if reflex.hook() == Hook::Tcx {
            assert_eq!(programs(A).len(), 1);
        }
        assert!(reflex.detach_port(A.id).unwrap());
        assert!(!reflex.detach_port(A.id).unwrap());
        assert_eq!(programs(A), []);
        assert_eq!(run(&format!("tc qdisc show dev {}", A.port)), before);
        drop(reflex);
        Reflex::remove(&lab.pins()).unwrap();
        Reflex::remove(&lab.pins()).unwrap();
        assert_eq!(programs(B), []);
        assert_eq!(run(&format!("tc qdisc show dev {}", B.port)), before.replace(A.port, B.port));
        assert!(!lab.pins().exists());
    }
}

#[test]
fn a_netdev_that_was_deleted_and_made_again_is_attached_again() {
    for hook in [Hook::Auto, Hook::Clsact] {
        let Some(lab) = enter("adoption::a_netdev_that_was_deleted_and_made_again_is_attached_again") else { return };
        run("ip link add pa type veth peer name far");
        let (mut reflex, _) = lab.open(hook);
        assert_eq!(reflex.attach_port(A.id, "pa", ifindex("pa")).unwrap(), Attachment::Attached);
        let old = ifindex("pa");
        run("ip link del pa");
        run("ip link add pa type veth peer name far");
        let moved = reflex.attach_port(A.id, "pa", old);
        assert!(matches!(moved, Err(crate::reflex::ReflexError::Moved { .. })), "{moved:?}");
        assert_eq!(reflex.attach_port(A.id, "pa", ifindex("pa")).unwrap(), Attachment::Attached);
        let missing = reflex.attach_port(A.id, "nowhere", 1);
        assert!(matches!(missing, Err(crate::reflex::ReflexError::Attach { .. })), "{missing:?}");
        run("ip link del pa");
        assert!(reflex.detach_port(A.id).unwrap(), "what is remembered of a netdev that is gone is forgotten");
        Reflex::remove(&lab.pins()).unwrap();
    }
}

#[test]
fn what_a_dead_brain_was_handed_is_booked_as_unobserved() {
    let Some(lab) = enter("adoption::what_a_dead_brain_was_handed_is_booked_as_unobserved") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    for _ in 0..5 {
        bench.send(1, &frame(1, 2, &PLAIN, 46));
    }
    let brain = bench.reflex.brain();
    brain.port(1).settled.add(2);
    brain.port(0).settled.add(2);
    bench.settings(|settings| settings.flags &= !SETTING_PUNT);
    Reflex::grace().unwrap();
    assert_eq!(bench.reflex.book_unobserved().unwrap(), 3);
    assert_eq!(bench.reflex.book_unobserved().unwrap(), 0);
    assert_eq!((brain.port(1).unobserved.get(), brain.port(0).unobserved.get()), (3, 3));
    bench.balance();
    bench.reflex.reset_counters(id(1)).unwrap();
    bench.balance();
    assert_eq!(bench.reflex.counters(id(1)).unwrap(), switch_common::PortCounters::default());
    assert_eq!(brain.port(1).snapshot(), switch_common::BrainPort::default());
    assert_eq!(bench.reflex.punts().unwrap(), 5, "the sums are kept");
}

#[test]
fn what_is_lost_of_a_closed_epoch_is_known_while_frames_of_the_other_are_on_their_way() {
    let test = "adoption::what_is_lost_of_a_closed_epoch_is_known_while_frames_of_the_other_are_on_their_way";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    let brain = bench.reflex.brain();
    let unobserved = |number: usize| {
        let cells = brain.port(number).snapshot();
        (cells.unobserved, cells.unobserved_even, cells.unobserved_odd)
    };
    for (epoch, tag) in [(0, [0x00, 0x01]), (SETTING_EPOCH, [0x10, 0x01])] {
        bench.settings(|settings| settings.flags |= epoch);
        for _ in 0..3 {
            bench.send(1, &frame(1, 2, &PLAIN, 46));
            assert_eq!(bench.punt.receive().unwrap()[14..16], tag, "the tag says the epoch");
        }
    }
    bench.send(3, &frame(3, 2, &PLAIN, 46));
    for (number, odd) in [(0, false), (1, false), (0, true), (1, true), (0, true), (1, true)] {
        brain.port(number).settle(odd);
    }
    let PortBuckets { punted, punted_even, punted_odd, .. } = bench.reflex.buckets(id(1)).unwrap();
    assert_eq!((punted, punted_even, punted_odd), (6, 3, 3));
    Reflex::grace().unwrap();
    assert_eq!(bench.reflex.book_epoch(false).unwrap(), 2);
    assert_eq!(bench.reflex.book_epoch(false).unwrap(), 0);
    assert_eq!((unobserved(0), unobserved(1), unobserved(3)), ((2, 2, 0), (2, 2, 0), (0, 0, 0)));
    bench.settings(|_| {});
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    Reflex::grace().unwrap();
    assert_eq!(bench.reflex.book_epoch(true).unwrap(), 2, "one of either port");
    assert_eq!((unobserved(0), unobserved(1), unobserved(3)), ((4, 2, 2), (3, 2, 1), (1, 0, 1)));
    // A predecessor's last frame: the total and its share alike.
    bench.settings(|settings| settings.flags &= !SETTING_PUNT);
    Reflex::grace().unwrap();
    assert_eq!(bench.reflex.book_unobserved().unwrap(), 1);
    assert_eq!((unobserved(0), unobserved(1), unobserved(3)), ((5, 3, 2), (4, 3, 1), (1, 0, 1)));
    bench.balance();
}

#[test]
fn the_brains_counters_outlive_it() {
    let Some(lab) = enter("adoption::the_brains_counters_outlive_it") else { return };
    let (reflex, _) = lab.open(Hook::Auto);
    reflex.brain().port(4095).egress_drops[31].bytes.add(42);
    reflex.brain().port(7).settled.add(1);
    drop(reflex);
    let (reflex, adopted) = lab.open(Hook::Auto);
    assert_eq!(adopted, Adopted::All);
    assert_eq!(reflex.brain().port(4095).egress_drops[31].bytes.get(), 42);
    assert_eq!(reflex.brain().port(7).snapshot().settled, 1);
}

#[test]
fn bpffs_is_mounted_when_it_is_not() {
    let Some(lab) = enter("adoption::bpffs_is_mounted_when_it_is_not") else { return };
    while fs::read_to_string("/proc/self/mounts").unwrap().contains(" /sys/fs/bpf ") {
        run("umount /sys/fs/bpf");
    }
    let (_reflex, adopted) = lab.open(Hook::Auto);
    assert_eq!(adopted, Adopted::Fresh);
    assert!(fs::read_to_string("/proc/self/mounts").unwrap().contains(" /sys/fs/bpf bpf "));
    let elsewhere = Reflex::open(std::path::Path::new("/tmp/weft-lab-no-bpffs"), Load::default());
    assert!(matches!(elsewhere, Err(crate::reflex::ReflexError::NoBpffs { .. })));
}
