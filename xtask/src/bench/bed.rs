//! A switch with stations on it, ready to be measured: which stations, and how each work is done with them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cpu::Meter;
use super::figure::{Counts, Figure, Load, Size, Slice, Vary, Work};
use super::frames::{super_frame, udp};
use super::stacks::Pair;
use super::statistics::{median, percentile};
use super::stream::{Offer, Outcome, Pace, stream};
use super::systems::{Kind, System};
use super::tap::{self, Station};
use super::taps;

/// Which stations there are, and who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A tap to a tap.
    Taps,
    /// One tap to all of so many others.
    ToAll(usize),
    /// So many taps to one.
    FromMany(usize),
    /// A container to a container.
    Containers,
    /// A guest with a network stack to another, both on taps.
    Guests,
    /// A guest with a network stack on a tap to a container.
    Mixed,
}

/// How long a slice takes, and how much is counted in it.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of a stream of frames.
    pub slice: Duration,
    /// Bursts of writes.
    pub bursts: u32,
    /// Round trips.
    pub trips: usize,
    /// New stations.
    pub stations: u32,
}

/// A switch and its stations. Fields are dropped in their order.
pub struct Bed {
    stage: Stage,
    run: u16,
    fresh: u32,
    known: u32,
}

enum Stage {
    Taps { system: System, sources: Vec<Station>, sinks: Vec<Station> },
    Stacks(Pair),
}

impl Bed {
    /// Starts the switch, attaches the stations and lets them meet.
    pub fn prepare(kind: Kind, route: Route, binary: &Path, slot: &str) -> Result<Self> {
        let (sources, sinks) = match route {
            Route::ToAll(sinks) => (1, sinks),
            Route::FromMany(sources) => (sources, 1),
            Route::Taps | Route::Containers | Route::Guests | Route::Mixed => (1, 1),
        };
        let system = System::start(kind, binary, slot, sources + sinks)?;
        let stage = match route {
            Route::Containers => Stage::Stacks(Pair::containers(system, slot)?),
            Route::Guests => Stage::Stacks(Pair::guests(system, slot)?),
            Route::Mixed => Stage::Stacks(Pair::mixed(system, slot)?),
            Route::Taps | Route::ToAll(_) | Route::FromMany(_) => taps_stage(system, sources, sinks)?,
        };
        Ok(Self { stage, run: 0, fresh: 0, known: 0 })
    }

    /// The switch.
    pub fn system(&self) -> &System {
        match &self.stage {
            Stage::Taps { system, .. } => system,
            Stage::Stacks(pair) => pair.system(),
        }
    }

    /// Does a slice of work.
    pub fn slice(&mut self, work: Work, effort: Effort) -> Result<Slice> {
        match &mut self.stage {
            Stage::Taps { system, sources, sinks } => {
                let (run, fresh, known) = (&mut self.run, &mut self.fresh, &mut self.known);
                let mut taps = Taps { system, sources, sinks, run, fresh, known };
                taps.slice(work, effort)
            }
            Stage::Stacks(pair) => stacks_slice(pair, work, effort),
        }
    }
}

fn taps_stage(mut system: System, sources: usize, sinks: usize) -> Result<Stage> {
    let mut number = 0;
    let mut attach = |system: &mut System| {
        let name = format!("t{number}");
        number += 1;
        Station::attach(system, &name, number)
    };
    let mut sources = (0..sources).map(|_| attach(&mut system)).collect::<Result<Vec<_>>>()?;
    let mut sinks = (0..sinks).map(|_| attach(&mut system)).collect::<Result<Vec<_>>>()?;
    for source in &mut sources {
        for sink in &mut sinks {
            tap::acquaint(source, sink)?;
        }
    }
    // Meeting others made some be flooded.
    for station in sources.iter_mut().chain(&mut sinks) {
        station.drain(60)?;
    }
    Ok(Stage::Taps { system, sources, sinks })
}

/// Stations on taps, at work.
struct Taps<'a> {
    system: &'a System,
    sources: &'a mut Vec<Station>,
    sinks: &'a mut Vec<Station>,
    run: &'a mut u16,
    fresh: &'a mut u32,
    known: &'a mut u32,
}

impl Taps<'_> {
    fn slice(&mut self, work: Work, effort: Effort) -> Result<Slice> {
        match work {
            Work::Write(size) => {
                let (a, b) = self.ends()?;
                let (mut frame, burst, bursts) = match size {
                    Size::Bytes(bytes) => (udp(a.mac(), b.mac(), bytes), 200, effort.bursts),
                    // A burst that fits the second-level cache: what is compared is the switch, not the memory.
                    Size::Gso => (super_frame(a.mac(), b.mac()), 16, effort.bursts / 2),
                    Size::Imix => bail!("a write is of one size"),
                };
                Ok(Slice::of([(Figure::WriteCost, taps::write_cost(a, b, &mut frame, burst, bursts)?)]))
            }
            Work::WriteFlows => {
                let mut fresh = *self.fresh;
                let (a, b) = self.ends()?;
                let mut frame = udp(a.mac(), b.mac(), 60);
                let cost = taps::flows_cost(a, b, &mut frame, 200, effort.bursts, (&mut fresh, 300_000))?;
                *self.fresh = fresh;
                Ok(Slice::of([(Figure::WriteCost, cost)]))
            }
            Work::TapRoundTrip => {
                let (a, b) = self.ends()?;
                Ok(Slice::of(trips(&taps::round_trips(a, b, effort.trips)?)))
            }
            Work::Stream(size, load, vary) => self.stream(size, load, vary, effort),
            Work::TcpRoundTrip | Work::Sockperf | Work::Bulk | Work::Datagrams => bail!("taps have no network stack"),
        }
    }

    fn ends(&mut self) -> Result<(&mut Station, &mut Station)> {
        self.sources.first_mut().zip(self.sinks.first_mut()).context("nobody is there")
    }

    fn stream(&mut self, size: Size, load: Load, vary: Vary, effort: Effort) -> Result<Slice> {
        let pace = match load {
            Load::Window(window) => Pace::Window(window),
            Load::Overload => Pace::Free,
            Load::Search => return self.search(size, effort),
        };
        if let Vary::Known(stations) = vary
            && *self.known < stations
        {
            // Once through all of them, so that they are known, however long it takes.
            let patience = Effort { stations, ..effort };
            self.offer(size, vary, pace, Duration::from_secs(30), patience)?;
            *self.known = stations;
        }
        let meter = Meter::start(self.system.processes())?;
        let outcome = self.offer(size, vary, pace, effort.slice, effort)?;
        let cpu = meter.read()?;
        let counts = outcome.counts;
        let received = count(counts.received)?;
        if counts.received == 0 {
            bail!("no frame arrived");
        }
        let lost = count(counts.lost)? / count(counts.sent)? * 100.0;
        let mut figures =
            vec![(Figure::Rate, received / outcome.elapsed.as_secs_f64() / 1e3), (Figure::CpuPerFrame, cpu / received)];
        if load == Load::Overload {
            figures.push((Figure::Lost, lost));
        }
        Ok(Slice { figures, counts: Some(counts) })
    }

    /// The highest rate at which nothing is lost. A trial counts as lossy when it is so twice, for the neighbours of a
    /// shared machine can make any trial so once.
    fn search(&mut self, size: Size, effort: Effort) -> Result<Slice> {
        const STEPS: usize = 7;
        let time = effort.slice / 5;
        let free = self.offer(size, Vary::Nothing, Pace::Window(128), time, effort)?;
        let mut high = 1.3 * count(free.counts.received)? / free.elapsed.as_secs_f64();
        let mut low = 0.0;
        let mut delay = f64::NAN;
        let mut total = Counts::default();
        for _ in 0..STEPS {
            let rate = f64::midpoint(low, high);
            let mut found = None;
            for _ in 0..2 {
                let outcome = self.offer(size, Vary::Nothing, Pace::PerSecond(rate), time, effort)?;
                let reached = count(outcome.counts.received)? / outcome.elapsed.as_secs_f64();
                // A sender that does not keep up with the rate has not shown that the rate is possible.
                if outcome.counts.lost == 0 && reached > 0.97 * rate {
                    found = Some((outcome, reached));
                    break;
                }
            }
            match found {
                Some((outcome, reached)) => {
                    total.add(outcome.counts);
                    delay = outcome.delay_us;
                    low = reached;
                }
                None => high = rate,
            }
        }
        let mut figures = vec![(Figure::Rate, low / 1e3)];
        if delay.is_finite() {
            figures.push((Figure::DelayP50, delay));
        }
        Ok(Slice { figures, counts: Some(total) })
    }

    fn offer(&mut self, size: Size, vary: Vary, pace: Pace, time: Duration, effort: Effort) -> Result<Outcome> {
        let flood = self.sinks.len() > 1;
        let frames_max = match vary {
            Vary::Station => effort.stations,
            Vary::Known(stations) if *self.known < stations => stations,
            Vary::Known(_) | Vary::Nothing | Vary::Flow => u32::MAX,
        };
        let offer = Offer { size, flood, vary, pace, time, frames_max };
        stream(self.sources, self.sinks, offer, self.run, self.fresh)
    }
}

fn stacks_slice(pair: &Pair, work: Work, effort: Effort) -> Result<Slice> {
    let meter = Meter::start(pair.system().processes())?;
    match work {
        Work::TcpRoundTrip => Ok(Slice::of(trips(&pair.round_trips(effort.trips)?))),
        Work::Sockperf => {
            let (p50, p99) = pair.sockperf(effort.slice)?;
            Ok(Slice::of([(Figure::TripP50, p50), (Figure::TripP99, p99)]))
        }
        Work::Bulk => {
            let (gbps, bytes) = pair.bulk(1)?;
            Ok(Slice::of([(Figure::Bulk, gbps), (Figure::CpuPerKib, meter.read()? / (bytes / 1024.0))]))
        }
        Work::Datagrams => {
            let (sent, received, elapsed) = pair.datagrams(effort.slice)?;
            let (cpu, arrived) = (meter.read()?, count(received)?);
            // One that was under way when the measurement began may arrive in it.
            let lost = sent.saturating_sub(received);
            let figures = vec![
                (Figure::Rate, arrived / elapsed.as_secs_f64() / 1e3),
                (Figure::CpuPerFrame, cpu / arrived),
                (Figure::Lost, count(lost)? / count(sent)? * 100.0),
            ];
            Ok(Slice { figures, counts: Some(Counts { sent, received, lost, ..Counts::default() }) })
        }
        Work::Write(_) | Work::WriteFlows | Work::Stream(..) | Work::TapRoundTrip => bail!("a stack has no taps"),
    }
}

fn trips(times: &[f64]) -> [(Figure, f64); 2] {
    [(Figure::TripP50, median(times)), (Figure::TripP99, percentile(times, 99))]
}

/// A count as a number to divide by.
fn count(number: u64) -> Result<f64> {
    taps::f64_of(i64::try_from(number)?)
}
