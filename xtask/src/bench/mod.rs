//! `cargo xtask bench`: Weft beside its peers, on the same kind of ports, in one interleaved run.
//!
//! A single figure from a shared machine says little, so what is published is a ratio: all systems are measured
//! alternately in the same minutes, and the median of the pairs' ratios is given with its 95 % interval
//! ([`statistics`]). [`plan`] says what is measured, [`claims`] what is promised of it; both are data. A system that cannot
//! be started or measured has its reason in the table.

mod bed;
mod captures;
mod claims;
mod cpu;
mod figure;
mod frames;
mod lab;
mod leftovers;
mod machine;
mod plan;
mod plot;
mod report;
mod scale;
mod stacks;
mod statistics;
mod stream;
mod sys;
mod systems;
mod tap;
mod taps;
mod values;
mod vmm;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup::Need;
use crate::workspace::{self, Profile};
use crate::{setup, shell};
use bed::{Bed, Effort};
use figure::{Counts, Figure, Work};
use machine::Machine;
use plan::{Case, Group};
use report::{Entry, Report};
use systems::Kind;

/// What is measured, and for how long.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line are what they are")]
pub struct Options {
    /// Few and short slices, about three minutes: to see whether the bench works, not to publish.
    #[arg(long)]
    quick: bool,
    /// Only cases and values whose name contains this (`tap`, `observing`, `container`, `first`, `idle`, `scale`, `capture`, `mirror`).
    #[arg(long)]
    only: Option<String>,
    /// Only these systems beside the bridge, by a part of their name (`weft`, `ovs`, `vde`); may be repeated.
    #[arg(long, value_name = "PART")]
    system: Vec<String>,
    /// Rounds instead of 15 (2 with `--quick`).
    #[arg(long)]
    rounds: Option<usize>,
    /// Leave docs/BENCHMARKS.md alone.
    #[arg(long)]
    no_docs: bool,
    /// Measure the bridge in the place of each of ours: shows how far a ratio of this machine can be trusted.
    #[arg(long)]
    control: bool,
    /// Measure nothing: write docs/BENCHMARKS.md and its plots from the run that is kept in docs/bench/results.json.
    #[arg(long)]
    render: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|part| name.contains(part))
    }

    fn wants_system(&self, kind: Kind) -> bool {
        let name = kind.label().to_lowercase();
        self.system.is_empty() || kind == Kind::Bridge || self.system.iter().any(|part| name.contains(part))
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 15 })
    }

    fn effort(&self) -> Effort {
        let slice = |millis| Duration::from_millis(millis);
        if self.quick {
            Effort { slice: slice(150), bursts: 100, trips: 500, stations: 2_000 }
        } else {
            Effort { slice: slice(300), bursts: 500, trips: 3_000, stations: 10_000 }
        }
    }

    /// Whether what is measured says something about all that is published.
    fn partial(&self) -> bool {
        self.quick
            || self.rounds() < 15
            || self.no_docs
            || self.control
            || self.only.is_some()
            || !self.system.is_empty()
    }
}

/// Round trips between sockets.
const NEEDS: &[Need] = &[setup::need("sockperf", "sockperf", "round trips over UDP in the bench")];

/// Measures what is wanted, prints it, and writes it down.
pub fn run(options: &Options) -> Result<()> {
    if options.render {
        return Report::read(&workspace::root().join("docs/bench/results.json"))?.keep();
    }
    setup::run(false)?;
    shell::need_root("the bench")?;
    setup::ensure(NEEDS)?;
    let weft = if options.control { "weft".into() } else { workspace::weft(Profile::Release, [])? };
    leftovers::listen()?;
    if !options.control {
        leftovers::sweep(&weft)?;
    }
    let start = Instant::now();
    let mut machine = Machine::look()?;
    let mut cases = Vec::new();
    for group in plan::PLAN {
        measure(group, options, &weft, &mut machine, &mut cases)?;
    }
    let mut rows: Vec<report::Row> = claims::CLAIMS.iter().filter_map(|claim| claim.held(&cases)).collect();
    if !options.control {
        values::measure(options, &weft, &mut rows)?;
        captures::measure(options, &weft, &mut rows)?;
    }
    if rows.is_empty() && cases.is_empty() {
        bail!("nothing is called so; `--only` takes a part of a name that the published table has");
    }
    Report { machine, seconds: start.elapsed().as_secs(), rows, cases }.publish(options.partial())
}

/// Starts everyone who takes part in a group, and measures its cases.
fn measure(
    group: &Group,
    options: &Options,
    weft: &Path,
    machine: &mut Machine,
    done: &mut Vec<report::Case>,
) -> Result<()> {
    let cases: Vec<&Case> = group.cases.iter().filter(|case| options.wants(case.name)).collect();
    let mut kinds: Vec<Kind> = Vec::new();
    for kind in cases.iter().flat_map(|case| case.systems) {
        if options.wants_system(*kind) && !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    let mut beds: Vec<(Kind, Result<Bed>)> = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        leftovers::go_on()?;
        eprintln!("{}: {}", group.what, kind.label());
        let started = if options.control && kind.is_weft() { Kind::Bridge } else { kind };
        let slot = char::from(b'a' + u8::try_from(index)?).to_string();
        let bed = Bed::prepare(started, group.route, weft, &slot);
        match &bed {
            Ok(bed) => machine.note(group.name, bed)?,
            Err(error) => eprintln!("bench: {} cannot take part: {error:#}", kind.label()),
        }
        beds.push((kind, bed));
    }
    for case in cases {
        let entries = rounds(case, options, &mut beds)?;
        done.push(report::Case {
            group: group.name.to_owned(),
            route: group.what.to_owned(),
            name: case.name.to_owned(),
            what: case.what.to_owned(),
            entries,
        });
    }
    for (_, bed) in beds {
        if let Ok(bed) = bed {
            bed.system().balanced()?;
        }
    }
    Ok(())
}

/// Measures a case: everyone once a round.
fn rounds(case: &Case, options: &Options, beds: &mut [(Kind, Result<Bed>)]) -> Result<Vec<Entry>> {
    eprint!("{} ", case.name);
    let mut entries: Vec<Entry> = beds
        .iter()
        .map(|(kind, bed)| Entry {
            system: *kind,
            samples: Vec::new(),
            counts: None,
            error: bed.as_ref().err().map(|error| format!("{error:#}")),
        })
        .collect();
    for round in 0..options.rounds() {
        for index in statistics::order(beds.len(), round) {
            leftovers::go_on()?;
            let (Some((kind, Ok(bed))), Some(entry)) = (beds.get_mut(index), entries.get_mut(index)) else { continue };
            if case.systems.contains(kind) && entry.error.is_none() {
                take(entry, bed, case.work, options.effort());
            }
        }
        eprint!(".");
    }
    eprintln!();
    entries.retain(|entry| case.systems.contains(&entry.system));
    entries.sort_by_key(|entry| case.systems.iter().position(|kind| *kind == entry.system));
    Ok(entries)
}

/// Takes one slice, or notes why there is none.
fn take(entry: &mut Entry, bed: &mut Bed, work: Work, effort: Effort) {
    let slice = match bed.slice(work, effort) {
        Ok(slice) => slice,
        Err(error) => {
            eprintln!("bench: {}: {error:#}", entry.system.label());
            entry.error = Some(format!("{error:#}"));
            return;
        }
    };
    for (figure, value) in slice.figures {
        let known: Option<&mut (Figure, Vec<f64>)> = entry.samples.iter_mut().find(|(of, _)| *of == figure);
        match known {
            Some((_, samples)) => samples.push(value),
            None => entry.samples.push((figure, vec![value])),
        }
    }
    if let Some(counts) = slice.counts {
        entry.counts.get_or_insert_with(Counts::default).add(counts);
    }
}
