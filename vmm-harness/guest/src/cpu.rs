//! The processor: entry, I/O ports, interrupts, sleep.
//!
//! The kernel's emulator knows no `IRETQ`. Interrupts are open in one place only, the `HLT` of [`sleep`], so a handler has
//! nothing to return to but that: it throws its frame away, which leaves interrupts off, and returns from `sleep`.
//! An exception ends the guest.
//!
//! The interrupt controller acknowledges by itself (auto-EOI), which saves an instruction and an exit per interrupt. The
//! local APIC's timer is there for those who wait for an answer that may never come.
#![expect(unsafe_code, reason = "ports, interrupts and the descriptor table are reached by instructions only")]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use guest_abi::{CODE_SELECTOR, CONFIG_ADDR, CONSOLE_PORT, EXIT_PORT, GuestConfig, MAGIC, NET_IRQ};

/// First vector of the interrupt controller.
const PIC_VECTOR: usize = 0x20;
/// Vector of the timer.
const TIMER_VECTOR: usize = 0x30;
/// Physical address of the local APIC's registers.
const LAPIC: usize = 0xfee0_0000;
/// Spurious-interrupt vector; bit 8 switches the APIC on.
const LAPIC_SPURIOUS: usize = 0xf0;
const LAPIC_EOI: usize = 0xb0;
const LAPIC_TIMER: usize = 0x320;
const LAPIC_INITIAL_COUNT: usize = 0x380;
const LAPIC_DIVIDE: usize = 0x3e0;
/// Timer ticks in a millisecond: KVM's APIC bus runs at 1 GHz, and we divide by 16.
const TICKS_PER_MS: u32 = 62_500;

global_asm!(
    ".global _start",
    "_start:",
    "cld",
    "call {start}",
    ".global guest_sleep",
    "guest_sleep:",
    "sti",
    "hlt",
    "cli",
    "ret",
    // The interrupt's frame holds, at 24, the stack pointer of `guest_sleep`: its return address is there.
    ".global guest_timer",
    "guest_timer:",
    "mov byte ptr [rip + {timer}], 1",
    ".global guest_wake",
    "guest_wake:",
    "mov rsp, [rsp + 24]",
    "ret",
    ".global guest_fault",
    "guest_fault:",
    "mov rdi, [rsp]",
    "mov rsi, [rsp + 8]",
    "call {fault}",
    start = sym start,
    timer = sym TIMER_RANG,
    fault = sym fault,
);

unsafe extern "C" {
    safe fn guest_sleep();
    fn guest_timer();
    fn guest_wake();
    fn guest_fault();
}

/// Set by the timer's handler.
static TIMER_RANG: AtomicBool = AtomicBool::new(false);

/// How the guest ended, as the monitor sees it.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// It did what it was told.
    Done = 0,
    /// It was told something that it cannot do, or the device is not what it should be.
    Refused = 1,
    /// An exception or a panic: a defect of the guest.
    Fault = 2,
    /// Nobody answered.
    Unanswered = 3,
}

extern "C" fn start(config: *const GuestConfig) -> ! {
    // SAFETY: the monitor hands over the address of a page that it has written, and nobody writes to it any more.
    let config = unsafe { config.as_ref() };
    match config {
        Some(config) if config.magic == MAGIC => crate::run(config),
        _ => {
            console!("{{\"error\":\"no configuration at {CONFIG_ADDR:#x}\"}}");
            exit(Exit::Refused)
        }
    }
}

extern "C" fn fault(first: u64, second: u64) -> ! {
    console!("{{\"error\":\"exception\",\"frame\":[{first},{second}]}}");
    exit(Exit::Fault)
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// An interrupt gate: present, ring 0, interrupts off inside.
    fn to(handler: unsafe extern "C" fn()) -> Self {
        let address = handler as *const () as u64;
        let kind = u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32;
        Self { low: address & 0xffff | kind | (address >> 16 & 0xffff) << 48, high: address >> 32 }
    }
}

/// Vectors of exceptions, of the interrupt controller, of the timer.
const GATES: usize = TIMER_VECTOR + 1;

#[repr(C, align(16))]
struct Table(UnsafeCell<[Gate; GATES]>);

// SAFETY: there is one processor, and `prepare` alone writes to the table.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([Gate { low: 0, high: 0 }; GATES]));

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Makes the processor ready to [`sleep`].
pub fn prepare() {
    let mut gates = [Gate::to(guest_fault); GATES];
    for gate in gates.iter_mut().skip(PIC_VECTOR) {
        *gate = Gate::to(guest_wake);
    }
    if let Some(gate) = gates.get_mut(TIMER_VECTOR) {
        *gate = Gate::to(guest_timer);
    }
    // SAFETY: nobody else has a reference, and the table is not loaded yet.
    unsafe { TABLE.0.get().write(gates) };
    let pointer = TablePointer { limit: (size_of::<[Gate; GATES]>() - 1) as u16, base: TABLE.0.get() as u64 };
    // SAFETY: the table is whole, and never changes again.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
    // Both controllers: initialise, vectors, how they are chained, 8086 with auto-EOI; then all masked but the device.
    let words = [(0x20, 0x11), (0x21, PIC_VECTOR as u8), (0x21, 4), (0x21, 3), (0x21, !(1 << NET_IRQ))];
    let second = [(0xa0, 0x11), (0xa1, PIC_VECTOR as u8 + 8), (0xa1, 2), (0xa1, 3), (0xa1, 0xff)];
    for (port, value) in words.into_iter().chain(second) {
        write_port(port, value);
    }
    write_lapic(LAPIC_SPURIOUS, 0x1ff);
    write_lapic(LAPIC_DIVIDE, 0b0011);
    write_lapic(LAPIC_TIMER, TIMER_VECTOR as u32);
}

/// Sleeps until the device or the timer interrupts.
///
/// Whoever calls this has looked for work since interrupts were last open: an interrupt that came since is pending, and
/// ends the sleep at once.
pub fn sleep() -> Woken {
    compiler_fence(Ordering::SeqCst);
    guest_sleep();
    compiler_fence(Ordering::SeqCst);
    if TIMER_RANG.load(Ordering::Relaxed) {
        TIMER_RANG.store(false, Ordering::Relaxed);
        write_lapic(LAPIC_EOI, 0);
        return Woken::ByTimer;
    }
    Woken::ByDevice
}

/// Who ended a [`sleep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The network device.
    ByDevice,
    /// The alarm that [`alarm`] set.
    ByTimer,
}

/// Has the timer end a sleep, once, after this many milliseconds; replaces the alarm that was set.
pub fn alarm(ms: u32) {
    write_lapic(LAPIC_INITIAL_COUNT, ms.saturating_mul(TICKS_PER_MS));
}

fn write_lapic(register: usize, value: u32) {
    let register = core::ptr::with_exposed_provenance_mut::<u32>(LAPIC + register);
    // SAFETY: the local APIC's registers are mapped one to one, are 32 bits wide, and are not memory.
    unsafe { register.write_volatile(value) };
}

fn write_port(port: u16, value: u8) {
    // SAFETY: the ports written to are the interrupt controllers', the console's and the monitor's; none touches memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Ends the guest.
pub fn exit(how: Exit) -> ! {
    write_port(EXIT_PORT, how as u8);
    loop {
        // SAFETY: with interrupts off this stops the processor for good, should the monitor have gone on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The 8250's transmitter.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| write_port(CONSOLE_PORT, byte));
        Ok(())
    }
}

/// Writes a line to the console; what [`console!`] is made of.
pub fn print(line: fmt::Arguments<'_>) {
    // The transmitter takes everything, so this cannot fail.
    if Console.write_fmt(line).is_ok() {
        write_port(CONSOLE_PORT, b'\n');
    }
}

/// Prints a line on the console.
macro_rules! console {
    ($($words:tt)*) => { $crate::cpu::print(format_args!($($words)*)) };
}
pub(crate) use console;
