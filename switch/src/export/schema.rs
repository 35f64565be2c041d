//! What a record looks like, for programs and for people: a JSON Schema and a page, both made from the type itself.
//!
//! `weft generate schema DIR` writes them; those under `docs/` are compared with what it would write, so a field cannot change
//! without somebody seeing it. Fields are added, but none is renamed, retyped or taken away without a word in the changelog.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::flow::Record;

/// The file that [`flow_record_schema`] is published as.
pub const SCHEMA_FILE: &str = "flow-record.schema.json";
/// The file that [`flow_record_page`] is published as.
pub const PAGE_FILE: &str = "flow-record.md";

/// A conversation of two guests, as it is logged.
const SAMPLE: &str = include_str!("sample.json");

const PREFACE: &str = "\
# The flow record

Written by `weft generate schema docs`; do not edit. As a JSON Schema: [flow-record.schema.json](flow-record.schema.json).

A record is one JSON object: a conversation of two stations, with both directions in one. `source` is who began. Fields are flat,
named as OpenTelemetry names them where it has a name. Times are RFC 3339 in UTC, durations whole microseconds, counts whole
numbers. A field that does not apply is absent.

A conversation that goes on for long has several records of one `id`, each with what was added since the one before: **the sum of
all records is what was sent**, to the byte. Fields may be added; none is renamed or taken away without a word in the changelog.
";

/// The JSON Schema of a record (draft 2020-12).
pub fn flow_record_schema() -> Value {
    let mut named = Vec::new();
    Record::schemas(&mut named);
    let named: Map<_, _> = named.into_iter().map(|(name, schema)| (name, value(&schema))).collect();
    let mut whole = Object::default();
    let mut tcp = Object::default();
    for part in value(&Record::schema()).get("allOf").and_then(Value::as_array).into_iter().flatten() {
        whole.take(part, &named);
    }
    if let Some(part) = named.get("TcpRecord") {
        tcp.take(part, &named);
    }
    whole.properties.append(&mut tcp.properties);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weft flow record",
        "description": "One conversation, or what was added to it since its record before. `source` is who began.",
        "type": "object",
        "properties": whole.properties,
        "required": whole.required,
        // All of TCP's, or none.
        "dependentRequired": {"tcp.flags": tcp.required},
    })
}

/// Fields of an object, and which of them are always there.
#[derive(Default)]
struct Object {
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Object {
    fn take(&mut self, part: &Value, named: &Map<String, Value>) {
        for (field, schema) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.properties.insert(field.clone(), plain(schema, named));
        }
        self.required.extend(part.get("required").and_then(Value::as_array).into_iter().flatten().cloned());
    }
}

fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).expect("a derived schema is JSON")
}

/// A field's schema without references, and without what only `OpenAPI` knows.
fn plain(schema: &Value, named: &Map<String, Value>) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    if let Some(choice) = schema.get("oneOf").and_then(Value::as_array).and_then(|choices| choices.first()) {
        let mut some = plain(choice, named);
        if let Some(values) = some.get_mut("enum").and_then(Value::as_array_mut) {
            values.push(Value::Null);
        }
        if let Some(kind) = some.get_mut("type") {
            *kind = json!([kind.take(), "null"]);
        }
        return some;
    }
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let mut all = referred.and_then(|name| named.get(name)).and_then(Value::as_object).cloned().unwrap_or_default();
    let own = schema.iter().filter(|(key, _)| !matches!(key.as_str(), "$ref" | "propertyNames"));
    all.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    if all.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("int")) {
        all.remove("format");
    }
    Value::Object(all)
}

/// The page about a record, in Markdown.
pub fn flow_record_page() -> String {
    let schema = flow_record_schema();
    let mut page = PREFACE.to_owned() + "\n| field | type | present | meaning |\n|---|---|---|---|\n";
    let has = |list: &Value, field: &str| list.as_array().is_some_and(|list| list.iter().any(|name| name == field));
    let of_tcp = schema.pointer("/dependentRequired/tcp.flags").unwrap_or(&Value::Null);
    for (field, told) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let present = if schema.get("required").is_some_and(|list| has(list, field)) {
            "always"
        } else if has(of_tcp, field) {
            "TCP"
        } else {
            ""
        };
        let meaning = told.get("description").and_then(Value::as_str).unwrap_or_default();
        writeln!(page, "| `{field}` | {} | {present} | {meaning} |", kind(told)).expect("a string takes all");
    }
    let sample: Value = serde_json::from_str(SAMPLE).expect("the sample is JSON, and a test reads it");
    let sample = serde_json::to_string_pretty(&sample).expect("what was read can be written");
    writeln!(page, "\nOne record, here over several lines:\n\n```json\n{sample}\n```").expect("a string takes all");
    page
}

/// A type in words.
fn kind(schema: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let or = |value: &Value| if value.is_null() { "null".to_owned() } else { format!("`{}`", text(value)) };
        return values.iter().map(or).collect::<Vec<_>>().join(", ");
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().map(text).unwrap_or_default(),
        Some(kind) => text(kind),
        None => String::new(),
    };
    match (kind.as_str(), schema.get("format").and_then(Value::as_str)) {
        ("string", Some("date-time")) => "time".to_owned(),
        ("array", _) => "list of strings".to_owned(),
        ("object", _) => "strings by name".to_owned(),
        _ => kind,
    }
}
