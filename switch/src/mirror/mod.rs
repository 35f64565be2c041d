//! Mirrors: copies of what ports send and get, for an analyser behind a netdev.
//!
//! What an operator asks for, and whether it can be; all by name, so that it outlives ports and targets that come and go. The kernel
//! half makes the copies ([`crate::reflex::Wish`]); control keeps the two together ([`crate::control`]).
//!
//! **Invariant**: a mirror's copies never come back into a switch, as far as the host can tell: [`refuse`].

mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::port::spec::{IfName, NameError, Origin, PortName};

pub use target::{Around, refuse};

/// Sources a mirror may have.
pub const SOURCES_MAX: usize = 4096;
/// The least that is worth cutting to: an Ethernet header with two tags, and IPv6's.
pub const SNAPLEN_MIN: u32 = 62;

/// Which of a port's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sides {
    /// What it sends.
    Ingress,
    /// What it gets.
    Egress,
    /// All.
    #[default]
    Both,
}

impl Sides {
    /// Whether what the port sends is mirrored.
    pub fn has_ingress(self) -> bool {
        self != Self::Egress
    }

    /// Whether what the port gets is mirrored.
    pub fn has_egress(self) -> bool {
        self != Self::Ingress
    }
}

/// A port, and which of its frames: `web1`, `web1:ingress`, `web1:egress`, `web1:both`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source {
    /// The port.
    pub port: PortName,
    /// Which of its frames.
    pub sides: Sides,
}

impl FromStr for Source {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // A port's name may have colons in it.
        let (port, sides) = match text.rsplit_once(':') {
            Some((port, "ingress")) => (port, Sides::Ingress),
            Some((port, "egress")) => (port, Sides::Egress),
            Some((port, "both")) => (port, Sides::Both),
            _ => (text, Sides::Both),
        };
        Ok(Self { port: port.parse()?, sides })
    }
}

impl TryFrom<String> for Source {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sides {
            Sides::Ingress => write!(f, "{}:ingress", self.port),
            Sides::Egress => write!(f, "{}:egress", self.port),
            Sides::Both => write!(f, "{}", self.port),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

/// A mirror as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PortName,
    /// Whose frames: `PORT`, `PORT:ingress` or `PORT:egress`.
    #[schema(value_type = Vec<String>)]
    pub from: Vec<Source>,
    /// Only those that match this tcpdump expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Copies are cut to so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// The netdev that gets the copies.
    #[schema(value_type = String)]
    pub to: IfName,
    /// Who asked for it.
    #[serde(default = "command")]
    pub origin: Origin,
}

fn command() -> Origin {
    Origin::Command
}

impl MirrorSpec {
    /// Checks what concerns several values at once.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if self.from.is_empty() {
            return Err(format!("mirror '{}' has no source; name a port with --from", self.name));
        }
        if self.from.len() > SOURCES_MAX {
            return Err(format!("mirror '{}' has more than {SOURCES_MAX} sources", self.name));
        }
        if let Some(snaplen) = self.snaplen.filter(|snaplen| !(SNAPLEN_MIN..=65_535).contains(snaplen)) {
            return Err(format!("a snaplen of {snaplen} bytes; {SNAPLEN_MIN} to 65535 are possible"));
        }
        Ok(())
    }

    /// Its sources by port, each port once.
    pub fn sources(&self) -> BTreeMap<&PortName, Vec<Sides>> {
        let mut sources: BTreeMap<&PortName, Vec<Sides>> = BTreeMap::new();
        for Source { port, sides } in &self.from {
            sources.entry(port).or_default().push(*sides);
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
    use super::*;

    #[test]
    fn a_source_is_a_port_and_a_side_whatever_the_ports_name() {
        for (text, port, sides) in [
            ("web1", "web1", Sides::Both),
            ("web1:ingress", "web1", Sides::Ingress),
            ("web:1:egress", "web:1", Sides::Egress),
            ("web:1", "web:1", Sides::Both),
            ("web:1:both", "web:1", Sides::Both),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!((source.port.as_str(), source.sides), (port, sides));
            assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
        }
        assert!(":ingress".parse::<Source>().is_err());
    }

    #[test]
    fn a_mirror_without_a_source_or_with_a_senseless_length_is_refused() {
        let spec = |from: &[&str], snaplen| MirrorSpec {
            name: "m".parse().unwrap(),
            from: from.iter().map(|text| text.parse().unwrap()).collect(),
            filter: None,
            snaplen,
            to: "look".parse().unwrap(),
            origin: Origin::Command,
        };
        assert!(spec(&[], None).check().unwrap_err().contains("--from"));
        assert!(spec(&["a"], Some(10)).check().unwrap_err().contains("62"));
        assert!(spec(&["a"], Some(128)).check().is_ok());
    }
}
