//! Veth pairs into containers and onto the host.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::super::attach::Host;
use super::super::spec::PortState;
use super::{Elsewhere, all_links, in_new_netns, json, name, prepare, run, soon};

fn inside(elsewhere: &Elsewhere, command: &str) -> Value {
    serde_json::from_str(&elsewhere.run(command)).unwrap()
}

#[test]
fn a_container_gets_an_interface_with_name_mac_mtu_and_addresses() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let elsewhere = Elsewhere::new();
        let before = all_links();
        let lines = format!(
            "kind = 'netns'\nnetns = '{}'\nifname = 'eth0'\nmac = '52:54:00:12:34:56'\nmtu = 1400\n\
             addresses = ['198.18.0.2/24', '2001:db8::2/64']",
            elsewhere.path()
        );
        let attached = prepare(&host, &lines).await.unwrap();
        assert_eq!((attached.ifname.as_str(), attached.mtu), ("wv4242p7", 1400));
        assert_eq!(attached.peer_mac.unwrap().to_string(), "52:54:00:12:34:56");
        assert!(!attached.guest_offloads);
        let link = inside(&elsewhere, "ip -d -j address show dev eth0");
        assert!(!link[0]["flags"].as_array().unwrap().contains(&"UP".into()), "not up before the programs are on");

        assert_eq!(host.activate(&attached).await.unwrap(), PortState::Up);
        let link = inside(&elsewhere, "ip -d -j address show dev eth0");
        assert_eq!((&link[0]["address"], &link[0]["mtu"]), (&"52:54:00:12:34:56".into(), &1400.into()));
        assert!(link[0]["flags"].as_array().unwrap().contains(&"UP".into()));
        let text = link[0]["addr_info"].to_string();
        assert!(text.contains("198.18.0.2") && text.contains("2001:db8::2"), "{text}");
        let offloads = elsewhere.run("ethtool -k eth0");
        for offload in ["tx-checksumming: on", "tcp-segmentation-offload: on", "generic-segmentation-offload: on"] {
            assert!(offloads.contains(offload), "{offloads}");
        }
        let ours = json("ip -d -j address show dev wv4242p7");
        assert_eq!(ours[0]["addr_info"], Value::Array(Vec::new()), "our end has no address of its own");
        assert_eq!(ours[0]["ifalias"], "weft weft-t port p");
        assert!(host.look(&name("wv4242p7")).await.unwrap().unwrap().link_elsewhere);

        host.release(&attached.restore).await.unwrap();
        assert_eq!(before, all_links());
        assert!(!elsewhere.run("ip -o link").contains("eth0"));
    });
}

#[test]
fn the_host_gets_an_interface_and_no_peer_address() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let before = all_links();
        let attached = prepare(&host, "kind = 'host'\nifname = 'gw'\naddresses = ['198.18.0.1/24']").await.unwrap();
        assert_eq!(attached.peer_mac, None);
        assert_eq!(host.activate(&attached).await.unwrap(), PortState::Up);
        assert!(run("ip address show dev gw").contains("198.18.0.1/24"));
        host.release(&attached.restore).await.unwrap();
        assert_eq!(before, all_links());
    });
}

#[test]
fn a_namespace_is_found_by_its_name_and_by_a_process_id() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let netns = format!("port-t-{}", std::process::id());
        run(&format!("ip netns add {netns}"));
        let named = prepare(&host, &format!("kind = 'netns'\nnetns = '{netns}'\nifname = 'eth0'")).await;
        let listed = run(&format!("ip -n {netns} -o link"));
        run(&format!("ip netns del {netns}"));
        host.release(&named.unwrap().restore).await.unwrap();
        assert!(listed.contains("eth0"), "{listed}");

        let mut child = Command::new("unshare").args(["-n", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let lines = format!("kind = 'netns'\nnetns = '{}'\nifname = 'eth0'", child.id());
        // Until the child has unshared, its namespace is ours, and refused as such.
        let attached = soon(async || prepare(&host, &lines).await).await;
        host.activate(&attached).await.unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        host.release(&attached.restore).await.unwrap();
    });
}

#[test]
fn what_a_dead_daemon_left_half_made_is_replaced() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let first = prepare(&host, "kind = 'host'\nifname = 'gw'").await.unwrap();
        let second = prepare(&host, "kind = 'host'\nifname = 'gw2'").await.unwrap();
        assert_ne!(first.ifindex, second.ifindex);
        assert_eq!(host.look(&name("gw")).await.unwrap(), None);
        host.release(&first.restore).await.unwrap();
        assert!(host.look(&second.ifname).await.unwrap().is_some(), "the first one's record does not fit the second");
    });
}

#[test]
fn the_containers_address_follows_a_change_and_ends_with_the_namespace() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let elsewhere = Elsewhere::new();
        let lines = format!("kind = 'netns'\nnetns = '{}'\nifname = 'eth0'", elsewhere.path());
        let attached = prepare(&host, &lines).await.unwrap();
        let spec = super::port(&lines);
        assert_eq!(host.peer_mac(&spec).await.unwrap(), attached.peer_mac);
        elsewhere.run("ip link set eth0 address 02:00:00:00:00:09");
        assert_eq!(host.peer_mac(&spec).await.unwrap().unwrap().to_string(), "02:00:00:00:00:09");
        drop(elsewhere);
        // Its thread has ended; the kernel takes its namespace apart by and by.
        soon(async || host.peer_mac(&spec).await.unwrap().map_or(Ok(()), Err)).await;
        host.release(&attached.restore).await.unwrap();
    });
}
