//! Every Ethernet frame of a collection of captures through three parsers: the kernel half's (written to a tap), user space's, and
//! `etherparse`. Their flow tables are the same, record by record.

mod decoder;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use switch_common::flow::{FlowTail, KIND_CUT};
use switch_common::{DropReason, PORT_GUEST_OFFLOADS, PORT_UP, PortConfig, PortId, Settings, wire};
use weft::flow::RawKey;
use weft::reflex::{DeadFlows, Load, Reflex, tally};
use weft_tests::{Arena, Need, Station, pcap, requirements};

use decoder::{Decoded, GivenUp};
use table::{Flow, Table, ours};

const PORT: PortId = PortId::new(1).expect("1 is a port");

/// The kernel half with one port, and no brain: every frame is accounted, then dropped.
struct Kernel {
    reflex: Reflex,
    tap: Station,
}

impl Kernel {
    fn new(arena: &Arena) -> Result<Self> {
        let tap = Station::offloading("t0")?;
        arena.ip("link set t0 arp off up")?;
        let ifindex: u32 = fs::read_to_string("/sys/class/net/t0/ifindex")?.trim().parse()?;
        let pins = Path::new("/sys/fs/bpf/weft/captures");
        let (mut reflex, _) = Reflex::open(pins, Load { flows_max: 16_384, ..Load::default() })?;
        let never = u32::MAX >> 2;
        reflex.set_settings(Settings {
            flow_port_max: 16_384,
            flow_idle_jiffies: never,
            flow_closed_jiffies: never,
            ..Settings::default()
        })?;
        let flags = PORT_UP | PORT_GUEST_OFFLOADS;
        reflex.set_port(PORT, PortConfig { ifindex, flags, ..PortConfig::default() })?;
        reflex.link(ifindex, PORT)?;
        reflex.attach_port(PORT, "t0", ifindex)?;
        Ok(Self { reflex, tap })
    }

    /// All flows, which are gone then.
    fn take(&self) -> Result<HashMap<RawKey, Flow>> {
        let mut dead = DeadFlows::default();
        self.reflex.flows().read(|key, flow| dead.v4.push((*key, *flow)), |key, flow| dead.v6.push((*key, *flow)))?;
        self.reflex.flows().free(&dead, &self.reflex.brain())?;
        let four = dead.v4.iter().map(|(key, flow)| (RawKey::V4(*key), flow));
        let six = dead.v6.iter().map(|(key, flow)| (RawKey::V6(*key), flow));
        let flags = |marks: u32| marks.to_le_bytes()[0];
        Ok(four.chain(six).map(|(key, flow)| (key, (tally(flow), flags(flow.marks)))).collect())
    }
}

/// A key without what the decoder did not come to.
fn without_end(mut key: RawKey, why: GivenUp) -> RawKey {
    let tail = match &mut key {
        RawKey::V4(key) => &mut key.tail,
        RawKey::V6(key) => &mut key.tail,
    };
    let FlowTail { mut protocol, kind, inner, .. } = *tail;
    if why == GivenUp::Extensions {
        protocol = 0;
    }
    *tail = FlowTail { protocol, kind: kind & 0x0f, inner, ..FlowTail::default() };
    key
}

/// What was seen of all captures.
#[derive(Debug, Default)]
struct Seen {
    files: usize,
    frames: u64,
    flows: usize,
    unparsable: u64,
    malformed: u64,
    freed_by_the_kernel: u64,
    given_up: BTreeMap<GivenUp, u64>,
}

/// The tables that our parser and the other decoder make of a capture; and the frames that a program gets to see.
fn tables(frames: &[Vec<u8>], seen: &mut Seen) -> Result<(Table, Table, Vec<usize>)> {
    let (mut by_us, mut by_other, mut shown) = (Table::default(), Table::default(), Vec::new());
    for (number, frame) in frames.iter().enumerate().filter(|(_, frame)| frame.len() >= wire::ETHERNET_BYTES) {
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        if tagged && frame.len() < 20 {
            // Taking the tag out of the bytes, the kernel wants two bytes behind it (`skb_vlan_untag`).
            seen.freed_by_the_kernel += 1;
            continue;
        }
        shown.push(number);
        if wire::ethernet(frame.as_slice()).is_err() {
            seen.malformed += 1;
            continue;
        }
        let found = ours(frame).ok();
        by_us.add(found, frame.len());
        let decoded = decoder::decode(frame).with_context(|| format!("frame {number} is malformed to etherparse"))?;
        let said = match (decoded, found) {
            (Decoded::Unparsable, _) => None,
            (Decoded::Whole(key, flags), _) => Some((key, flags)),
            (Decoded::Part(key, why), Some((our_key, flags))) => {
                let (theirs, known) = (without_end(key, why), without_end(our_key, why));
                ensure!(theirs == known, "frame {number}: {why:?}, but {theirs:?} is not {known:?}");
                *seen.given_up.entry(why).or_default() += 1;
                Some((our_key, flags))
            }
            (Decoded::Part(key, why), None) => bail!("frame {number}: unparsable, but {why:?} of {key:?}"),
        };
        ensure!(said == found, "frame {number}: etherparse says {said:02x?}, we {found:02x?}, of {frame:02x?}");
        by_other.add(said, frame.len());
    }
    Ok((by_us, by_other, shown))
}

fn compare(kernel: &Kernel, frames: &[Vec<u8>], seen: &mut Seen) -> Result<()> {
    let before = kernel.reflex.counters(PORT)?;
    let malformed = |kernel: &Kernel| -> Result<u64> {
        Ok(kernel.reflex.drops(PORT)?.ingress[DropReason::Malformed as usize].frames)
    };
    let (malformed_before, expected_before) = (malformed(kernel)?, seen.malformed);
    let (by_us, by_other, shown) = tables(frames, seen)?;
    for frame in frames.iter().filter(|frame| frame.len() >= wire::ETHERNET_BYTES) {
        kernel.tap.send(frame)?;
    }
    let flows = kernel.take()?;
    for (key, flow) in &flows {
        ensure!(by_us.flows.get(key) == Some(flow), "{key:?}: the kernel says {flow:?}, we {:?}", by_us.flows.get(key));
    }
    ensure!(flows.len() == by_us.flows.len(), "{} flows in the kernel, {} in ours", flows.len(), by_us.flows.len());
    ensure!(flows == by_other.flows, "etherparse's table is another");
    let after = kernel.reflex.counters(PORT)?;
    let counted = after.ingress.frames - before.ingress.frames;
    ensure!(counted == shown.len() as u64, "{counted} of {} frames came in", shown.len());
    for (what, before, after, ours, other) in [
        ("overflow", before.overflow, after.overflow, by_us.overflow, by_other.overflow),
        ("unparsable", before.unparsable, after.unparsable, by_us.unparsable, by_other.unparsable),
    ] {
        let (frames, bytes) = (after.frames - before.frames, after.bytes - before.bytes);
        ensure!((frames, bytes) == (ours.frames, ours.bytes), "{what}: {frames} frames, but {ours:?}");
        ensure!(ours == other, "{what}: {ours:?} and {other:?}");
    }
    let dropped = malformed(kernel)? - malformed_before;
    ensure!(dropped == seen.malformed - expected_before, "{dropped} malformed");
    seen.frames += counted;
    seen.flows += flows.len();
    seen.unparsable += by_us.unparsable.frames;
    Ok(())
}

fn files() -> Result<Vec<PathBuf>> {
    let folder = requirements::pcaps().context("WEFT_PCAPS")?;
    let mut paths: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// Compares the tables of every capture, of whose frames `made` makes those to send.
fn compare_all(arena: &Arena, made: impl Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> Result<()> {
    let kernel = Kernel::new(arena)?;
    let mut seen = Seen::default();
    for path in files()? {
        let frames = made(pcap::read(&fs::read(&path)?).frames);
        compare(&kernel, &frames, &mut seen).with_context(|| path.display().to_string())?;
        seen.files += usize::from(!frames.is_empty());
    }
    eprintln!("{seen:?}");
    ensure!(seen.files > 0 && seen.flows > 0, "no Ethernet capture");
    Reflex::remove(Path::new("/sys/fs/bpf/weft/captures"))?;
    Ok(())
}

/// Of frames that begin another flow each, every beginning of up to so many bytes.
const CUT_BYTES_MAX: usize = 130;

fn beginnings(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut known = HashSet::new();
    let openers = frames.iter().filter(|frame| ours(frame).is_ok_and(|(key, _)| known.insert(key)));
    let cuts = openers.flat_map(|frame| {
        let longest = frame.len().min(CUT_BYTES_MAX);
        (wire::ETHERNET_BYTES..longest).filter_map(|end| frame.get(..end)).map(<[u8]>::to_vec)
    });
    cuts.collect()
}

#[test]
fn the_same_of_every_frame_cut_anywhere() {
    Arena::run(&[Need::Bpf, Need::Pcaps], |arena| compare_all(arena, |frames| beginnings(&frames)));
}

/// The figures of `docs/exactness.md`: run with `--nocapture`.
#[test]
fn the_kernels_parser_ours_and_etherparse_make_the_same_flows_of_every_capture() {
    Arena::run(&[Need::Bpf, Need::Pcaps], |arena| compare_all(arena, |frames| frames));
}

#[test]
fn a_key_that_differs_in_its_end_is_the_same_without_it() -> Result<()> {
    let frame = weft_tests::frames::tcp_super_frame(weft_tests::frames::station(1), weft_tests::frames::station(2), 0)?;
    let (key, flags) = ours(&frame).ok().context("unparsable")?;
    ensure!(flags == Some(0x10));
    let mut cut = key;
    let RawKey::V4(inner) = &mut cut else { bail!("not IPv4") };
    (inner.tail.source_port, inner.tail.kind) = (0, inner.tail.kind | KIND_CUT);
    ensure!(cut != key && without_end(cut, GivenUp::CutTransport) == without_end(key, GivenUp::CutTransport));
    let RawKey::V4(inner) = &mut cut else { bail!("not IPv4") };
    inner.source_address = [0; 4];
    ensure!(without_end(cut, GivenUp::CutTransport) != without_end(key, GivenUp::CutTransport));
    Ok(())
}
