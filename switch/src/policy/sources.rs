//! Allowed sources: the addresses that may speak at a port.

use switch_common::MacAddr;

/// The source addresses a port may use; an empty list allows every station's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSources(Box<[MacAddr]>);

impl AllowedSources {
    /// From the operator's list, in any order, repetitions allowed.
    pub fn new(macs: &[MacAddr]) -> Self {
        let mut sorted = macs.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted.into_boxed_slice())
    }

    /// Whether a frame from this source may pass.
    pub fn admits(&self, source: MacAddr) -> bool {
        self.0.is_empty() || self.0.binary_search(&source).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const BOB: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const EVE: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);

    #[test]
    fn an_empty_list_admits_everyone() {
        assert!(AllowedSources::new(&[]).admits(EVE));
    }

    #[test]
    fn a_list_admits_exactly_those_on_it() {
        let sources = AllowedSources::new(&[BOB, ANN, BOB]);
        assert!(sources.admits(ANN) && sources.admits(BOB));
        assert!(!sources.admits(EVE));
    }
}
