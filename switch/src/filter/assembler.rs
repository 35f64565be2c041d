//! eBPF instructions by name, and jumps to labels.

/// `struct bpf_insn` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Offset, of memory or of a jump.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(u8);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R8: Register = Register(8);
pub(super) const R9: Register = Register(9);
/// The frame pointer.
pub(super) const R10: Register = Register(10);

/// What is computed; as in the kernel's `BPF_OP`.
#[derive(Clone, Copy)]
pub(super) enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Negate = 0x80,
    Mod = 0x90,
    Xor = 0xa0,
    Move = 0xb0,
}

/// When a jump is taken, unsigned; as in the kernel's `BPF_OP`.
#[derive(Clone, Copy)]
pub(super) enum When {
    Equal = 0x10,
    Greater = 0x20,
    GreaterEqual = 0x30,
    AnyBit = 0x40,
    NotEqual = 0x50,
}

/// The other operand.
#[derive(Clone, Copy)]
pub(super) enum With {
    Constant(u32),
    Register(Register),
}

/// How many bytes are loaded or stored; as in the kernel's `BPF_SIZE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

const CLASS_LD: u8 = 0x00;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU: u8 = 0x04;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEMORY: u8 = 0x60;
const BY_REGISTER: u8 = 0x08;
/// `BPF_END | BPF_TO_BE`.
const TO_BIG_ENDIAN: u8 = 0xd8;
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// `BPF_PSEUDO_MAP_FD`.
const MAP_DESCRIPTOR: u8 = 1;

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    used: Vec<bool>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that is not placed yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        self.used.push(false);
        Label(self.labels.len() - 1)
    }

    /// Places a label here.
    pub(super) fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    /// Whether anything jumps to a label so far.
    pub(super) fn is_used(&self, label: Label) -> bool {
        self.used.get(label.0).copied().unwrap_or(false)
    }

    fn emit(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers: to.0 | from.0 << 4, offset, immediate });
    }

    fn alu_of(&mut self, class: u8, operation: Alu, to: Register, with: With) {
        match with {
            With::Constant(value) => self.emit(class | operation as u8, to, R0, 0, value.cast_signed()),
            With::Register(from) => self.emit(class | BY_REGISTER | operation as u8, to, from, 0, 0),
        }
    }

    /// Computes in 32 bits; the high half becomes 0.
    pub(super) fn alu32(&mut self, operation: Alu, to: Register, with: With) {
        self.alu_of(CLASS_ALU, operation, to, with);
    }

    /// Computes in 64 bits; constants are signed.
    pub(super) fn alu64(&mut self, operation: Alu, to: Register, with: With) {
        self.alu_of(CLASS_ALU64, operation, to, with);
    }

    /// Copies all of a register.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.alu64(Alu::Move, to, With::Register(from));
    }

    /// A 32-bit constant into a register.
    pub(super) fn set(&mut self, to: Register, value: u32) {
        self.alu32(Alu::Move, to, With::Constant(value));
    }

    /// An address on the stack into a register.
    pub(super) fn stack_address(&mut self, to: Register, offset: i16) {
        self.copy(to, R10);
        self.alu64(Alu::Add, to, With::Constant(i32::from(offset).cast_unsigned()));
    }

    /// Takes what was loaded for what it is on a wire.
    pub(super) fn big_endian(&mut self, to: Register, width: Width) {
        match width {
            Width::Byte => {}
            Width::Half => self.emit(CLASS_ALU | TO_BIG_ENDIAN, to, R0, 0, 16),
            Width::Word => self.emit(CLASS_ALU | TO_BIG_ENDIAN, to, R0, 0, 32),
            Width::Double => self.emit(CLASS_ALU | TO_BIG_ENDIAN, to, R0, 0, 64),
        }
    }

    /// Loads from memory.
    pub(super) fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.emit(CLASS_LDX | MODE_MEMORY | width as u8, to, from, offset, 0);
    }

    /// Stores a register.
    pub(super) fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) {
        self.emit(CLASS_STX | MODE_MEMORY | width as u8, to, from, offset, 0);
    }

    /// Stores a 0.
    pub(super) fn store_zero(&mut self, width: Width, to: Register, offset: i16) {
        self.emit(CLASS_ST | MODE_MEMORY | width as u8, to, R0, offset, 0);
    }

    fn jump_with(&mut self, code: u8, left: Register, right: Register, immediate: i32, to: Label) {
        if let Some(used) = self.used.get_mut(to.0) {
            *used = true;
        }
        self.jumps.push((self.code.len(), to));
        self.emit(code, left, right, 0, immediate);
    }

    /// Goes on there.
    pub(super) fn jump(&mut self, to: Label) {
        self.jump_with(CLASS_JMP | ALWAYS, R0, R0, 0, to);
    }

    fn jump_of(&mut self, class: u8, when: When, left: Register, with: With, to: Label) {
        match with {
            With::Constant(value) => self.jump_with(class | when as u8, left, R0, value.cast_signed(), to),
            With::Register(right) => self.jump_with(class | BY_REGISTER | when as u8, left, right, 0, to),
        }
    }

    /// Compares the low halves.
    pub(super) fn jump32(&mut self, when: When, left: Register, with: With, to: Label) {
        self.jump_of(CLASS_JMP32, when, left, with, to);
    }

    /// Compares all 64 bits; constants are signed.
    pub(super) fn jump64(&mut self, when: When, left: Register, with: With, to: Label) {
        self.jump_of(CLASS_JMP, when, left, with, to);
    }

    /// Calls a helper of the kernel's.
    pub(super) fn call(&mut self, helper: i32) {
        self.emit(CLASS_JMP | CALL, R0, R0, 0, helper);
    }

    /// Ends with the answer in R0.
    pub(super) fn exit(&mut self) {
        self.emit(CLASS_JMP | EXIT, R0, R0, 0, 0);
    }

    /// A map into a register, by its descriptor.
    pub(super) fn map(&mut self, to: Register, descriptor: i32) {
        self.emit(CLASS_LD | Width::Double as u8, to, Register(MAP_DESCRIPTOR), 0, descriptor);
        self.emit(0, R0, R0, 0, 0);
    }

    /// The program; `None` when a jump is too far.
    pub(super) fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let target = self.labels.get(label.0).copied().flatten()?;
            let distance = i64::try_from(target).ok()? - i64::try_from(at).ok()? - 1;
            self.code.get_mut(at)?.offset = i16::try_from(distance).ok()?;
        }
        Some(self.code)
    }
}

const _: () = assert!(size_of::<Instruction>() == 8);
