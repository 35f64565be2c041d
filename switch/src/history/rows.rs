//! A record as a row, and back.
//!
//! What filters look at has columns of its own in the narrow table `flow`, in the order of time, so that any filter costs at most one
//! walk along it. All that a record has is in `record`: the values of its JSON as an array, without the names of the fields. Which
//! these are is the record's *shape*; there are few, and each is written once. So a record takes a third of its JSON, and one that
//! gets a field more tomorrow needs no other layout.

use std::net::IpAddr;

use rusqlite::types::Value;
use serde_json::{Map, Value as Json};

use crate::flow::{Facts, Record, Verdict};

/// What separates fields in a shape; no field's name has it.
const BETWEEN: char = '\n';

/// The fields that a record has, and their values.
pub(super) fn folded(record: &Record) -> (String, String) {
    let Ok(Json::Object(fields)) = serde_json::to_value(record) else { return Default::default() };
    let mut shape = String::with_capacity(1024);
    for field in fields.keys() {
        shape.push_str(field);
        shape.push(BETWEEN);
    }
    let values: Vec<Json> = fields.into_iter().map(|(_, value)| value).collect();
    (shape, Json::Array(values).to_string())
}

/// The record again; nothing when it is none.
pub(super) fn unfolded(shape: &str, body: &str) -> Option<Record> {
    let values: Vec<Json> = serde_json::from_str(body).ok()?;
    let fields = shape.split_terminator(BETWEEN).map(str::to_owned);
    let record: Map<String, Json> = fields.zip(values).collect();
    serde_json::from_value(Json::Object(record)).ok()
}

/// A verdict's number.
pub(super) fn verdict(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Forwarded => 0,
        Verdict::Flooded => 1,
        Verdict::Dropped => 2,
    }
}

/// An address that compares as addresses do: IPv4 as a number, IPv6 as 16 bytes.
pub(super) fn address(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Integer(address.to_bits().into()),
        IpAddr::V6(address) => Value::Blob(address.octets().to_vec()),
    }
}

/// A station's address as a number.
pub(super) fn mac(mac: switch_common::MacAddr) -> i64 {
    mac.0.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// The columns of `flow`; `word` numbers a word.
pub(super) fn columns(
    number: u64,
    record: &Record,
    mut word: impl FnMut(&str) -> rusqlite::Result<i64>,
) -> rusqlite::Result<[Value; 16]> {
    let facts = Facts::from(record);
    let mut words = |text: Option<&str>| text.map_or(Ok(Value::Null), |text| word(text).map(Value::Integer));
    let small = |number: Option<u16>| number.map_or(Value::Null, |number| Value::Integer(number.into()));
    let [source_mac, destination_mac] = facts.macs.map(|it| Value::Integer(mac(it)));
    let [source_address, destination_address] = facts.addresses.map(|it| it.map_or(Value::Null, address));
    let [source_l4, destination_l4] = facts.l4_ports.map(small);
    let [vlan, inner_vlan] = facts.vlans.map(small);
    let [network, transport] = &facts.protocols;
    Ok([
        Value::Integer(facts.end.as_microsecond()),
        Value::Integer(number.cast_signed()),
        words(Some(&facts.from_port))?,
        words(facts.to_port.as_deref())?,
        Value::Integer(verdict(facts.verdict)),
        words(facts.drop_reason.as_deref())?,
        source_address,
        destination_address,
        source_mac,
        destination_mac,
        source_l4,
        destination_l4,
        words(network.as_deref())?,
        words(transport.as_deref())?,
        vlan,
        inner_vlan,
    ])
}
