//! What the monitor tells the micro guest, and where.
//!
//! The monitor writes one [`GuestConfig`] at [`CONFIG_ADDR`] and hands its address over in RDI. The guest is entered in
//! 64-bit mode with interrupts off, the first 4 GiB mapped one to one, a flat descriptor table ([`CODE_SELECTOR`],
//! [`DATA_SELECTOR`]) and its stack at [`STACK_TOP`]. It ends by writing its exit code to [`EXIT_PORT`].
//!
//! ```text
//!   0x0000_7000  GuestConfig          0x0010_0000  the guest's image (ELF64, static)
//!   0x0008_0000  top of the stack     0xd000_0000  virtio-mmio network device, interrupt line 5
//! ```
#![no_std]

/// The first eight bytes of a [`GuestConfig`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"WEFTGST1");
/// Physical address of the [`GuestConfig`].
pub const CONFIG_ADDR: u64 = 0x7000;
/// Initial stack pointer.
pub const STACK_TOP: u64 = 0x8_0000;
/// Lowest physical address of a guest image.
pub const IMAGE_ADDR: u64 = 0x10_0000;
/// Physical address of the network device's registers.
pub const NET_MMIO_BASE: u64 = 0xd000_0000;
/// Bytes of the network device's register window.
pub const NET_MMIO_LEN: u64 = 0x1000;
/// Interrupt line of the network device, on the PIC and on the IOAPIC.
pub const NET_IRQ: u32 = 5;
/// I/O port of the 8250 console.
pub const CONSOLE_PORT: u16 = 0x3f8;
/// Interrupt line of the console.
pub const CONSOLE_IRQ: u32 = 4;
/// I/O port that ends the guest: the byte written is its exit code, 0 means well.
pub const EXIT_PORT: u16 = 0xf4;
/// Selector of the flat code segment.
pub const CODE_SELECTOR: u16 = 0x08;
/// Selector of the flat data segment.
pub const DATA_SELECTOR: u16 = 0x10;

/// What the guest does, as it stands in [`GuestConfig::role`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers ARP, neighbour solicitations, both kinds of echo request, and UDP.
    Echo = 0,
    /// Sends numbered datagrams to the peer and reports what came back as a line of JSON.
    Talker = 1,
    /// Carries out the named attack.
    Hostile = 2,
}

/// The page at [`CONFIG_ADDR`]. Integers are little-endian, addresses in the order of the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// [`MAGIC`].
    pub magic: u64,
    /// Address of the network device's registers.
    pub mmio_base: u64,
    /// Its interrupt line.
    pub mmio_irq: u32,
    /// A [`Role`].
    pub role: u32,
    /// The guest's own station address.
    pub mac: [u8; 6],
    /// The peer's; zero means: resolve by ARP.
    pub peer_mac: [u8; 6],
    /// The guest's own IPv4 address.
    pub ip: [u8; 4],
    /// The peer's.
    pub peer_ip: [u8; 4],
    /// The guest's own IPv6 address.
    pub ip6: [u8; 16],
    /// The peer's.
    pub peer_ip6: [u8; 16],
    /// How many datagrams a talker sends.
    pub count: u32,
    /// Name of a hostile guest's attack, padded with zeros.
    pub attack: [u8; 32],
    /// The station that an attack is about.
    pub victim_mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<GuestConfig>() == 120, "the layout has no padding");

impl GuestConfig {
    /// A page in which only the magic and the device are filled in.
    pub const EMPTY: Self = Self {
        magic: MAGIC,
        mmio_base: NET_MMIO_BASE,
        mmio_irq: NET_IRQ,
        role: Role::Echo as u32,
        mac: [0; 6],
        peer_mac: [0; 6],
        ip: [0; 4],
        peer_ip: [0; 4],
        ip6: [0; 16],
        peer_ip6: [0; 16],
        count: 0,
        attack: [0; 32],
        victim_mac: [0; 6],
        reserved: [0; 2],
    };
}
