//! `cargo xtask bench`: Weft beside a Linux bridge, on the same kind of ports, in one interleaved run.
//!
//! A single figure from a shared machine says little, so what is published is a ratio: both systems are measured
//! alternately in the same minutes, and the median of the pairs' ratios is given with its 95 % interval
//! ([`statistics`]). Absolute figures stand beside it for orientation. Netdevs have no queueing discipline and bridge
//! netfilter is off, for both. The daemon is the release binary, started as an operator would.

mod lab;
mod report;
mod scale;
mod stacks;
mod statistics;
mod sys;
mod systems;
mod tap;
mod taps;
mod vmm;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::workspace::{self, Profile};
use crate::{setup, shell};
use report::{Bound, Row};
use stacks::Pair;
use systems::{Kind, System};

/// What is measured, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Few and short samples: to see whether the bench works, not to publish.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this (`tap`, `observing`, `container`, `userspace`, `first`, `idle`, `scale`).
    #[arg(long)]
    only: Option<String>,
    /// Leave docs/BENCHMARKS.md alone.
    #[arg(long)]
    no_docs: bool,
    /// Measure the bridge against itself: shows how far a ratio of this machine can be trusted.
    #[arg(long)]
    control: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|part| name.contains(part))
    }

    fn pairs(&self) -> usize {
        if self.quick { 3 } else { 15 }
    }

    /// A sample's length.
    fn sample(&self) -> Duration {
        Duration::from_millis(if self.quick { 200 } else { 1000 })
    }

    /// The system in our place.
    fn kind(&self, ours: Kind) -> Kind {
        if self.control { Kind::Bridge } else { ours }
    }
}

/// Measures what is wanted, prints it, and writes it down.
pub fn run(options: &Options) -> Result<()> {
    setup::run(false)?;
    shell::need_root("the bench")?;
    let weft = if options.control { "weft".into() } else { workspace::weft(Profile::Release, [])? };
    let mut rows = Vec::new();
    if options.wants("tap") {
        tap_rows(options, &weft, &mut rows)?;
    }
    if options.wants("observing") {
        observing_rows(options, &weft, &mut rows)?;
    }
    if options.wants("container") {
        container_rows(options, &weft, &mut rows)?;
    }
    if options.wants("userspace") {
        userspace_rows(options, &weft, &mut rows)?;
    }
    if !options.control {
        if options.wants("first") {
            rows.push(first_row(options, &weft)?);
        }
        if options.wants("idle") {
            idle_rows(options, &weft, &mut rows)?;
        }
        if options.wants("scale") {
            scale_rows(options, &weft, &mut rows)?;
        }
    }
    report::publish(&rows, options.quick || options.only.is_some() || options.no_docs || options.control)
}

fn tap_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let ours = System::start(options.kind(Kind::Weft), weft, "a")?;
    let theirs = System::start(Kind::Bridge, weft, "b")?;
    let (a, mut b) = tap::acquainted(&ours)?;
    let (c, mut d) = tap::acquainted(&theirs)?;
    let (mut small, mut large) = (tap::small(a.mac(), b.mac()), tap::super_frame(a.mac(), b.mac()));
    let (mut small_too, mut large_too) = (small.clone(), large.clone());

    eprint!("tap to tap, 60-byte frames ");
    let bursts = if options.quick { 100 } else { 1000 };
    let ratio = statistics::compare(
        options.pairs(),
        || taps::write_cost(&a, &mut b, &mut small, 200, bursts),
        || taps::write_cost(&c, &mut d, &mut small_too, 200, bursts),
    )?;
    rows.push(Row::ratio(
        "bench:tap-60",
        "tap to tap, 60-byte frame, CPU of the sender's write",
        "ns",
        Bound::AtMost(0.95),
        ratio,
    ));

    // A burst that fits the second-level cache: what is compared is the switch, not the memory.
    eprint!("tap to tap, 64 KiB super-frames ");
    let ratio = statistics::compare(
        options.pairs(),
        || taps::write_cost(&a, &mut b, &mut large, 16, bursts / 2),
        || taps::write_cost(&c, &mut d, &mut large_too, 16, bursts / 2),
    )?;
    rows.push(Row::ratio(
        "bench:tap-gso",
        "tap to tap, 64 KiB GSO frame, CPU of the sender's write",
        "ns",
        Bound::AtMost(1.0),
        ratio,
    ));
    ours.balanced()
}

/// What observing costs: flows accounted, read and recorded, beside verdicts alone.
fn observing_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let ours = System::start(options.kind(Kind::Weft), weft, "i")?;
    let theirs = System::start(options.kind(Kind::WeftVerdicts), weft, "j")?;
    let (mut a, mut b) = tap::acquainted(&ours)?;
    let (mut c, mut d) = tap::acquainted(&theirs)?;
    let (mut small, mut large) = (tap::small(a.mac(), b.mac()), tap::super_frame(a.mac(), b.mac()));
    let (mut small_too, mut large_too) = (small.clone(), large.clone());
    let bursts = if options.quick { 100 } else { 1000 };

    eprint!("observing, 60-byte frames ");
    let ratio = statistics::compare(
        options.pairs(),
        || taps::write_cost(&a, &mut b, &mut small, 200, bursts),
        || taps::write_cost(&c, &mut d, &mut small_too, 200, bursts),
    )?;
    let what = "tap to tap, 60-byte frame, CPU of the sender's write, flows accounted against verdicts alone";
    rows.push(Row::ratio("bench:observing-60", what, "ns", Bound::AtMost(1.12), ratio));

    eprint!("observing, 64 KiB super-frames ");
    let ratio = statistics::compare(
        options.pairs(),
        || taps::write_cost(&a, &mut b, &mut large, 16, bursts / 2),
        || taps::write_cost(&c, &mut d, &mut large_too, 16, bursts / 2),
    )?;
    let what = "tap to tap, 64 KiB GSO frame, CPU of the sender's write, flows accounted against verdicts alone";
    rows.push(Row::ratio("bench:observing-gso", what, "ns", Bound::AtMost(1.02), ratio));

    eprint!("observing, round trip ");
    let count = if options.quick { 1_000 } else { 5_000 };
    let ratio = statistics::compare(
        options.pairs(),
        || taps::round_trip(&mut a, &mut b, count),
        || taps::round_trip(&mut c, &mut d, count),
    )?;
    let what = "tap to tap, round trip p50, flows accounted against verdicts alone";
    rows.push(Row::ratio("bench:observing-rr", what, "µs", Bound::AtMost(1.05), ratio));
    ours.balanced()?;
    theirs.balanced()?;
    drop((ours, theirs));
    full_row(options, weft, rows)
}

/// What it costs when a port offers more flows than its share of the table: 300,000, one frame each, over and over.
fn full_row(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let ours = System::start(options.kind(Kind::WeftSmallTable), weft, "k")?;
    let theirs = System::start(options.kind(Kind::WeftVerdicts), weft, "l")?;
    let (a, mut b) = tap::acquainted(&ours)?;
    let (c, mut d) = tap::acquainted(&theirs)?;
    let mut frame = tap::small(a.mac(), b.mac());
    let mut frame_too = frame.clone();
    let bursts = if options.quick { 100 } else { 1000 };
    eprint!("observing, 300,000 flows in a table for fewer ");
    let (mut one, mut other) = (0, 0);
    let ratio = statistics::compare(
        options.pairs(),
        || taps::flows_cost(&a, &mut b, &mut frame, 200, bursts, &mut one),
        || taps::flows_cost(&c, &mut d, &mut frame_too, 200, bursts, &mut other),
    )?;
    let what = "tap to tap, 60-byte frame of another flow each time, 300,000 of them in a table that is full, against verdicts alone";
    rows.push(Row::ratio("bench:observing-full", what, "ns", Bound::AtMost(1.18), ratio));
    ours.balanced()?;
    theirs.balanced()
}

fn container_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let ours = Pair::containers(System::start(options.kind(Kind::Weft), weft, "c")?, "c")?;
    let theirs = Pair::containers(System::start(Kind::Bridge, weft, "d")?, "d")?;
    let pairs = options.pairs();

    eprint!("container to container, TCP round trip ");
    let count = if options.quick { 2_000 } else { 10_000 };
    let ratio = statistics::compare(pairs, || ours.round_trip(count), || theirs.round_trip(count))?;
    rows.push(Row::ratio(
        "bench:container-rr",
        "container to container, TCP round trip p50",
        "µs",
        Bound::AtMost(1.0),
        ratio,
    ));

    eprint!("container to container, bulk TCP ");
    let ratio = statistics::compare(pairs, || ours.bulk(1), || theirs.bulk(1))?;
    rows.push(Row::ratio(
        "bench:container-bulk",
        "container to container, bulk TCP",
        "Gb/s",
        Bound::AtLeast(1.0),
        ratio,
    ));

    eprint!("container to container, 64-byte UDP ");
    let time = options.sample();
    let ratio = statistics::compare(pairs, || ours.small_frames(time), || theirs.small_frames(time))?;
    rows.push(Row::ratio(
        "bench:container-udp",
        "container to container, 64-byte UDP delivered",
        "M/s",
        Bound::AtLeast(1.05),
        ratio,
    ));
    ours.system().balanced()
}

fn userspace_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let kind = options.kind(Kind::WeftUserspace);
    let pairs = options.pairs();
    {
        let ours = Pair::guests(System::start(kind, weft, "g")?, "g")?;
        let theirs = Pair::guests(System::start(Kind::Bridge, weft, "h")?, "h")?;
        eprint!("user space, bulk TCP between guests on taps ");
        let ratio = statistics::compare(pairs, || ours.bulk(1), || theirs.bulk(1))?;
        rows.push(Row::ratio(
            "bench:userspace-bulk",
            "user space only, guest to guest on taps, bulk TCP with 64 KiB GSO",
            "Gb/s",
            Bound::AtLeast(0.5),
            ratio,
        ));
        ours.system().balanced()?;
    }
    let ours = System::start(kind, weft, "u")?;
    let theirs = System::start(Kind::Bridge, weft, "v")?;
    let (mut a, mut b) = tap::acquainted(&ours)?;
    let (mut c, mut d) = tap::acquainted(&theirs)?;
    taps::whole(&a, &mut b, if options.quick { 160 } else { 16_000 })?;

    eprint!("user space, round trip ");
    let count = if options.quick { 1_000 } else { 5_000 };
    let ratio = statistics::compare(
        pairs,
        || taps::round_trip(&mut a, &mut b, count),
        || taps::round_trip(&mut c, &mut d, count),
    )?;
    rows.push(Row::ratio(
        "bench:userspace-rr",
        "user space only, tap to tap, round trip p50",
        "µs",
        Bound::AtMost(2.0),
        ratio,
    ));
    ours.balanced()
}

fn first_row(options: &Options, weft: &Path) -> Result<Row> {
    let system = System::start(Kind::Weft, weft, "f")?;
    let (mut a, mut b) = tap::acquainted(&system)?;
    eprintln!("first frame to verdict in effect");
    let count = if options.quick { 20 } else { 300 };
    let times = (0..count).map(|n| taps::first_verdict(&system, &mut a, &mut b, n)).collect::<Result<Vec<f64>>>()?;
    system.balanced()?;
    let what = "first frame between two new stations until the verdict is in effect, median";
    Ok(Row::value("bench:first-verdict", what, "µs", Bound::AtMost(200.0), statistics::median(&times)))
}

fn idle_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("idle with 100 ports");
    let idle = scale::measure(weft, 100, Duration::from_secs(if options.quick { 3 } else { 20 }))?;
    let what = "idle daemon with 100 ports, processor";
    rows.push(Row::value("bench:idle-cpu", what, "%", Bound::AtMost(0.1), idle.cpu_percent));
    let what = "idle daemon with 100 ports, resident memory";
    rows.push(Row::value("bench:idle-rss", what, "MiB", Bound::AtMost(30.0), idle.rss_mib));
    Ok(())
}

/// The same with a thousand ports, and what a scrape costs then.
fn scale_rows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("1,000 ports");
    let scale = scale::measure(weft, 1000, Duration::from_secs(if options.quick { 3 } else { 20 }))?;
    let what = "1,000 ports of a configuration, from the daemon's start until all are attached";
    rows.push(Row::value("bench:scale-attach", what, "s", Bound::AtMost(25.0), scale.attach_s));
    let what = "idle daemon with 1,000 ports, processor";
    rows.push(Row::value("bench:scale-cpu", what, "%", Bound::AtMost(0.5), scale.cpu_percent));
    let what = "idle daemon with 1,000 ports, resident memory";
    rows.push(Row::value("bench:scale-rss", what, "MiB", Bound::AtMost(100.0), scale.rss_mib));
    let what = "1,000 ports, processor time of the daemon per scrape";
    rows.push(Row::value("bench:scale-scrape", what, "ms", Bound::AtMost(50.0), scale.scrape_ms));
    Ok(())
}
