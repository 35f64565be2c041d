//! Scraping as Prometheus does, and worse.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};

use crate::wait;

/// Where a daemon serves metrics unless told otherwise.
pub const ADDRESS: &str = "127.0.0.1:9798";

/// What a daemon told at one time: every series, as it was written, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Asks now.
    pub fn now() -> Result<Self> {
        let answer = ask(b"GET /metrics HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n")?;
        let (head, text) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        ensure!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let one = |line: &str| -> Result<(String, f64)> {
            let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((series.to_owned(), value.parse()?))
        };
        Ok(Self { text: text.to_owned(), series: lines.map(one).collect::<Result<_>>()? })
    }

    /// The text, as it came.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The series' names with their labels.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// What a series is worth, as `weft_port_up{port="a"}`.
    pub fn value(&self, series: &str) -> Result<f64> {
        self.series.get(series).copied().with_context(|| format!("no series {series} in\n{}", self.text))
    }
}

/// A connection to the metrics' address.
pub fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect(ADDRESS).context(ADDRESS)?;
    stream.set_read_timeout(Some(wait::SOON))?;
    stream.set_write_timeout(Some(wait::SOON))?;
    Ok(stream)
}

/// Sends bytes as they are and reads what comes until the peer closes; an abrupt end is an end.
pub fn ask(bytes: &[u8]) -> Result<String> {
    let mut stream = connect()?;
    // A peer that has had enough closes while we still write; what it said is what counts.
    let written = stream.write_all(bytes);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        let refused = error.kind() == std::io::ErrorKind::ConnectionReset;
        ensure!(refused || written.is_err(), "{error}");
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
