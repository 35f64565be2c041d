//! A mirror as a table of names and values: a `[[mirror]]` of the file.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::port_table::{Fault, placed};
use crate::filter::Program;
use crate::mirror::{MirrorSpec, Source};
use crate::port::spec::{IfName, Origin, PortName};

/// A mirror as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorTable {
    /// Its name.
    pub name: Spanned<PortName>,
    /// Whose frames: `PORT`, `PORT:ingress` or `PORT:egress`.
    pub from: Spanned<Vec<Source>>,
    /// Only those that match this tcpdump expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Spanned<String>>,
    /// Copies are cut to so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<Spanned<u32>>,
    /// The netdev that gets the copies.
    pub to: Spanned<IfName>,
}

impl MirrorTable {
    /// What it asks for, checked; its filter is compiled to see whether it is one.
    pub(super) fn spec(&self) -> Result<MirrorSpec, Fault> {
        if let Some(filter) = &self.filter {
            Program::compile(filter.get_ref()).map_err(|error| Fault::new(filter.span(), error.to_string()))?;
        }
        let spec = MirrorSpec {
            name: self.name.get_ref().clone(),
            from: self.from.get_ref().clone(),
            filter: self.filter.as_ref().map(|filter| filter.get_ref().clone()),
            snaplen: self.snaplen.as_ref().map(|snaplen| *snaplen.get_ref()),
            to: self.to.get_ref().clone(),
            origin: Origin::File,
        };
        let span = self.snaplen.as_ref().filter(|_| !spec.from.is_empty()).map_or(self.from.span(), Spanned::span);
        spec.check().map_err(|message| Fault::new(span, message))?;
        Ok(spec)
    }
}

impl From<&MirrorSpec> for MirrorTable {
    fn from(spec: &MirrorSpec) -> Self {
        Self {
            name: placed(spec.name.clone()),
            from: placed(spec.from.clone()),
            filter: spec.filter.clone().map(placed),
            snaplen: spec.snaplen.map(placed),
            to: placed(spec.to.clone()),
        }
    }
}
