//! What a run came to, as JSON; and the tables and `docs/BENCHMARKS.md` that are made of nothing but that JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figure::{Counts, Figure};
use super::machine::Machine;
use super::plot;
use super::statistics::{Ratio, median};
use super::systems::Kind;
use crate::workspace;

/// What a row promises.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not above this.
    AtMost(f64),
    /// Not below this.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
        }
    }
}

/// A promise and what became of it: a ratio of two systems, or a value of ours alone.
#[derive(Serialize, Deserialize)]
pub struct Row {
    name: String,
    what: String,
    unit: String,
    bound: Bound,
    /// Ours and theirs, where two are compared.
    between: Option<[String; 2]>,
    value: Option<f64>,
    ratio: Option<Ratio>,
    error: Option<String>,
}

impl Row {
    /// A comparison; what is bounded is the median ratio.
    pub fn ratio(
        name: &str,
        what: String,
        unit: &str,
        bound: Bound,
        between: [&str; 2],
        ratio: Result<Ratio, String>,
    ) -> Self {
        let (ratio, error) = ratio.map_or_else(|error| (None, Some(error)), |ratio| (Some(ratio), None));
        let value = ratio.as_ref().map(|ratio| ratio.median);
        let between = Some(between.map(str::to_owned));
        Self { name: name.to_owned(), what, unit: unit.to_owned(), bound, between, value, ratio, error }
    }

    /// A figure of ours.
    pub fn value(name: &str, what: &str, unit: &str, bound: Bound, value: f64) -> Self {
        let (name, what, unit) = (name.to_owned(), what.to_owned(), unit.to_owned());
        Self { name, what, unit, bound, between: None, value: Some(value), ratio: None, error: None }
    }

    fn markdown(&self) -> String {
        let Self { unit, bound, .. } = self;
        let name = self.name.trim_start_matches("bench:");
        let (figure, absolute) = match (&self.ratio, self.value, &self.error) {
            (Some(r), ..) => (
                format!("**{:.2}** ({:.2}–{:.2}, {} pairs)", r.median, r.low, r.high, r.pairs),
                format!("{} / {} {unit}", Short(r.ours), Short(r.theirs)),
            ),
            (None, Some(value), _) => (format!("**{} {unit}**", Short(value)), "–".to_owned()),
            (None, None, error) => (cell(error.as_deref().unwrap_or("not measured")), "–".to_owned()),
        };
        let held = match self.value {
            Some(value) if bound.holds(value) => "yes",
            Some(_) => "**no**",
            None => "**?**",
        };
        let between = self.between.as_ref().map_or(String::new(), |[ours, theirs]| format!("{ours} / {theirs}"));
        let unit = if self.between.is_some() { "" } else { unit };
        format!("| {} (`{name}`) | {between} | {figure} | {absolute} | {} {unit} | {held} |\n", self.what, bound.text())
    }
}

/// A case and everyone who took part.
#[derive(Serialize, Deserialize)]
pub struct Case {
    /// Its group.
    pub group: String,
    /// Its group in words.
    pub route: String,
    /// Its name.
    pub name: String,
    /// In words.
    pub what: String,
    /// Who took part.
    pub entries: Vec<Entry>,
}

/// What one system did in a case.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub system: Kind,
    /// Samples by figure, one of each round.
    pub samples: Vec<(Figure, Vec<f64>)>,
    /// All frames that were counted one by one.
    pub counts: Option<Counts>,
    /// Why there are no samples.
    pub error: Option<String>,
}

impl Case {
    /// The samples of a system that was measured to the end.
    pub fn samples(&self, system: Kind, figure: Figure) -> Option<&[f64]> {
        let entry = self.entries.iter().find(|entry| entry.system == system && entry.error.is_none())?;
        entry.samples.iter().find(|(of, _)| *of == figure).map(|(_, samples)| samples.as_slice())
    }

    /// The figures of this case, the leading one first.
    pub fn figures(&self) -> Vec<Figure> {
        let longest = self.entries.iter().max_by_key(|entry| entry.samples.len());
        longest.map_or_else(Vec::new, |entry| entry.samples.iter().map(|(figure, _)| *figure).collect())
    }

    fn markdown(&self) -> Result<String> {
        let figures = self.figures();
        let mut text = format!("**{}** (`{}`)\n\n| | ", self.what, self.name);
        for figure in &figures {
            write!(text, "{}, {} | of the bridge | ", figure.label(), figure.unit())?;
        }
        text.push_str("frames: sent, lost, twice, reordered, astray |\n|---|");
        text.push_str(&"---|---|".repeat(figures.len()));
        text.push_str("---|\n");
        for entry in &self.entries {
            write!(text, "| {} | ", entry.system.label())?;
            if let Some(error) = &entry.error {
                writeln!(text, "{} |{}", cell(error), " – |".repeat(figures.len() * 2))?;
                continue;
            }
            for figure in &figures {
                let samples = self.samples(entry.system, *figure).unwrap_or_default();
                write!(text, "{} | {} | ", Short(median(samples)), self.beside_bridge(entry.system, *figure))?;
            }
            let frames = entry.counts.map_or_else(
                || "–".to_owned(),
                |c| format!("{}, {}, {}, {}, {}", c.sent, c.lost, c.duplicated, c.reordered, c.misdelivered),
            );
            writeln!(text, "{frames} |")?;
        }
        Ok(text)
    }

    fn beside_bridge(&self, system: Kind, figure: Figure) -> String {
        let ratio = self.ratio_to_bridge(system, figure);
        ratio.map_or_else(|| "–".to_owned(), |r| format!("{:.2} ({:.2}–{:.2})", r.median, r.low, r.high))
    }

    /// Beside the plain Linux bridge, where it took part.
    pub fn ratio_to_bridge(&self, system: Kind, figure: Figure) -> Option<Ratio> {
        // What the bridge has none of, as lost frames, is no measure.
        Ratio::of(self.samples(system, figure)?, self.samples(Kind::Bridge, figure)?)
            .filter(|ratio| [ratio.low, ratio.median, ratio.high].iter().all(|end| end.is_finite()))
    }
}

/// A text as the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number with about three digits that count.
struct Short(f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.abs() {
            x if x.is_nan() => write!(f, "–"),
            x if x >= 100.0 => write!(f, "{:.0}", self.0),
            x if x >= 10.0 => write!(f, "{:.1}", self.0),
            _ => write!(f, "{:.2}", self.0),
        }
    }
}

/// A run.
#[derive(Serialize, Deserialize)]
pub struct Report {
    /// Where and with what.
    pub machine: Machine,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Promises.
    pub rows: Vec<Row>,
    /// Everything measured.
    pub cases: Vec<Case>,
}

impl Report {
    /// Prints the tables and keeps the run in `target/bench/`; a run that is whole also goes into the documentation.
    pub fn publish(&self, partial: bool) -> Result<()> {
        let folder = workspace::target().join("bench");
        self.write(&folder)?;
        eprintln!("\n{}\n{}", self.cases_table()?, self.rows_table());
        eprintln!("bench: {} s; {}", self.seconds, folder.join("results.json").display());
        if partial {
            return Ok(());
        }
        self.keep()
    }

    /// Reads a run that was kept.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is no run of the bench", file.display()))
    }

    /// Writes `docs/BENCHMARKS.md`, and what it is made of beside it.
    pub fn keep(&self) -> Result<()> {
        self.write(&workspace::root().join("docs/bench"))?;
        let document = workspace::root().join("docs/BENCHMARKS.md");
        fs::write(&document, self.markdown()?)?;
        eprintln!("bench: {}", document.display());
        Ok(())
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let file = folder.join("results.json");
        fs::write(&file, serde_json::to_string(self)? + "\n").with_context(|| file.display().to_string())?;
        for (group, cases) in self.groups() {
            fs::write(folder.join(format!("{group}.svg")), plot::draw(&cases)?)?;
        }
        Ok(())
    }

    /// Cases by group, in their order.
    fn groups(&self) -> Vec<(&str, Vec<&Case>)> {
        let mut groups: Vec<(&str, Vec<&Case>)> = Vec::new();
        for case in &self.cases {
            match groups.last_mut() {
                Some((group, cases)) if *group == case.group => cases.push(case),
                _ => groups.push((&case.group, vec![case])),
            }
        }
        groups
    }

    fn rows_table(&self) -> String {
        let head = "| what | between | ratio or value (95 % interval) | absolute | promise | held |\n\
                    |---|---|---|---|---|---|\n";
        self.rows.iter().fold(head.to_owned(), |text, row| text + &row.markdown())
    }

    fn cases_table(&self) -> Result<String> {
        let tables: Vec<String> = self.cases.iter().map(Case::markdown).collect::<Result<_>>()?;
        Ok(tables.join("\n"))
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::from(HEAD);
        writeln!(text, "{}\nThe run took {} minutes.\n", self.machine.markdown()?, self.seconds.div_ceil(60))?;
        writeln!(text, "## Promises\n\n{}", self.rows_table())?;
        for (group, cases) in self.groups() {
            let route = cases.first().map_or("", |case| case.route.as_str());
            writeln!(text, "## {}{}\n\n![{route}](bench/{group}.svg)\n", capital(route).0, capital(route).1)?;
            for case in cases {
                writeln!(text, "{}", case.markdown()?)?;
            }
        }
        text.push_str(METHOD);
        Ok(text)
    }
}

/// A text as the beginning of a line.
fn capital(text: &str) -> (String, &str) {
    let mut rest = text.chars();
    (rest.next().map_or_else(String::new, |first| first.to_uppercase().collect()), rest.as_str())
}

const HEAD: &str = "\
# Benchmarks

<!-- Generated by `cargo xtask bench`; do not edit. -->

Ratios, because a single figure of a shared machine says little: all systems are measured alternately, on ports of
the same kind, in namespaces of their own, without queueing disciplines and, where not said otherwise, without bridge
netfilter. A ratio is the median over the pairs, with its bootstrap 95 % interval. Less is better for costs and times,
more for rates. In the plots further right is better, and 1 is the Linux bridge.

";

/// How each row is measured.
const METHOD: &str = include_str!("method.md");
