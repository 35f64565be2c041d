//! What is in memory and in the registers when a guest's first instruction runs.
//!
//! Both kinds of guest start in 64-bit mode with the first 4 GiB mapped one to one by 2 MiB pages.
//!
//! ```text
//!   0x0500  descriptor table             0x9000  page map, directory pointers,
//!   0x7000  micro guest: GuestConfig             four page directories (to 0xf000)
//!   0x7000  Linux: zero page             0x8_0000  top of the stack
//!   0x2_0000  Linux: command line        0xe_0000  Linux: ACPI tables
//! ```

use std::fs::File;
use std::io::{Cursor, Read, Seek};

use guest_abi::{CONFIG_ADDR, IMAGE_ADDR, STACK_TOP};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

use crate::config::{Config, Image, MicroGuest};
use crate::ending::Error;
use crate::ring::Memory;

const GDT_ADDR: u64 = 0x500;
const PML4_ADDR: u64 = 0x9000;
const PDPT_ADDR: u64 = 0xa000;
const PD_ADDR: u64 = 0xb000;
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x80;

/// Where a guest's first processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its instruction pointer.
    pub rip: u64,
    /// First argument of a micro guest.
    pub rdi: u64,
    /// Address of Linux's zero page.
    pub rsi: u64,
    /// Selectors of code and data.
    pub selectors: (u16, u16),
}

/// Copies the micro guest and its page into memory.
pub(crate) fn load_micro(memory: &Memory, config: &Config, micro: &MicroGuest) -> Result<Entry, Error> {
    let loaded = match &micro.image {
        Image::File(path) => {
            let file = File::open(path).map_err(|source| Error::File { path: path.clone(), source })?;
            load_elf(memory, file).map_err(|reason| Error::Kernel { path: path.clone(), reason })
        }
        Image::Bytes(bytes) if bytes.is_empty() => Err(Error::NoMicroGuest),
        Image::Bytes(bytes) => load_elf(memory, Cursor::new(bytes.as_slice()))
            .map_err(|reason| Error::Kernel { path: "the micro guest".into(), reason }),
    }?;
    let page = micro.page(config.mac);
    memory.write_slice(&page, GuestAddress(CONFIG_ADDR)).ok().ok_or(Error::Layout("the guest's configuration"))?;
    let selectors = (guest_abi::CODE_SELECTOR, guest_abi::DATA_SELECTOR);
    Ok(Entry { rip: loaded, rdi: CONFIG_ADDR, rsi: 0, selectors })
}

fn load_elf<F: Read + ReadVolatile + Seek>(memory: &Memory, mut image: F) -> Result<u64, String> {
    let lowest = Some(GuestAddress(IMAGE_ADDR));
    let loaded = Elf::load(memory, None, &mut image, lowest).map_err(|error| error.to_string())?;
    Ok(loaded.kernel_load.0)
}

/// Page tables and the descriptor table.
pub(crate) fn write_tables(memory: &Memory, selectors: (u16, u16)) -> Result<(), Error> {
    let put = |address: u64, value: u64| {
        memory.write_obj(value, GuestAddress(address)).ok().ok_or(Error::Layout("the page tables"))
    };
    put(PML4_ADDR, PDPT_ADDR | PRESENT_WRITABLE)?;
    for gib in 0..4 {
        put(PDPT_ADDR + 8 * gib, (PD_ADDR + 0x1000 * gib) | PRESENT_WRITABLE)?;
    }
    for page in 0..4 * 512 {
        put(PD_ADDR + 8 * page, page << 21 | LARGE_PAGE | PRESENT_WRITABLE)?;
    }
    put(GDT_ADDR + u64::from(selectors.0), 0x00af_9b00_0000_ffff)?;
    put(GDT_ADDR + u64::from(selectors.1), 0x00cf_9300_0000_ffff)
}

/// Puts the first processor where `entry` says.
pub(crate) fn set_registers(vcpu: &VcpuFd, entry: &Entry) -> Result<(), Error> {
    let refused = |what| move |source| Error::Kvm { what, source };
    let mut special = vcpu.get_sregs().map_err(refused("read registers"))?;
    let flat = kvm_segment { base: 0, limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let (code, data) = entry.selectors;
    special.cs = kvm_segment { selector: code, type_: 0xb, l: 1, ..flat };
    let data = kvm_segment { selector: data, type_: 0x3, db: 1, ..flat };
    for segment in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *segment = data;
    }
    special.tr = kvm_segment { limit: 0xffff, type_: 0xb, present: 1, ..Default::default() };
    special.gdt.base = GDT_ADDR;
    special.gdt.limit = 0x1f;
    special.idt.limit = 0;
    // Protection and paging, physical address extension, long mode enabled and active.
    special.cr0 |= 1 | 1 << 31;
    special.cr4 |= 1 << 5;
    special.cr3 = PML4_ADDR;
    special.efer |= 1 << 8 | 1 << 10;
    vcpu.set_sregs(&special).map_err(refused("set segment registers"))?;
    let general = kvm_regs {
        rip: entry.rip,
        rsp: STACK_TOP,
        rbp: STACK_TOP,
        rdi: entry.rdi,
        rsi: entry.rsi,
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_regs(&general).map_err(refused("set registers"))
}
