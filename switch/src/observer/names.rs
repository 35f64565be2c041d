//! What ports are called, as a snapshot that is cheap to replace and never waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use switch_common::PortId;

use crate::flow::{Labels, Named, Names};
use crate::port::spec::{Mac, Origin};
use crate::port::{PortSpec, Role};

/// What records say of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortIdentity {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What lives behind it.
    pub role: Role,
    /// The only sources allowed; empty: any.
    pub macs: Vec<Mac>,
    /// Who asked for it.
    pub origin: Origin,
}

impl From<&PortSpec> for PortIdentity {
    fn from(spec: &PortSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            labels: Arc::new(spec.labels.clone()),
            role: spec.role,
            macs: spec.macs.clone(),
            origin: spec.origin,
        }
    }
}

/// All ports by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortNames(BTreeMap<PortId, Arc<PortIdentity>>);

impl PortNames {
    /// Names a port, or names it anew.
    pub fn insert(&mut self, id: PortId, identity: PortIdentity) {
        self.0.insert(id, Arc::new(identity));
    }

    /// What is said of a port.
    pub fn get(&self, id: PortId) -> Option<&PortIdentity> {
        self.0.get(&id).map(Arc::as_ref)
    }

    /// Every port.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, &PortIdentity)> {
        self.0.iter().map(|(id, identity)| (*id, identity.as_ref()))
    }

    /// All of them, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, PortId)> {
        self.0.iter().map(|(id, identity)| (identity.name.as_str(), *id))
    }

    /// Forgets a port.
    pub fn remove(&mut self, id: PortId) {
        self.0.remove(&id);
    }
}

impl Names for PortNames {
    fn port(&self, id: PortId) -> Option<Named<'_>> {
        let PortIdentity { name, labels, role, .. } = self.0.get(&id)?.as_ref();
        Some(Named { name, labels, role: *role })
    }
}
