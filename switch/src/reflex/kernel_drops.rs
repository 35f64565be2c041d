//! What the kernel drops on our ports behind our backs, counted by a program on its tracepoint `kfree_skb`.
//!
//! One small program hangs on the tracepoint, held by a pin, as long as the instance lives; it jumps into the one that a
//! program array holds. So a new daemon takes over in one step, and while no daemon lives counting goes on. Where the kernel
//! has no BTF, or refuses, the switch does without and says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, Program};
use aya::{Btf, Ebpf};
use switch_common::{DropCell, KernelDropCell, KernelDropKey, KernelLayout, PORT_SLOTS, PortId, Way};

use super::error::ReflexError;
use super::maps::{CHUNK, with_fd};
use super::{Reflex, btf, sys};

/// The tracepoint.
const TRACEPOINT: &str = "kfree_skb";
/// The program that hangs on it.
const ENTRY: &str = "kernel_drop";
/// The program that counts.
const BOOK: &str = "book_kernel";

/// The name of what the kernel half is told of this kernel.
pub(super) const LAYOUT_GLOBAL: &str = "KERNEL";

/// What one kernel calls its reasons.
#[derive(Clone, Debug, Default)]
pub struct KernelReasons(BTreeMap<u32, String>);

impl KernelReasons {
    /// The label in metrics, records and tables: one of a closed list, the kernel's own.
    pub fn label(&self, number: u32) -> Cow<'static, str> {
        match self.0.get(&number).map(|name| name.strip_prefix("SKB_").unwrap_or(name)) {
            Some("DROP_REASON_FULL_RING") => Cow::Borrowed("ring_full"),
            Some(name) => {
                Cow::Owned(format!("kernel_{}", name.trim_start_matches("DROP_REASON_").to_ascii_lowercase()))
            }
            None => Cow::Borrowed("kernel_unlisted"),
        }
    }

    /// One sentence for an operator.
    pub fn describe(&self, number: u32) -> String {
        match self.0.get(&number).map(String::as_str) {
            Some("SKB_DROP_REASON_FULL_RING") => {
                "The port's ring is full: what reads it, the VMM, is slower than what is sent to it.".to_owned()
            }
            Some(name) => format!("Dropped by the kernel: {name}."),
            None => "Dropped by the kernel, for a reason that is not on its list or found no room in ours.".to_owned(),
        }
    }

    /// The side that only such drops have, for those where the frame itself does not tell.
    fn side(&self, number: u32) -> Option<Way> {
        match self.0.get(&number)?.strip_prefix("SKB_DROP_REASON_")? {
            "FULL_RING" | "QDISC_DROP" | "TC_EGRESS" => Some(Way::Egress),
            "CPU_BACKLOG" | "XDP" => Some(Way::Ingress),
            _ => None,
        }
    }

    /// The side of a drop: what the kernel half knows, else what the reason tells.
    pub fn way(&self, way: u16, number: u32) -> Option<Way> {
        match way {
            way if way == Way::Ingress as u16 => Some(Way::Ingress),
            way if way == Way::Egress as u16 => Some(Way::Egress),
            _ => self.side(number),
        }
    }
}

/// What the kernel dropped on a port for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelDrop {
    /// Port id.
    pub port: u16,
    /// On which side, where that is known.
    pub way: Option<Way>,
    /// The reason's label.
    pub label: Cow<'static, str>,
    /// One sentence for an operator.
    pub description: String,
    /// Frames and bytes.
    pub dropped: DropCell,
}

/// What is found out of the kernel before the object is loaded.
pub(super) struct Facts {
    pub(super) layout: KernelLayout,
    pub(super) btf: Option<Btf>,
    reasons: KernelReasons,
    problem: Option<String>,
}

impl Facts {
    /// Reads the kernel's description of itself; without one the facts say why.
    pub(super) fn gather() -> Self {
        let found = (|| -> anyhow::Result<_> {
            let netns = u32::try_from(fs::metadata("/proc/thread-self/ns/net")?.ino())?;
            // What is read here is let go before aya reads the same in its own way: together it is 30 MB.
            let (layout, reasons) = btf::Btf::parse(&btf::read()?)?.facts(netns)?;
            Ok((layout, Btf::from_sys_fs()?, KernelReasons(reasons)))
        })();
        match found {
            Ok((layout, btf, reasons)) => Self { layout, btf: Some(btf), reasons, problem: None },
            Err(error) => Self {
                layout: KernelLayout::default(),
                btf: None,
                reasons: KernelReasons::default(),
                problem: Some(format!("{error:#}")),
            },
        }
    }
}

/// The kernel half of it, with its maps.
pub(super) struct KernelDrops {
    cells: HashMap<MapData, KernelDropKey, KernelDropCell>,
    cells_fd: OwnedFd,
    rest: Array<MapData, KernelDropCell>,
    rest_fd: OwnedFd,
    /// Holds the program that counts, as the pin of the array does.
    _jump: ProgramArray<MapData>,
    reasons: Arc<KernelReasons>,
    problem: Option<String>,
}

impl KernelDrops {
    /// Takes the maps, and lets the program of this daemon count from now on. `pin` keeps the tracepoint's link; one that
    /// is there is of the same maps.
    pub(super) fn start(ebpf: &mut Ebpf, facts: Facts, pin: &Path) -> Result<Self, ReflexError> {
        let (cells, cells_fd) = with_fd(ebpf, "KERNEL_DROPS")?;
        let (rest, rest_fd) = with_fd(ebpf, "KERNEL_DROPS_REST")?;
        let jump =
            ebpf.take_map("KERNEL_DROP").ok_or_else(|| ReflexError::Foreign { what: "map KERNEL_DROP".into() })?;
        let mut jump = ProgramArray::try_from(jump).map_err(ReflexError::map("KERNEL_DROP"))?;
        let problem = match facts.btf {
            None => facts.problem,
            Some(btf) => count(ebpf, &btf, &mut jump, pin).err().map(|error| format!("{error:#}")),
        };
        if let Some(problem) = &problem {
            tracing::warn!(problem, "what the kernel itself drops is not counted");
        }
        Ok(Self { cells, cells_fd, rest, rest_fd, _jump: jump, reasons: Arc::new(facts.reasons), problem })
    }

    /// What this kernel calls its reasons.
    pub(super) fn reasons(&self) -> Arc<KernelReasons> {
        Arc::clone(&self.reasons)
    }

    /// Forgets what was dropped on a port that is given anew.
    pub(super) fn reset(&mut self, id: PortId) -> Result<(), ReflexError> {
        let mut keys = Vec::new();
        self.each_key(|key| keys.extend((key.port == id.get()).then_some(*key)))?;
        for key in keys {
            self.cells.remove(&key).map_err(ReflexError::map("KERNEL_DROPS"))?;
        }
        let zero = KernelDropCell::default();
        self.rest.set(u32::from(id.get()), zero, 0).map_err(ReflexError::map("KERNEL_DROPS_REST"))
    }

    fn each_key(&self, mut each: impl FnMut(&KernelDropKey)) -> Result<(), ReflexError> {
        sys::lookup_all::<KernelDropKey, KernelDropCell>(self.cells_fd.as_fd(), CHUNK, 1, |key, _| each(key))
            .map_err(ReflexError::map("KERNEL_DROPS"))
    }

    fn all(&self) -> Result<Vec<KernelDrop>, ReflexError> {
        let mut sums: BTreeMap<(u16, Option<Way>, u32), DropCell> = BTreeMap::new();
        let mut add = |port, way, reason, cell: &KernelDropCell| {
            if cell.dropped.frames > 0 {
                let sum = sums.entry((port, way, reason)).or_default();
                sum.frames += cell.dropped.frames;
                sum.bytes += cell.dropped.bytes;
            }
        };
        sys::lookup_all::<KernelDropKey, KernelDropCell>(self.cells_fd.as_fd(), CHUNK, 1, |key, cells| {
            let way = self.reasons.way(key.way, key.reason);
            for cell in cells {
                add(key.port, way, key.reason, cell);
            }
        })
        .map_err(ReflexError::map("KERNEL_DROPS"))?;
        sys::lookup_all::<u32, KernelDropCell>(self.rest_fd.as_fd(), PORT_SLOTS, 1, |id, cells| {
            let port = u16::try_from(*id).unwrap_or(0);
            for cell in cells {
                add(port, None, u32::MAX, cell);
            }
        })
        .map_err(ReflexError::map("KERNEL_DROPS_REST"))?;
        let drops = sums.into_iter().map(|((port, way, reason), dropped)| KernelDrop {
            port,
            way,
            label: self.reasons.label(reason),
            description: self.reasons.describe(reason),
            dropped,
        });
        Ok(drops.collect())
    }
}

/// Loads both programs, lets the new one count, and hangs the entry on the tracepoint where no predecessor has.
fn count(ebpf: &mut Ebpf, btf: &Btf, jump: &mut ProgramArray<MapData>, pin: &Path) -> anyhow::Result<()> {
    let book = tracepoint(ebpf, BOOK)?;
    book.load(TRACEPOINT, btf)?;
    jump.set(0, book.fd()?, 0)?;
    if pin.exists() {
        return Ok(());
    }
    let entry = tracepoint(ebpf, ENTRY)?;
    entry.load(TRACEPOINT, btf)?;
    let link = entry.attach()?;
    let link = FdLink::from(entry.take_link(link)?);
    // The pin alone holds it: what removes the pin ends the counting.
    drop(link.pin(pin)?);
    Ok(())
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> anyhow::Result<&'a mut BtfTracePoint> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => Ok(program),
        _ => anyhow::bail!("the object has no tracepoint program '{name}'"),
    }
}

impl Reflex {
    /// Everything that the kernel dropped on ports, by port, side and reason, read in batches; nothing where that is not
    /// counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kernel_drops(&self) -> Result<Vec<KernelDrop>, ReflexError> {
        self.kernel_drops.all()
    }

    /// Why the kernel's own drops are not counted; `None` when they are.
    pub fn kernel_drops_problem(&self) -> Option<&str> {
        self.kernel_drops.problem.as_deref()
    }

    /// What this kernel calls its reasons.
    pub fn kernel_reasons(&self) -> Arc<KernelReasons> {
        self.kernel_drops.reasons()
    }
}
