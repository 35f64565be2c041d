//! A real Prometheus within an arena.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::{self, Running, words};
use crate::wait;

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:9090";

/// Its folder: configuration, rules and data.
const FOLDER: &str = "/run/prometheus";

/// A running Prometheus; it ends when dropped.
#[derive(Debug)]
pub struct Prometheus(Running);

impl Prometheus {
    /// Starts one with this configuration and these rule files, which it finds beside it, and waits until it is ready.
    pub fn start(config: &str, rules: &[PathBuf]) -> Result<Self> {
        fs::create_dir(FOLDER)?;
        fs::write(format!("{FOLDER}/prometheus.yml"), config)?;
        for file in rules {
            let name = file.file_name().context("a rule file without a name")?;
            fs::copy(file, PathBuf::from(FOLDER).join(name)).with_context(|| file.display().to_string())?;
        }
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={FOLDER}/prometheus.yml")).arg(format!("--storage.tsdb.path={FOLDER}/data"));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let log = fs::File::create(format!("{FOLDER}/log"))?;
        command.current_dir(FOLDER).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut prometheus = Self(Running::start(&mut command)?);
        wait::until_true("Prometheus is ready", wait::LATER, || {
            ensure!(prometheus.0.ended()?.is_none(), "Prometheus has ended: {}", Self::log());
            Ok(command::output(&mut words(&format!("curl -sf -m 20 http://{ADDRESS}/-/ready")))?.status.success())
        })?;
        Ok(prometheus)
    }

    /// What it logged.
    pub fn log() -> String {
        fs::read_to_string(format!("{FOLDER}/log")).unwrap_or_default()
    }

    /// Asks its API; the `data` of its answer, which must be a success.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut curl = words("curl -s -m 20 -G");
        for (name, value) in parameters {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let answer = command::text(curl.arg(format!("http://{ADDRESS}/api/v1/{path}")))?;
        let mut answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        ensure!(answer.pointer("/status").is_some_and(|it| it == "success"), "{path} {parameters:?}: {answer}");
        Ok(answer.pointer_mut("/data").context("no data")?.take())
    }

    /// The value of a query with one number for an answer, once it has it.
    pub fn value(&self, query: &str) -> Result<f64> {
        wait::until(&format!("Prometheus knows {query}"), wait::LATER, || {
            let data = self.ask("query", &[("query", query)])?;
            let value = data.pointer("/result/0/value/1").and_then(Value::as_str);
            Ok(value.map(str::parse).transpose()?)
        })
    }
}
