//! Questions: a filter becomes a condition that leaves out what cannot match, newest first; [`Filter::matches`] has the last word.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::names::Words;
use super::rows;
use super::store::side_of;
use crate::api::schema::Side;
use crate::events::{Event, EventFilter};
use crate::flow::filter::{Field, Term, Wanted};
use crate::flow::{Filter, Record};

/// Steps of the database's machine between two looks at the clock.
const STEPS: i32 = 100_000;

/// What was dropped in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedSince {
    /// The port's name; empty for none.
    pub port: String,
    /// Which side refused.
    pub side: Side,
    /// The reason's label.
    pub reason: String,
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Opens the file for a question that may take so long.
pub(super) fn open(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(patience)?;
    let deadline = Instant::now() + patience;
    db.progress_handler(STEPS, Some(move || Instant::now() >= deadline))?;
    Ok(db)
}

/// A condition and its values.
#[derive(Debug, Default)]
struct Condition {
    text: String,
    values: Vec<Value>,
}

/// The `last` records that are asked for and have a number below `before`, in the order of their ends.
pub(super) fn records(db: &Connection, filter: &Filter, last: usize, before: u64) -> rusqlite::Result<Vec<Record>> {
    let Condition { text, mut values } = condition(db, filter)?;
    values.push(Value::Integer(before.cast_signed()));
    let asked = format!(
        "SELECT shape.word, record.body FROM flow CROSS JOIN record USING (number) JOIN shape ON shape.number = record.shape
         WHERE {text} flow.number < ? ORDER BY flow.ended DESC, flow.number DESC"
    );
    let mut query = db.prepare(&asked)?;
    let mut found = query.query(params_from_iter(values))?;
    let mut records = Vec::new();
    while records.len() < last
        && let Some(row) = found.next()?
    {
        let (shape, body) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        records.extend(rows::unfolded(shape, body).filter(|record| filter.matches(record)));
    }
    records.reverse();
    Ok(records)
}

/// What a filter asks of the columns; ends in `AND` unless it is empty.
fn condition(db: &Connection, filter: &Filter) -> rusqlite::Result<Condition> {
    let mut all = Condition::default();
    let mut by_field: BTreeMap<Field, Vec<&Term>> = BTreeMap::new();
    for term in filter.terms().iter().filter(|term| !term.negated) {
        by_field.entry(term.field).or_default().push(term);
    }
    // What is asked for goes first: it leaves over fewer than what is not asked for.
    for terms in by_field.into_values() {
        let mut any = Condition::default();
        for term in terms {
            let one = one(db, term)?;
            any.text += if any.text.is_empty() { "(" } else { " OR " };
            any.text += &one.text;
            any.values.extend(one.values);
        }
        any.text += ")";
        all.add(any);
    }
    for term in filter.terms().iter().filter(|term| term.negated) {
        let no = one(db, term)?;
        // A time between two microseconds belongs to both sides here.
        let is_time = matches!(term.field, Field::Since | Field::Until);
        all.add(if is_time { no } else { Condition { text: format!("NOT {}", no.text), ..no } });
    }
    Ok(all)
}

impl Condition {
    fn add(&mut self, other: Self) {
        self.text += &other.text;
        self.text += " AND ";
        self.values.extend(other.values);
    }
}

/// What one term asks of the columns: true or false, never NULL. A time that is negated comes back as its opposite.
fn one(db: &Connection, Term { field, negated, wanted }: &Term) -> rusqlite::Result<Condition> {
    let word = |text: &str| Words::of("name").find(db, text).map(|number| number.map(Value::Integer));
    let (columns, value): (&[&str], Option<Value>) = match (field, wanted) {
        (Field::Since | Field::Until, Wanted::Time(time)) => {
            let comparison = if (*field == Field::Since) == *negated { "<=" } else { ">=" };
            let text = format!("(flow.ended {comparison} ?)");
            return Ok(Condition { text, values: vec![Value::Integer(time.as_microsecond())] });
        }
        (Field::Ip, Wanted::Network(network)) => {
            let (first, last) = network.range();
            let within = |column| format!("({column} BETWEEN ? AND ?) IS TRUE");
            let text = format!("({} OR {})", within("source_address"), within("destination_address"));
            let range = [rows::address(first), rows::address(last)];
            return Ok(Condition { text, values: [range.clone(), range].concat() });
        }
        (Field::Port, Wanted::Text(name)) => (&["from_port", "to_port"], word(name)?),
        (Field::FromPort, Wanted::Text(name)) => (&["from_port"], word(name)?),
        (Field::ToPort, Wanted::Text(name)) => (&["to_port"], word(name)?),
        (Field::Protocol, Wanted::Text(name)) => (&["network", "transport"], word(name)?),
        (Field::DropReason, Wanted::Text(name)) => (&["drop_reason"], word(name)?),
        (Field::Mac, Wanted::Mac(mac)) => (&["source_mac", "destination_mac"], Some(Value::Integer(rows::mac(*mac)))),
        (Field::Vlan, Wanted::Number(vlan)) => (&["vlan", "inner_vlan"], Some(Value::Integer((*vlan).into()))),
        (Field::L4Port, Wanted::Number(port)) => {
            (&["source_l4", "destination_l4"], Some(Value::Integer((*port).into())))
        }
        (Field::Verdict, Wanted::Verdict(verdict)) => (&["verdict"], Some(Value::Integer(rows::verdict(*verdict)))),
        // No word of a filter is read so; it matches nothing.
        _ => (&[], None),
    };
    // A word that was never written is nobody's.
    let Some(value) = value else { return Ok(Condition { text: "FALSE".to_owned(), values: Vec::new() }) };
    let is: Vec<String> = columns.iter().map(|column| format!("{column} IS ?")).collect();
    Ok(Condition { text: format!("({})", is.join(" OR ")), values: vec![value; columns.len()] })
}

/// What was dropped in a time; looks that are partly in it count whole.
pub(super) fn drops(
    db: &Connection,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> rusqlite::Result<Vec<DroppedSince>> {
    let mut query = db.prepare(
        "SELECT port.word, side, reason.word, sum(frames), sum(bytes) FROM dropped
         JOIN name port ON port.number = dropped.port JOIN name reason ON reason.number = dropped.reason
         WHERE ended > ?1 AND began < ?2 GROUP BY 1, 2, 3 ORDER BY port.word = '', port.word, side, reason.word",
    )?;
    let since = since.map_or(i64::MIN, Timestamp::as_microsecond);
    let until = until.map_or(i64::MAX, Timestamp::as_microsecond);
    let read = query.query_map([since, until], |row| {
        Ok(DroppedSince {
            port: row.get(0)?,
            side: side_of(row.get(1)?),
            reason: row.get(2)?,
            frames: row.get::<_, i64>(3)?.cast_unsigned(),
            bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    })?;
    read.collect()
}

/// The last events that are asked for with their numbers, in the order of time.
pub(super) fn events(db: &Connection, filter: &EventFilter, last: usize) -> rusqlite::Result<Vec<(u64, Event)>> {
    let mut text = "SELECT event.number, json FROM event JOIN name kind ON kind.number = event.kind
         LEFT JOIN name port ON port.number = event.port WHERE time >= ? AND time <= ?"
        .to_owned();
    let (since, until) = filter.span();
    let mut values = vec![
        Value::Integer(since.map_or(i64::MIN, Timestamp::as_microsecond)),
        Value::Integer(until.map_or(i64::MAX, Timestamp::as_microsecond)),
    ];
    let mut among = |columns: &[&str], flag: &str| {
        let wanted: Vec<&str> = filter.words().filter(|(word, _)| *word == flag).map(|(_, value)| value).collect();
        if wanted.is_empty() {
            return;
        }
        let marks = vec!["?"; wanted.len()].join(",");
        let any: Vec<String> = columns.iter().map(|column| format!("{column} IN ({marks})")).collect();
        text += " AND (";
        text += &any.join(" OR ");
        text += ")";
        for _ in columns {
            values.extend(wanted.iter().map(|value| Value::Text((*value).to_owned())));
        }
    };
    among(&["kind.word"], "kind");
    among(&["port.word", "json_extract(json, '$.other_port')"], "port");
    text += " ORDER BY time DESC, event.number DESC";
    let mut query = db.prepare(&text)?;
    let mut found = query.query(params_from_iter(values))?;
    let mut events = Vec::new();
    while events.len() < last
        && let Some(row) = found.next()?
    {
        let number = row.get::<_, i64>(0)?.cast_unsigned();
        // One that a later version wrote may be of a kind that is not known here.
        let event = serde_json::from_str(row.get_ref(1)?.as_str()?).ok().filter(|event| filter.matches(event));
        events.extend(event.map(|event| (number, event)));
    }
    events.reverse();
    Ok(events)
}
