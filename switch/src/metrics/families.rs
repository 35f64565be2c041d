//! From a sample to metric families: which number stands under which name and labels.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::declared::{self, About, Kind, Metric};
use super::pairs::PairSeries;
use super::sample::{DropSample, MirrorSample, PortSample, Sample};
use crate::api::schema::Side;
use crate::events::EventKind;
use crate::flow::{Histogram, PortHealth, Transport, Transports};
use crate::names::Rcode;

/// All that one scrape tells; lives as long as it.
pub(super) struct Scrape {
    pub(super) sample: Sample,
    pub(super) pairs: Vec<PairSeries>,
    pub(super) pairs_known: u64,
    pub(super) pairs_folded: u64,
    pub(super) descriptions: Vec<Desc>,
}

/// What the crate checks names, labels and HELP by.
pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    let describe = |about: &&About| {
        let labels = about.labels.iter().map(ToString::to_string).collect();
        Desc::new(about.name.to_owned(), about.help.trim().to_owned(), labels, HashMap::new())
    };
    declared::ALL.iter().map(describe).collect()
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        [
            self.of_ports(),
            self.of_drops(),
            self.of_pairs(),
            self.of_flows(),
            self.of_names(),
            self.of_mirrors(),
            self.of_switch(),
            self.of_process(),
        ]
        .concat()
    }
}

impl Scrape {
    fn of_ports(&self) -> Vec<MetricFamily> {
        let each = |metric, value: fn(&PortSample) -> u64| {
            family(metric, self.sample.ports.iter().map(|port| ([port.name.as_str()], count(value(port)))))
        };
        let info = self
            .sample
            .ports
            .iter()
            .map(|port| ([port.name.as_str(), port.kind, port.role, port.origin, port.netdev.as_str()], count(1)));
        vec![
            each(&declared::PORT_INGRESS_BYTES, |port| port.ingress.bytes),
            each(&declared::PORT_INGRESS_FRAMES, |port| port.ingress.frames),
            each(&declared::PORT_INGRESS_WIRE_FRAMES, |port| port.ingress.wire_frames()),
            each(&declared::PORT_EGRESS_BYTES, |port| port.egress.bytes),
            each(&declared::PORT_EGRESS_FRAMES, |port| port.egress.frames),
            each(&declared::PORT_EGRESS_WIRE_FRAMES, |port| port.egress.wire_frames()),
            each(&declared::PORT_UP, |port| port.is_up.into()),
            each(&declared::FLOOD_FRAMES, |port| port.flood_frames),
            each(&declared::PUNTED_FRAMES, |port| port.punted_frames),
            each(&declared::FLOW_OVERFLOW, |port| port.overflow_frames),
            each(&declared::FLOW_UNPARSABLE, |port| port.unparsable_frames),
            family(&declared::PORT_INFO, info),
        ]
    }

    fn of_drops(&self) -> Vec<MetricFamily> {
        let of_ports =
            || self.sample.ports.iter().flat_map(|port| port.drops.iter().map(|drop| (port.name.as_str(), drop)));
        let all = || of_ports().chain(self.sample.strangers.iter().map(|drop| ("", drop)));
        let each = |metric, value: fn(&DropSample) -> u64| {
            family(
                metric,
                all().map(|(port, drop)| {
                    let side = match drop.side {
                        Side::Ingress => "ingress",
                        Side::Egress => "egress",
                        Side::Kernel => "kernel",
                    };
                    ([port, side, drop.reason.as_ref()], count(value(drop)))
                }),
            )
        };
        vec![each(&declared::DROP_FRAMES, |drop| drop.cell.frames), each(&declared::DROP_BYTES, |drop| drop.cell.bytes)]
    }

    fn of_pairs(&self) -> Vec<MetricFamily> {
        let each = |metric, value: fn(&PairSeries) -> u64| {
            let name = |pair: &'_ PairSeries| count(value(pair));
            family(
                metric,
                self.pairs.iter().map(|pair| ([pair.source.as_str(), pair.destination.as_str()], name(pair))),
            )
        };
        vec![
            each(&declared::PAIR_BYTES, |pair| pair.traffic.bytes),
            each(&declared::PAIR_FRAMES, |pair| pair.traffic.frames),
            each(&declared::PAIR_WIRE_FRAMES, |pair| pair.traffic.wire_frames()),
            one(&declared::PAIRS, count(self.pairs_known)),
            one(&declared::PAIRS_FOLDED, count(self.pairs_folded)),
        ]
    }

    fn of_flows(&self) -> Vec<MetricFamily> {
        let totals = &self.sample.seen.totals;
        let by_transport = |metric, numbers: &Transports| {
            family(metric, Transport::ALL.map(|transport| ([transport.label()], count(numbers.of(transport)))))
        };
        let none = PortHealth::default();
        let health =
            || self.sample.ports.iter().map(|port| (port.name.as_str(), totals.ports.get(&port.id).unwrap_or(&none)));
        let each = |metric, value: fn(&PortHealth) -> u64| {
            family(metric, health().map(|(port, health)| ([port], count(value(health)))))
        };
        // A series for each bucket: only of ports that had a handshake.
        let shaken = health().filter(|(_, health)| health.rtt.count() > 0);
        let useful =
            health().filter_map(|(port, health)| Some(([port], Value::Number(seconds_at(health.last_useful?)))));
        vec![
            by_transport(&declared::FLOWS_ACTIVE, &totals.active),
            by_transport(&declared::FLOWS_OPENED, &totals.opened),
            by_transport(&declared::FLOWS_CLOSED, &totals.closed),
            each(&declared::TCP_RETRANSMITTED_SEGMENTS, |health| health.retransmitted_segments),
            each(&declared::TCP_RETRANSMITTED_BYTES, |health| health.retransmitted_bytes),
            each(&declared::TCP_ZERO_WINDOWS, |health| health.zero_windows),
            each(&declared::TCP_RESETS, |health| health.resets),
            each(&declared::TCP_HALF_OPEN, |health| health.half_open),
            family(&declared::HANDSHAKE_RTT, shaken.map(|(port, health)| ([port], Value::Observed(health.rtt)))),
            family(&declared::PORT_LAST_USEFUL, useful),
        ]
    }

    fn of_names(&self) -> Vec<MetricFamily> {
        let clerk = &self.sample.clerk;
        let heard = self.sample.ports.iter().map(|port| (port.name.as_str(), port.heard));
        let lost = heard
            .clone()
            .flat_map(|(port, heard)| [([port, "limit"], count(heard.limited)), ([port, "ring"], count(heard.lost))]);
        let ports = || self.sample.ports.iter().map(|port| port.name.as_str());
        let dormant = ports().filter_map(|port| Some(([port], count(u64::from(*clerk.dormant.get(port)?)))));
        let dns = || ports().filter_map(|port| Some((port, clerk.dns.get(port)?)));
        let answers = dns().flat_map(|(port, dns)| {
            let occurred = Rcode::ALL.iter().zip(dns.answers).filter(|(_, answers)| *answers > 0);
            occurred.map(move |(rcode, answers)| ([port, rcode.label()], count(answers)))
        });
        let ignored = dns().flat_map(|(port, dns)| {
            [("malformed", dns.malformed), ("unmatched", dns.unmatched), ("evicted", dns.evicted)]
                .map(|(cause, messages)| ([port, cause], count(messages)))
        });
        let answered = dns().filter(|(_, dns)| dns.latency.count() > 0);
        vec![
            family(&declared::PORT_DORMANT, dormant),
            family(&declared::HEARD_FRAMES, heard.map(|(port, heard)| ([port], count(heard.produced)))),
            family(&declared::HEARD_LOST, lost),
            family(&declared::DNS_QUERIES, dns().map(|(port, dns)| ([port], count(dns.queries)))),
            family(&declared::DNS_ANSWERS, answers),
            family(&declared::DNS_TIMEOUTS, dns().map(|(port, dns)| ([port], count(dns.timeouts)))),
            family(&declared::DNS_IGNORED, ignored),
            family(&declared::DNS_LATENCY, answered.map(|(port, dns)| ([port], Value::Observed(dns.latency)))),
            one(&declared::BINDINGS_EVICTED, count(clerk.evicted)),
        ]
    }

    fn of_mirrors(&self) -> Vec<MetricFamily> {
        let each = |metric, value: fn(&MirrorSample) -> u64| {
            family(metric, self.sample.mirrors.iter().map(|mirror| ([mirror.name.as_str()], count(value(mirror)))))
        };
        vec![
            each(&declared::MIRROR_FRAMES, |mirror| mirror.delivered.frames),
            each(&declared::MIRROR_WIRE_FRAMES, |mirror| mirror.delivered.wire_frames()),
            each(&declared::MIRROR_BYTES, |mirror| mirror.delivered.bytes),
            each(&declared::MIRROR_LOST_FRAMES, |mirror| mirror.lost_frames),
            each(&declared::MIRROR_UP, |mirror| mirror.is_up.into()),
        ]
    }

    fn of_switch(&self) -> Vec<MetricFamily> {
        let Sample { name, datapath, hook, maps, programs, lost, events, threads, .. } = &self.sample;
        let by_kind = |metric, counts: &BTreeMap<EventKind, u64>| {
            family(metric, counts.iter().map(|(kind, events)| ([kind.label()], count(*events))))
        };
        vec![
            one(&declared::STATIONS, count(self.sample.stations)),
            one(&declared::STATION_MOVES, count(self.sample.station_moves)),
            by_kind(&declared::EVENTS, &events.happened),
            by_kind(&declared::EVENTS_SUPPRESSED, &events.suppressed),
            family(&declared::OBSERVATION_LOST, lost.iter().map(|(stage, lost)| ([stage.label()], count(*lost)))),
            family(&declared::THREAD_UP, threads.iter().map(|(thread, is_up)| ([*thread], count((*is_up).into())))),
            family(&declared::MAP_ENTRIES, maps.iter().map(|map| ([map.map], count(map.entries)))),
            family(&declared::MAP_ENTRIES_MAX, maps.iter().map(|map| ([map.map], count(map.entries_max)))),
            family(&declared::PROGRAM_RUNS, programs.iter().map(|it| ([it.name.as_str()], count(it.runs)))),
            family(&declared::PROGRAM_RUN_SECONDS, programs.iter().map(|it| ([it.name.as_str()], secs(it.run_time)))),
            family(&declared::BUILD_INFO, [([env!("CARGO_PKG_VERSION")], count(1))]),
            family(&declared::SWITCH_INFO, [([name.as_str(), datapath.as_str(), hook.as_str()], count(1))]),
            one(&declared::SCRAPE_SECONDS, secs(self.sample.took)),
        ]
    }

    fn of_process(&self) -> Vec<MetricFamily> {
        let process = &self.sample.process;
        vec![
            one(&declared::PROCESS_CPU, secs(process.cpu)),
            one(&declared::PROCESS_RSS, count(process.resident_bytes)),
            one(&declared::PROCESS_VSIZE, count(process.virtual_bytes)),
            one(&declared::PROCESS_FDS, count(process.fds)),
            one(&declared::PROCESS_FDS_MAX, process.fds_max.map_or(Value::Number(f64::INFINITY), count)),
            one(&declared::PROCESS_START, Value::Number(process.started_secs)),
        ]
    }
}

/// What a series is worth.
enum Value {
    Number(f64),
    Observed(Histogram),
}

/// Prometheus knows one kind of number, exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "the text format's numbers are f64")]
fn count(value: u64) -> Value {
    Value::Number(value as f64)
}

fn secs(value: Duration) -> Value {
    Value::Number(value.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in f64")]
fn seconds_at(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

fn one(metric: &Metric<0>, value: Value) -> MetricFamily {
    family(metric, [([], value)])
}

fn family<'a, const LABELS: usize>(
    metric: &Metric<LABELS>,
    series: impl IntoIterator<Item = ([&'a str; LABELS], Value)>,
) -> MetricFamily {
    let about = metric.about();
    let mut family = MetricFamily::default();
    family.set_name(about.name.to_owned());
    family.set_help(about.help.trim().to_owned());
    family.set_field_type(match about.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    let series = series.into_iter().map(|(values, value)| {
        let labels = metric.labels().iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let mut series = proto::Metric::from_label(labels.collect());
        match (about.kind, value) {
            (Kind::Counter, Value::Number(value)) => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                series.set_counter(counter);
            }
            (_, Value::Number(value)) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                series.set_gauge(gauge);
            }
            (_, Value::Observed(histogram)) => series.set_histogram(buckets(&histogram)),
        }
        series
    });
    family.set_metric(series.collect());
    family
}

fn buckets(observed: &Histogram) -> proto::Histogram {
    let bucket = |(bound, count): (Duration, u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(observed.cumulative().map(bucket).collect());
    histogram.set_sample_count(observed.count());
    histogram.set_sample_sum(observed.sum().as_secs_f64());
    histogram
}
