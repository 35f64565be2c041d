//! The monitor tells what happens to netdevs, soon, and says when it has lost something.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::super::attach::Host;
use super::super::monitor::{LinkEvent, watch};
use super::super::netlink::{Netlink, change};
use super::super::netns::Netns;
use super::super::sys::{self, TapMode};
use super::{Elsewhere, in_new_netns, name, run};
use std::os::fd::{AsFd as _, AsRawFd as _};

/// What the switch promises.
const PROMISED: Duration = Duration::from_millis(100);
/// The kernel tells of carriers lost at most once a second (`net/core/link_watch.c`).
const CARRIER_LOST: Duration = Duration::from_secs(2);

/// Waits for an event of that kind as long as promised; others may come before it.
async fn expect(events: &mut Receiver<LinkEvent>, what: &str, is_it: impl Fn(&LinkEvent) -> bool) {
    expect_within(PROMISED, events, what, is_it).await;
}

async fn expect_within(
    limit: Duration,
    events: &mut Receiver<LinkEvent>,
    what: &str,
    is_it: impl Fn(&LinkEvent) -> bool,
) {
    let found = async {
        while let Some(event) = events.recv().await {
            if is_it(&event) {
                return;
            }
        }
        panic!("the subscription ended before: {what}");
    };
    assert!(timeout(limit, found).await.is_ok(), "not within {limit:?}: {what}");
}

fn changed(event: &LinkEvent, netdev: &str, is_it: impl Fn(&super::super::LinkFacts) -> bool) -> bool {
    matches!(event, LinkEvent::Changed(facts) if facts.name == netdev && is_it(facts))
}

#[test]
fn every_change_of_a_netdev_is_told_soon() {
    in_new_netns(async || {
        let mut events = watch().unwrap();
        run("ip tuntap add dev t0 mode tap vnet_hdr");
        expect(&mut events, "new", |event| changed(event, "t0", |facts| !facts.up && facts.tun.unwrap().tap)).await;
        run("ip link set t0 up");
        expect(&mut events, "up", |event| changed(event, "t0", |facts| facts.up && !facts.carrier)).await;
        let held = sys::open_tap(&name("t0"), TapMode::CreateOrAdopt).unwrap();
        expect(&mut events, "carrier", |event| changed(event, "t0", |facts| facts.carrier)).await;
        drop(held);
        let lost = |event: &LinkEvent| changed(event, "t0", |facts| !facts.carrier);
        expect_within(CARRIER_LOST, &mut events, "no carrier", lost).await;
        run("ip link set t0 mtu 1400");
        expect(&mut events, "MTU", |event| changed(event, "t0", |facts| facts.mtu == 1400)).await;
        run("ip link set t0 down");
        expect(&mut events, "down", |event| changed(event, "t0", |facts| !facts.up)).await;
        run("ip link set t0 name t1");
        expect(&mut events, "renamed", |event| changed(event, "t1", |_| true)).await;
        run("ip link add br0 type bridge");
        run("ip link set t1 master br0");
        expect(&mut events, "enslaved", |event| changed(event, "t1", |facts| facts.master.is_some())).await;
        run("ip link set t1 nomaster");
        expect(&mut events, "freed", |event| changed(event, "t1", |facts| facts.master.is_none())).await;
        run("ip link del t1");
        expect(
            &mut events,
            "deleted",
            |event| matches!(event, LinkEvent::Gone { name, moved: false, .. } if name == "t1"),
        )
        .await;
    });
}

#[test]
fn leaving_a_bridge_is_not_taken_for_a_deletion() {
    in_new_netns(async || {
        run("ip link add br0 type bridge");
        run("ip link add d0 type veth peer name d0-peer");
        run("ip link set d0 master br0");
        let mut events = watch().unwrap();
        run("ip link set d0 nomaster");
        run("ip link set d0 mtu 1234");
        let last = |event: &LinkEvent| changed(event, "d0", |facts| facts.mtu == 1234);
        expect(&mut events, "the last change", |event| {
            assert!(!matches!(event, LinkEvent::Gone { .. }), "{event:?}");
            last(event)
        })
        .await;
    });
}

#[test]
fn a_netdev_moved_into_a_namespace_and_one_deleted_with_it_are_told() {
    in_new_netns(async || {
        let netlink = Netlink::connect().unwrap();
        let elsewhere = Elsewhere::new();
        run("ip link add d0 type veth peer name d0-peer");
        run("ip link add v0 type veth peer name v1");
        let mut events = watch().unwrap();
        let netns = Netns::open(elsewhere.path()).unwrap();
        for netdev in ["d0", "v1"] {
            let facts = netlink.by_name(netdev).await.unwrap().unwrap();
            let moved = change(facts.ifindex).setns_by_fd(netns.as_fd().as_raw_fd());
            netlink.set("moving", moved).await.unwrap();
            expect(&mut events, "moved", |event| {
                matches!(event, LinkEvent::Gone { name, moved: true, ifindex } if name == netdev && *ifindex == facts.ifindex)
            })
            .await;
        }
        assert!(netlink.by_name("v0").await.unwrap().unwrap().link_elsewhere);
        elsewhere.run("ip link del v1");
        expect(
            &mut events,
            "deleted with its peer",
            |event| matches!(event, LinkEvent::Gone { name, moved: false, .. } if name == "v0"),
        )
        .await;
    });
}

#[test]
fn a_listener_that_is_too_slow_is_told_to_look_again() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip link add d0 type veth peer name d0-peer");
        let mut events = watch().unwrap();
        // Nothing here listens while ip runs: first the kernel's buffer overflows, then our queue would.
        let mut batch = String::new();
        for mtu in 0..3000 {
            writeln!(batch, "link set d0 mtu {}", 1000 + mtu).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("batch");
        std::fs::write(&file, batch).unwrap();
        run(&format!("ip -batch {}", file.display()));
        expect(&mut events, "resync", |event| matches!(event, LinkEvent::Resync)).await;
        // And afterwards it goes on.
        while events.try_recv().is_ok() {}
        run("ip link set d0 mtu 900");
        expect(&mut events, "the next change", |event| changed(event, "d0", |facts| facts.mtu == 900)).await;
        assert_eq!(host.look(&name("d0")).await.unwrap().unwrap().mtu, 900);
    });
}
