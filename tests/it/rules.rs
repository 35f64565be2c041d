//! The alerts and recording rules: `promtool test rules`, and that each alert says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::command::{output, words};
use weft_tests::{Need, requirements};

/// Where the pages for who is woken are, as a link and as a folder.
const PAGES: &str = "https://github.com/weft-switch/weft/blob/main/docs/runbooks/";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn yaml(path: &str) -> Result<Value> {
    let text = fs::read_to_string(root().join("dashboards").join(path)).with_context(|| path.to_owned())?;
    serde_saphyr::from_str(&text).with_context(|| path.to_owned())
}

fn each<'a>(json: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    json[name].as_array().into_iter().flatten()
}

/// Every rule of a file.
fn rules(file: &Value) -> impl Iterator<Item = &Value> {
    each(file, "groups").flat_map(|group| each(group, "rules"))
}

/// `promtool` over files within a folder, and what it said.
fn promtool(folder: &Path, line: &str) -> Result<(bool, String)> {
    let output = output(words(&format!("promtool {line}")).current_dir(folder))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

#[test]
fn promtool_accepts_the_rules_and_every_test_of_them_holds() -> Result<()> {
    if !requirements::met(&[Need::Prometheus]) {
        return Ok(());
    }
    let folder = root().join("dashboards/prometheus");
    for line in [
        "check config prometheus.yml",
        "check rules --lint=all --lint-fatal weft.recording.yml weft.alerts.yml",
        "test rules tests/alerts.yml tests/recording.yml",
    ] {
        let (is_well, said) = promtool(&folder, line)?;
        ensure!(is_well, "{line}: {said}");
    }
    Ok(())
}

/// Each of these makes an alert say nothing, or too much, which the tests of rules must notice.
#[test]
fn a_rule_that_is_broken_fails_its_tests() -> Result<()> {
    if !requirements::met(&[Need::Prometheus]) {
        return Ok(());
    }
    let source = root().join("dashboards/prometheus");
    let alerts = fs::read_to_string(source.join("weft.alerts.yml"))?;
    let expressions = alerts.matches(" > ").count() + alerts.matches(" == 0\n").count();
    ensure!(expressions > 10, "{expressions} comparisons");
    for (from, to) in [
        ("up{job=\"weft\"} == 0", "up{job=\"weft\"} == 2"),
        ("weft_port_up == 0", "weft_port_up >= 0"),
        ("> 0.85", "> 0.99"),
        ("reason!~\"reserved_address|hairpin\"", "reason!=\"\""),
        ("        for: 5m\n", ""),
        ("kind=\"duplicate_address\"", "kind=\"new_station\""),
    ] {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("tests"))?;
        fs::copy(source.join("tests/alerts.yml"), folder.path().join("tests/alerts.yml"))?;
        ensure!(alerts.contains(from), "{from} is not in the alerts");
        fs::write(folder.path().join("weft.alerts.yml"), alerts.replace(from, to))?;
        let (is_well, said) = promtool(folder.path(), "test rules tests/alerts.yml")?;
        ensure!(!is_well && said.contains("FAILED"), "{from} became {to}, and no test noticed: {said}");
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_firing_and_not_firing() -> Result<()> {
    let alerts = yaml("prometheus/weft.alerts.yml")?;
    let names: BTreeSet<&str> = rules(&alerts).filter_map(|rule| rule["alert"].as_str()).collect();
    let tests = yaml("prometheus/tests/alerts.yml")?;
    let mut seen: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for moment in each(&tests, "tests").flat_map(|test| each(test, "alert_rule_test")) {
        let expected = moment["exp_alerts"].as_array().context("a moment without exp_alerts")?;
        let (fires, is_quiet) = seen.entry(moment["alertname"].as_str().context("no name")?).or_default();
        *fires |= !expected.is_empty();
        *is_quiet |= expected.is_empty();
    }
    ensure!(names.len() >= 9 && names == seen.keys().copied().collect(), "{names:?}, tested: {seen:?}");
    ensure!(seen.values().all(|both| *both == (true, true)), "not both firing and not firing: {seen:?}");
    let recorded: BTreeSet<_> = yaml("prometheus/weft.recording.yml")
        .map(|file| rules(&file).filter_map(|rule| rule["record"].as_str().map(ToOwned::to_owned)).collect())?;
    let tests = fs::read_to_string(root().join("dashboards/prometheus/tests/recording.yml"))?;
    ensure!(recorded.len() >= 5 && recorded.iter().all(|name: &String| tests.contains(name.as_str())), "{recorded:?}");
    Ok(())
}

#[test]
fn every_alert_has_a_severity_and_words_and_a_page_that_exists() -> Result<()> {
    let alerts = yaml("prometheus/weft.alerts.yml")?;
    let mut pages = BTreeSet::new();
    for rule in rules(&alerts) {
        let name = rule["alert"].as_str().context("a rule that is no alert")?;
        ensure!(name.starts_with("Weft"), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["critical", "warning", "info"].contains(&severity), "{name}: {severity:?}");
        for words in ["summary", "description"] {
            ensure!(rule["annotations"][words].as_str().is_some_and(|words| words.len() > 20), "{name}: no {words}");
        }
        let page = rule["annotations"]["runbook_url"].as_str().and_then(|url| url.strip_prefix(PAGES));
        ensure!(page == Some(&format!("{name}.md")), "{name}: {page:?}");
        let text =
            fs::read_to_string(root().join("docs/runbooks").join(format!("{name}.md"))).context(name.to_owned())?;
        for part in [&format!("# {name}\n") as &str, "## What it means", "## Look", "## Mend"] {
            ensure!(text.contains(part), "docs/runbooks/{name}.md has no {part:?}");
        }
        pages.insert(format!("{name}.md"));
    }
    pages.insert("README.md".to_owned());
    let list = fs::read_to_string(root().join("docs/runbooks/README.md"))?;
    for entry in fs::read_dir(root().join("docs/runbooks"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        ensure!(pages.contains(&file), "docs/runbooks/{file} is nobody's page");
        ensure!(file == "README.md" || list.contains(&format!("({file})")), "{file} is not in the list of pages");
    }
    Ok(())
}

/// The compose file and Grafana's own files, as far as they can be read without Docker and Grafana.
#[test]
fn what_compose_and_grafana_are_told_to_mount_exists() -> Result<()> {
    let folder = root().join("dashboards");
    let compose = yaml("compose.yml")?;
    let services = compose["services"].as_object().context("no services")?;
    ensure!(services.keys().collect::<BTreeSet<_>>().len() == 3, "{services:?}");
    let mut mounted = Vec::new();
    for volume in services.values().flat_map(|service| each(service, "volumes")) {
        let (from, to) = volume.as_str().and_then(|volume| volume.split_once(':')).context("a volume")?;
        if from.starts_with("./") {
            ensure!(folder.join(from).exists(), "{from} does not exist");
            mounted.push((from, to.trim_end_matches(":ro")));
        }
    }
    let dashboards = yaml("grafana/provisioning/dashboards/weft.yml")?;
    let path = dashboards["providers"][0]["options"]["path"].as_str().context("no path")?;
    ensure!(mounted.contains(&("./grafana", path)), "{path} is not where the dashboards are mounted: {mounted:?}");
    let source = yaml("grafana/provisioning/datasources/weft.yml")?;
    ensure!(source["datasources"][0]["type"] == "prometheus", "{source}");
    let url = source["datasources"][0]["url"].as_str().context("no url")?.trim_start_matches("http://");
    let listens = each(&compose["services"]["prometheus"], "command").filter_map(Value::as_str);
    ensure!(listens.into_iter().any(|it| it.ends_with(&format!("listen-address={url}"))), "nobody listens on {url}");
    let home = compose.pointer("/services/grafana/environment/GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH");
    let home = home.and_then(Value::as_str).and_then(|home| home.strip_prefix(path)).context("no home dashboard")?;
    ensure!(folder.join("grafana").join(home.trim_start_matches('/')).exists(), "{home} does not exist");
    Ok(())
}
