//! Figures of ours that no peer has beside it: when a first verdict is in effect, what an idle daemon costs, how it scales.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::report::{Bound, Row};
use super::systems::{Kind, System};
use super::tap::{self, Station};
use super::{scale, statistics, taps};

/// Measures those that are wanted.
pub fn measure(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    if options.wants("first") {
        rows.push(first(options, weft)?);
    }
    if options.wants("idle") {
        idle(options, weft, rows)?;
    }
    if options.wants("scale") {
        scaled(options, weft, rows)?;
    }
    Ok(())
}

fn first(options: &Options, weft: &Path) -> Result<Row> {
    let mut system = System::start(Kind::Weft, weft, "f", 2)?;
    let mut a = Station::attach(&mut system, "t0", 1)?;
    let mut b = Station::attach(&mut system, "t1", 2)?;
    tap::acquaint(&mut a, &mut b)?;
    eprintln!("first frame to verdict in effect");
    let count = if options.quick { 20 } else { 300 };
    let times = (0..count).map(|n| taps::first_verdict(&system, &mut a, &mut b, n)).collect::<Result<Vec<f64>>>()?;
    system.balanced()?;
    let what = "first frame between two new stations until the verdict is in effect, median";
    Ok(Row::value("bench:first-verdict", what, "µs", Bound::AtMost(200.0), statistics::median(&times)))
}

fn watched(options: &Options) -> Duration {
    Duration::from_secs(if options.quick { 3 } else { 20 })
}

fn idle(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("idle with 100 ports");
    let idle = scale::measure(weft, 100, watched(options))?;
    let what = "idle daemon with 100 ports, processor";
    rows.push(Row::value("bench:idle-cpu", what, "%", Bound::AtMost(0.1), idle.cpu_percent));
    let what = "idle daemon with 100 ports, resident memory";
    rows.push(Row::value("bench:idle-rss", what, "MiB", Bound::AtMost(30.0), idle.rss_mib));
    Ok(())
}

/// The same with a thousand ports, and what a scrape costs then.
fn scaled(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("1,000 ports");
    let scale = scale::measure(weft, 1000, watched(options))?;
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
