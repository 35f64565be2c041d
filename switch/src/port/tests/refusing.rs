//! Every reason not to attach, and that a refusal changes nothing.

use super::super::attach::{AttachError, Host};
use super::super::punt_tap::PuntTap;
use super::super::refusal::is_port_end;
use super::super::sys::{self, TapMode};
use super::{Elsewhere, all_links, in_new_netns, links, name, port, prepare, run};
use switch_common::PortId;

/// Asserts that attaching is refused for that reason, that the message names the thing and what to do, and that nothing
/// has changed.
macro_rules! refused {
    ($host:expr, $lines:expr, $reason:pat, $word:expr) => {{
        let before = all_links();
        let error = prepare(&$host, $lines).await.unwrap_err();
        assert!(matches!(error, $reason), "{}: {error:?}", $lines);
        let text = error.to_string();
        assert!(text.contains($word), "'{text}' should contain '{}'", $word);
        assert_eq!(before, all_links(), "{} was refused but changed something", $lines);
    }};
}

#[test]
fn the_names_of_port_ends_are_known() {
    for (name, ours) in [("wv1p2", true), ("wv12p4094", true), ("wvp2", false), ("wv1p", false), ("veth0", false)] {
        assert_eq!(is_port_end(name), ours, "{name}");
    }
}

#[test]
fn what_is_no_guests_netdev_is_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip tuntap add dev tun1 mode tun");
        refused!(host, "kind = 'netdev'\nnetdev = 'nothere'", AttachError::NoSuchNetdev { .. }, "ip link");
        refused!(host, "kind = 'netdev'\nnetdev = 'lo'", AttachError::Loopback { .. }, "--host");
        refused!(host, "kind = 'netdev'\nnetdev = 'lo'\nforce = true", AttachError::Loopback { .. }, "--host");
        refused!(host, "kind = 'netdev'\nnetdev = 'tun1'", AttachError::NotEthernet { .. }, "tap");
    });
}

#[test]
fn a_netdev_that_the_host_uses_is_refused_unless_forced() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip link add br0 type bridge");
        run("ip link add member type veth peer name other");
        run("ip link set member master br0");
        run("ip address add 198.18.0.1/24 dev other");
        run("ip link add six type veth peer name six-peer");
        run("ip address add 2001:db8::1/64 dev six nodad");
        refused!(host, "kind = 'netdev'\nnetdev = 'member'", AttachError::BridgeMember { .. }, "'br0'");
        refused!(host, "kind = 'netdev'\nnetdev = 'other'", AttachError::HasAddress { .. }, "198.18.0.1/24");
        refused!(host, "kind = 'netdev'\nnetdev = 'six'", AttachError::HasAddress { .. }, "2001:db8::1/64");
        for netdev in ["member", "other", "six"] {
            let before = links();
            let lines = format!("kind = 'netdev'\nnetdev = '{netdev}'\nforce = true");
            let attached = prepare(&host, &lines).await.unwrap();
            assert_ne!(before, links());
            host.release(&attached.restore).await.unwrap();
            assert_eq!(before, links(), "{netdev}");
        }
    });
}

#[test]
fn the_switchs_own_devices_are_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let punt = PuntTap::open(&name("weft-t")).unwrap();
        host.raise_punt_tap(&punt).await.unwrap();
        let attached = prepare(&host, "kind = 'host'\nifname = 'gw'").await.unwrap();
        assert_eq!(attached.ifname.as_str(), "wv4242p7");
        let own = host
            .prepare(
                &port("kind = 'netdev'\nnetdev = 'weft-t'"),
                &name("weft-t"),
                punt.ifindex(),
                PortId::new(8).unwrap(),
            )
            .await;
        assert!(matches!(own, Err(AttachError::OwnDevice { .. })), "{own:?}");
        // Another instance's punt tap is known by its alias.
        refused!(host, "kind = 'netdev'\nnetdev = 'weft-t'", AttachError::OwnDevice { .. }, "own device");
        refused!(
            host,
            "kind = 'netdev'\nnetdev = 'wv4242p7'\nforce = true",
            AttachError::OwnDevice { .. },
            "own device"
        );
        refused!(host, "kind = 'netdev'\nnetdev = 'gw'", AttachError::OwnDevice { .. }, "own device");
    });
}

#[test]
fn an_mtu_that_the_device_does_not_take_is_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip tuntap add dev tap1 mode tap");
        refused!(host, "kind = 'netdev'\nnetdev = 'tap1'\nmtu = 10", AttachError::BadMtu { min: 68, .. }, "68");
        refused!(host, "kind = 'tap'\ntap = 'tap2'\nmtu = 70000", AttachError::BadMtu { max: 65535, .. }, "65535");
        refused!(host, "kind = 'host'\nifname = 'gw'\nmtu = 10", AttachError::BadMtu { .. }, "68");
    });
}

#[test]
fn a_namespace_that_is_not_there_or_our_own_is_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        for netns in ["nowhere", "4294967295", "/nowhere", "/proc/self/ns/mnt", "/dev/null", "", "../x"] {
            let lines = format!("kind = 'netns'\nnetns = '{netns}'\nifname = 'eth0'");
            let error = prepare(&host, &lines).await.unwrap_err();
            assert!(matches!(error, AttachError::NoSuchNetns { .. }), "{netns}: {error:?}");
        }
        let lines = "kind = 'netns'\nnetns = '/proc/thread-self/ns/net'\nifname = 'eth0'";
        refused!(host, lines, AttachError::OwnNetns { .. }, "--host");
    });
}

#[test]
fn what_cannot_be_made_inside_is_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let elsewhere = Elsewhere::new();
        elsewhere.run("ip link add eth0 type veth peer name eth0-peer");
        run("ip link add gw type veth peer name gw-peer");
        let inside = |rest: &str| format!("kind = 'netns'\nnetns = '{}'\n{rest}", elsewhere.path());
        refused!(host, &inside("ifname = 'eth0'"), AttachError::NameTakenInside { .. }, "--ifname");
        refused!(host, "kind = 'host'\nifname = 'gw'", AttachError::NameTakenInside { .. }, "--ifname");
        for bad in ["198.18.0.2", "198.18.0.2/33", "2001:db8::1/129", "x/24", "0.0.0.0/0", "224.0.0.1/4"] {
            let lines = inside(&format!("ifname = 'eth1'\naddresses = ['{bad}']"));
            refused!(host, &lines, AttachError::BadAddress { .. }, bad);
        }
        let lines = inside("ifname = 'eth1'\nmac = '01:00:5e:00:00:01'");
        refused!(host, &lines, AttachError::BadMac { .. }, "01:00:5e:00:00:01");
        let lines = inside("ifname = 'eth1'\nmac = '00:00:00:00:00:00'");
        refused!(host, &lines, AttachError::BadMac { .. }, "zero");
        // Fails when half is done: the second address is the first again.
        let lines = inside("ifname = 'eth1'\naddresses = ['198.18.0.2/24', '198.18.0.2/24']");
        refused!(host, &lines, AttachError::Netlink(_), "198.18.0.2/24");
        assert!(!elsewhere.run("ip -o link").contains("eth1"));
        // The control: without the mistake it is made.
        prepare(&host, &inside("ifname = 'eth1'\naddresses = ['198.18.0.2/24']")).await.unwrap();
        assert!(elsewhere.run("ip -o link").contains("eth1"));
    });
}

#[test]
fn a_tap_that_is_not_as_we_make_them_is_refused() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip tuntap add dev plain mode tap");
        run("ip tuntap add dev many mode tap vnet_hdr multi_queue");
        run("ip tuntap add dev owned mode tap vnet_hdr user 65534");
        run("ip link add dummy1 type veth peer name dummy1-peer");
        let passing = sys::open_tap(&name("passing"), TapMode::CreateNew).unwrap();
        run("ip tuntap add dev held mode tap vnet_hdr");
        let held = sys::open_tap(&name("held"), TapMode::CreateOrAdopt).unwrap();
        refused!(host, "kind = 'tap'\ntap = 'plain'", AttachError::NotATap { .. }, "no virtio-net header");
        refused!(host, "kind = 'tap'\ntap = 'many'", AttachError::NotATap { .. }, "several queues");
        refused!(host, "kind = 'tap'\ntap = 'owned'", AttachError::NotATap { .. }, "another user");
        refused!(host, "kind = 'tap'\ntap = 'dummy1'", AttachError::NotATap { .. }, "no tap");
        refused!(host, "kind = 'tap'\ntap = 'passing'", AttachError::NotATap { .. }, "not persistent");
        refused!(
            host,
            "kind = 'tap'\ntap = 'new1'\nuser = 'no-such-user'",
            AttachError::NoSuchUser { .. },
            "no-such-user"
        );
        // The control, and what a VMM that lives through a restart of the switch needs.
        prepare(&host, "kind = 'tap'\ntap = 'held'").await.unwrap();
        drop((passing, held));
    });
}
