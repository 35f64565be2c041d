//! A port as a table of names and values: a `[[port]]` of the file, the options of `weft port add`, the body of an API
//! call. [`PortTable::spec`] checks what concerns several values at once.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::values::{Bounded, Cidr, Netns, StationMac};
use crate::port::spec::{Attachment, FLOOD_PER_SEC, IfName, Origin, PortName, PortSpec, Role, STATION_LIMIT};

/// MTUs the kernel takes (RFC 791 and the largest IP packet).
pub type Mtu = Bounded<68, 65_535>;
/// Stations a port may have.
pub type StationLimit = Bounded<1, 1_048_576>;
/// Floods a port may cause per second.
pub type FloodRate = Bounded<1, 10_000_000>;

/// Longest label key or value.
const LABEL_BYTES_MAX: usize = 255;
/// Labels per port.
const LABELS_MAX: usize = 64;
/// Allowed sources per port.
const MACS_MAX: usize = 1024;
/// The interface's name in a container, by default.
const CONTAINER_IFNAME: &str = "eth0";

/// What is wrong with a text, and where: byte offsets into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub span: Range<usize>,
    /// What, and what would be right.
    pub message: String,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

/// A port as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortTable {
    /// Its name.
    pub name: Spanned<PortName>,
    /// An existing netdev to attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<Spanned<IfName>>,
    /// A tap to create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<Spanned<IfName>>,
    /// A namespace to give an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Spanned<Netns>>,
    /// Give the host itself an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Spanned<bool>>,
    /// With `netdev`: take it although it has an address or is a bridge member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Spanned<bool>>,
    /// With `tap`: who may open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Spanned<String>>,
    /// With `netns` or `host`: the interface's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<Spanned<IfName>>,
    /// With `netns` or `host`: the interface's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Spanned<Vec<Cidr>>>,
    /// With `netns` or `host`: the interface's own MAC address; the first of `macs` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Spanned<StationMac>>,
    /// What lives behind it.
    #[serde(default)]
    pub role: Role,
    /// The only sources allowed; empty: learn, up to `station_limit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<StationMac>,
    /// MTU to set; the netdev's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Stations it may have.
    #[serde(default = "station_limit")]
    pub station_limit: StationLimit,
    /// Frames per second it may have flooded.
    #[serde(default = "flood_per_sec")]
    pub flood_per_sec: FloodRate,
    /// Words of the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

const fn station_limit() -> StationLimit {
    StationLimit::fixed(STATION_LIMIT)
}

const fn flood_per_sec() -> FloodRate {
    FloodRate::fixed(FLOOD_PER_SEC)
}

/// A value that comes from no text.
pub fn placed<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn value<T: Clone>(spanned: &Spanned<T>) -> T {
    spanned.get_ref().clone()
}

impl PortTable {
    /// A port of this name with nothing said about it yet.
    pub fn new(name: PortName) -> Self {
        Self {
            name: placed(name),
            netdev: None,
            tap: None,
            netns: None,
            host: None,
            force: None,
            user: None,
            ifname: None,
            addresses: None,
            mac: None,
            role: Role::default(),
            macs: Vec::new(),
            mtu: None,
            station_limit: station_limit(),
            flood_per_sec: flood_per_sec(),
            labels: BTreeMap::new(),
        }
    }

    /// The port that is asked for, if the table makes sense as a whole.
    pub fn spec(&self, origin: Origin) -> Result<PortSpec, Fault> {
        self.check_labels()?;
        if self.macs.len() > MACS_MAX {
            return Err(Fault::new(self.name.span(), format!("more than {MACS_MAX} addresses in 'macs'; remove some")));
        }
        Ok(PortSpec {
            name: value(&self.name),
            attachment: self.attachment()?,
            role: self.role,
            origin,
            macs: self.macs.iter().map(|mac| mac.mac()).collect(),
            mtu: self.mtu.map(Mtu::get),
            station_limit: self.station_limit.get(),
            flood_per_sec: self.flood_per_sec.get(),
            labels: self.labels.clone(),
        })
    }

    fn attachment(&self) -> Result<Attachment, Fault> {
        let host = self.host.as_ref().filter(|host| *host.get_ref());
        let kinds = [
            self.netdev.as_ref().map(|at| ("netdev", at.span())),
            self.tap.as_ref().map(|at| ("tap", at.span())),
            self.netns.as_ref().map(|at| ("netns", at.span())),
            host.map(|at| ("host", at.span())),
        ];
        let mut given = kinds.into_iter().flatten();
        let Some((kind, _)) = given.next() else {
            let message =
                format!("port '{}' says not what to attach; give netdev, tap, netns or host = true", self.name);
            return Err(Fault::new(self.name.span(), message));
        };
        if let Some((second, span)) = given.next() {
            return Err(Fault::new(
                span,
                format!("'{second}' beside '{kind}'; a port attaches to one of them, remove the other"),
            ));
        }
        self.check_belonging(kind)?;
        let addresses = || self.addresses.iter().flat_map(value).map(String::from).collect();
        let mac = || self.mac.as_ref().map(value).or_else(|| self.macs.first().copied()).map(StationMac::mac);
        if let Some(netdev) = &self.netdev {
            let force = self.force.as_ref().is_some_and(|force| *force.get_ref());
            Ok(Attachment::Netdev { netdev: value(netdev), force })
        } else if let Some(tap) = &self.tap {
            Ok(Attachment::Tap { tap: value(tap), user: self.user.as_ref().map(value) })
        } else if let Some(netns) = &self.netns {
            let ifname = match &self.ifname {
                Some(ifname) => value(ifname),
                None => CONTAINER_IFNAME.parse().expect("a constant that is an interface name"),
            };
            Ok(Attachment::Netns { netns: value(netns).into(), ifname, addresses: addresses(), mac: mac() })
        } else {
            let ifname = match &self.ifname {
                Some(ifname) => value(ifname),
                None => self.name.get_ref().as_str().parse().map_err(|e| {
                    Fault::new(
                        self.name.span(),
                        format!("the host's interface cannot have the port's name ({e}); give ifname"),
                    )
                })?,
            };
            Ok(Attachment::Host { ifname, addresses: addresses(), mac: mac() })
        }
    }

    /// Refuses what does not belong to this kind of port.
    fn check_belonging(&self, kind: &str) -> Result<(), Fault> {
        let belongings = [
            (self.force.as_ref().map(Spanned::span), "force", &["netdev"][..]),
            (self.user.as_ref().map(Spanned::span), "user", &["tap"]),
            (self.ifname.as_ref().map(Spanned::span), "ifname", &["netns", "host"]),
            (self.addresses.as_ref().map(Spanned::span), "addresses", &["netns", "host"]),
            (self.mac.as_ref().map(Spanned::span), "mac", &["netns", "host"]),
        ];
        for (span, key, kinds) in belongings {
            if let Some(span) = span
                && !kinds.contains(&kind)
            {
                let message = format!("'{key}' belongs to a port with {}, not {kind}; remove it", kinds.join(" or "));
                return Err(Fault::new(span, message));
            }
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), Fault> {
        let fault = |message: String| Err(Fault::new(self.name.span(), message));
        if self.labels.len() > LABELS_MAX {
            return fault(format!("more than {LABELS_MAX} labels; remove some"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        for (key, text) in &self.labels {
            if key.is_empty() || key.len() > LABEL_BYTES_MAX || !key.chars().all(plain) {
                let shown = key.escape_default();
                return fault(format!(
                    "'{shown}' is no label; use 1 to {LABEL_BYTES_MAX} letters, digits, '_', '-', '.' or '/'"
                ));
            }
            if text.len() > LABEL_BYTES_MAX || text.contains(char::is_control) {
                return fault(format!(
                    "label '{key}' has a value with control characters or of more than {LABEL_BYTES_MAX} bytes; shorten it"
                ));
            }
        }
        Ok(())
    }
}

/// A port as the file would say it; refused with a reason if no file could.
impl TryFrom<&PortSpec> for PortTable {
    type Error = String;
    fn try_from(spec: &PortSpec) -> Result<Self, String> {
        let mut table = Self::new(spec.name.clone());
        table.role = spec.role;
        table.macs = spec.macs.iter().map(|mac| StationMac::try_from(*mac)).collect::<Result<_, _>>()?;
        table.mtu = spec.mtu.map(|mtu| Mtu::try_from(i64::from(mtu))).transpose().map_err(|e| format!("mtu: {e}"))?;
        table.station_limit =
            StationLimit::try_from(i64::from(spec.station_limit)).map_err(|e| format!("station_limit: {e}"))?;
        table.flood_per_sec =
            FloodRate::try_from(i64::from(spec.flood_per_sec)).map_err(|e| format!("flood_per_sec: {e}"))?;
        table.labels.clone_from(&spec.labels);
        match &spec.attachment {
            Attachment::Netdev { netdev, force } => {
                table.netdev = Some(placed(netdev.clone()));
                table.force = force.then_some(placed(true));
            }
            Attachment::Tap { tap, user } => {
                table.tap = Some(placed(tap.clone()));
                table.user = user.clone().map(placed);
            }
            Attachment::Netns { netns, ifname, addresses, mac } => {
                table.netns = Some(placed(netns.parse()?));
                table.give_interface(ifname, addresses, *mac)?;
            }
            Attachment::Host { ifname, addresses, mac } => {
                table.host = Some(placed(true));
                table.give_interface(ifname, addresses, *mac)?;
            }
        }
        Ok(table)
    }
}

impl PortTable {
    fn give_interface(
        &mut self,
        ifname: &IfName,
        addresses: &[String],
        mac: Option<crate::port::spec::Mac>,
    ) -> Result<(), String> {
        self.ifname = Some(placed(ifname.clone()));
        let addresses: Vec<Cidr> = addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        self.addresses = (!addresses.is_empty()).then_some(placed(addresses));
        let mac = mac.map(StationMac::try_from).transpose()?;
        self.mac = mac.filter(|mac| self.macs.first() != Some(mac)).map(placed);
        Ok(())
    }
}
