//! Boots Linux by its 64-bit protocol (`Documentation/arch/x86/boot.rst`): the kernel's protected-mode part at 1 MiB, the
//! initial file system as high as it may go, the zero page with the memory map, ACPI tables for everything else.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::acpi;
use crate::boot::Entry;
use crate::config::{Config, LinuxGuest};
use crate::ending::Error;
use crate::ring::Memory;

const ZERO_PAGE_ADDR: u64 = 0x7000;
const CMDLINE_ADDR: u64 = 0x2_0000;
const CMDLINE_BYTES_MAX: usize = 2048;
const LOW_MEMORY_END: u64 = 0x9_fc00;
const HIGH_MEMORY: u64 = 0x10_0000;
/// The 64-bit entry point, from the beginning of the protected-mode kernel.
const ENTRY_OFFSET: u64 = 0x200;
/// `xloadflags`: the kernel has that entry point.
const XLF_KERNEL_64: u16 = 1;
const E820_RAM: u32 = 1;
const E820_ACPI: u32 = 3;

fn open(path: &Path) -> Result<(File, u64), Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(fault)?;
    let bytes = file.metadata().map_err(fault)?.len();
    Ok((file, bytes))
}

/// Puts kernel, initial file system, command line, zero page and tables into memory.
pub(crate) fn load(memory: &Memory, config: &Config, guest: &LinuxGuest) -> Result<Entry, Error> {
    let no_kernel = |reason: String| Error::Kernel { path: guest.kernel.clone(), reason };
    let (mut kernel, _) = open(&guest.kernel)?;
    let high = Some(GuestAddress(HIGH_MEMORY));
    let loaded = BzImage::load(memory, None, &mut kernel, high).map_err(|error| no_kernel(error.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| no_kernel("it has no setup header".to_owned()))?;
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(no_kernel("it has no 64-bit entry point".to_owned()));
    }

    let mut params = boot_params { hdr: header, ..Default::default() };
    // "Undefined" loader: one that is not in the kernel's list.
    params.hdr.type_of_loader = 0xff;
    if let Some(path) = &guest.initrd {
        // While it unpacks itself the kernel needs this much from where it was loaded.
        let kernel_end = (loaded.kernel_load.0 + u64::from(header.init_size)).max(loaded.kernel_end);
        let (start, bytes) = load_initrd(memory, config, path, kernel_end)?;
        params.hdr.ramdisk_image = start;
        params.hdr.ramdisk_size = bytes;
    }

    let mut cmdline = Cmdline::new(CMDLINE_BYTES_MAX).map_err(|error| Error::Cmdline(error.to_string()))?;
    cmdline.insert_str(&guest.cmdline).map_err(|error| Error::Cmdline(error.to_string()))?;
    load_cmdline(memory, GuestAddress(CMDLINE_ADDR), &cmdline).map_err(|error| Error::Cmdline(error.to_string()))?;
    params.hdr.cmd_line_ptr = u32::try_from(CMDLINE_ADDR).unwrap_or_default();
    params.hdr.cmdline_size = u32::try_from(guest.cmdline.len()).unwrap_or_default();

    let end = config.memory_mib << 20;
    let map = [
        (0, LOW_MEMORY_END, E820_RAM),
        (acpi::TABLES_ADDR, HIGH_MEMORY - acpi::TABLES_ADDR, E820_ACPI),
        (HIGH_MEMORY, end - HIGH_MEMORY, E820_RAM),
    ];
    for (entry, (addr, size, r#type)) in params.e820_table.iter_mut().zip(map) {
        *entry = boot_e820_entry { addr, size, r#type };
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or_default();
    params.acpi_rsdp_addr = acpi::write(memory, config.cpus)?;

    let boot = BootParams::new(&params, GuestAddress(ZERO_PAGE_ADDR));
    LinuxBootConfigurator::write_bootparams(&boot, memory).ok().ok_or(Error::Layout("the zero page"))?;
    Ok(Entry { rip: loaded.kernel_load.0 + ENTRY_OFFSET, rdi: 0, rsi: ZERO_PAGE_ADDR, selectors: (0x10, 0x18) })
}

fn load_initrd(memory: &Memory, config: &Config, path: &Path, kernel_end: u64) -> Result<(u32, u32), Error> {
    let (mut file, bytes) = open(path)?;
    let too_large = || Error::Initrd { initrd: bytes, mib: config.memory_mib };
    let top = memory.last_addr().0 + 1;
    let start = top.checked_sub(bytes).map(|start| start & !0xfff).filter(|start| *start >= kernel_end);
    let start = start.ok_or_else(too_large)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|source| Error::File { path: path.to_owned(), source })?;
    memory.write_slice(&content, GuestAddress(start)).ok().ok_or_else(too_large)?;
    match (u32::try_from(start), u32::try_from(content.len())) {
        (Ok(start), Ok(bytes)) => Ok((start, bytes)),
        _ => Err(too_large()),
    }
}
