//! The reflex's ring as a source of the hub: its records, and their fate in the terms of all.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use switch_common::{Captured, DropReason, OUTCOME_DROPPED, OUTCOME_KERNEL_DROPPED, wire};

use super::hub::{Drawn, Source};
use super::stream::{FateHead, Outcome};
use crate::fdb::Nanos;
use crate::reflex::{CaptureRing, KernelReasons};

/// The ring, and what the kernel's reasons are called.
pub struct Ring {
    captures: CaptureRing,
    reasons: Arc<KernelReasons>,
    fate: Vec<u8>,
    /// Whose fate that is: most have that of the one before.
    fate_of: Option<Common>,
}

/// What decides a fate, of a frame that is no super-frame.
type Common = (u16, u16, u8, u32);

impl Ring {
    /// The ring of a reflex.
    pub fn new(ring: CaptureRing, reasons: Arc<KernelReasons>) -> Self {
        Self { captures: ring, reasons, fate: Vec::new(), fate_of: None }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.captures.as_fd()
    }
}

impl Source for Ring {
    fn draw(&mut self, frames_max: usize, each: &mut dyn FnMut(Drawn<'_>)) -> usize {
        let Self { captures, reasons, fate, fate_of } = self;
        captures.take(frames_max, |capture| {
            let Captured { ingress, egress, outcome, reason, gso_size, .. } = capture.about;
            let common = (gso_size == 0).then_some((ingress, egress, outcome, reason));
            if common.is_none() || *fate_of != common {
                fate.clear();
                encode(&capture.about, capture.bytes, reasons, fate);
                *fate_of = common;
            }
            each(Drawn {
                time: Nanos(capture.about.time_ns),
                sessions: capture.about.sessions,
                length: capture.about.length,
                is_unfiltered: capture.about.outcome == OUTCOME_KERNEL_DROPPED,
                fate,
                bytes: capture.bytes,
            });
        })
    }

    fn rest(&mut self) {
        self.captures.rest();
    }
}

/// Appends the fate of a frame that the kernel half captured.
pub fn encode(about: &Captured, bytes: &[u8], reasons: &KernelReasons, fate: &mut Vec<u8>) {
    let segments = match about.gso_size {
        0 => 0,
        size => wire_frames(bytes, about.length, size),
    };
    let head = FateHead {
        ingress: about.ingress,
        outcome: Outcome::Forwarded,
        flags: 0,
        segment_bytes: about.gso_size,
        segments,
        reason: "",
    };
    let ours = || u8::try_from(about.reason).ok().and_then(DropReason::from_number).map_or("other", DropReason::label);
    let egress = |reason| (about.egress != 0).then_some((about.egress, reason)).into_iter();
    match about.outcome {
        OUTCOME_KERNEL_DROPPED => {
            let label = reasons.label(about.reason);
            FateHead { outcome: Outcome::Lost, reason: &label, ..head }.encode(egress(""), fate);
        }
        // The egress refused its copy, which was all there was of the frame.
        OUTCOME_DROPPED if about.egress != 0 => {
            FateHead { outcome: Outcome::Dropped, ..head }.encode(egress(ours()), fate);
        }
        OUTCOME_DROPPED => FateHead { outcome: Outcome::Dropped, reason: ours(), ..head }.encode(egress(""), fate),
        _ => head.encode(egress(""), fate),
    }
}

/// How many frames a wire would have carried, as far as the headers say.
fn wire_frames(bytes: &[u8], length: u32, size: u16) -> u16 {
    let segments = wire::ethernet(bytes).and_then(|headers| wire::segments(bytes, &headers, length, size));
    segments.map_or(0, |segments| u16::try_from(segments.wire_frames).unwrap_or(u16::MAX))
}
