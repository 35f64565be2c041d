//! Which records somebody wants to see, in the manner of `hubble observe`: the same flag repeated is OR, different flags are
//! AND, and what is negated must not match, each on its own.
//!
//! A filter is made of words (flag, value, whether negated), as a command line or a query string has them, and becomes the
//! same words again ([`Filter::words`]), so that a client passes on to the server what it was told.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use switch_common::{DropReason, MacAddr};

use super::conversation::Verdict;
use super::facts::Facts;
use super::record::{Record, protocol_named};

/// What can be asked for. The names are those of the flags of `weft flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Either port, by name.
    Port,
    /// The port of who began.
    FromPort,
    /// The port of who answered, or that it was sent to.
    ToPort,
    /// Either station.
    Mac,
    /// Either address: one, or a network as `198.18.0.0/15`.
    Ip,
    /// Either tag's VLAN.
    Vlan,
    /// The protocol or the network, as records name it: `tcp`, `icmp`, `arp`, `ipv6`, or a protocol's number.
    Protocol,
    /// Either TCP or UDP port.
    L4Port,
    /// `forwarded`, `flooded` or `dropped`.
    Verdict,
    /// A drop reason's label.
    DropReason,
    /// Whose last frame came since: a time (RFC 3339), or how long ago (`90s`, `5m`, `2h`, `1d`).
    Since,
    /// Whose last frame came before: a time, as for [`Self::Since`]. So two neighbouring spans share no record.
    Until,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Port,
        Self::FromPort,
        Self::ToPort,
        Self::Mac,
        Self::Ip,
        Self::Vlan,
        Self::Protocol,
        Self::L4Port,
        Self::Verdict,
        Self::DropReason,
        Self::Since,
        Self::Until,
    ];

    /// The flag's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::FromPort => "from-port",
            Self::ToPort => "to-port",
            Self::Mac => "mac",
            Self::Ip => "ip",
            Self::Vlan => "vlan",
            Self::Protocol => "protocol",
            Self::L4Port => "l4-port",
            Self::Verdict => "verdict",
            Self::DropReason => "drop-reason",
            Self::Since => "since",
            Self::Until => "until",
        }
    }
}

/// What is wrong with a word of a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No such flag.
    #[error("there is no filter '{}'; there are {}", .0.escape_default(), Field::ALL.map(Field::name).join(", "))]
    Unknown(String),
    /// A value that the flag does not take.
    #[error("--{}: '{}' is not {expected}", .field.name(), .value.escape_default())]
    Value {
        /// The flag.
        field: Field,
        /// The value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// One word of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What it is about.
    pub field: Field,
    /// Whether it must not match.
    pub negated: bool,
    /// The value.
    pub wanted: Wanted,
}

/// A value, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A name.
    Text(String),
    /// A VLAN, or a TCP or UDP port.
    Number(u16),
    /// A station.
    Mac(MacAddr),
    /// Addresses.
    Network(Network),
    /// What became of frames.
    Verdict(Verdict),
    /// A time.
    Time(Timestamp),
}

impl Filter {
    /// Adds a word. `now` is what a time ago is counted from.
    ///
    /// # Errors
    /// [`FilterError`]; then the filter is as it was.
    pub fn add(&mut self, flag: &str, value: &str, negated: bool, now: Timestamp) -> Result<(), FilterError> {
        let named = Field::ALL.into_iter().find(|field| field.name() == flag);
        let field = named.ok_or_else(|| FilterError::Unknown(flag.to_owned()))?;
        let wanted = Wanted::read(field, value, now).map_err(|expected| FilterError::Value {
            field,
            value: value.to_owned(),
            expected,
        })?;
        self.terms.push(Term { field, negated, wanted });
        Ok(())
    }

    /// The words again: flag, value, whether negated. A time ago has become a time.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, String, bool)> {
        self.terms.iter().map(|term| (term.field.name(), term.wanted.to_string(), term.negated))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The times between which all that is asked for has its last frame, where the filter says so: from, and before.
    pub fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let times = |field| {
            let of_field = move |term: &&Term| term.field == field && !term.negated;
            self.terms.iter().filter(of_field).filter_map(|term| match term.wanted {
                Wanted::Time(time) => Some(time),
                _ => None,
            })
        };
        // The same word repeated is OR.
        (times(Field::Since).min(), times(Field::Until).max())
    }

    /// Whether a record is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        self.asks_for(&Facts::from(record))
    }

    /// Whether that of which these are the facts is asked for.
    pub fn asks_for(&self, facts: &Facts<'_>) -> bool {
        let any_of = |field| self.terms.iter().any(|term| term.field == field && !term.negated && term.matches(facts));
        self.terms.iter().all(|term| if term.negated { !term.matches(facts) } else { any_of(term.field) })
    }
}

impl Term {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let is = |found: Option<&str>| matches!(&self.wanted, Wanted::Text(name) if found == Some(name));
        let counts = |found: Option<u16>| matches!(self.wanted, Wanted::Number(number) if found == Some(number));
        let holds = |found: Option<IpAddr>| matches!((&self.wanted, found), (Wanted::Network(network), Some(address)) if network.holds(address));
        let (from, to) = (Some(facts.from_port.as_ref()), facts.to_port.as_deref());
        match self.field {
            Field::Port => is(from) || is(to),
            Field::FromPort => is(from),
            Field::ToPort => is(to),
            Field::Mac => facts.macs.map(Wanted::Mac).contains(&self.wanted),
            Field::Ip => facts.addresses.into_iter().any(holds),
            Field::Vlan => facts.vlans.into_iter().any(counts),
            Field::Protocol => facts.protocols.iter().any(|name| is(name.as_deref())),
            Field::L4Port => facts.l4_ports.into_iter().any(counts),
            Field::Verdict => self.wanted == Wanted::Verdict(facts.verdict),
            Field::DropReason => is(facts.drop_reason.as_deref()),
            Field::Since => matches!(self.wanted, Wanted::Time(since) if facts.end >= since),
            Field::Until => matches!(self.wanted, Wanted::Time(until) if facts.end < until),
        }
    }
}

impl Wanted {
    /// A value as its flag takes it; or what the flag takes.
    fn read(field: Field, value: &str, now: Timestamp) -> Result<Self, &'static str> {
        match field {
            Field::Port | Field::FromPort | Field::ToPort if value.is_empty() => Err("a port's name"),
            Field::Port | Field::FromPort | Field::ToPort => Ok(Self::Text(value.to_owned())),
            Field::Mac => value.parse().map(Self::Mac).or(Err("a MAC address, as 52:54:00:12:34:56")),
            Field::Ip => value
                .parse()
                .map(Self::Network)
                .or(Err("an IP address or a network, as 198.18.0.1, 198.18.0.0/15 or 2001:db8::/32")),
            Field::Vlan => match value.parse() {
                Ok(number @ 0..=4094) => Ok(Self::Number(number)),
                _ => Err("a VLAN, a number from 0 to 4094"),
            },
            Field::Protocol => {
                let name = value.to_ascii_lowercase();
                let network = matches!(name.as_str(), "ipv4" | "ipv6") || is_ethertype(&name);
                let known = if network { Some(name) } else { protocol_named(&name) };
                known.map(Self::Text).ok_or("a protocol, as tcp, icmp, arp, ipv6, 0x88b5 or a number from 0 to 255")
            }
            Field::L4Port => value.parse().map(Self::Number).or(Err("a port, a number from 0 to 65535")),
            Field::Verdict => match value {
                "forwarded" => Ok(Self::Verdict(Verdict::Forwarded)),
                "flooded" => Ok(Self::Verdict(Verdict::Flooded)),
                "dropped" => Ok(Self::Verdict(Verdict::Dropped)),
                _ => Err("forwarded, flooded or dropped"),
            },
            Field::DropReason => {
                let known =
                    DropReason::ALL.iter().any(|reason| reason.label() == value) || value.starts_with("kernel_");
                if known { Ok(Self::Text(value.to_owned())) } else { Err("a drop reason, as `weft drops` shows them") }
            }
            Field::Since | Field::Until => time(value, now).map(Self::Time).ok_or(A_TIME),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Network(Network { address, prefix }) => write!(f, "{address}/{prefix}"),
            Self::Verdict(Verdict::Forwarded) => f.write_str("forwarded"),
            Self::Verdict(Verdict::Flooded) => f.write_str("flooded"),
            Self::Verdict(Verdict::Dropped) => f.write_str("dropped"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

/// An EtherType as records write those without a name: `0x88b5`.
fn is_ethertype(name: &str) -> bool {
    name.strip_prefix("0x").is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A time, or how long ago it was.
///
/// # Errors
/// It is neither; what would be.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let shown = || {
        let text = text.escape_default();
        format!("'{text}' is not {A_TIME}")
    };
    time(text, now).ok_or_else(shown)
}

/// What [`time`] takes.
pub const A_TIME: &str = "a time, as 2026-11-22T07:00:00Z, or how long ago, as 90s, 5m, 2h or 1d";

/// A time, or one that is so long ago.
pub fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let (count, secs) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, secs)| Some((text.strip_suffix(unit)?, secs)))?;
    let count: u32 = count.parse().ok()?;
    Some(now.checked_sub(SignedDuration::from_secs(i64::from(count) * secs)).unwrap_or(Timestamp::MIN))
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The first and the last of them.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        match self.address {
            IpAddr::V4(address) => {
                let rest = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let first = address.to_bits() & !rest;
                (IpAddr::V4(first.into()), IpAddr::V4((first | rest).into()))
            }
            IpAddr::V6(address) => {
                let rest = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let first = address.to_bits() & !rest;
                (IpAddr::V6(first.into()), IpAddr::V6((first | rest).into()))
            }
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => u128::from(ours.to_bits() ^ theirs.to_bits()) << 96,
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => ours.to_bits() ^ theirs.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differ.leading_zeros() >= u32::from(self.prefix)
    }
}

impl FromStr for Network {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().or(Err(()))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).or(Err(()))?;
        if prefix <= longest { Ok(Self { address, prefix }) } else { Err(()) }
    }
}
