//! The rules, each a function that says what is wrong with a dashboard; `super` lists where they are from.

use serde_json::Value;
use weft::metrics::declared::{self, Kind};

use super::board::{Board, Query, text, title};
use super::promql::{self, Parts, Selector};

/// A rule's name, and what it finds wrong.
pub(super) type Rule = (&'static str, fn(&Board) -> Vec<String>);

/// Every rule.
pub(super) const RULES: &[Rule] = &[
    ("template-datasource-rule", datasource_is_a_variable),
    ("template-job-rule", |board| choosable(board, "job", "Job")),
    ("template-instance-rule", |board| choosable(board, "instance", "Instance")),
    ("template-label-promql-rule", variables_are_promql),
    ("template-on-time-change-reload-rule", variables_reload),
    ("panel-datasource-rule", panels_use_the_datasource),
    ("panel-title-description-rule", panels_say_what_they_show),
    ("panel-units-rule", panels_have_units),
    ("panel-no-targets-rule", panels_ask_for_something),
    ("target-promql-rule", queries_are_promql),
    ("target-rate-interval-rule", |board| {
        of_selectors(board, "a rate over another interval", Selector::is_rate_of_other_interval)
    }),
    ("target-job-rule", |board| of_selectors(board, "no job=~\"$job\"", |it| !it.follows_variable("job"))),
    ("target-instance-rule", |board| {
        of_selectors(board, "no instance=~\"$instance\"", |it| !it.follows_variable("instance"))
    }),
    ("target-counter-agg-rule", |board| {
        of_selectors(board, "a counter as it stands", |it| it.metric.ends_with("_total") && !it.is_growth())
    }),
    ("uneditable-dashboard", not_editable),
    ("classic-model", model_is_classic),
    ("metrics-exist", metrics_exist),
    ("no-overlap", panels_do_not_overlap),
];

/// Units that are used; each is one that Grafana knows.
const UNITS: [&str; 12] = [
    "short",
    "percentunit",
    "bytes",
    "Bps",
    "pps",
    "cps",
    "ops",
    "s",
    "dateTimeFromNow",
    "bool_yes_no",
    "none",
    "string",
];

/// Metrics that Prometheus makes of itself.
const PROMETHEUS_OWN: [(&str, &[&str]); 3] =
    [("up", &[]), ("scrape_samples_scraped", &[]), ("ALERTS", &["alertname", "alertstate", "severity", "port"])];

/// Labels that Prometheus adds to whatever it scrapes.
const ADDED: [&str; 2] = ["job", "instance"];

fn datasource_is_a_variable(board: &Board) -> Vec<String> {
    let is = |variable: &&Value| variable["type"] == "datasource" && variable["query"] == "prometheus";
    let named = |variable: &&Value| variable["name"] == "datasource" && variable["label"] == "Data source";
    match board.variables().iter().filter(is).collect::<Vec<_>>()[..] {
        [one] if named(&one) => Vec::new(),
        ref found => vec![format!("{} data sources as variables, or one of another name", found.len())],
    }
}

fn choosable(board: &Board, name: &str, label: &str) -> Vec<String> {
    let is = |variable: &&Value| {
        variable["type"] == "query"
            && text(variable, "/datasource/uid") == "${datasource}"
            && variable["label"] == label
            && variable["multi"] == true
            && variable["allValue"] == ".+"
    };
    if board.variable(name).as_ref().is_some_and(is) {
        Vec::new()
    } else {
        vec![format!("no variable {name} as it should be")]
    }
}

fn variables_are_promql(board: &Board) -> Vec<String> {
    let is_none = |query: &str| {
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        inner.and_then(|inner| inner.rsplit_once(", ")).is_none_or(|(series, _)| promql::parts(series).is_err())
    };
    let queries = board.asked().map(|variable| text(variable, "/query"));
    queries.filter(|query| is_none(query)).map(|query| format!("a variable asks for {query:?}")).collect()
}

fn variables_reload(board: &Board) -> Vec<String> {
    let stale = board.asked().filter(|variable| variable["refresh"] != 2);
    stale
        .map(|variable| format!("${} is not read again when the time range changes", text(variable, "/name")))
        .collect()
}

/// Panels of which something is wrong.
fn of_panels(board: &Board, what: &str, is_wrong: impl Fn(&Value) -> bool) -> Vec<String> {
    board.panels().filter(|panel| is_wrong(panel)).map(|panel| format!("{}: {what}", title(panel))).collect()
}

fn panels_use_the_datasource(board: &Board) -> Vec<String> {
    let is_other = |json: &Value| text(json, "/datasource/uid") != "${datasource}";
    of_panels(board, "another data source", |panel| {
        is_other(panel) || panel["targets"].as_array().is_some_and(|targets| targets.iter().any(is_other))
    })
}

fn panels_say_what_they_show(board: &Board) -> Vec<String> {
    of_panels(board, "no title or no description", |panel| {
        text(panel, "/title").is_empty() || text(panel, "/description").len() < 20
    })
}

fn panels_have_units(board: &Board) -> Vec<String> {
    of_panels(board, "no unit that we know", |panel| {
        let of_overrides = panel.pointer("/fieldConfig/overrides").and_then(Value::as_array).into_iter().flatten();
        let properties = of_overrides.filter_map(|it| it["properties"].as_array()).flatten();
        let overridden = properties.filter(|it| it["id"] == "unit").map(|it| text(it, "/value"));
        let mut units = overridden.chain([text(panel, "/fieldConfig/defaults/unit")]);
        !units.all(|unit| UNITS.contains(&unit))
    })
}

fn panels_ask_for_something(board: &Board) -> Vec<String> {
    of_panels(board, "no queries", |panel| panel["targets"].as_array().is_none_or(Vec::is_empty))
}

/// Everything that asks Prometheus, but the variables.
fn queries(board: &Board) -> impl Iterator<Item = Query<'_>> {
    board.targets().chain(board.annotations())
}

fn queries_are_promql(board: &Board) -> Vec<String> {
    let fault =
        |query: Query| Some(format!("{}: {}: {}", title(query.owner), query.expr, promql::parts(query.expr).err()?));
    queries(board).filter_map(fault).collect()
}

/// Queries and their parts; those that are no `PromQL` are another rule's.
fn taken_apart(board: &Board) -> impl Iterator<Item = (Query<'_>, Parts)> {
    queries(board).filter_map(|query| Some((query, promql::parts(query.expr).ok()?)))
}

fn of_selectors(board: &Board, what: &str, is_wrong: impl Fn(&Selector) -> bool) -> Vec<String> {
    let wrong = taken_apart(board).filter(|(_, parts)| parts.selectors.iter().any(&is_wrong));
    wrong.map(|(query, _)| format!("{}: {what}: {}", title(query.owner), query.expr)).collect()
}

fn not_editable(board: &Board) -> Vec<String> {
    if board.json["editable"] == false { Vec::new() } else { vec!["it is editable".to_owned()] }
}

fn model_is_classic(board: &Board) -> Vec<String> {
    let version = board.json["schemaVersion"].as_u64().unwrap_or_default();
    let uid = text(&board.json, "/uid");
    let mut ids: Vec<_> = board.json["panels"].as_array().into_iter().flatten().map(|it| it["id"].as_u64()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let faults = [
        (!(39..=41).contains(&version)).then(|| format!("schemaVersion {version}")),
        (board.file != format!("{uid}.json")).then(|| format!("its uid is {uid:?}, its file {}", board.file)),
        (!board.json["id"].is_null()).then(|| "an id, which is one Grafana's own".to_owned()),
        (ids.len() < all || ids.contains(&None)).then(|| "panels without an id of their own".to_owned()),
        text(&board.json, "/description").is_empty().then(|| "no description".to_owned()),
    ];
    faults.into_iter().flatten().collect()
}

/// The labels of a metric, when there is such a metric.
fn labels_of(metric: &str) -> Option<Vec<&'static str>> {
    if let Some((_, labels)) = PROMETHEUS_OWN.iter().find(|(name, _)| *name == metric) {
        return Some(labels.to_vec());
    }
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
    let is = |about: &&&declared::About| {
        about.name == metric || (about.kind == Kind::Histogram && of_histogram == Some(about.name))
    };
    let about = declared::ALL.iter().find(is)?;
    Some(if about.kind == Kind::Histogram { [about.labels, &["le"]].concat() } else { about.labels.to_vec() })
}

fn has_label(metric: &str, label: &str) -> bool {
    ADDED.contains(&label) || labels_of(metric).is_some_and(|labels| labels.contains(&label))
}

/// Every metric is one that Weft or Prometheus tells, and has the labels it is asked for.
fn metrics_exist(board: &Board) -> Vec<String> {
    let mut faults = Vec::new();
    let variables = board.asked().filter_map(|variable| {
        let (series, label) =
            text(variable, "/query").strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(", ")?;
        let mut parts = promql::parts(series).ok()?;
        parts.kept = parts.selectors.iter().map(|it| (label.to_owned(), vec![it.metric.clone()])).collect();
        Some((format!("${}", text(variable, "/name")), parts))
    });
    let asked = taken_apart(board).map(|(query, parts)| (title(query.owner).to_owned(), parts));
    for (whose, parts) in asked.chain(variables) {
        for selector in &parts.selectors {
            if labels_of(&selector.metric).is_none() {
                faults.push(format!("{whose}: there is no metric {}", selector.metric));
            }
            let strange = selector.matchers.iter().filter(|matcher| !has_label(&selector.metric, &matcher.name));
            faults.extend(strange.map(|matcher| format!("{whose}: {} has no label {}", selector.metric, matcher.name)));
        }
        let strange =
            parts.kept.iter().filter(|(label, metrics)| !metrics.iter().any(|metric| has_label(metric, label)));
        faults.extend(strange.map(|(label, metrics)| format!("{whose}: {metrics:?} have no label {label}")));
    }
    faults
}

/// Every panel has a place of its own within 24 columns.
fn panels_do_not_overlap(board: &Board) -> Vec<String> {
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
    let mut taken = std::collections::BTreeMap::new();
    let mut faults = Vec::new();
    for panel in board.json["panels"].as_array().into_iter().flatten() {
        let [Some(x), Some(y), Some(w), Some(h)] = place(panel) else {
            faults.push(format!("{}: no place", title(panel)));
            continue;
        };
        if x + w > 24 || w * h == 0 {
            faults.push(format!("{}: {x} + {w} columns", title(panel)));
        }
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            if let Some(other) = taken.insert(cell, title(panel)) {
                faults.push(format!("{} lies on {other}", title(panel)));
                break;
            }
        }
    }
    faults
}
