//! Every metric, with its HELP, declared here and nowhere else. `docs/metrics.md` is made from this table.
#![expect(clippy::doc_markdown, reason = "a HELP is plain text")]

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows, until the series begins anew at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl Kind {
    /// Its name in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is said of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// A metric with so many labels.
#[derive(Clone, Copy, Debug)]
pub struct Metric<const LABELS: usize> {
    about: About,
    labels: [&'static str; LABELS],
}

impl<const LABELS: usize> Metric<LABELS> {
    /// What is said of it.
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// The names of its labels.
    pub const fn labels(&self) -> &[&'static str; LABELS] {
        &self.labels
    }
}

macro_rules! count {
    () => { 0 };
    ($first:literal $($rest:literal)*) => { 1 + count!($($rest)*) };
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $id:ident = $kind:ident $name:literal [$($label:literal),*];)+) => {
        $($(#[doc = $doc])+
        pub static $id: Metric<{ count!($($label)*) }> = Metric {
            about: About { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: concat!($($doc),+) },
            labels: [$($label),*],
        };)+

        /// Every metric.
        pub static ALL: &[&About] = &[$($id.about()),+];
    };
}

metrics! {
    /// Bytes that came in by the port: what the guest behind it sent. From the destination address on, tags included, FCS not; a super-frame counts once.
    PORT_INGRESS_BYTES = Counter "weft_port_ingress_bytes_total" ["port"];
    /// Frames that came in by the port: what the guest behind it sent. A super-frame counts once.
    PORT_INGRESS_FRAMES = Counter "weft_port_ingress_frames_total" ["port"];
    /// Frames that came in by the port (what the guest sent), as a wire would have carried them: a super-frame counts as its segments.
    PORT_INGRESS_WIRE_FRAMES = Counter "weft_port_ingress_wire_frames_total" ["port"];
    /// Bytes handed to the port: what the guest behind it was given to receive. From the destination address on, tags included, FCS not; a super-frame counts once.
    PORT_EGRESS_BYTES = Counter "weft_port_egress_bytes_total" ["port"];
    /// Frames handed to the port: what the guest behind it was given to receive. A super-frame counts once.
    PORT_EGRESS_FRAMES = Counter "weft_port_egress_frames_total" ["port"];
    /// Frames handed to the port (what the guest was given to receive), as a wire would have carried them: a super-frame counts as its segments.
    PORT_EGRESS_WIRE_FRAMES = Counter "weft_port_egress_wire_frames_total" ["port"];
    /// 1 when the port is attached and somebody holds the other end, else 0.
    PORT_UP = Gauge "weft_port_up" ["port"];
    /// Always 1; what the operator said of the port.
    PORT_INFO = Gauge "weft_port_info" ["port", "kind", "role", "origin", "netdev"];
    /// When the guest behind the port last sent a useful frame: to one station, and neither ARP nor neighbour discovery. Absent until it does.
    PORT_LAST_USEFUL = Gauge "weft_port_last_useful_frame_timestamp_seconds" ["port"];

    /// Frames that did not arrive, at the port they came in by (side ingress) or could not leave by (side egress), or dropped by the kernel on the way (side kernel, where it does not say which). Only reasons that occurred; port is empty for frames of no port.
    DROP_FRAMES = Counter "weft_drop_frames_total" ["port", "side", "reason"];
    /// Bytes that did not arrive; see weft_drop_frames_total.
    DROP_BYTES = Counter "weft_drop_bytes_total" ["port", "side", "reason"];
    /// Frames from the port's guest that the switch flooded: broadcast, multicast, and unicast to unknown stations.
    FLOOD_FRAMES = Counter "weft_flood_frames_total" ["port"];
    /// Frames from the port's guest that the kernel half handed to the user-space half to decide.
    PUNTED_FRAMES = Counter "weft_punted_frames_total" ["port"];

    /// Bytes that came in by the source port and left by the destination port. The pairs with most traffic have series of their own, the others are summed in source="other"; destination is empty for what was flooded, dropped or not decided yet. Since the daemon began.
    PAIR_BYTES = Counter "weft_pair_bytes_total" ["source", "destination"];
    /// Frames from port to port, a super-frame once; see weft_pair_bytes_total.
    PAIR_FRAMES = Counter "weft_pair_frames_total" ["source", "destination"];
    /// Frames from port to port, as a wire would have carried them; see weft_pair_bytes_total.
    PAIR_WIRE_FRAMES = Counter "weft_pair_wire_frames_total" ["source", "destination"];
    /// Pairs of ports between which there was traffic, with a series of their own or not.
    PAIRS = Gauge "weft_pairs" [];
    /// Times that a pair of ports was folded into source="other", because others had more traffic.
    PAIRS_FOLDED = Counter "weft_pairs_folded_total" [];

    /// Conversations (both directions of a flow) that there are.
    FLOWS_ACTIVE = Gauge "weft_flows_active" ["transport"];
    /// Conversations (both directions of a flow) that began. Since the daemon began.
    FLOWS_OPENED = Counter "weft_flows_total" ["transport"];
    /// Conversations (both directions of a flow) that ended. Since the daemon began.
    FLOWS_CLOSED = Counter "weft_flows_closed_total" ["transport"];
    /// Frames from the port's guest that belong to no flow, because the table or the port's share of it was full.
    FLOW_OVERFLOW = Counter "weft_flow_overflow_frames_total" ["port"];
    /// Frames from the port's guest that belong to no flow, because their IP header is not whole.
    FLOW_UNPARSABLE = Counter "weft_flow_unparsable_frames_total" ["port"];

    /// The port's half of TCP handshakes: how long the guest behind it (or what lies beyond) took to answer, as the switch saw it.
    HANDSHAKE_RTT = Histogram "weft_handshake_rtt_seconds" ["port"];
    /// TCP segments that the port's guest sent again. Since the daemon began.
    TCP_RETRANSMITTED_SEGMENTS = Counter "weft_tcp_retransmitted_segments_total" ["port"];
    /// TCP payload bytes that the port's guest sent again. Since the daemon began.
    TCP_RETRANSMITTED_BYTES = Counter "weft_tcp_retransmitted_bytes_total" ["port"];
    /// Times that the port's guest closed its TCP window. Since the daemon began.
    TCP_ZERO_WINDOWS = Counter "weft_tcp_zero_windows_total" ["port"];
    /// TCP resets that the port's guest sent. Since the daemon began.
    TCP_RESETS = Counter "weft_tcp_resets_total" ["port"];
    /// TCP connections that the port's guest asked for and nobody answered. Since the daemon began.
    TCP_HALF_OPEN = Counter "weft_tcp_half_open_total" ["port"];

    /// Frames that the mirror wanted and its target was given, a super-frame once.
    MIRROR_FRAMES = Counter "weft_mirror_frames_total" ["mirror"];
    /// Frames that the mirror's target was given, as a wire would have carried them.
    MIRROR_WIRE_FRAMES = Counter "weft_mirror_wire_frames_total" ["mirror"];
    /// Bytes that the mirror's target was given.
    MIRROR_BYTES = Counter "weft_mirror_bytes_total" ["mirror"];
    /// Frames that the mirror wanted and its target did not take, or the kernel dropped there.
    MIRROR_LOST_FRAMES = Counter "weft_mirror_lost_frames_total" ["mirror"];
    /// 1 while the mirror's ports and target are there.
    MIRROR_UP = Gauge "weft_mirror_up" ["mirror"];

    /// What was not observed, by stage: punt (frames the kernel freed on their way to the user-space half), flow_log and follow (records), evidence (samples of dropped frames), sweep (failed reads of the flow table), notes (frames that the user-space half dropped, and whose flow does not say so), history (records and events), mirror (copies that a mirror's target did not take), events (on their way from the forwarding loop, or for who follows), names (frames that say who is who; by port in weft_heard_lost_frames_total). Frames without a flow are in weft_flow_overflow_frames_total.
    OBSERVATION_LOST = Counter "weft_observation_lost_total" ["stage"];

    /// Events by kind, told or not: see `weft events`. Since the daemon began.
    EVENTS = Counter "weft_events_total" ["kind"];
    /// Events that were counted and not told, because their port had too many of the kind. Since the daemon began.
    EVENTS_SUPPRESSED = Counter "weft_events_suppressed_total" ["kind"];

    /// 1 when the port has sent nothing useful for longer than events.dormant_secs, else 0.
    PORT_DORMANT = Gauge "weft_port_dormant" ["port"];
    /// Frames from the port's guest that say who is who: DNS, DHCP, ARP, neighbour discovery.
    HEARD_FRAMES = Counter "weft_heard_frames_total" ["port"];
    /// Of weft_heard_frames_total what was not looked at, because the port sent too many (stage limit) or because they came faster than they were read (stage ring).
    HEARD_LOST = Counter "weft_heard_lost_frames_total" ["port", "stage"];
    /// DNS queries that the port's guest sent over UDP. Since the daemon began.
    DNS_QUERIES = Counter "weft_dns_queries_total" ["port"];
    /// Answers to DNS queries of the port's guest, by response code. Only codes that occurred. Since the daemon began.
    DNS_ANSWERS = Counter "weft_dns_answers_total" ["port", "rcode"];
    /// DNS queries of the port's guest that were not answered within names.dns_timeout_secs. Since the daemon began.
    DNS_TIMEOUTS = Counter "weft_dns_timeouts_total" ["port"];
    /// DNS messages from the port's guest that were not used: malformed, unmatched (answers that nobody asked for), evicted (queries that gave way to later ones). Since the daemon began.
    DNS_IGNORED = Counter "weft_dns_ignored_messages_total" ["port", "cause"];
    /// How long answers to the port's guest took, as the switch saw query and answer. Since the daemon began.
    DNS_LATENCY = Histogram "weft_dns_latency_seconds" ["port"];
    /// Bindings (an IP address, a station and a port, for some time) and stations that were forgotten for lack of room. Since the daemon began.
    BINDINGS_EVICTED = Counter "weft_bindings_evicted_total" [];

    /// 1 while a thread that observes runs: observer (reads the flows), history (keeps what ended). 0 when a defect has ended it; frames go on.
    THREAD_UP = Gauge "weft_thread_up" ["thread"];

    /// Stations that the switch knows.
    STATIONS = Gauge "weft_stations" [];
    /// Times that a station turned up on another port. Since the daemon began.
    STATION_MOVES = Counter "weft_station_moves_total" [];

    /// Entries in use: flows (directions of conversations, as of the last sweep), bindings (times in which a station had an address), ports, verdicts (pairs of stations the kernel forwards by itself), stations.
    MAP_ENTRIES = Gauge "weft_map_entries" ["map"];
    /// Entries that there is room for; see weft_map_entries.
    MAP_ENTRIES_MAX = Gauge "weft_map_entries_max" ["map"];
    /// Runs of the programs in the kernel, since this daemon loaded them. The kernel counts them only while sysctl kernel.bpf_stats_enabled is 1, at a cost for each frame.
    PROGRAM_RUNS = Counter "weft_program_runs_total" ["program"];
    /// Time that the programs in the kernel ran; see weft_program_runs_total.
    PROGRAM_RUN_SECONDS = Counter "weft_program_run_seconds_total" ["program"];

    /// Always 1; what was built.
    BUILD_INFO = Gauge "weft_build_info" ["version"];
    /// Always 1; what runs: the instance, who decides on established traffic, and how programs are attached.
    SWITCH_INFO = Gauge "weft_switch_info" ["name", "datapath", "hook"];
    /// How long it took to collect what is told here.
    SCRAPE_SECONDS = Gauge "weft_scrape_duration_seconds" [];

    /// Processor time of the daemon.
    PROCESS_CPU = Counter "process_cpu_seconds_total" [];
    /// Memory of the daemon that is in RAM.
    PROCESS_RSS = Gauge "process_resident_memory_bytes" [];
    /// Address space of the daemon.
    PROCESS_VSIZE = Gauge "process_virtual_memory_bytes" [];
    /// File descriptors that the daemon has open.
    PROCESS_FDS = Gauge "process_open_fds" [];
    /// File descriptors that the daemon may have open.
    PROCESS_FDS_MAX = Gauge "process_max_fds" [];
    /// When the daemon started.
    PROCESS_START = Gauge "process_start_time_seconds" [];
}
