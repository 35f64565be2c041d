//! Hubble's shape, against the fields and values of cilium's api/v1/flow/flow.proto and api/v1/observer/observer.proto, which
//! `flow_proto.json` repeats as data as far as a switch can have them.

use switch_common::DropReason;

use super::*;

/// What of a JSON value is not what the protocol's description says: paths with what is wrong there.
fn objections(value: &Value, kind: &str, path: &str, proto: &Value) -> Vec<String> {
    let wrong = || vec![format!("{path}: {value} is no {kind}")];
    let right = |right: bool| if right { Vec::new() } else { wrong() };
    if let Some(kind) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        let Some(values) = value.as_array() else { return wrong() };
        return values.iter().flat_map(|value| objections(value, kind, path, proto)).collect();
    }
    if let Some(fields) = proto["messages"].get(kind) {
        let Some(object) = value.as_object() else { return wrong() };
        let field = |(name, value): (&String, &Value)| match fields.get(name).and_then(Value::as_str) {
            Some(kind) => objections(value, kind, &format!("{path}.{name}"), proto),
            None => vec![format!("{path}.{name}: no field of {kind}")],
        };
        return object.iter().flat_map(field).collect();
    }
    if let Some(values) = proto["enums"].get(kind) {
        return right(value.as_str().is_some_and(|value| values.get(value).is_some()));
    }
    match kind {
        "string" => right(value.is_string()),
        "bool" => right(value.is_boolean()),
        "uint32" | "int32" => right(value.as_u64().is_some_and(|number| i32::try_from(number).is_ok())),
        // RFC 3339 with up to nine digits of a second (the JSON form of google.protobuf.Timestamp).
        "Timestamp" => {
            right(value.as_str().is_some_and(|time| time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok()))
        }
        _ => vec![format!("{path}: nobody said what a {kind} is")],
    }
}

fn proto() -> Value {
    serde_json::from_str(include_str!("flow_proto.json")).unwrap()
}

/// A record in Hubble's shape, which must be one.
fn of(record: &Record) -> Value {
    let told = hubble(record, "host1");
    assert_eq!(objections(&told, "GetFlowsResponse", "", &proto()), Vec::<String>::new());
    told
}

#[test]
fn a_conversation_in_hubbles_shape() {
    insta::assert_json_snapshot!(of(&sample()));
}

#[test]
fn every_kind_of_record_has_fields_and_values_that_hubble_knows() {
    let no_ports = json!({"source.port": null, "destination.port": null});
    let with = |mut changes: Value| {
        changes.as_object_mut().unwrap().extend(no_ports.as_object().unwrap().clone());
        of(&not_tcp(changes))["flow"].clone()
    };
    let udp = of(&not_tcp(json!({"network.transport": "udp"})))["flow"]["l4"].clone();
    assert_eq!(udp, json!({"UDP": {"source_port": 40_000, "destination_port": 5432}}));
    let sctp = of(&not_tcp(json!({"network.transport": "sctp"})))["flow"]["l4"].clone();
    assert_eq!(sctp, json!({"SCTP": {"source_port": 40_000, "destination_port": 5432}}));
    let ping = with(json!({"network.transport": "icmp", "icmp.type": 8, "icmp.code": 0}));
    assert_eq!(ping["l4"], json!({"ICMPv4": {"type": 8, "code": 0}}));
    let v6 = json!({"network.transport": "ipv6-icmp", "network.type": "ipv6", "icmp.type": 135, "icmp.code": 0,
        "source.address": "2001:db8::1", "destination.address": "ff02::1:ff00:2", "destination.port_name": null,
        "verdict": "flooded", "direction": "north_south"});
    let neighbour = with(v6);
    assert_eq!(neighbour["l4"], json!({"ICMPv6": {"type": 135, "code": 0}}));
    assert_eq!(neighbour["IP"]["ipVersion"], "IPv6");
    assert_eq!(neighbour["verdict"], "FORWARDED");
    assert_eq!(neighbour["traffic_direction"], "TRAFFIC_DIRECTION_UNKNOWN");
    assert!(neighbour.get("destination").is_none() && neighbour["Summary"].as_str().unwrap().contains("flooded"));
    let fragments = with(json!({"network.transport": "udp", "fragment": true}));
    assert!(fragments.get("l4").is_none() && fragments["Summary"].as_str().unwrap().contains("fragments"));
    let arp = with(json!({"network.type": "arp", "network.transport": null, "source.address": null,
        "destination.address": null}));
    assert!(arp.get("l4").is_none() && arp.get("IP").is_none(), "{arp}");
    assert!(arp["Summary"].as_str().unwrap().starts_with("ARP; "), "{arp}");
}

#[test]
fn every_drop_reason_is_one_of_hubbles_and_ours_is_in_the_summary() {
    let labels = DropReason::ALL.iter().map(|reason| reason.label()).chain(["kernel_no_socket"]);
    for label in labels {
        let flow = of(&sample_with(&json!({"verdict": "dropped", "drop_reason": label})))["flow"].clone();
        assert_eq!(flow["verdict"], "DROPPED");
        assert!(flow["Summary"].as_str().unwrap().contains(&format!("dropped: {label}")), "{flow}");
        let number = &proto()["enums"]["DropReason"][flow["drop_reason_desc"].as_str().unwrap()];
        if flow["drop_reason_desc"] == "DROP_REASON_UNKNOWN" {
            assert!(flow.get("event_type").is_none(), "0 would be shown as success: {flow}");
        } else {
            assert_eq!(flow["event_type"], json!({"type": 1, "sub_type": number}), "{label}");
        }
    }
}

#[test]
fn an_id_is_a_uuid_that_stays_the_same() {
    let uuid = |record: &Record| of(record)["flow"]["uuid"].as_str().unwrap().to_owned();
    let first = uuid(&sample());
    let bytes: Vec<_> = first.bytes().collect();
    assert_eq!(first.len(), 36);
    assert_eq!((bytes[14], b"89ab".contains(&bytes[19])), (b'5', true), "version and variant of {first}");
    assert_eq!(uuid(&sample_with(&json!({"end": "2027-01-15T09:00:00Z", "end_reason": "active_timeout"}))), first);
    assert_ne!(uuid(&sample_with(&json!({"id": "65f3c6a1b2c40-8"}))), first);
    assert_ne!(uuid(&sample_with(&json!({"switch": "weft1"}))), first);
}

#[test]
fn hostile_and_huge_labels_make_a_line_that_hubble_can_read() {
    for hostile in HOSTILE {
        let labels = BTreeMap::from([("k".to_owned(), (*hostile).to_owned())]);
        let record = Record { source_labels: labels.into(), ..sample() };
        let told = of(&record);
        let line = hubble_line(&record, "host1");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), told);
        assert!(!line.trim_end_matches('\n').contains(|c: char| c.is_control() || is_unsafe(c)), "{line:?}");
        assert_eq!(told["flow"]["source"]["labels"], json!([format!("k={hostile}")]));
    }
    // As many and as long as a port may have them, of bytes that JSON writes as six.
    let worst: BTreeMap<_, _> = (0..64).map(|n| (format!("{n:0255}"), "\u{1}".repeat(255))).collect();
    let told = of(&Record { source_labels: worst.clone().into(), destination_labels: worst.into(), ..sample() });
    let kept = told["flow"]["source"]["labels"].as_array().unwrap().len();
    assert!((10..64).contains(&kept), "{kept}");
    assert!(told.to_string().len() < 64 * 1024, "{}", told.to_string().len());
}

#[test]
fn the_reader_of_the_protocol_objects_to_what_is_none_of_it() {
    let object = |value: Value| objections(&value, "GetFlowsResponse", "", &proto());
    assert_eq!(object(json!({"flow": {"pod": 1}})), [".flow.pod: no field of Flow"]);
    assert_eq!(object(json!({"flow": {"verdict": "flooded"}})), [".flow.verdict: \"flooded\" is no Verdict"]);
    assert_eq!(object(json!({"flow": {"source": {"labels": [1]}}})), [".flow.source.labels: 1 is no string"]);
    assert_eq!(object(json!({"time": "yesterday"})), [".time: \"yesterday\" is no Timestamp"]);
}
