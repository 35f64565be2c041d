//! The dashboards: held to rules, and asked of a live Prometheus that scrapes a live Weft.
//!
//! Grafana itself is not run. What can be wrong without its drawing is: a dashboard that breaks with other data sources or
//! instances, a query that is no `PromQL`, that names what is not told, or that answers nothing.
//!
//! The rules of Grafana's [dashboard-linter](https://github.com/grafana/dashboard-linter) that fit, by its names:
//! `template-datasource-rule`, `template-job-rule`, `template-instance-rule`, `template-label-promql-rule`,
//! `template-on-time-change-reload-rule`, `panel-datasource-rule`, `panel-title-description-rule`, `panel-units-rule`,
//! `panel-no-targets-rule`, `target-promql-rule`, `target-rate-interval-rule`, `target-job-rule`, `target-instance-rule`,
//! `target-counter-agg-rule`, `uneditable-dashboard`. It looks at time series and figures; here panels of all kinds, and
//! annotations, are held to them. Those for Loki (`target-logql-rule`, `target-logql-auto-rule`) have nothing to look at.
//! Rules of our own: `classic-model`, `metrics-exist` (metrics and labels are ones that are told), `no-overlap`.

mod board;
mod lint;
#[expect(clippy::print_stdout, reason = "what was answered is what a person wants to read")]
mod live;
mod promql;
mod traffic;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Arena, Mode, Need};

use board::Board;

/// What is wrong with a dashboard: the rule, and what it says.
fn faults(board: &Board) -> Vec<(&'static str, String)> {
    lint::RULES.iter().flat_map(|(name, rule)| rule(board).into_iter().map(|what| (*name, what))).collect()
}

#[test]
fn dashboards_keep_the_rules_of_the_linter() -> Result<()> {
    let boards = board::all()?;
    let names: Vec<&str> = boards.iter().map(|board| board.file.as_str()).collect();
    ensure!(names == ["weft-east-west.json", "weft-internals.json", "weft-port.json", "weft-tcp.json"], "{names:?}");
    for board in &boards {
        let faults = faults(board);
        ensure!(faults.is_empty(), "{}: {faults:#?}", board.file);
        ensure!(board.panels().count() > 10 && board.targets().count() > 15, "{} is nearly empty", board.file);
    }
    Ok(())
}

/// A way to break a dashboard, and the rule that must find it.
type Mutation = (&'static str, &'static str, fn(&mut Value));

/// The first panel that is no row has the second place in every dashboard.
const MUTATIONS: &[Mutation] = &[
    ("template-datasource-rule", "/templating/list/0", |it| it["name"] = json!("ds")),
    ("template-job-rule", "/templating/list/1", |it| it["multi"] = json!(false)),
    ("template-instance-rule", "/templating/list/2", |it| it["allValue"] = json!(null)),
    ("template-label-promql-rule", "/templating/list/1", |it| {
        it["query"] = json!("label_values(weft_build_info{, job)");
    }),
    ("template-on-time-change-reload-rule", "/templating/list/2", |it| it["refresh"] = json!(1)),
    ("panel-datasource-rule", "/panels/1", |it| it["datasource"]["uid"] = json!("prometheus-of-mine")),
    ("panel-title-description-rule", "/panels/1", |it| it["description"] = json!("")),
    ("panel-units-rule", "/panels/1", |it| it["fieldConfig"]["defaults"]["unit"] = json!("bogus")),
    ("panel-no-targets-rule", "/panels/1", |it| it["targets"] = json!([])),
    ("target-promql-rule", "/panels/1/targets/0", |it| it["expr"] = json!("sum(weft_port_up{")),
    ("target-rate-interval-rule", "/panels/1/targets/0", |it| it["expr"] = json!(query("rate(", "[5m])"))),
    ("target-job-rule", "/panels/1/targets/0", |it| it["expr"] = json!("weft_stations{instance=~\"$instance\"}")),
    ("target-instance-rule", "/panels/1/targets/0", |it| it["expr"] = json!("weft_stations{job=~\"$job\"}")),
    ("target-counter-agg-rule", "/panels/1/targets/0", |it| it["expr"] = json!(query("", ""))),
    ("uneditable-dashboard", "", |it| it["editable"] = json!(true)),
    ("classic-model", "", |it| it["schemaVersion"] = json!(42)),
    ("metrics-exist", "/panels/1/targets/0", |it| {
        it["expr"] = json!("sum by (prot) (weft_port_up{job=~\"$job\", instance=~\"$instance\"})");
    }),
    ("metrics-exist", "/panels/1/targets/0", |it| {
        it["expr"] = json!("weft_ports_upp{job=~\"$job\", instance=~\"$instance\"}");
    }),
    ("no-overlap", "/panels/1/gridPos", |it| it["x"] = json!(1)),
];

fn query(before: &str, after: &str) -> String {
    format!("{before}weft_station_moves_total{{job=~\"$job\", instance=~\"$instance\"}}{after}")
}

#[test]
fn a_broken_dashboard_is_found_by_the_rule_it_breaks() -> Result<()> {
    for whole in board::all()? {
        for (rule, place, breaks) in MUTATIONS {
            let mut broken = whole.clone();
            let Some(part) = broken.json.pointer_mut(place) else { anyhow::bail!("{}: no {place}", whole.file) };
            breaks(part);
            let found = faults(&broken);
            ensure!(found.iter().any(|(name, _)| name == rule), "{}: {rule} overlooks {place}: {found:?}", whole.file);
            ensure!(found.iter().all(|(name, _)| name == rule), "{}: not {rule} alone: {found:?}", whole.file);
        }
    }
    let tried = |rule: &str| MUTATIONS.iter().any(|(name, ..)| *name == rule);
    let untried: Vec<_> = lint::RULES.iter().filter(|(name, _)| !tried(name)).map(|(name, _)| name).collect();
    ensure!(untried.is_empty(), "no negative test: {untried:?}");
    Ok(())
}

#[test]
fn every_query_of_every_dashboard_is_answered_by_a_live_prometheus() {
    Arena::run(&[Need::Bpf, Need::Nft, Need::Prometheus], |arena| live::run(arena, Mode::Kernel));
}

#[test]
fn every_query_is_answered_also_when_user_space_forwards() {
    Arena::run(&[Need::Bpf, Need::Nft, Need::Prometheus], |arena| live::run(arena, Mode::Userspace));
}
