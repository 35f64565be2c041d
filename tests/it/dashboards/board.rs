//! A dashboard as Grafana's classic model writes it: JSON, with its panels, variables, annotations and their queries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One dashboard.
#[derive(Clone, Debug)]
pub(super) struct Board {
    /// The file's name.
    pub file: String,
    /// All of it.
    pub json: Value,
}

/// A query, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    /// The panel or annotation.
    pub owner: &'a Value,
    /// `PromQL` with Grafana's variables in it.
    pub expr: &'a str,
    /// Whether it asks for one moment instead of a range.
    pub instant: bool,
}

/// The folder of everything that is shipped for Prometheus and Grafana.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// Every dashboard, by name.
pub(super) fn all() -> Result<Vec<Board>> {
    let mut boards = Vec::new();
    for entry in fs::read_dir(folder().join("grafana"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let file = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            let json = serde_json::from_str(&fs::read_to_string(&path)?).context(file.clone())?;
            boards.push(Board { file, json });
        }
    }
    boards.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(boards)
}

/// A text within JSON; empty when there is none.
pub(super) fn text<'a>(json: &'a Value, pointer: &str) -> &'a str {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(json: &'a Value, pointer: &str) -> &'a [Value] {
    json.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

impl Board {
    /// Everything that is drawn: panels, those within rows too, but not rows themselves.
    pub(super) fn panels(&self) -> impl Iterator<Item = &Value> {
        let top = list(&self.json, "/panels").iter();
        top.flat_map(|panel| std::iter::once(panel).chain(list(panel, "/panels")))
            .filter(|panel| panel["type"] != "row")
    }

    /// The variables at its head.
    pub(super) fn variables(&self) -> &[Value] {
        list(&self.json, "/templating/list")
    }

    /// The variable of this name.
    pub(super) fn variable(&self, name: &str) -> Option<&Value> {
        self.variables().iter().find(|variable| variable["name"] == name)
    }

    /// Those variables that ask the data source.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Value> {
        self.variables().iter().filter(|variable| variable["type"] == "query")
    }

    /// What each panel asks for.
    pub(super) fn targets(&self) -> impl Iterator<Item = Query<'_>> {
        self.panels().flat_map(|owner| {
            let of = move |target| Query { owner, expr: text(target, "/expr"), instant: target["instant"] == true };
            list(owner, "/targets").iter().map(of)
        })
    }

    /// What its annotations ask for; the one that is Grafana's own asks for nothing.
    pub(super) fn annotations(&self) -> impl Iterator<Item = Query<'_>> {
        let asking = list(&self.json, "/annotations/list").iter().filter(|annotation| annotation["builtIn"] != 1);
        asking.map(|owner| Query { owner, expr: text(owner, "/expr"), instant: false })
    }
}

/// How a panel or annotation is called.
pub(super) fn title(owner: &Value) -> &str {
    owner["title"].as_str().or(owner["name"].as_str()).unwrap_or("(no title)")
}
