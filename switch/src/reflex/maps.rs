//! The maps by name and type, and the descriptors that batches and mappings need.

use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use switch_common::flow::{FlowKey4, FlowKey6, FlowValue, FlowValue6};
use switch_common::{LINK_SLOTS, PORT_SLOTS, PortBuckets, PortConfig, PortCounters, PortDrops, Settings};

use super::brain::BrainPage;
use super::error::ReflexError;
use super::flows::FlowMaps;
use super::verdicts::{PairReader, VerdictMap};

/// All maps but the two that have another owner.
pub(super) struct Maps {
    pub(super) settings: Array<MapData, Settings>,
    pub(super) ports: Array<MapData, PortConfig>,
    pub(super) buckets: Array<MapData, PortBuckets>,
    pub(super) counters: PerCpuArray<MapData, PortCounters>,
    pub(super) counters_fd: OwnedFd,
    pub(super) drops: Array<MapData, PortDrops>,
    pub(super) drops_fd: OwnedFd,
    pub(super) buckets_fd: OwnedFd,
    pub(super) punts: Array<MapData, u64>,
    pub(super) flows: FlowMaps,
    verdicts_fd: OwnedFd,
    links: Array<MapData, u32>,
    links_high: HashMap<MapData, u32, u32>,
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<(Self, VerdictMap, BrainPage), ReflexError> {
        let (counters, counters_fd) = with_fd(ebpf, "COUNTERS")?;
        let (drops, drops_fd) = with_fd(ebpf, "DROPS")?;
        let (buckets, buckets_fd) = with_fd(ebpf, "BUCKETS")?;
        let (verdicts, verdicts_fd) = with_fd(ebpf, "VERDICTS")?;
        let (_, brain_fd) = with_fd::<Array<MapData, switch_common::BrainPort>>(ebpf, "BRAIN")?;
        let brain = BrainPage::of_map(brain_fd.as_fd()).map_err(ReflexError::map("BRAIN"))?;
        let pairs_fd = verdicts_fd.try_clone().map_err(ReflexError::map("VERDICTS"))?;
        let maps = Self {
            verdicts_fd: pairs_fd,
            settings: with_fd(ebpf, "SETTINGS")?.0,
            ports: with_fd(ebpf, "PORTS")?.0,
            punts: with_fd(ebpf, "PUNTS")?.0,
            flows: FlowMaps::new(
                with_fd::<HashMap<MapData, FlowKey4, FlowValue>>(ebpf, "FLOWS4")?.1,
                with_fd::<HashMap<MapData, FlowKey6, FlowValue6>>(ebpf, "FLOWS6")?.1,
            ),
            links: with_fd(ebpf, "LINKS")?.0,
            links_high: with_fd(ebpf, "LINKS_HIGH")?.0,
            buckets,
            buckets_fd,
            counters,
            counters_fd,
            drops,
            drops_fd,
        };
        Ok((maps, VerdictMap::new(verdicts, verdicts_fd), brain))
    }

    /// The verdicts, to read them.
    pub(super) fn pairs(&self) -> Result<PairReader, ReflexError> {
        self.verdicts_fd.try_clone().map(PairReader::new).map_err(ReflexError::map("VERDICTS"))
    }

    /// Says which port an interface is.
    pub(super) fn link(&mut self, ifindex: u32, id: u32) -> Result<(), ReflexError> {
        if (ifindex as usize) < LINK_SLOTS {
            self.links.set(ifindex, id, 0).map_err(ReflexError::map("LINKS"))
        } else {
            self.links_high.insert(ifindex, id, 0).map_err(ReflexError::map("LINKS_HIGH"))
        }
    }

    /// Says that an interface is no port.
    pub(super) fn unlink(&mut self, ifindex: u32) -> Result<(), ReflexError> {
        if (ifindex as usize) < LINK_SLOTS {
            return self.links.set(ifindex, 0, 0).map_err(ReflexError::map("LINKS"));
        }
        match self.links_high.remove(&ifindex) {
            Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            answer => answer.map_err(ReflexError::map("LINKS_HIGH")),
        }
    }
}

/// A map by its name, and a descriptor of it.
pub(super) fn with_fd<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<(M, OwnedFd), ReflexError> {
    let map = ebpf.take_map(name).ok_or_else(|| ReflexError::Foreign { what: format!("map {name}") })?;
    let (Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data)) = &map else {
        return Err(ReflexError::Foreign { what: format!("map {name} of a kind that is used here") });
    };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(ReflexError::map(name))?;
    Ok((M::try_from(map).map_err(ReflexError::map(name))?, fd))
}

/// Elements of a map read per system call: all ports at once.
pub(super) const CHUNK: usize = PORT_SLOTS;
