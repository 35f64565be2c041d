//! A record in the shape that Hubble's command line reads: `weft flows -o hubble | hubble observe --input-file -`.
//!
//! One JSON object per line, the JSON form of `observer.GetFlowsResponse` around a `flow.Flow` (cilium, api/v1/flow/flow.proto).
//! Hubble speaks of pods and packets where we have ports and conversations:
//!
//! | Hubble | here |
//! |---|---|
//! | `time` | the record's end: when the last frame came |
//! | `uuid` | a UUID (version 5) of node, switch and the conversation's id: the same in all its records |
//! | `source.pod_name`, `namespace` | the port's name, the switch's name: `--pod weft0/web1` |
//! | `source.labels` | the port's labels as `key=value` |
//! | `verdict` | `FORWARDED` (flooded too, the summary says which) or `DROPPED` |
//! | `drop_reason_desc` | the nearest of Hubble's reasons; ours is in the summary |
//! | `event_type` | trace `to-endpoint`, or drop with Hubble's reason |
//! | `traffic_direction` | `EGRESS`: it left the source's endpoint; unknown when one end is outside |
//! | `Summary` | TCP flags, frames and bytes of both directions, why the record ends |
//!
//! There is no identity, namespace of Kubernetes, or L7. Hubble reads lines of 64 KiB at most, so labels end where a line would
//! become longer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};
use switch_common::DropReason;

use crate::flow::{Direction, Record, Verdict};

/// The namespace of our UUIDs (RFC 9562, section 6.6); a random one.
const NAMESPACE: [u8; 16] = *b"\x6f\x1c\x1a\x3d\x52\x0b\x4e\x0c\x9d\x1e\x77\xd5\xa1\x5c\x0e\x42";
/// What the labels of one end may take of a line.
const LABEL_BYTES_MAX: usize = 24 * 1024;

/// Numbers of events (cilium, pkg/monitor/api/types.go).
const EVENT_DROP: u32 = 1;
const EVENT_TRACE: u32 = 4;
/// Of a trace: handed to an endpoint (cilium, pkg/monitor/api/types.go).
const TO_ENDPOINT: u32 = 0;

/// A record as Hubble reads it; `node` is the host's name.
pub fn hubble(record: &Record, node: &str) -> Value {
    let time = record.end.to_string();
    let mut flow = Map::new();
    let mut say = |field: &str, value: Value| drop(flow.insert(field.to_owned(), value));
    say("time", json!(time));
    say("uuid", json!(uuid(&format!("{node}/{}/{}", record.switch, record.id))));
    match record.verdict {
        Verdict::Forwarded | Verdict::Flooded => {
            say("verdict", json!("FORWARDED"));
            say("event_type", json!({"type": EVENT_TRACE, "sub_type": TO_ENDPOINT}));
            say("trace_observation_point", json!("TO_ENDPOINT"));
        }
        Verdict::Dropped => {
            let (reason, number) = drop_reason(record.drop_reason.as_deref());
            say("verdict", json!("DROPPED"));
            say("drop_reason_desc", json!(reason));
            if let Some(number) = number {
                say("event_type", json!({"type": EVENT_DROP, "sub_type": number}));
            }
        }
    }
    say(
        "ethernet",
        json!({"source": record.source_mac.to_string(), "destination": record.destination_mac.to_string()}),
    );
    if let (Some(source), Some(destination)) = (record.source_address, record.destination_address) {
        say("IP", ip(source, destination));
    }
    if let Some((protocol, header)) = layer4(record) {
        say("l4", Value::Object(Map::from_iter([(protocol.to_owned(), header)])));
    }
    say("source", endpoint(&record.switch, &record.source_port_name, &record.source_labels));
    if let Some(name) = &record.destination_port_name {
        say("destination", endpoint(&record.switch, name, &record.destination_labels));
    }
    say("Type", json!("L3_L4"));
    say("node_name", json!(node));
    say("is_reply", json!(false));
    let direction = match record.direction {
        Direction::EastWest => "EGRESS",
        Direction::NorthSouth => "TRAFFIC_DIRECTION_UNKNOWN",
    };
    say("traffic_direction", json!(direction));
    say("Summary", json!(summary(record)));
    json!({"flow": flow, "node_name": node, "time": time})
}

/// A UUID of version 5 (RFC 9562, section 5.5): the same for the same name.
fn uuid(name: &str) -> String {
    let digest = Sha1::new().chain_update(NAMESPACE).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.first_chunk::<16>().expect("SHA-1 has 20 bytes"));
    let bits = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 5 << 76 | 2 << 62;
    let part = |low: u32, digits: u32| bits >> low & ((1 << (4 * digits)) - 1);
    let (time_low, time_mid, version) = (part(96, 8), part(80, 4), part(64, 4));
    format!("{time_low:08x}-{time_mid:04x}-{version:04x}-{:04x}-{:012x}", part(48, 4), part(0, 12))
}

fn ip(source: IpAddr, destination: IpAddr) -> Value {
    let version = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({"source": source.to_string(), "destination": destination.to_string(), "ipVersion": version})
}

/// The protocol's name in Hubble and what it says of it; nothing for what Hubble does not know, and for fragments.
fn layer4(record: &Record) -> Option<(&'static str, Value)> {
    let transport = record.network_transport.as_deref()?;
    let ports = record.source_port.zip(record.destination_port);
    let ported = |(source, destination): (u16, u16)| json!({"source_port": source, "destination_port": destination});
    let icmp = record.icmp_type.zip(record.icmp_code).map(|(kind, code)| json!({"type": kind, "code": code}));
    match transport {
        "tcp" => {
            let mut header = ported(ports?);
            let flags: Map<_, _> = flags(record).map(|flag| (flag, json!(true))).collect();
            header.as_object_mut()?.insert("flags".to_owned(), Value::Object(flags));
            Some(("TCP", header))
        }
        "udp" => Some(("UDP", ported(ports?))),
        "sctp" => Some(("SCTP", ported(ports?))),
        "icmp" => Some(("ICMPv4", icmp?)),
        "ipv6-icmp" => Some(("ICMPv6", icmp?)),
        _ => None,
    }
}

fn flags(record: &Record) -> impl Iterator<Item = String> {
    record.tcp.iter().flat_map(|tcp| tcp.flags.names()).map(str::to_uppercase)
}

fn endpoint(switch: &str, name: &str, labels: &BTreeMap<String, String>) -> Value {
    let mut room = LABEL_BYTES_MAX;
    let fits = |label: &String| {
        // As JSON, where one byte may become six.
        let bytes = serde_json::to_string(label).map_or(0, |json| json.len() + 1);
        room = room.saturating_sub(bytes);
        room > 0
    };
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).take_while(fits).collect();
    json!({"namespace": switch, "pod_name": name, "labels": labels})
}

/// Hubble's name for a reason, and its number where that says something.
fn drop_reason(label: Option<&str>) -> (&'static str, Option<u32>) {
    let reason = label.and_then(|label| DropReason::ALL.iter().find(|reason| reason.label() == label));
    match reason {
        Some(DropReason::Malformed | DropReason::TooBig | DropReason::BadOffload) => {
            ("INVALID_PACKET_DROPPED", Some(134))
        }
        Some(DropReason::GroupSource | DropReason::SpoofedSource) => ("INVALID_SOURCE_MAC", Some(130)),
        Some(DropReason::ReservedAddress) => ("INVALID_DESTINATION_MAC", Some(131)),
        Some(DropReason::StationLimit | DropReason::FloodLimited) => ("POLICY_DENIED", Some(133)),
        Some(
            DropReason::Hairpin
            | DropReason::NoEgress
            | DropReason::PortDown
            | DropReason::PuntLimited
            | DropReason::EgressGone
            | DropReason::BrainAbsent
            | DropReason::InjectFailed
            | DropReason::Other,
        )
        | None => ("DROP_REASON_UNKNOWN", None),
    }
}

/// The one place for what Hubble has no field for.
fn summary(record: &Record) -> String {
    let mut parts = Vec::new();
    let transport = record.network_transport.as_deref().unwrap_or(&record.network_type);
    let flags: Vec<_> = flags(record).collect();
    parts.push(if flags.is_empty() { transport.to_uppercase() } else { format!("TCP Flags: {}", flags.join(", ")) });
    if record.fragment {
        parts.push("fragments".to_owned());
    }
    if record.verdict == Verdict::Flooded {
        parts.push("flooded".to_owned());
    }
    parts.extend(record.drop_reason.iter().map(|reason| format!("dropped: {reason}")));
    parts.push(format!("{} frames, {} bytes forward", record.forward_wire_frames, record.forward_wire_bytes));
    parts.push(format!("{} frames, {} bytes reverse", record.reverse_wire_frames, record.reverse_wire_bytes));
    parts.extend(record.end_reason.and_then(|reason| serde_json::to_value(reason).ok()?.as_str().map(str::to_owned)));
    parts.join("; ")
}
