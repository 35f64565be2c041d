//! The verdicts of station pairs, that the brain installed.

use switch_common::flow::Route;
use switch_common::{PairVerdict, VERDICT_ARMED};

use crate::maps::{PairWords, VERDICTS};
use crate::punt;

/// What there is to repeat for a frame.
#[derive(Clone, Copy)]
pub(crate) struct Repeated {
    /// Where to; without an action: nowhere, the frame is punted.
    pub(crate) route: Route,
    /// Longest frame the egress takes, in bytes, Ethernet header included, tags not counted.
    pub(crate) frame_bytes_max: u32,
}

impl Default for Repeated {
    #[inline(always)]
    fn default() -> Self {
        Self { route: Route(0), frame_bytes_max: 0 }
    }
}

/// What the brain decided for a pair. An armed verdict is none yet, unless its port has fallen quiet: frames of the pair may be on
/// their way through the brain, and must not be overtaken.
#[inline(always)]
pub(crate) fn of_pair(pair: PairWords, id: u32, now: u64) -> Repeated {
    let Some(verdict) = VERDICTS.get_ptr_mut(pair) else { return Repeated::default() };
    // SAFETY: an element of a map, found by a lookup. The brain replaces elements as a whole; the one that was found stays
    // readable until this program ends.
    let PairVerdict { ifindex, frame_bytes_max, egress, mut action, reason, last_seen_jiffies, .. } =
        unsafe { *verdict };
    // SAFETY: as above; the key is the first of its fields.
    let key = unsafe { verdict.cast::<PairWords>().read_volatile() };
    // An element that was deleted may be another pair's by now.
    if key[0] != pair[0] || key[1] != pair[1] {
        return Repeated::default();
    }
    if last_seen_jiffies != now {
        // SAFETY: as above; programs alone write this field.
        unsafe { (*verdict).last_seen_jiffies = now };
    }
    if action & VERDICT_ARMED != 0 {
        if !punt::is_quiet(id) {
            return Repeated::default();
        }
        action &= !VERDICT_ARMED;
        // SAFETY: as above; the bit is cleared by programs alone.
        unsafe { (*verdict).action = action };
    }
    Repeated { route: Route::new(ifindex, egress, action, reason), frame_bytes_max }
}
