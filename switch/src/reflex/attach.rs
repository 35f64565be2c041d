//! Programs onto netdevs and off them, by TCX where the kernel has it and by clsact otherwise.
//!
//! Both ways the program stays when the daemon dies: a TCX link because its file in bpffs holds it, a clsact filter
//! because it belongs to the netdev. A new daemon puts its own program into the link or the filter that is there, in one
//! step of the kernel, so no frame ever passes a netdev without a program. A filter leaves no file; a folder remembers it,
//! named `<ifindex>-<place>-<made|found>`, where the last word says who made the queueing discipline under it.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

use super::error::ReflexError;
use super::{netlink, pins, sys};

/// How programs are put on netdevs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// TCX where the kernel has it, clsact otherwise.
    #[default]
    Auto,
    /// TCX links, from Linux 6.6 on.
    Tcx,
    /// Filters on a clsact queueing discipline.
    Clsact,
}

impl Hook {
    /// What `Auto` means on this kernel.
    ///
    /// # Errors
    /// TCX is asked for, and the kernel has none.
    pub(super) fn resolve(self) -> Result<Self, ReflexError> {
        match (self, has_tcx()) {
            (Self::Auto | Self::Tcx, true) => Ok(Self::Tcx),
            (Self::Tcx, false) => Err(ReflexError::NoTcx),
            (Self::Auto, false) | (Self::Clsact, _) => Ok(Self::Clsact),
        }
    }
}

fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "tcx" => Ok(Self::Tcx),
            "clsact" => Ok(Self::Clsact),
            _ => Err(format!("'{text}' is no hook; there are auto, tcx and clsact")),
        }
    }
}

/// What attaching found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// No program of ours: this one is the first.
    Attached,
    /// A predecessor's program, which this one has replaced in one step.
    Adopted,
}

/// A program of somebody else's on a netdev's ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// `tcx`, or the kind of the clsact filter.
    pub hook: String,
    /// The program's name.
    pub name: String,
}

/// A netdev, by name and number; both, because one of them may be another's by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Netdev<'a> {
    pub(super) ifname: &'a str,
    pub(super) ifindex: u32,
}

impl Netdev<'_> {
    fn check(self) -> Result<Self, ReflexError> {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
        let found = socket.and_then(|socket| rustix::net::netdevice::name_to_index(socket, self.ifname));
        match found {
            Ok(index) if index == self.ifindex => Ok(self),
            Ok(_) => Err(ReflexError::Moved { ifname: self.ifname.to_owned(), ifindex: self.ifindex }),
            Err(errno) => Err(ReflexError::attach(self.ifname)(io::Error::from(errno))),
        }
    }
}

/// Puts a program on a netdev's ingress, into the link or filter of a predecessor where there is one.
pub(super) fn attach(
    program: &mut SchedClassifier,
    netdev: Netdev<'_>,
    hook: Hook,
    place: &str,
    dirs: &Dirs,
) -> Result<Attachment, ReflexError> {
    let netdev = netdev.check()?;
    let done = match hook {
        Hook::Clsact => attach_clsact(program, netdev, place, dirs)?,
        Hook::Auto | Hook::Tcx => attach_tcx(program, netdev, place, dirs, TcAttachType::Ingress)?,
    };
    // The other way is taken down only now: there was a program all the time.
    let other = match hook {
        Hook::Clsact => detach_tcx(place, dirs)?,
        Hook::Auto | Hook::Tcx => detach_clsact(place, dirs)?,
    };
    Ok(if other { Attachment::Adopted } else { done })
}

/// Puts a program on a netdev's egress; only by TCX.
pub(super) fn attach_egress(
    program: &mut SchedClassifier,
    netdev: Netdev<'_>,
    place: &str,
    dirs: &Dirs,
) -> Result<Attachment, ReflexError> {
    attach_tcx(program, netdev.check()?, place, dirs, TcAttachType::Egress)
}

/// Takes whatever program we have at a place off its netdev; `false` when there is none.
pub(super) fn detach(place: &str, dirs: &Dirs) -> Result<bool, ReflexError> {
    Ok(detach_tcx(place, dirs)? | detach_clsact(place, dirs)?)
}

/// Where what is attached is remembered.
#[derive(Clone, Debug)]
pub(super) struct Dirs {
    pub(super) links: PathBuf,
    pub(super) filters: PathBuf,
}

impl Dirs {
    /// All places that something is attached at.
    pub(super) fn places(&self) -> Result<Vec<String>, ReflexError> {
        let mut places: Vec<String> = pins::entries(&self.links)?.iter().map(|path| name_of(path)).collect();
        places.extend(self.filters()?.into_iter().map(|filter| filter.place));
        places.sort();
        places.dedup();
        Ok(places)
    }

    fn filters(&self) -> Result<Vec<FilterNote>, ReflexError> {
        Ok(pins::entries(&self.filters)?.into_iter().filter_map(FilterNote::read).collect())
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    netdev: Netdev<'_>,
    place: &str,
    dirs: &Dirs,
    way: TcAttachType,
) -> Result<Attachment, ReflexError> {
    let path = dirs.links.join(place);
    if path.exists() {
        let pin = sys::open_pin(&path).map_err(ReflexError::pin(&path))?;
        if sys::link_ifindex(pin.as_fd()).map_err(ReflexError::pin(&path))? == netdev.ifindex {
            let pinned = PinnedLink::from_pin(&path).map_err(ReflexError::attach(netdev.ifname))?;
            let link =
                SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(ReflexError::attach(netdev.ifname))?;
            let id = program.attach_to_link(link).map_err(ReflexError::attach(netdev.ifname))?;
            // Taken out of aya's hands and closed: the pin, which is there already, holds the link.
            drop(program.take_link(id).map_err(ReflexError::attach(netdev.ifname))?);
            return Ok(Attachment::Adopted);
        }
        // A netdev that is gone, or another than this place has now.
        detach_tcx(place, dirs)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(netdev.ifname, way, options).map_err(ReflexError::attach(netdev.ifname))?;
    let link = program.take_link(id).map_err(ReflexError::attach(netdev.ifname))?;
    let link: FdLink = link.try_into().map_err(ReflexError::attach(netdev.ifname))?;
    link.pin(&path).map_err(ReflexError::attach(netdev.ifname))?;
    Ok(Attachment::Attached)
}

fn detach_tcx(place: &str, dirs: &Dirs) -> Result<bool, ReflexError> {
    let path = dirs.links.join(place);
    let pin = match sys::open_pin(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        pin => pin.map_err(ReflexError::pin(&path))?,
    };
    // Removing the file alone would take the program away at some later time.
    match sys::link_detach(pin.as_fd()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(ReflexError::pin(&path)(error)),
        _ => {}
    }
    fs::remove_file(&path).map_err(ReflexError::pin(&path))?;
    Ok(true)
}

/// What the name of a folder says of a filter.
struct FilterNote {
    path: PathBuf,
    ifindex: u32,
    place: String,
    made: bool,
}

impl FilterNote {
    fn read(path: PathBuf) -> Option<Self> {
        let name = name_of(&path);
        let (ifindex, rest) = name.split_once('-')?;
        let (place, made) = rest.rsplit_once('-')?;
        Some(Self { ifindex: ifindex.parse().ok()?, place: place.to_owned(), made: made == "made", path })
    }

    fn name(ifindex: u32, place: &str, made: bool) -> String {
        format!("{ifindex}-{place}-{}", if made { "made" } else { "found" })
    }
}

fn attach_clsact(
    program: &SchedClassifier,
    netdev: Netdev<'_>,
    place: &str,
    dirs: &Dirs,
) -> Result<Attachment, ReflexError> {
    for note in dirs.filters()?.into_iter().filter(|note| note.place == place && note.ifindex != netdev.ifindex) {
        forget_filter(&note)?;
    }
    let made = netlink::add_clsact(netdev.ifindex).map_err(ReflexError::attach(netdev.ifname))?;
    let program_fd = program.fd().map_err(ReflexError::attach(netdev.ifname))?.as_fd();
    // The note first: one without a filter is harmless, a filter without a note would never be taken off.
    let known = dirs.filters()?.iter().any(|note| note.place == place);
    if !known {
        let note = dirs.filters.join(FilterNote::name(netdev.ifindex, place, made));
        fs::create_dir(&note).map_err(ReflexError::pin(&note))?;
    }
    let replaced =
        netlink::set_filter(netdev.ifindex, place, program_fd).map_err(ReflexError::attach(netdev.ifname))?;
    Ok(if replaced { Attachment::Adopted } else { Attachment::Attached })
}

fn detach_clsact(place: &str, dirs: &Dirs) -> Result<bool, ReflexError> {
    let mut found = false;
    for note in dirs.filters()?.into_iter().filter(|note| note.place == place) {
        forget_filter(&note)?;
        found = true;
    }
    Ok(found)
}

fn forget_filter(note: &FilterNote) -> Result<(), ReflexError> {
    let netdev = format!("number {}", note.ifindex);
    netlink::delete_filter(note.ifindex).map_err(ReflexError::attach(&netdev))?;
    if note.made {
        netlink::delete_idle_clsact(note.ifindex).map_err(ReflexError::attach(&netdev))?;
    }
    fs::remove_dir(&note.path).map_err(ReflexError::pin(&note.path))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whose programs are on a netdev's ingress.
pub(super) struct Survey {
    /// An instance of Weft's, this one's or another's.
    pub(super) ours: bool,
    /// Those of others.
    pub(super) foreign: Vec<ForeignProgram>,
}

/// Looks at a netdev's ingress both ways; `ours` are the names of our programs in TCX (a filter is known by its handle).
pub(super) fn survey(netdev: Netdev<'_>, ours: &[&str]) -> Result<Survey, ReflexError> {
    let mut survey = Survey { ours: false, foreign: Vec::new() };
    let mut book = |hook: String, name: Option<&str>, is_ours: bool| {
        survey.ours |= is_ours;
        if !is_ours {
            survey.foreign.push(ForeignProgram { hook, name: name.unwrap_or("?").to_owned() });
        }
    };
    if has_tcx() {
        let (_, programs) = SchedClassifier::query_tcx(netdev.ifname, TcAttachType::Ingress)
            .map_err(ReflexError::attach(netdev.ifname))?;
        for program in programs {
            let name = program.name_as_str();
            book("tcx".to_owned(), name, name.is_some_and(|name| ours.contains(&name)));
        }
    }
    for filter in netlink::filters(netdev.ifindex).map_err(ReflexError::attach(netdev.ifname))? {
        book(filter.kind, filter.program.as_deref(), filter.ours);
    }
    Ok(survey)
}
