//! The machine around the processors: memory, interrupt controllers, console, exit port, and what a processor's exits mean.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use guest_abi::{CONSOLE_IRQ, CONSOLE_PORT, EXIT_PORT, NET_IRQ, NET_MMIO_BASE, NET_MMIO_LEN};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_pit_config};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::GuestAddress;
use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot;
use crate::config::{Config, Payload};
use crate::device::{NetDevice, Wrote};
use crate::ending::{Ending, Error};
use crate::linux;
use crate::port::Tap;
use crate::registers::{QUEUE_NOTIFY, QUEUES};
use crate::ring::Memory;
use crate::sys;

/// Where a guest's console goes.
pub type Console = Box<dyn Write + Send>;
/// I/O port through which Linux powers off (the ACPI sleep control register).
pub(crate) const SLEEP_PORT: u16 = 0x600;
/// I/O port through which Linux resets.
pub(crate) const RESET_PORT: u16 = 0x604;
/// The keyboard controller's command port, the oldest way to reset.
const KEYBOARD_PORT: u16 = 0x64;

/// An interrupt line: by eventfd where the kernel offers it, else by a call.
pub(crate) enum Line {
    Event(EventFd),
    Call(Arc<VmFd>, u32),
}

impl Line {
    fn new(vm: &Arc<VmFd>, gsi: u32) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        Ok(match vm.register_irqfd(&event, gsi) {
            Ok(()) => Self::Event(event),
            Err(_) => Self::Call(Arc::clone(vm), gsi),
        })
    }
}

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        match self {
            Self::Event(event) => event.write(1),
            Self::Call(vm, gsi) => {
                vm.set_irq_line(*gsi, true)?;
                Ok(vm.set_irq_line(*gsi, false)?)
            }
        }
    }
}

/// What all threads of a guest share.
pub(crate) struct Machine {
    // Field order is drop order: the machine goes before its memory.
    _vm: Arc<VmFd>,
    pub device: Mutex<NetDevice<Tap>>,
    console: Mutex<Serial<Line, NoEvents, Console>>,
    /// Kicks per queue.
    pub kicks: [EventFd; QUEUES],
    /// Tells the network thread to look again.
    pub wake: EventFd,
    /// The device's interrupt.
    pub line: Line,
    _memory: Memory,
}

/// A machine and its processors, ready to run.
pub(crate) struct Built {
    pub machine: Machine,
    pub vcpus: Vec<VcpuFd>,
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |source| Error::Kvm { what, source }
}

fn host(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Host { what, source }
}

/// Opens KVM and makes the machine.
pub(crate) fn build(config: &Config, tap: Tap, console: Console) -> Result<Built, Error> {
    let kvm = Kvm::new().map_err(Error::NoKvm)?;
    let mib = config.memory_mib;
    let no_memory = |reason: String| Error::Memory { mib, reason };
    let bytes = usize::try_from(mib << 20).map_err(|error| no_memory(error.to_string()))?;
    let memory = Memory::from_ranges(&[(GuestAddress(0), bytes)]).map_err(|error| no_memory(error.to_string()))?;
    let entry = match &config.payload {
        Payload::Micro(micro) => boot::load_micro(&memory, config, micro)?,
        Payload::Linux(guest) => linux::load(&memory, config, guest)?,
    };
    boot::write_tables(&memory, entry.selectors)?;

    let vm = Arc::new(kvm.create_vm().map_err(refused("make a machine"))?);
    sys::register_memory(&vm, &memory).map_err(refused("take the guest's memory"))?;
    vm.set_tss_address(0xfffb_d000).map_err(refused("place the task segment"))?;
    vm.create_irq_chip().map_err(refused("make interrupt controllers"))?;
    vm.create_pit2(kvm_pit_config::default()).map_err(refused("make a timer"))?;
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(refused("list processor features"))?;
    let mut vcpus = Vec::new();
    for id in 0..u32::from(config.cpus) {
        let vcpu = vm.create_vcpu(u64::from(id)).map_err(refused("make a processor"))?;
        let mut cpuid = supported.clone();
        for leaf in cpuid.as_mut_slice() {
            match leaf.function {
                0x1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | id << 24,
                0xb | 0x1f => leaf.edx = id,
                _ => {}
            }
        }
        vcpu.set_cpuid2(&cpuid).map_err(refused("set processor features"))?;
        if id == 0 {
            boot::set_registers(&vcpu, &entry)?;
        }
        vcpus.push(vcpu);
    }

    let event = || EventFd::new(EFD_NONBLOCK).map_err(host("make an event"));
    let kicks = [event()?, event()?];
    for (queue, kick) in (0_u32..).zip(&kicks) {
        // Where the kernel does not offer this, the write arrives as an exit and is passed on from there.
        let address = IoEventAddress::Mmio(NET_MMIO_BASE + QUEUE_NOTIFY);
        vm.register_ioevent(kick, &address, queue).unwrap_or_default();
    }
    let line = |gsi| Line::new(&vm, gsi).map_err(host("make an interrupt line"));
    let machine = Machine {
        device: Mutex::new(NetDevice::new(memory.clone(), tap, config.mac.0, config.mtu)),
        console: Mutex::new(Serial::new(line(CONSOLE_IRQ)?, console)),
        kicks,
        wake: event()?,
        line: line(NET_IRQ)?,
        _vm: vm,
        _memory: memory,
    };
    Ok(Built { machine, vcpus })
}

impl Machine {
    /// The device. A thread that panicked while it held the lock left a device that is still sound.
    pub(crate) fn device(&self) -> std::sync::MutexGuard<'_, NetDevice<Tap>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A processor wrote to an I/O port; says whether that ends the guest.
    pub(crate) fn port_write(&self, port: u16, data: &[u8]) -> Option<Ending> {
        let value = data.first().copied()?;
        match port {
            EXIT_PORT => Some(Ending::Exited(value)),
            SLEEP_PORT if value & 0x20 != 0 => Some(Ending::PoweredOff),
            RESET_PORT => Some(Ending::PoweredOff),
            KEYBOARD_PORT if value == 0xfe => Some(Ending::PoweredOff),
            CONSOLE_PORT..=0x3ff => {
                let offset = u8::try_from(port - CONSOLE_PORT).unwrap_or_default();
                // A console that cannot be written to is no reason to end the guest.
                self.console.lock().unwrap_or_else(PoisonError::into_inner).write(offset, value).unwrap_or_default();
                None
            }
            _ => None,
        }
    }

    /// A processor reads from an I/O port.
    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let (CONSOLE_PORT..=0x3ff, [byte]) = (port, data) {
            let offset = u8::try_from(port - CONSOLE_PORT).unwrap_or_default();
            *byte = self.console.lock().unwrap_or_else(PoisonError::into_inner).read(offset);
        }
    }

    /// A processor reads from memory that is none.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match address.checked_sub(NET_MMIO_BASE) {
            Some(offset) if offset < NET_MMIO_LEN => self.device().read(offset, data),
            _ => data.fill(0xff),
        }
    }

    /// A processor writes to memory that is none; says whether that ends the guest.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) -> Option<Ending> {
        let offset = address.checked_sub(NET_MMIO_BASE).filter(|offset| *offset < NET_MMIO_LEN)?;
        let wrote = match self.device().write(offset, data) {
            Ok(wrote) => wrote,
            Err(fault) => return Some(fault.into()),
        };
        let event = match wrote {
            Wrote::Nothing => None,
            Wrote::Changed => Some(&self.wake),
            Wrote::Kicked(queue) => self.kicks.get(usize::from(queue)),
        };
        // An event that is full has been rung already.
        event.map_or(Ok(()), |event| event.write(1)).unwrap_or_default();
        None
    }
}
