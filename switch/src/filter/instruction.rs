//! One instruction of a classic BPF program, taken apart: what libpcap generates, and nothing else.
//!
//! A program that is made of these is bounded: jumps go forward only and stay inside, every way ends in an answer, and no
//! division is by a constant 0. What the kernel adds of its own (offsets below 0 that stand for anything but bytes) is refused.

/// How many words of memory a program has.
pub(super) const MEMORY_WORDS: usize = 16;
/// Instructions a program may have.
pub(super) const INSTRUCTIONS_MAX: usize = 4096;

/// `struct bpf_insn` (`pcap/bpf.h`), as libpcap writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when it holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

/// How many bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Four.
    Word,
    /// Two.
    Half,
    /// One.
    Byte,
}

impl Size {
    /// In bytes.
    pub(super) const fn bytes(self) -> u32 {
        match self {
            Self::Word => 4,
            Self::Half => 2,
            Self::Byte => 1,
        }
    }
}

/// The second operand of an operation on the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// A constant.
    K(u32),
    /// The index register.
    X,
}

/// An operation on the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// A comparison with the accumulator, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Equal.
    Equal,
    /// Accumulator greater.
    Greater,
    /// Accumulator greater or equal.
    GreaterEqual,
    /// A bit in common.
    AnyBit,
}

/// One instruction. `A` is the accumulator, `X` the index register, `M` the memory; jumps name the instruction to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// A ← bytes at a constant offset.
    LoadAbsolute(Size, u32),
    /// A ← bytes at X and a constant.
    LoadIndirect(Size, u32),
    /// A ← the frame's length.
    LoadLength,
    /// A ← a constant.
    LoadConstant(u32),
    /// A ← memory.
    LoadMemory(usize),
    /// X ← the frame's length.
    IndexLength,
    /// X ← a constant.
    IndexConstant(u32),
    /// X ← memory.
    IndexMemory(usize),
    /// X ← 4 × the low half of the byte at a constant offset: an IPv4 header's length.
    IndexHeader(u32),
    /// M ← A.
    Store(usize),
    /// M ← X.
    StoreIndex(usize),
    /// A ← A with an operand.
    Alter(Operation, Operand),
    /// A ← −A.
    Negate,
    /// Go on there.
    Jump(usize),
    /// Go on at the first when it holds, else at the second.
    Branch(Comparison, Operand, usize, usize),
    /// The answer is this constant.
    AnswerConstant(u32),
    /// The answer is A.
    Answer,
    /// X ← A.
    ToIndex,
    /// A ← X.
    FromIndex,
}

/// Takes a program apart and checks it.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn decode(raw: &[Raw]) -> Result<Vec<Instruction>, String> {
    if raw.is_empty() || raw.len() > INSTRUCTIONS_MAX {
        return Err(format!("a filter of {} instructions; 1 to {INSTRUCTIONS_MAX} are taken", raw.len()));
    }
    let program = raw.iter().enumerate().map(|(at, raw)| decode_one(at, *raw)).collect::<Result<Vec<_>, _>>()?;
    let inside = |target: usize| target < program.len();
    for (at, instruction) in program.iter().enumerate() {
        let sound = match instruction {
            Instruction::Jump(to) => inside(*to),
            Instruction::Branch(_, _, yes, no) => inside(*yes) && inside(*no),
            Instruction::Answer | Instruction::AnswerConstant(_) => true,
            _ => inside(at + 1),
        };
        if !sound {
            return Err(format!("instruction {at} leaves the program"));
        }
    }
    Ok(program)
}

fn decode_one(at: usize, raw: Raw) -> Result<Instruction, String> {
    let Raw { code, jump_true, jump_false, k } = raw;
    let unknown = || format!("instruction {at} (operation {code:#x}) is none that a capture filter has");
    let operand = if code & 0x08 == 0 { Operand::K(k) } else { Operand::X };
    let cell = || usize::try_from(k).ok().filter(|cell| *cell < MEMORY_WORDS).ok_or_else(unknown);
    let size = || match code & 0x18 {
        0x00 => Ok(Size::Word),
        0x08 => Ok(Size::Half),
        0x10 => Ok(Size::Byte),
        _ => Err(unknown()),
    };
    // Offsets below 0 are the kernel's names for what is no byte of the frame.
    let offset = || {
        i32::try_from(k).map(i32::cast_unsigned).map_err(|_beyond| {
            format!("instruction {at} asks for what only a live capture of the kernel knows (offset {k:#x}); use an expression on the frame's bytes")
        })
    };
    if code > 0xff {
        return Err(unknown());
    }
    match code & 0x07 {
        // LD
        0x00 => match code & 0xe0 {
            0x00 if code == 0x00 => Ok(Instruction::LoadConstant(k)),
            0x20 => Ok(Instruction::LoadAbsolute(size()?, offset()?)),
            0x40 => Ok(Instruction::LoadIndirect(size()?, k)),
            0x60 if code == 0x60 => Ok(Instruction::LoadMemory(cell()?)),
            0x80 if code == 0x80 => Ok(Instruction::LoadLength),
            _ => Err(unknown()),
        },
        // LDX
        0x01 => match code {
            0x01 => Ok(Instruction::IndexConstant(k)),
            0x61 => Ok(Instruction::IndexMemory(cell()?)),
            0x81 => Ok(Instruction::IndexLength),
            0xb1 => Ok(Instruction::IndexHeader(offset()?)),
            _ => Err(unknown()),
        },
        0x02 if code == 0x02 => Ok(Instruction::Store(cell()?)),
        0x03 if code == 0x03 => Ok(Instruction::StoreIndex(cell()?)),
        // ALU
        0x04 => {
            let operation = match code & 0xf0 {
                0x00 => Operation::Add,
                0x10 => Operation::Sub,
                0x20 => Operation::Mul,
                0x30 => Operation::Div,
                0x40 => Operation::Or,
                0x50 => Operation::And,
                0x60 => Operation::ShiftLeft,
                0x70 => Operation::ShiftRight,
                0x80 => return Ok(Instruction::Negate),
                0x90 => Operation::Mod,
                0xa0 => Operation::Xor,
                _ => return Err(unknown()),
            };
            if matches!(operation, Operation::Div | Operation::Mod) && operand == Operand::K(0) {
                return Err("the expression divides by zero".to_owned());
            }
            Ok(Instruction::Alter(operation, operand))
        }
        // JMP
        0x05 => {
            let next = at + 1;
            let comparison = match code & 0xf0 {
                0x00 => return Ok(Instruction::Jump(next.saturating_add(k as usize))),
                0x10 => Comparison::Equal,
                0x20 => Comparison::Greater,
                0x30 => Comparison::GreaterEqual,
                0x40 => Comparison::AnyBit,
                _ => return Err(unknown()),
            };
            Ok(Instruction::Branch(comparison, operand, next + usize::from(jump_true), next + usize::from(jump_false)))
        }
        // RET
        0x06 => match code & 0x18 {
            0x00 => Ok(Instruction::AnswerConstant(k)),
            0x10 => Ok(Instruction::Answer),
            _ => Err(unknown()),
        },
        _ => match code & 0xf8 {
            0x00 => Ok(Instruction::ToIndex),
            0x80 => Ok(Instruction::FromIndex),
            _ => Err(unknown()),
        },
    }
}
