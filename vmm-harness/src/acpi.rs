//! The ACPI tables of a Linux guest.
//!
//! Debian's kernels cannot be told of virtio-mmio devices on the command line, but find them in the namespace by the id
//! `LNRO0005`. The platform is "hardware-reduced": no timers, buttons or controllers of old, power-off by one register.

use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use guest_abi::{CONSOLE_IRQ, CONSOLE_PORT, NET_IRQ, NET_MMIO_BASE, NET_MMIO_LEN};
use vm_memory::{Bytes, GuestAddress};

use crate::ending::Error;
use crate::machine::{RESET_PORT, SLEEP_PORT};
use crate::ring::Memory;

/// Where the tables begin; the root pointer comes first.
pub(crate) const TABLES_ADDR: u64 = 0xe_0000;
const OEM: [u8; 6] = *b"WEFT  ";
const OEM_TABLE: [u8; 8] = *b"WEFTVMM ";
const LOCAL_APIC_ADDR: u32 = 0xfee0_0000;
const IO_APIC_ADDR: u32 = 0xfec0_0000;
/// The definition block's header, before its code.
const HEADER_BYTES: u32 = 36;

struct Bytecode(Vec<u8>);

impl AmlSink for Bytecode {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut sink = Bytecode(Vec::new());
    table.to_aml_bytes(&mut sink);
    sink.0
}

/// Writes the tables for a guest with so many processors; hands back where the root pointer is.
pub(crate) fn write(memory: &Memory, cpus: u8) -> Result<u64, Error> {
    let mut next = TABLES_ADDR + 0x40;
    let mut put = |bytes: &[u8]| {
        let at = next;
        memory.write_slice(bytes, GuestAddress(at)).ok().ok_or(Error::Layout("the ACPI tables"))?;
        next = (at + u64::try_from(bytes.len()).unwrap_or_default()).next_multiple_of(16);
        Ok(at)
    };
    let dsdt = put(dsdt().as_slice())?;
    let fadt = put(&bytes_of(&fadt(dsdt).finalize()))?;
    let madt = put(&bytes_of(&madt(cpus)))?;
    let mut root = XSDT::new(OEM, OEM_TABLE, 1);
    root.add_entry(fadt);
    root.add_entry(madt);
    let root = put(&bytes_of(&root))?;
    let pointer = bytes_of(&Rsdp::new(OEM, root));
    memory.write_slice(&pointer, GuestAddress(TABLES_ADDR)).ok().ok_or(Error::Layout("the ACPI root pointer"))?;
    Ok(TABLES_ADDR)
}

fn io_register(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port))
}

fn fadt(dsdt: u64) -> FADTBuilder {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.reset_reg = io_register(RESET_PORT);
    fadt.reset_value = 1;
    fadt.sleep_control_reg = io_register(SLEEP_PORT);
    fadt.sleep_status_reg = io_register(SLEEP_PORT + 1);
    fadt
}

fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(OEM, OEM_TABLE, 1, LocalInterruptController::Address(LOCAL_APIC_ADDR));
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, IO_APIC_ADDR, 0));
    madt
}

fn dsdt() -> Sdt {
    let base = u32::try_from(NET_MMIO_BASE).unwrap_or_default();
    let length = u32::try_from(NET_MMIO_LEN).unwrap_or_default();
    let window = Memory32Fixed::new(true, base, length);
    let interrupt = Interrupt::new(true, true, false, false, NET_IRQ);
    let resources = ResourceTemplate::new(vec![&window, &interrupt]);
    let id = Name::new("_HID".into(), &"LNRO0005");
    let unique = Name::new("_UID".into(), &0_u8);
    let coherent = Name::new("_CCA".into(), &1_u8);
    let current = Name::new("_CRS".into(), &resources);
    let network = Device::new("NET0".into(), vec![&id, &unique, &coherent, &current]);

    let ports = IO::new(CONSOLE_PORT, CONSOLE_PORT, 0, 8);
    let interrupt = Interrupt::new(true, true, false, false, CONSOLE_IRQ);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let eisa = EISAName::new("PNP0501");
    let id = Name::new("_HID".into(), &eisa);
    let unique = Name::new("_UID".into(), &1_u8);
    let current = Name::new("_CRS".into(), &resources);
    let console = Device::new("COM1".into(), vec![&id, &unique, &current]);

    let bus = bytes_of(&Scope::new("\\_SB_".into(), vec![&network, &console]));
    let sleep = bytes_of(&Name::new("\\_S5_".into(), &Package::new(vec![&5_u8])));
    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, 6, OEM, OEM_TABLE, 1);
    table.append_slice(&bus);
    table.append_slice(&sleep);
    table.update_checksum();
    table
}
