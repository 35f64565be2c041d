//! What it costs to look on: captures, mirrors and the recorder, beside the same switch when nobody does, and beside tcpdump on a bridge.

use std::path::Path;

use anyhow::{Context, Result};

use super::Options;
use super::bed::{Bed, Effort, Route};
use super::figure::{Figure, Load, Size, Vary, Work};
use super::leftovers;
use super::report::Bound::{self, AtLeast, AtMost};
use super::report::Row;
use super::statistics::{self, Ratio};
use super::systems::{Kind, Look};

/// A filter that no frame of the bench matches, and that has to look at each to know it.
const OTHERS: &str = "tcp port 4242";

/// A burst of writes by one thread.
const WRITES: Work = Work::Write(Size::Bytes(60));
/// A stream of frames, as fast as it is taken. A wide window, for every ring here has room for it: who looks on takes processors for
/// whole slices of time, and a narrow one would measure those.
const FRAMES: Work = Work::Stream(Size::Bytes(60), Load::Window(512), Vary::Nothing);

/// One promise: who looks on, at what, and against whom it is held.
struct Claim {
    name: &'static str,
    what: &'static str,
    route: Route,
    work: Work,
    figure: Figure,
    /// Ours, and who looks on.
    ours: (Kind, Look),
    /// Who is beside it.
    theirs: (Kind, Look),
    bound: Bound,
}

const fn claim(
    name: &'static str,
    what: &'static str,
    (route, work, figure): (Route, Work, Figure),
    ours: (Kind, Look),
    theirs: (Kind, Look),
    bound: Bound,
) -> Claim {
    Claim { name, what, route, work, figure, ours, theirs, bound }
}

/// Nobody looks.
const ALONE: (Kind, Look) = (Kind::Weft, Look::Nobody);
/// The headers of everything go into a file.
const ALL: (Kind, Look) = (Kind::Weft, Look::CaptureAll);
/// The same of the largest that are no super-frames.
const LARGE_FRAMES: Work = Work::Stream(Size::Bytes(1514), Load::Window(256), Vary::Nothing);
const COST: (Route, Work, Figure) = (Route::Taps, WRITES, Figure::WriteCost);
const RATE: (Route, Work, Figure) = (Route::Taps, FRAMES, Figure::Rate);
const BULK: (Route, Work, Figure) = (Route::Containers, Work::Bulk, Figure::Bulk);

/// Every promise.
const CLAIMS: &[Claim] = &[
    claim(
        "bench:capture-filtered",
        "write of a 60-byte frame on a port under capture whose filter it does not match",
        COST,
        (Kind::Weft, Look::Capture("t0", OTHERS)),
        ALONE,
        AtMost(1.05),
    ),
    claim("bench:capture-60", "60-byte frames, headers of all to a file", RATE, ALL, ALONE, AtLeast(0.6)),
    claim(
        "bench:capture-tcpdump",
        "60-byte frames, all of them to a file",
        RATE,
        ALL,
        (Kind::BridgeTcpdump, Look::Nobody),
        AtLeast(1.5),
    ),
    claim("bench:capture-bulk", "bulk TCP, headers of all to a file", BULK, ALL, ALONE, AtLeast(0.95)),
    claim(
        "bench:mirror-60",
        "60-byte frames of a mirrored port",
        RATE,
        (Kind::Weft, Look::Mirror("t0")),
        ALONE,
        AtLeast(0.75),
    ),
    claim(
        "bench:mirror-1514",
        "1514-byte frames of a mirrored port",
        (Route::Taps, LARGE_FRAMES, Figure::Rate),
        (Kind::Weft, Look::Mirror("t0")),
        ALONE,
        AtLeast(0.75),
    ),
    claim(
        "bench:mirror-bulk",
        "bulk TCP of a mirrored port",
        BULK,
        (Kind::Weft, Look::Mirror("c0")),
        ALONE,
        AtLeast(0.75),
    ),
    claim(
        "bench:mirror-cost",
        "write of a 60-byte frame on a mirrored port",
        COST,
        (Kind::Weft, Look::Mirror("t0")),
        ALONE,
        AtMost(1.33),
    ),
    claim(
        "bench:mirror-others",
        "60-byte frames beside a mirrored port",
        RATE,
        (Kind::Weft, Look::Mirror("t2")),
        ALONE,
        AtLeast(0.98),
    ),
    claim(
        "bench:recorder-60",
        "60-byte frames, recorder on",
        RATE,
        (Kind::WeftRecorder, Look::Nobody),
        ALONE,
        AtLeast(0.6),
    ),
];

/// Measures those that are wanted.
pub fn measure(options: &Options, weft: &Path, rows: &mut Vec<Row>) -> Result<()> {
    for claim in CLAIMS.iter().filter(|claim| options.wants(claim.name)) {
        leftovers::go_on()?;
        eprint!("{} ", claim.name);
        let ratio = ratio(claim, options, weft).map_err(|error| format!("{error:#}"));
        let [ours, theirs] = [claim.ours, claim.theirs].map(|(kind, look)| [kind.label(), look.label()].concat());
        rows.push(Row::ratio(
            claim.name,
            claim.what.to_owned(),
            claim.figure.unit(),
            claim.bound,
            [&ours, &theirs],
            ratio,
        ));
    }
    Ok(())
}

/// Both, once a round, in alternating order.
fn ratio(claim: &Claim, options: &Options, weft: &Path) -> Result<Ratio> {
    let mut beds = [(claim.ours, "p"), (claim.theirs, "q")]
        .into_iter()
        .map(|((kind, look), slot)| Ok((Bed::watched(kind, claim.route, weft, slot, look)?, Vec::new())))
        .collect::<Result<Vec<_>>>()?;
    for round in 0..options.rounds() {
        for index in statistics::order(beds.len(), round) {
            leftovers::go_on()?;
            if let Some((bed, samples)) = beds.get_mut(index) {
                samples.push(sample(bed, claim, options.effort())?);
            }
        }
        eprint!(".");
    }
    eprintln!();
    for (bed, _) in &beds {
        bed.system().balanced()?;
    }
    let [(_, ours), (_, theirs)] = beds.as_slice() else { anyhow::bail!("two are compared") };
    Ratio::of(ours, theirs).context("no rounds")
}

fn sample(bed: &mut Bed, claim: &Claim, effort: Effort) -> Result<f64> {
    let slice = bed.slice(claim.work, effort)?;
    let found = slice.figures.iter().find(|(figure, _)| *figure == claim.figure);
    found.map(|(_, value)| *value).context("it was not measured")
}
