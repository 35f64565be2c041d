//! The maps. What lies in them, who writes and who reads, is told once: in `switch-common/src/layout.rs`.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use switch_common::flow::{FlowValue, FlowValue6};
use switch_common::{
    BrainPort, FLOWS_MAX, LINK_SLOTS, LINKS_HIGH_MAX, PORT_SLOTS, PairKey, PairVerdict, PortBuckets, PortConfig,
    PortCounters, PortDrops, Settings, VERDICTS_MAX,
};

use crate::shape::AnyShape;

/// [`PairKey`] as the two words it is hashed by. Written as words, because a hash that reads words out of bytes just
/// stored one by one waits for the store buffer.
pub(crate) type PairWords = [u64; 2];
const _: () = assert!(size_of::<PairWords>() == size_of::<PairKey>());

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static LINKS: Array<u32> = Array::with_max_entries(LINK_SLOTS as u32, 0);
#[map]
pub(crate) static LINKS_HIGH: HashMap<u32, u32> = HashMap::with_max_entries(LINKS_HIGH_MAX as u32, 0);
#[map]
pub(crate) static PORTS: Array<PortConfig> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
pub(crate) static BUCKETS: Array<PortBuckets> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
pub(crate) static VERDICTS: HashMap<PairWords, PairVerdict> = HashMap::with_max_entries(VERDICTS_MAX as u32, 0);
/// [`switch_common::flow::FlowKey4`], as words.
#[map]
pub(crate) static FLOWS4: HashMap<[u64; 4], FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);
/// [`switch_common::flow::FlowKey6`], as words.
#[map]
pub(crate) static FLOWS6: HashMap<[u64; 7], FlowValue6> = HashMap::with_max_entries(FLOWS_MAX / 2, 0);
#[map]
pub(crate) static TEMPLATE: PerCpuArray<FlowValue6> = PerCpuArray::with_max_entries(1, 0);
/// Where a frame that is not plain is read to. In a map, because there the verifier forgets what it knew of each way to come to
/// it, and goes on once instead of once per way.
#[map]
pub(crate) static SHAPE: PerCpuArray<AnyShape> = PerCpuArray::with_max_entries(1, 0);
/// Where a value lies for a moment, for the same reason.
#[map]
pub(crate) static FORGOTTEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<PortCounters> = PerCpuArray::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
pub(crate) static DROPS: Array<PortDrops> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
pub(crate) static PUNTS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static BRAIN: Array<BrainPort> = Array::with_max_entries(PORT_SLOTS as u32, BPF_F_MMAPABLE);
