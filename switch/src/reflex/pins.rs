//! Where an instance's kernel half outlives its daemon: `<pins>/v<LAYOUT_VERSION>/`.
//!
//! ```text
//! /sys/fs/bpf/weft/weft0/v1/SETTINGS …       the maps
//! /sys/fs/bpf/weft/weft0/v1/links/port-3     a pinned TCX link: the file is what keeps the program on its netdev
//! /sys/fs/bpf/weft/weft0/v1/clsact/…         a folder per clsact filter, its name says which (see `attach.rs`)
//! /sys/fs/bpf/weft/weft0/v1/kfree_skb        the link that counts what the kernel drops (see `kernel_drops.rs`)
//! ```
//!
//! Maps are adopted all or none, and only when the kernel says of each that it has the layout of this program: a map of
//! another size would be adopted in silence otherwise. When they cannot be adopted they are forgotten, but the links are
//! kept, so that no netdev is ever without a program: each goes on with the old maps until it is given the new program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use switch_common::flow::{FlowKey4, FlowKey6, FlowValue, FlowValue6};
use switch_common::{
    BrainPort, DropCell, EVENTS_BYTES, EvidenceCounts, EvidenceTurns, HEARD_BYTES, HeardCounts, KERNEL_DROPS_MAX,
    KernelDropCell, KernelDropKey, LAYOUT_VERSION, LINK_SLOTS, LINKS_HIGH_MAX, PORT_SLOTS, PairKey, PairVerdict,
    PortBuckets, PortConfig, PortCounters, PortDrops, PortWatch, SESSIONS_MAX, Session, SessionCounts, Settings,
    VERDICTS_MAX,
};

use super::error::ReflexError;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where Linux keeps its bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// What the kernel must say of a map.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    kind: MapType,
    key_bytes: usize,
    value_bytes: usize,
    /// [`ANY`]: as many as the instance was made with.
    entries: usize,
}

const ANY: usize = 0;

const fn shape<K, V>(name: &'static str, kind: MapType, entries: usize) -> Shape {
    Shape { name, kind, key_bytes: size_of::<K>(), value_bytes: size_of::<V>(), entries }
}

const SHAPES: [Shape; 25] = [
    shape::<u32, Settings>("SETTINGS", MapType::Array, 1),
    shape::<u32, u32>("LINKS", MapType::Array, LINK_SLOTS),
    shape::<u32, u32>("LINKS_HIGH", MapType::Hash, LINKS_HIGH_MAX),
    shape::<u32, PortConfig>("PORTS", MapType::Array, PORT_SLOTS),
    shape::<u32, PortBuckets>("BUCKETS", MapType::Array, PORT_SLOTS),
    shape::<PairKey, PairVerdict>("VERDICTS", MapType::Hash, VERDICTS_MAX),
    shape::<FlowKey4, FlowValue>("FLOWS4", MapType::Hash, ANY),
    shape::<FlowKey6, FlowValue6>("FLOWS6", MapType::Hash, ANY),
    shape::<u32, PortCounters>("COUNTERS", MapType::PerCpuArray, PORT_SLOTS),
    shape::<u32, PortDrops>("DROPS", MapType::Array, PORT_SLOTS),
    shape::<u32, u64>("PUNTS", MapType::Array, 1),
    shape::<u32, BrainPort>("BRAIN", MapType::Array, PORT_SLOTS),
    shape::<KernelDropKey, KernelDropCell>("KERNEL_DROPS", MapType::Hash, KERNEL_DROPS_MAX),
    shape::<u32, KernelDropCell>("KERNEL_DROPS_REST", MapType::Array, PORT_SLOTS),
    shape::<u32, u32>("KERNEL_DROP", MapType::ProgramArray, 1),
    shape::<(), ()>("EVENTS", MapType::RingBuf, EVENTS_BYTES),
    shape::<u32, EvidenceTurns>("EVIDENCE_TURNS", MapType::Array, PORT_SLOTS),
    shape::<u32, EvidenceCounts>("EVIDENCE_COUNTS", MapType::Array, 1),
    shape::<(), ()>("HEARD", MapType::RingBuf, HEARD_BYTES),
    shape::<u32, HeardCounts>("HEARD_COUNTS", MapType::Array, PORT_SLOTS),
    shape::<u32, PortWatch>("WATCH", MapType::Array, PORT_SLOTS),
    shape::<u32, Session>("SESSIONS", MapType::Array, SESSIONS_MAX),
    shape::<u32, u32>("WATCHERS", MapType::ProgramArray, 2),
    shape::<u32, SessionCounts>("SESSION_COUNTS", MapType::PerCpuArray, SESSIONS_MAX),
    shape::<u32, DropCell>("TARGET_DROPS", MapType::Array, SESSIONS_MAX),
];

impl Shape {
    fn fits(&self, info: &MapInfo) -> bool {
        let same = |seen: u32, wanted: usize| u32::try_from(wanted) == Ok(seen);
        info.map_type().is_ok_and(|kind| kind == self.kind)
            && same(info.key_size(), self.key_bytes)
            && same(info.value_size(), self.value_bytes)
            && (self.entries == ANY || same(info.max_entries(), self.entries))
    }
}

/// What was found when an instance was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Nothing: this is a new instance.
    Fresh,
    /// Ports, counters and verdicts of a daemon that went before.
    All,
    /// Programs of a daemon that went before, whose maps have another layout: ports are kept, counters and verdicts
    /// begin anew.
    Reset {
        /// Why.
        reason: String,
    },
}

/// An instance's pin directory of this layout.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    base: PathBuf,
    dir: PathBuf,
}

impl Pins {
    /// The directory, made when it is not there; with it, what of a predecessor can be adopted.
    pub(super) fn open(base: &Path) -> Result<(Self, Adopted), ReflexError> {
        ensure_bpffs(base)?;
        let pins = Self { base: base.to_path_buf(), dir: base.join(version_name(LAYOUT_VERSION)) };
        for dir in [&pins.dir, &pins.links(), &pins.filters()] {
            fs::create_dir_all(dir).map_err(ReflexError::pin(dir))?;
        }
        let mut adopted = pins.judge_maps()?;
        for old in pins.other_layouts()? {
            let name = old.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for (from, to) in [(old.join("links"), pins.links()), (old.join("clsact"), pins.filters())] {
                for pin in entries(&from)? {
                    let target = to.join(pin.file_name().unwrap_or_default());
                    fs::rename(&pin, &target).map_err(ReflexError::pin(&pin))?;
                }
            }
            remove_tree(&old)?;
            adopted = Adopted::Reset { reason: format!("the maps were of layout {name}, this is v{LAYOUT_VERSION}") };
        }
        Ok((pins, adopted))
    }

    /// The names of all maps, with the paths where they are pinned.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        SHAPES.iter().map(|shape| (shape.name, self.dir.join(shape.name)))
    }

    /// The folder of pinned TCX links.
    pub(super) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// The link that holds the program on the tracepoint `kfree_skb`.
    pub(super) fn trace(&self) -> PathBuf {
        self.dir.join("kfree_skb")
    }

    /// The folder that remembers clsact filters.
    pub(super) fn filters(&self) -> PathBuf {
        self.dir.join("clsact")
    }

    /// Whether the pinned maps are ours to adopt; if not, they are forgotten.
    fn judge_maps(&self) -> Result<Adopted, ReflexError> {
        let mut found = 0;
        let mut misfit = None;
        for shape in &SHAPES {
            let path = self.dir.join(shape.name);
            if !path.exists() {
                continue;
            }
            found += 1;
            let info = MapInfo::from_pin(&path).map_err(ReflexError::map(shape.name))?;
            if !shape.fits(&info) {
                misfit = Some(format!("the map {} has another layout", shape.name));
            }
        }
        if found == 0 {
            return Ok(Adopted::Fresh);
        }
        if found < SHAPES.len() && misfit.is_none() {
            misfit = Some("some maps are missing".to_owned());
        }
        let Some(reason) = misfit else { return Ok(Adopted::All) };
        // The tracepoint's program counts into them, and a link of its kind cannot be given another.
        for path in self.maps().map(|(_, path)| path).chain([self.trace()]).filter(|path| path.exists()) {
            fs::remove_file(&path).map_err(ReflexError::pin(&path))?;
        }
        Ok(Adopted::Reset { reason })
    }

    fn other_layouts(&self) -> Result<Vec<PathBuf>, ReflexError> {
        let ours = self.dir.file_name().map(ToOwned::to_owned);
        Ok(entries(&self.base)?.into_iter().filter(|path| path.file_name() != ours.as_deref()).collect())
    }
}

/// All pin directories of an instance, of whatever layout.
pub(super) fn layouts(base: &Path) -> Result<Vec<PathBuf>, ReflexError> {
    entries(base)
}

/// What is in a folder; nothing, when there is no folder.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, ReflexError> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(ReflexError::pin(dir)(error)),
    };
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(ReflexError::pin(dir))).collect()
}

fn version_name(version: u32) -> String {
    format!("v{version}")
}

/// Removes a folder of pins with all that is in it.
pub(super) fn remove_tree(dir: &Path) -> Result<(), ReflexError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ReflexError::pin(dir)(error)),
        _ => Ok(()),
    }
}

/// Sees to it that pins can be kept at `base`, mounting bpffs at its usual place when nobody has.
fn ensure_bpffs(base: &Path) -> Result<(), ReflexError> {
    if is_bpffs(base) {
        return Ok(());
    }
    let fail = |source: io::Error| ReflexError::NoBpffs { path: base.to_path_buf(), source };
    if !base.starts_with(BPFFS) {
        return Err(fail(io::ErrorKind::Unsupported.into()));
    }
    rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|errno| fail(errno.into()).or_not_permitted())
}

fn is_bpffs(base: &Path) -> bool {
    let nearest = base.ancestors().find(|path| path.exists());
    let magic = nearest.and_then(|path| rustix::fs::statfs(path).ok()).map(|stat| stat.f_type);
    magic.is_some_and(|magic| u64::try_from(magic).is_ok_and(|magic| magic & 0xffff_ffff == BPF_FS_MAGIC))
}
