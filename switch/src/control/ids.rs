//! Which name has which id: the same one for ever, as long as there are ids.

use std::collections::BTreeMap;

use switch_common::{PORT_ID_MAX, PortId};

use crate::port::PortName;

/// Names and their ids, also of ports that are gone.
#[derive(Debug)]
pub(super) struct Ids {
    names: BTreeMap<PortName, u16>,
}

impl Ids {
    pub(super) fn new(names: BTreeMap<PortName, u16>) -> Self {
        Self { names }
    }

    /// Everything that was ever given.
    pub(super) fn names(&self) -> &BTreeMap<PortName, u16> {
        &self.names
    }

    /// The id of a name: the one it had, else a fresh one, else one of a port that is gone. `None` when
    /// [`PORT_ID_MAX`] ports exist.
    pub(super) fn give(&mut self, name: &PortName, exists: impl Fn(&PortName) -> bool) -> Option<PortId> {
        if let Some(id) = self.names.get(name) {
            return PortId::new(*id);
        }
        let mut taken = vec![false; usize::from(PORT_ID_MAX) + 1];
        for id in self.names.values() {
            if let Some(slot) = taken.get_mut(usize::from(*id)) {
                *slot = true;
            }
        }
        let fresh = (1..=PORT_ID_MAX).find(|id| taken.get(usize::from(*id)) == Some(&false));
        let id = if let Some(id) = fresh {
            id
        } else {
            let gone = self.names.keys().find(|name| !exists(name))?.clone();
            self.names.remove(&gone)?
        };
        self.names.insert(name.clone(), id);
        PortId::new(id)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn name(number: u16) -> PortName {
        format!("p{number}").parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_id_and_the_last_id_is_given_before_one_is_taken_from_the_gone() {
        let mut ids = Ids::new(BTreeMap::new());
        let first = ids.give(&name(1), |_| true).unwrap();
        for number in 2..=PORT_ID_MAX {
            assert!(ids.give(&name(number), |_| true).is_some());
        }
        assert_eq!(ids.give(&name(1), |_| true), Some(first));
        assert_eq!(ids.give(&name(5000), |_| true), None, "the 4,095th port");
        assert_eq!(ids.give(&name(5000), |other| *other != name(1)), Some(first));
        assert!(!ids.names().contains_key(&name(1)));
    }
}
