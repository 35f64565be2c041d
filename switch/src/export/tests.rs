//! Lines, their schema, and what is made from both.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails here has failed")]

mod hubble;
mod log;
mod rotation;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::LogConfig;
use crate::flow::Labels;

/// The conversation that the page about records shows.
fn sample() -> Record {
    serde_json::from_str(include_str!("sample.json")).unwrap()
}

/// The sample with other values for some fields; null takes a field away.
fn sample_with(changes: &Value) -> Record {
    let mut record = serde_json::to_value(sample()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(record.as_object_mut().unwrap().remove(field)),
            value => record[field] = value.clone(),
        }
    }
    serde_json::from_value(record).unwrap()
}

/// What is not TCP: its fields are gone.
fn not_tcp(mut changes: Value) -> Record {
    for field in flow_record_schema()["properties"].as_object().unwrap().keys().filter(|field| field.contains("tcp")) {
        changes[field] = Value::Null;
    }
    sample_with(&changes)
}

/// A log of lines of the sample, so small that few fit.
fn small(dir: &Path, lines: u64, files: u32) -> LogConfig {
    LogConfig { path: dir.join("flows.jsonl"), max_bytes: lines * line(&sample()).len() as u64, files }
}

/// The records in a file, each of which is a whole line.
fn records(path: &Path) -> Vec<Record> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const HOSTILE: &[&str] = &[
    "\"\\\n\r\t\0",
    "\u{1b}[31m\u{1b}]0;title\u{7}",
    "\u{9b}31m\u{7f}\u{85}",
    "\u{2028}\u{2029}",
    "{\"id\":\"forged\"}\n{\"id\":\"forged\"}",
    "\u{202e}é\u{1f600}",
];

#[test]
fn a_line_is_one_line_of_valid_json_whatever_the_labels_are() {
    for hostile in HOSTILE {
        let labels = Labels::new(BTreeMap::from([((*hostile).to_owned(), (*hostile).to_owned())]));
        let record = Record { source_labels: labels.clone(), destination_labels: labels, ..sample() };
        let line = line(&record);
        assert_eq!((line.matches('\n').count(), line.ends_with('\n')), (1, true), "{line:?}");
        assert!(!line.trim_end_matches('\n').contains(|c: char| c.is_control() || is_unsafe(c)), "{line:?}");
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line:?}");
    }
}

#[test]
fn the_published_schema_and_page_are_what_records_are() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let published = |file: &str| fs::read_to_string(docs.join(file)).unwrap_or_default();
    let how = "run `cargo run -p weft -- generate schema docs`, and say in the changelog what changed";
    assert_eq!(published(SCHEMA_FILE), serde_json::to_string_pretty(&flow_record_schema()).unwrap() + "\n", "{how}");
    assert_eq!(published(PAGE_FILE), flow_record_page(), "{how}");
}

#[test]
fn the_samples_id_is_its_community_id() {
    let sample = sample();
    let ports = crate::flow::Ports::L4 { source: 40_000, destination: 5432 };
    let (source, destination) = (sample.source_address.unwrap(), sample.destination_address.unwrap());
    assert_eq!(sample.community_id.unwrap(), crate::flow::community_id::v1(0, source, destination, 6, ports));
}

/// What a schema of ours says against a record: a small reader of the keywords that it uses.
fn objections(record: &Value) -> Vec<String> {
    let schema = flow_record_schema();
    let record = record.as_object().unwrap();
    let mut objections = Vec::new();
    let mut require = |fields: &Value| {
        let missing = fields.as_array().unwrap().iter().filter(|field| !record.contains_key(field.as_str().unwrap()));
        objections.extend(missing.map(|field| format!("{field} is missing")));
    };
    require(&schema["required"]);
    for (field, fields) in schema["dependentRequired"].as_object().unwrap() {
        if record.contains_key(field) {
            require(fields);
        }
    }
    for (field, value) in record {
        let told = &schema["properties"][field];
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let right = told["type"] == kind || told["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
        let listed = told["enum"].as_array().is_none_or(|values| values.contains(value));
        if !right || !listed {
            objections.push(format!("{field}: {value} is not {told}"));
        }
    }
    objections
}

#[test]
fn records_of_every_kind_agree_with_the_schema() {
    let icmp = json!({"network.transport": "icmp", "icmp.type": 8, "icmp.code": 0, "source.port": null, "destination.port": null});
    let arp = json!({"network.type": "arp", "network.transport": null, "source.address": null, "destination.address": null,
        "source.port": null, "destination.port": null, "destination.port_name": null, "community_id": null, "vlan": null,
        "verdict": "flooded", "end_reason": null});
    for record in
        [sample(), not_tcp(icmp), not_tcp(arp), sample_with(&json!({"verdict": "dropped", "drop_reason": "too_big"}))]
    {
        let mut record = serde_json::to_value(&record).unwrap();
        assert_eq!(objections(&record), Vec::<String>::new(), "{record}");
        // And it does object.
        record["verdict"] = json!("lost");
        record["vlan"] = json!("one");
        record.as_object_mut().unwrap().remove("source.mac");
        assert_eq!(objections(&record).len(), 3, "{record}");
    }
}
