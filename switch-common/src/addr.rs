//! The three names a frame can be filed under: a station's address, a port's id, a VLAN's id.

use core::fmt;
use core::str::FromStr;

/// A MAC address (IEEE 802-2014, clause 8.2), bytes in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones: every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros: never a station (used as "none" by old drivers).
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the I/G bit is set: multicast or broadcast (IEEE 802-2014, clause 8.2.2).
    #[inline(always)]
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether every byte is zero.
    #[inline(always)]
    pub const fn is_zero(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether this is one of 01:80:C2:00:00:00–0F, which a bridge never forwards (IEEE 802.1Q-2022, table 8-1).
    #[inline(always)]
    pub const fn is_reserved(&self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
    }

    /// Whether a station may have this address: neither a group address nor all zeros.
    #[inline(always)]
    pub const fn is_station(&self) -> bool {
        !self.is_group() && !self.is_zero()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is not a MAC address of the form `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMac;

impl fmt::Display for NotAMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address (six two-digit hexadecimal numbers with colons, as 52:54:00:12:34:56)")
    }
}

impl core::error::Error for NotAMac {}

impl FromStr for MacAddr {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(NotAMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(part, 16).or(Err(NotAMac))?;
        }
        if parts.next().is_some() { Err(NotAMac) } else { Ok(Self(bytes)) }
    }
}

/// The largest port id: twelve bits of a VLAN tag less 0 and 4095, because a punted frame carries its port's id as one.
pub const PORT_ID_MAX: u16 = 4094;

/// A port's number, 1 to [`PORT_ID_MAX`]. It indexes the kernel's per-port arrays and travels in the punt tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PortId(u16);

impl PortId {
    /// A port id, or `None` when out of range.
    #[inline(always)]
    pub const fn new(id: u16) -> Option<Self> {
        if id >= 1 && id <= PORT_ID_MAX { Some(Self(id)) } else { None }
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index into an array of [`crate::PORT_SLOTS`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port#{}", self.0)
    }
}

/// A filtering database's VLAN, 0 to 4095. Until VLANs are built a tag is payload and every frame is in VLAN 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct VlanId(pub u16);
