//! The verdicts of station pairs, that the brain installed.

use switch_common::flow::Route;
use switch_common::{PairVerdict, VERDICT_ARMED};

use crate::field::Field;
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

/// [`VERDICT_ARMED`] in the word that begins with the egress.
const ARMED: u64 = (VERDICT_ARMED as u64) << 16;
/// Where that word is.
const DECIDED_AT: usize = core::mem::offset_of!(PairVerdict, egress);
const _: () = assert!(DECIDED_AT.is_multiple_of(8));
const _: () = assert!(core::mem::offset_of!(PairVerdict, action) == DECIDED_AT + 2);
const _: () = assert!(core::mem::offset_of!(PairVerdict, reason) == DECIDED_AT + 3);

/// What the brain decided for a pair. An armed verdict is none yet, unless its port has fallen quiet: frames of the pair may be on
/// their way through the brain, and must not be overtaken.
#[inline(always)]
pub(crate) fn of_pair(pair: PairWords, id: u32, now: u64) -> Repeated {
    let Some(verdict) = VERDICTS.get_ptr_mut(pair) else { return Repeated::default() };
    // SAFETY: an element of a map, found by a lookup. The brain replaces elements as a whole; the one that was found stays
    // readable until this program ends.
    let PairVerdict { ifindex, frame_bytes_max, last_seen_jiffies, .. } = unsafe { *verdict };
    // SAFETY: a field of the same element, aligned as `u64` is: egress, action, reason and serial, as one word.
    let words = Field::at(unsafe { verdict.byte_add(DECIDED_AT) }.cast::<u64>());
    let decided = words.get();
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
    let mut decided_now = decided;
    if decided & ARMED != 0 {
        decided_now &= !ARMED;
        // The element may have been given to another verdict meanwhile, even of this pair: its serial tells.
        if punt::punt_is_quiet(id) == 0 || !words.replace(decided, decided_now) {
            return Repeated::default();
        }
    }
    let (egress, action, reason) = (decided_now as u16, (decided_now >> 16) as u8, (decided_now >> 24) as u8);
    Repeated { route: Route::new(ifindex, egress, action, reason), frame_bytes_max }
}
