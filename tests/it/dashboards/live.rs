//! Every query against a live server: asked as Grafana would, until it is answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::prometheus::Prometheus;
use weft_tests::{Arena, Daemon, Mode, scrape, wait};

use super::board::{self, Board, Query, text, title};
use super::traffic::{CONFIG, Traffic};

/// Where a zero is what a healthy switch shows, or what this machine's settings make of it: whatever names one of these.
const QUIET: [&str; 6] = [
    "weft_port_dormant",
    "weft_observation_lost_total",
    "weft_flow_overflow_frames_total",
    "weft_pairs_folded_total",
    "weft_program_runs_total",
    "weft_program_run_seconds_total",
];

/// What Grafana would put in place of a variable: all of it, for those of which many can be chosen.
const VARIABLES: [(&str, &str); 4] = [("$__rate_interval", "4s"), ("$__range", "60s"), ("$top", "10"), ("$job", ".+")];

/// What a query answered.
struct Answer {
    series: usize,
    max: f64,
    labels: String,
}

/// Starts everything, asks everything, and prints what was answered.
pub(super) fn run(arena: &Arena, mode: Mode) -> Result<()> {
    let boards = board::all()?;
    fs::write("/run/boards.toml", CONFIG)?;
    let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", "/run/boards.toml"])?;
    let mut traffic = Traffic::start(&daemon)?;
    // The configuration that is shipped, in a hurry.
    let folder = board::folder().join("prometheus");
    let config = fs::read_to_string(folder.join("prometheus.yml"))?;
    ensure!(config.matches("interval: 15s").count() == 2 && config.contains(scrape::ADDRESS), "{config}");
    let rules = ["weft.recording.yml", "weft.alerts.yml"].map(|file| folder.join(file));
    let prometheus = Prometheus::start(&config.replace("interval: 15s", "interval: 1s"), &rules)?;

    let mut open: Vec<(&Board, Query)> = Vec::new();
    for board in &boards {
        open.extend(board.targets().chain(board.annotations()).map(|query| (board, query)));
    }
    let mut answers = BTreeMap::new();
    let asked = open.len();
    let end = wait::until_true("every query is answered", wait::LATER, || {
        traffic.round(&daemon)?;
        let mut unanswered = Vec::new();
        for (board, query) in open.drain(..) {
            match ask(&prometheus, board, query)? {
                Some(answer) => drop(answers.insert((board.file.as_str(), title(query.owner), query.expr), answer)),
                None => unanswered.push((board, query)),
            }
        }
        open = unanswered;
        Ok(open.is_empty())
    });
    let unanswered: Vec<String> =
        open.iter().map(|(board, query)| format!("{}: {}: {}", board.file, title(query.owner), query.expr)).collect();
    end.with_context(|| format!("{unanswered:#?}"))?;
    variables(&prometheus, &boards)?;
    let rules = rules_hold(&prometheus)?;
    println!("{}", report(&boards, &answers, mode)?);
    println!("{} of {asked} queries answered", answers.len());
    println!("{rules}");
    drop((traffic, prometheus));
    daemon.stop(arena)
}

/// Asks once for each port that could be chosen; `None` when nothing was answered, or nothing but zeros where there was traffic.
fn ask(prometheus: &Prometheus, board: &Board, query: Query) -> Result<Option<Answer>> {
    let one_port = board.variable("port").is_some_and(|variable| variable["multi"] == false);
    let ports: &[&str] = if one_port { &["c1", "c2", "a", "b"] } else { &[".+"] };
    for port in ports {
        let mut expr = query.expr.replace("$instance", ".+").replace("$port", port);
        for (name, value) in VARIABLES {
            expr = expr.replace(name, value);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let (from, to) = ((now - 60).to_string(), now.to_string());
        let data = if query.instant {
            prometheus.ask("query", &[("query", &expr), ("time", &to)])?
        } else {
            prometheus.ask("query_range", &[("query", &expr), ("start", &from), ("end", &to), ("step", "1")])?
        };
        let quiet = QUIET.iter().any(|metric| query.expr.contains(metric));
        if let Some(answer) = read(&data).filter(|answer| quiet || answer.max > 0.0) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// How many series there are, and the greatest number in them with its labels; `None` without a number.
fn read(data: &Value) -> Option<Answer> {
    let result = data["result"].as_array()?;
    let mut found: Option<Answer> = None;
    for series in result {
        let of_one = series.get("value").into_iter();
        let points = series["values"].as_array().into_iter().flatten().chain(of_one);
        let numbers = points.filter_map(|point| point[1].as_str()?.parse::<f64>().ok()).filter(|it| it.is_finite());
        let Some(max) = numbers.max_by(f64::total_cmp) else { continue };
        if found.as_ref().is_none_or(|found| max > found.max) {
            let labels = series["metric"].as_object()?.iter().filter(|(name, _)| *name != "job" && *name != "instance");
            let labels = labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
            found = Some(Answer { series: result.len(), max, labels });
        }
    }
    found
}

/// Every variable offers what there is.
fn variables(prometheus: &Prometheus, boards: &[Board]) -> Result<()> {
    for board in boards {
        for variable in board.asked() {
            let query = text(variable, "/query").replace("$job", ".+").replace("$instance", ".+");
            let inner =
                query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).context("a call")?;
            let (series, label) = inner.rsplit_once(", ").context("two arguments")?;
            let mut data = prometheus.ask(&format!("label/{label}/values"), &[("match[]", series)])?;
            // The passer-by, who may have been there when Prometheus looked.
            data.as_array_mut().context("a list")?.retain(|value| label != "port" || value != "z");
            let wanted = match label {
                "job" => serde_json::json!(["weft"]),
                "instance" => serde_json::json!([scrape::ADDRESS]),
                "port" => serde_json::json!(["a", "b", "c1", "c2"]),
                other => anyhow::bail!("{}: nobody knows what ${other} should offer", board.file),
            };
            ensure!(data == wanted, "{}: {query} offers {data}", board.file);
        }
    }
    Ok(())
}

/// Every rule is evaluated without an error, and every recording rule makes a series; what each has.
fn rules_hold(prometheus: &Prometheus) -> Result<String> {
    wait::until("every rule is evaluated, and those that record do", wait::LATER, || {
        let data = prometheus.ask("rules", &[])?;
        let groups = data["groups"].as_array().context("no groups")?;
        let rules: Vec<&Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        ensure!(rules.len() > 20, "{} rules", rules.len());
        let mut said = String::new();
        for rule in rules {
            let (name, health) = (text(rule, "/name"), text(rule, "/health"));
            ensure!(health != "err", "{rule:#}");
            if rule["type"] == "recording" {
                let made = prometheus.ask("query", &[("query", name)])?["result"].as_array().map_or(0, Vec::len);
                if made == 0 {
                    return Ok(None);
                }
                writeln!(said, "{name}: {made} series")?;
            } else {
                writeln!(said, "{name}: {}", text(rule, "/state"))?;
            }
            if health != "ok" {
                return Ok(None);
            }
        }
        Ok(Some(said))
    })
}

/// The panels, each with its queries and what they were answered.
fn report(boards: &[Board], answers: &BTreeMap<(&str, &str, &str), Answer>, mode: Mode) -> Result<String> {
    let mut said = format!("datapath: {mode:?}\n");
    for board in boards {
        writeln!(said, "\n{}", text(&board.json, "/title"))?;
        for query in board.targets().chain(board.annotations()) {
            let key = (board.file.as_str(), title(query.owner), query.expr);
            let Answer { series, max, labels } = answers.get(&key).context("every query is answered")?;
            let answer = format!("{series} series, at most {} {{{labels}}}", figure(*max));
            writeln!(said, "  {}: {answer}\n      {}", title(query.owner), query.expr)?;
        }
    }
    Ok(said)
}

/// A number for people: four digits, or as they are.
fn figure(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-2..1e5).contains(&number);
    if is_plain { format!("{number:.2}").trim_end_matches(".00").to_owned() } else { format!("{number:.3e}") }
}
