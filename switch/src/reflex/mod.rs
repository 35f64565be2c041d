//! The reflex as user space sees it: loads, pins and adopts the programs, writes their maps and reads them.
//!
//! The programs (`switch-ebpf`) and their maps outlive this process. [`Reflex::open`] makes an instance or adopts the one
//! that a daemon left behind; after it, [`Reflex::attach_port`] gives each netdev the program of this build, in one step.
//!
//! **Invariant**: no frame passes a port's netdev without a program of ours, from the moment it is attached to the
//! moment it is detached, whatever dies in between.
//! **Invariant**: user space writes no map value that a program writes, but to reset what belongs to a port that is not
//! attached.
//!
//! Order for a new daemon on an old instance: `open`; [`Reflex::set_settings`] without `SETTING_PUNT`; [`Reflex::grace`];
//! [`Reflex::book_unobserved`]; open the punt tap; attach; set `SETTING_PUNT`. For an epoch: `set_settings` with the other one,
//! `grace`, all that arrived of it settled, [`Reflex::book_epoch`]. For a port that goes: `clear_port`, `grace`,
//! `detach_port`, `unlink`. For a port that comes: `reset_counters`, `set_port`, `link`, `attach_port`.

mod attach;
mod brain;
mod btf;
mod captures;
mod clock;
mod counters;
mod diagnostics;
mod error;
mod evidence;
mod flows;
mod kernel_drops;
mod maps;
mod names;
mod netlink;
mod pins;
mod sys;
mod verdicts;
mod watch;
mod wish;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use aya::EbpfLoader;
use aya::programs::{Program, SchedClassifier};
use switch_common::{FLOWS_MAX, PortConfig, PortId, Settings};

pub use attach::{Attachment, ForeignProgram, Hook};
pub use brain::{BrainCells, BrainPage, Cell, DropCells, FreeingCells, TallyCells};
pub use captures::{Capture, CaptureRing};
pub use clock::Clock;
pub use counters::{Counted, ProgramRuns};
pub use diagnostics::Diagnostics;
pub use error::ReflexError;
pub use evidence::EvidenceRing;
pub use flows::{DeadFlows, FlowMaps, tally, ticks_per_second};
pub use kernel_drops::{KernelDrop, KernelReasons};
pub use names::{HeardFrame, HeardRing, HeardSums, HearingRate};
pub use pins::Adopted;
#[cfg(test)]
pub(crate) use sys::TestClassifier;
pub use verdicts::{PairReader, VerdictError, VerdictMap};
pub use watch::WatchCounts;
pub use wish::{Kind, Ports, Wish};

use attach::{Dirs, Netdev};
use evidence::EvidenceTally;
use kernel_drops::{Facts, KernelDrops, LAYOUT_GLOBAL};
use maps::Maps;
use names::HeardTally;
use pins::Pins;
use watch::Watchers;

/// The programs, as `cargo xtask ebpf` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft.bpf.o"));

const PORT_INGRESS: &str = "port_ingress";
const INJECT: &str = "inject";
const CLOCK: &str = "clock";
const MIRROR_CUT: &str = "mirror_cut";

/// How an instance is to be made; what exists is adopted as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How programs are put on netdevs.
    pub hook: Hook,
    /// Whether flows are accounted.
    pub flows: bool,
    /// Room for flows over IPv4; over IPv6 there is half as much.
    pub flows_max: u32,
    /// How much of frames that say who is who is handed over by each port; nothing when absent.
    pub hearing: Option<HearingRate>,
}

impl Default for Load {
    fn default() -> Self {
        Self { hook: Hook::Auto, flows: true, flows_max: FLOWS_MAX, hearing: Some(HearingRate::default()) }
    }
}

/// An instance's kernel half. Owned by control; the verdicts are handed to the loop, the brain's counters to whoever
/// counts.
pub struct Reflex {
    ebpf: Ebpf,
    maps: Maps,
    verdicts: Option<VerdictMap>,
    brain: Arc<BrainPage>,
    hook: Hook,
    dirs: Dirs,
    kernel_drops: KernelDrops,
    evidence: Option<EvidenceRing>,
    evidence_counts: EvidenceTally,
    heard: Option<HeardRing>,
    heard_counts: HeardTally,
    watchers: Watchers,
}

impl Reflex {
    /// Opens the instance whose pins are at `pins`, makes it when there is none, and says what was found.
    ///
    /// # Errors
    /// Not permitted, no bpffs, or the kernel refuses the object.
    pub fn open(pins: &Path, how: Load) -> Result<(Self, Adopted), ReflexError> {
        Self::load(pins, how).map_err(ReflexError::or_not_permitted)
    }

    fn load(pins: &Path, how: Load) -> Result<(Self, Adopted), ReflexError> {
        let hook = how.hook.resolve()?;
        let (pins, adopted) = Pins::open(pins)?;
        let mut loader = EbpfLoader::new();
        for (name, path) in pins.maps() {
            loader.map_pin_path(name, path);
        }
        let account = u8::from(how.flows);
        loader.override_global("ACCOUNT_FLOWS", &account, true);
        let (interval, ahead) = HearingRate::constants(how.hearing);
        loader.override_global("HEARD_INTERVAL_NS", &interval, true);
        loader.override_global("HEARD_AHEAD_NS", &ahead, true);
        loader.map_max_entries("FLOWS4", how.flows_max.max(1)).map_max_entries("FLOWS6", (how.flows_max / 2).max(1));
        let object = |source| ReflexError::Object { source: Box::new(source) };
        // The loader's own reading of the kernel's types makes room for the one that is used.
        loader.btf(None);
        let facts = Facts::gather();
        loader.override_global(LAYOUT_GLOBAL, &facts.layout, true).btf(facts.btf.as_ref());
        let mut ebpf = loader.load(OBJECT).map_err(object)?;
        // Before the maps are taken: the instructions name them by descriptors that must still be open.
        for name in [PORT_INGRESS, INJECT, CLOCK, MIRROR_CUT] {
            let refused = |source| ReflexError::Program { program: name, source: Box::new(source) };
            program(&mut ebpf, name)?.load().map_err(refused)?;
        }
        let kernel_drops = KernelDrops::start(&mut ebpf, facts, &pins.trace())?;
        let (evidence, evidence_counts) = evidence::take(&mut ebpf, kernel_drops.reasons())?;
        let (heard, heard_counts) = names::take(&mut ebpf)?;
        let watchers = Watchers::start(&mut ebpf)?;
        let (maps, verdicts, brain) = Maps::take(&mut ebpf)?;
        let dirs = Dirs { links: pins.links(), filters: pins.filters() };
        let reflex = Self {
            ebpf,
            maps,
            verdicts: Some(verdicts),
            brain: Arc::new(brain),
            hook,
            dirs,
            kernel_drops,
            evidence: Some(evidence),
            evidence_counts,
            heard: Some(heard),
            heard_counts,
            watchers,
        };
        sys::give_back();
        Ok((reflex, adopted))
    }

    /// The way programs are put on netdevs: [`Hook::Tcx`] or [`Hook::Clsact`].
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The verdicts, for the loop. Once.
    ///
    /// # Errors
    /// They have been taken before.
    pub fn verdicts(&mut self) -> Result<VerdictMap, ReflexError> {
        self.verdicts.take().ok_or(ReflexError::VerdictsTaken)
    }

    /// The brain's own counters.
    pub fn brain(&self) -> Arc<BrainPage> {
        Arc::clone(&self.brain)
    }

    /// What the programs go by.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settings(&self) -> Result<Settings, ReflexError> {
        self.maps.settings.get(&0, 0).map_err(ReflexError::map("SETTINGS"))
    }

    /// Replaces what the programs go by.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), ReflexError> {
        self.maps.settings.set(0, settings, 0).map_err(ReflexError::map("SETTINGS"))
    }

    /// Tells the programs of a port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_port(&mut self, id: PortId, config: PortConfig) -> Result<(), ReflexError> {
        let config = self.flagged(config);
        self.maps.ports.set(u32::from(id.get()), config, 0).map_err(ReflexError::map("PORTS"))
    }

    /// What the programs were told of a port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn port(&self, id: PortId) -> Result<PortConfig, ReflexError> {
        self.maps.ports.get(&u32::from(id.get()), 0).map_err(ReflexError::map("PORTS"))
    }

    /// Tells the programs that there is no such port: what it sends is dropped as `port_down`, what is injected for it
    /// as `egress_gone`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear_port(&mut self, id: PortId) -> Result<(), ReflexError> {
        self.set_port(id, PortConfig::default())
    }

    /// Says which port an interface is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&mut self, ifindex: u32, id: PortId) -> Result<(), ReflexError> {
        self.maps.link(ifindex, u32::from(id.get()))
    }

    /// Says that an interface is no port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unlink(&mut self, ifindex: u32) -> Result<(), ReflexError> {
        self.maps.unlink(ifindex)
    }

    /// Puts `port_ingress` on a port's netdev, in place of a predecessor's where there is one.
    ///
    /// # Errors
    /// The netdev is gone or renamed, or the kernel refuses.
    pub fn attach_port(&mut self, id: PortId, ifname: &str, ifindex: u32) -> Result<Attachment, ReflexError> {
        self.attach(PORT_INGRESS, Netdev { ifname, ifindex }, &place_of(id))
    }

    /// Puts `inject` on the punt tap, in place of a predecessor's where there is one.
    ///
    /// # Errors
    /// As [`Self::attach_port`].
    pub fn attach_inject(&mut self, ifname: &str, ifindex: u32) -> Result<Attachment, ReflexError> {
        self.attach(INJECT, Netdev { ifname, ifindex }, INJECT)
    }

    /// Takes the program off a port's netdev; `false` when there is none (the netdev itself may be gone).
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach_port(&mut self, id: PortId) -> Result<bool, ReflexError> {
        attach::detach(&place_of(id), &self.dirs)
    }

    /// The ports that a program of this instance is attached for, a predecessor's among them.
    ///
    /// # Errors
    /// The pin directory cannot be read.
    pub fn attached_ports(&self) -> Result<Vec<PortId>, ReflexError> {
        let ids = self.dirs.places()?.into_iter().filter_map(|place| place.strip_prefix("port-")?.parse().ok());
        Ok(ids.filter_map(PortId::new).collect())
    }

    /// What was decided of pairs of stations.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn pairs(&self) -> Result<PairReader, ReflexError> {
        self.maps.pairs()
    }

    /// The flow table.
    pub fn flows(&self) -> FlowMaps {
        self.maps.flows.clone()
    }

    /// Waits until every program has ended that may have seen the maps as they were before this call.
    ///
    /// # Errors
    /// The kernel has no `membarrier`.
    pub fn grace() -> Result<(), ReflexError> {
        sys::membarrier().map_err(ReflexError::map("any"))
    }

    /// Takes an instance's programs off all netdevs and forgets its maps. Needs no daemon and no [`Reflex`].
    ///
    /// # Errors
    /// A program or a pin could not be removed.
    pub fn remove(pins: &Path) -> Result<(), ReflexError> {
        for layout in pins::layouts(pins)? {
            let dirs = Dirs { links: layout.join("links"), filters: layout.join("clsact") };
            for place in dirs.places()? {
                attach::detach(&place, &dirs)?;
            }
        }
        pins::remove_tree(pins)
    }

    /// Whether a program of some instance, this or another, is on a netdev.
    ///
    /// # Errors
    /// As [`Self::foreign_programs`].
    pub fn is_switched(ifname: &str, ifindex: u32) -> Result<bool, ReflexError> {
        attach::survey(Netdev { ifname, ifindex }, &[PORT_INGRESS, INJECT]).map(|survey| survey.ours)
    }

    /// Programs on a netdev's ingress that are not ours.
    ///
    /// # Errors
    /// The netdev is gone, or not permitted.
    pub fn foreign_programs(ifname: &str, ifindex: u32) -> Result<Vec<ForeignProgram>, ReflexError> {
        let survey = attach::survey(Netdev { ifname, ifindex }, &[PORT_INGRESS, INJECT]);
        survey.map(|survey| survey.foreign).map_err(ReflexError::or_not_permitted)
    }

    fn attach(&mut self, name: &'static str, netdev: Netdev<'_>, place: &str) -> Result<Attachment, ReflexError> {
        attach::attach(program(&mut self.ebpf, name)?, netdev, self.hook, place, &self.dirs)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ReflexError> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(ReflexError::Foreign { what: format!("classifier '{name}'") }),
    }
}

/// The name of a port's attachment.
fn place_of(id: PortId) -> String {
    format!("port-{id}")
}
