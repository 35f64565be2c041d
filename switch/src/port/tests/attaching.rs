//! Attaching and detaching leave no trace, and say what they found.

use super::super::attach::Host;
use super::super::restore::{Restore, Undo};
use super::super::spec::{IfName, PortState};
use super::super::sys::{self, TapMode};
use super::{all_links, in_new_netns, json, links, name, port, prepare, run, soon};

fn flags(netdev: &str) -> Vec<String> {
    let link = json(&format!("ip -d -j link show dev {netdev}"));
    serde_json::from_value(link[0]["flags"].clone()).unwrap()
}

fn has(netdev: &str, flag: &str) -> bool {
    flags(netdev).iter().any(|each| each == flag)
}

fn ipv6_off(netdev: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{netdev}/disable_ipv6")).unwrap().trim() == "1"
}

async fn state_is(host: &Host, netdev: &IfName, expected: PortState) -> Result<(), PortState> {
    let state = host.look(netdev).await.unwrap().unwrap().state();
    if state == expected { Ok(()) } else { Err(state) }
}

/// Netdevs in the states in which they may be found: never up, up, down again.
fn furnish() {
    for (number, kind) in
        ["tuntap add dev a0 mode tap", "link add a1 type veth peer name b1", "link add a2 type veth peer name a2-peer"]
            .into_iter()
            .enumerate()
    {
        run(&format!("ip {kind}"));
        run(&format!("ip link set a{number} up"));
        run(&format!("ip link set a{number} down"));
    }
    run("ip link add a3 type veth peer name b3");
    run("ip link set b3 up");
    run("ip link set a3 up");
    run("ip link add a4 type veth peer name a4-peer");
    run("ip link set a4 up promisc on arp off mtu 1400");
}

#[test]
fn attach_and_release_leave_every_link_as_it_was() {
    in_new_netns(async || {
        furnish();
        let host = Host::connect().unwrap();
        for role in ["guest", "uplink"] {
            for netdev in ["a0", "a1", "a2", "a3", "a4"] {
                for mtu in ["", "\nmtu = 1300", "\nmtu = 1000"] {
                    let before = links();
                    let lines = format!("kind = 'netdev'\nnetdev = '{netdev}'\nrole = '{role}'{mtu}");
                    let attached = prepare(&host, &lines).await.unwrap();
                    host.activate(&attached).await.unwrap();
                    assert!(has(netdev, "UP") && has(netdev, "NOARP"), "{:?}", flags(netdev));
                    assert!(mtu.ends_with("1000") || ipv6_off(netdev));
                    assert_eq!(has(netdev, "PROMISC"), role == "uplink" || netdev == "a4");
                    if !mtu.is_empty() {
                        assert!(mtu.ends_with(&attached.mtu.to_string()));
                    }
                    // Through text, as another daemon would find it in the state file.
                    let text = serde_json::to_string(&attached.restore).unwrap();
                    let restore: Restore = serde_json::from_str(&text).unwrap();
                    host.release(&restore).await.unwrap();
                    assert_eq!(before, links(), "{lines}");
                }
            }
        }
    });
}

#[test]
fn release_leaves_alone_what_attaching_did_not_change() {
    in_new_netns(async || {
        furnish();
        let host = Host::connect().unwrap();
        let attached = prepare(&host, "kind = 'netdev'\nnetdev = 'a3'").await.unwrap();
        run("ip link set a3 promisc on mtu 1450");
        run("ip link set a3 name renamed");
        host.release(&attached.restore).await.unwrap();
        assert!(has("renamed", "PROMISC") && !has("renamed", "NOARP") && !ipv6_off("renamed"));
        assert_eq!(json("ip -d -j link show dev renamed")[0]["mtu"], 1450);
        // A netdev that is gone needs nothing.
        let attached = prepare(&host, "kind = 'netdev'\nnetdev = 'a2'").await.unwrap();
        run("ip link del a2");
        host.release(&attached.restore).await.unwrap();
    });
}

#[test]
fn ipv6_addresses_of_a_forced_netdev_come_back() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip link add six type veth peer name six-peer");
        run("ip link set six up");
        run("ip address add 2001:db8::1/64 dev six nodad");
        let before = links();
        let attached = prepare(&host, "kind = 'netdev'\nnetdev = 'six'\nforce = true").await.unwrap();
        assert!(!run("ip address show dev six").contains("2001:db8::1"));
        host.release(&attached.restore).await.unwrap();
        assert!(run("ip address show dev six").contains("2001:db8::1/64"));
        assert_eq!(before, links());
    });
}

#[test]
fn an_uplinks_receive_offloads_are_switched_off_and_on_again() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip link add up0 type veth peer name up1");
        run("ethtool -K up0 gro on");
        let gro = || run("ethtool -k up0").contains("generic-receive-offload: on");
        assert!(gro());
        let attached = prepare(&host, "kind = 'netdev'\nnetdev = 'up0'\nrole = 'uplink'").await.unwrap();
        assert!(!gro());
        host.release(&attached.restore).await.unwrap();
        assert!(gro());
        // A guest's netdev keeps them.
        prepare(&host, "kind = 'netdev'\nnetdev = 'up0'").await.unwrap();
        assert!(gro());
    });
}

#[test]
fn a_tap_is_made_for_a_vmm_and_goes_with_its_port() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let before = all_links();
        let attached = prepare(&host, "kind = 'tap'\ntap = 'vm1'\nuser = 'nobody'\nmtu = 1400").await.unwrap();
        assert_eq!((attached.state, attached.mtu, attached.guest_offloads), (PortState::Down, 1400, true));
        let link = json("ip -d -j link show dev vm1");
        let data = &link[0]["linkinfo"]["info_data"];
        assert_eq!((&data["persist"], &data["vnet_hdr"], &data["pi"]), (&true.into(), &true.into(), &false.into()));
        assert_eq!((&data["multi_queue"], &data["user"]), (&false.into(), &"nobody".into()));
        assert_eq!((&link[0]["ifalias"], &link[0]["qdisc"]), (&"weft weft-t port p".into(), &"noqueue".into()));
        assert!(!has("vm1", "UP") && has("vm1", "NOARP") && ipv6_off("vm1"));
        host.activate(&attached).await.unwrap();
        soon(async || state_is(&host, &attached.ifname, PortState::NoCarrier).await).await;
        let vmm = sys::open_tap(&name("vm1"), TapMode::CreateOrAdopt).unwrap();
        assert_eq!(host.look(&name("vm1")).await.unwrap().unwrap().state(), PortState::Up);
        drop(vmm);
        host.release(&attached.restore).await.unwrap();
        assert_eq!(before, all_links());
    });
}

#[test]
fn a_tap_made_before_is_taken_and_left_as_it_was() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip tuntap add dev vm1 mode tap vnet_hdr user 1234");
        let before = all_links();
        let attached = prepare(&host, "kind = 'tap'\ntap = 'vm1'\nuser = '1234'").await.unwrap();
        assert!(matches!(attached.restore.undo, Undo::PutBack(_)));
        host.release(&attached.restore).await.unwrap();
        assert_eq!(before, all_links());
    });
}

#[test]
fn a_later_daemon_adopts_without_touching() {
    in_new_netns(async || {
        furnish();
        let host = Host::connect().unwrap();
        for lines in ["kind = 'netdev'\nnetdev = 'a0'", "kind = 'host'\nifname = 'gw'", "kind = 'tap'\ntap = 'vm1'"] {
            let attached = prepare(&host, lines).await.unwrap();
            host.activate(&attached).await.unwrap();
            // The tap's maker has let go of it: only the pair has a carrier.
            let expected = if lines.contains("gw") { PortState::Up } else { PortState::NoCarrier };
            soon(async || state_is(&host, &attached.ifname, expected).await).await;
            let before = links();
            let adopted = host.adopt(&port(lines), &attached.restore).await.unwrap().unwrap();
            assert_eq!(before, links());
            assert_eq!(adopted.state, expected);
            assert_eq!(
                (adopted.ifindex, adopted.guest_offloads, adopted.peer_mac),
                (attached.ifindex, attached.guest_offloads, attached.peer_mac)
            );
            host.release(&attached.restore).await.unwrap();
            if !lines.contains("a0") {
                assert_eq!(host.adopt(&port(lines), &attached.restore).await.unwrap(), None);
            }
        }
    });
}

#[test]
fn a_netdev_renamed_while_no_daemon_looked_is_put_back_not_adopted() {
    in_new_netns(async || {
        furnish();
        let host = Host::connect().unwrap();
        let lines = "kind = 'netdev'\nnetdev = 'a3'";
        let attached = prepare(&host, lines).await.unwrap();
        run("ip link set a3 name other");
        assert_eq!(host.adopt(&port(lines), &attached.restore).await.unwrap(), None);
        assert!(!has("other", "NOARP") && !ipv6_off("other"));
    });
}
