//! Figures of ours that no peer has beside it: when a first verdict is in effect, what an idle daemon costs, how it scales.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::frames::udp;
use super::report::{Bound, Row};
use super::statistics::Ratio;
use super::systems::{Kind, System};
use super::tap::{self, Station};
use super::{leftovers, scale, statistics, taps};

/// Measures those that are wanted.
pub fn measure(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    if options.wants("first") {
        rows.push(first(options, weft)?);
    }
    ports(options, weft, rows)?;
    if options.wants("scale-flows") || options.wants("bench:scale-flows-1m") {
        flows(options, weft, rows)?;
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

/// Names of what is measured with a number of ports: attaching them, resting, memory; and what is promised of it.
type Names = [(&'static str, f64); 3];

/// Ports, and the promises: seconds to attach them all, percent of a processor at rest, MiB.
const PORTS: [(usize, Names); 3] = [
    (10, [("bench:scale-10-attach", 2.0), ("bench:scale-10-cpu", 0.1), ("bench:scale-10-rss", 30.0)]),
    (100, [("bench:idle-attach", 4.0), ("bench:idle-cpu", 0.1), ("bench:idle-rss", 30.0)]),
    (1000, [("bench:scale-attach", 25.0), ("bench:scale-cpu", 0.5), ("bench:scale-rss", 100.0)]),
];

/// A daemon by the number of its ports, and what a scrape costs when there are many.
fn ports(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    for (count, names) in PORTS {
        // Attaching a thousand takes longer than all else of a quick run.
        let long = options.quick && options.only.is_none() && count > 100;
        if long || !names.iter().any(|(name, _)| options.wants(name)) {
            continue;
        }
        leftovers::go_on()?;
        eprintln!("{count} ports");
        let scale = scale::measure(weft, count, watched(options))?;
        let [attach, cpu, memory] = names;
        let mut row = |(name, most): (&str, f64), what: &str, unit: &str, value: f64| {
            rows.push(Row::value(name, what, unit, Bound::AtMost(most), value));
        };
        let what = format!("{count} ports of a configuration, from the daemon's start until all are attached");
        row(attach, &what, "s", scale.attach_s);
        row(cpu, &format!("idle daemon with {count} ports, processor"), "%", scale.cpu_percent);
        row(memory, &format!("idle daemon with {count} ports, resident memory"), "MiB", scale.rss_mib);
        if count == 1000 {
            let what = "1,000 ports, processor time of the daemon per scrape";
            row(("bench:scale-scrape", 50.0), what, "ms", scale.scrape_ms);
        }
    }
    Ok(())
}

/// Flows that are alive at once, the first of which the others are compared with.
const FLOWS: [(u32, &str, f64); 3] =
    [(1_000, "", 0.0), (100_000, "bench:scale-flows-100k", 1.25), (1_000_000, "bench:scale-flows-1m", 1.25)];

/// What a write costs when so many flows are alive and each frame is of another of them; and what reading them costs.
fn flows(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let bursts = options.effort().bursts;
    let mut beds = Vec::new();
    for (index, (count, ..)) in FLOWS.into_iter().enumerate() {
        eprintln!("{count} flows");
        let slot = format!("l{index}");
        let mut system = System::start(Kind::WeftLargeTable, weft, &slot, 2)?;
        let mut a = Station::attach(&mut system, "t0", 1)?;
        let mut b = Station::attach(&mut system, "t1", 2)?;
        tap::acquaint(&mut a, &mut b)?;
        let mut frame = udp(a.mac(), b.mac(), 60);
        let mut flow = 0;
        // Once through all of them, so that all are alive.
        taps::flows_cost(&a, &mut b, &mut frame, 200, count.div_ceil(200), (&mut flow, count))?;
        beds.push((system, a, b, frame, flow, Vec::new()));
    }
    for round in 0..options.rounds() {
        for index in statistics::order(beds.len(), round) {
            let (Some((_, a, b, frame, flow, samples)), Some((count, ..))) = (beds.get_mut(index), FLOWS.get(index))
            else {
                continue;
            };
            leftovers::go_on()?;
            samples.push(taps::flows_cost(a, b, frame, 200, bursts, (flow, *count))?);
        }
    }
    let few = beds.first().map(|bed| bed.5.clone()).unwrap_or_default();
    for ((count, name, most), (system, .., samples)) in FLOWS.into_iter().zip(&beds).skip(1) {
        let what = format!("tap to tap, 60-byte frame of another of {count} live flows, CPU of the sender's write");
        let ratio = Ratio::of(samples, &few).ok_or_else(|| "no rounds".to_owned());
        rows.push(Row::ratio(name, what, "ns", Bound::AtMost(most), [&format!("{count} flows"), "1000 flows"], ratio));
        if count == 100_000 {
            let cpu = scale::watch(system.daemon()?, watched(options))?;
            let what = "a daemon that reads 100,000 live flows again and again, processor";
            rows.push(Row::value("bench:scale-flows-cpu", what, "%", Bound::AtMost(10.0), cpu));
        }
    }
    for (system, ..) in &beds {
        system.balanced()?;
    }
    Ok(())
}
