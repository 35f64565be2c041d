//! A frame's fate in bytes: everything that frames of one conversation have in common. How they lie is told in
//! [`super::stream`].

/// Bytes of a fate that are always there.
pub(super) const FATE_BYTES: usize = 11;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Sent to one port.
    Forwarded = 1,
    /// Sent to every other port.
    Flooded = 2,
    /// Refused by the switch.
    Dropped = 3,
    /// Dropped by the kernel behind the switch's back.
    Lost = 4,
}

impl Outcome {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Forwarded),
            2 => Some(Self::Flooded),
            3 => Some(Self::Dropped),
            4 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// Flag of a fate: the brain decided, not the reflex.
pub const BY_BRAIN: u8 = 1;

/// Writes a fate.
#[derive(Clone, Copy, Debug)]
pub struct FateHead<'a> {
    /// The port it came in by; 0: nobody knows.
    pub ingress: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// [`BY_BRAIN`].
    pub flags: u8,
    /// Payload bytes of each segment of a super-frame; 0: it is none.
    pub segment_bytes: u16,
    /// Segments of a super-frame.
    pub segments: u16,
    /// Why it was refused; empty when it was not.
    pub reason: &'a str,
}

impl FateHead<'_> {
    /// Appends the fate with its egress ports: each with why its copy was refused, or nothing.
    pub fn encode<'e>(&self, egress: impl ExactSizeIterator<Item = (u16, &'e str)>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ingress.to_le_bytes());
        out.extend_from_slice(&[self.outcome as u8, self.flags]);
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.extend_from_slice(&self.segments.to_le_bytes());
        label(self.reason, out);
        out.extend_from_slice(&u16::try_from(egress.len()).unwrap_or(u16::MAX).to_le_bytes());
        for (port, reason) in egress.take(usize::from(u16::MAX)) {
            out.extend_from_slice(&port.to_le_bytes());
            label(reason, out);
        }
    }
}

fn label(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

/// A fate that was read.
#[derive(Clone, Copy, Debug)]
pub struct Fate<'a> {
    /// The port it came in by; 0: nobody knows.
    pub ingress: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// [`BY_BRAIN`].
    pub flags: u8,
    /// Payload bytes of each segment of a super-frame; 0: it is none.
    pub segment_bytes: u16,
    /// Segments of a super-frame.
    pub segments: u16,
    /// Why it was refused; empty when it was not.
    pub reason: &'a str,
    egress: &'a [u8],
}

impl<'a> Fate<'a> {
    /// Reads one; `None` when it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fate = Reader(bytes);
        let (ingress, outcome, flags) = (fate.u16()?, Outcome::from_number(fate.u8()?)?, fate.u8()?);
        let (segment_bytes, segments, reason) = (fate.u16()?, fate.u16()?, fate.label()?);
        let ports = fate.u16()?;
        let egress = fate.0;
        for _ in 0..ports {
            fate.u16()?;
            fate.label()?;
        }
        fate.0.is_empty().then_some(Self { ingress, outcome, flags, segment_bytes, segments, reason, egress })
    }

    /// The ports it was sent to, and why its copy was refused there, or nothing.
    pub fn egress(&self) -> impl Iterator<Item = (u16, &'a str)> + use<'a> {
        let mut rest = Reader(self.egress);
        std::iter::from_fn(move || Some((rest.u16()?, rest.label()?)))
    }

    /// Whether the frame, or a copy of it, was refused for this reason; or for any, if none is given.
    pub fn is_refused(&self, reason: Option<&str>) -> bool {
        let fits = |label: &str| !label.is_empty() && reason.is_none_or(|wanted| wanted == label);
        fits(self.reason) || self.egress().any(|(_, label)| fits(label))
    }
}

/// Bytes that are read from their beginning.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn label(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
