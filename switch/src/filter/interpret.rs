//! A filter run in user space, on a frame or on its beginning: what `bpf_filter` of libpcap does.

use super::instruction::{Comparison, Instruction, MEMORY_WORDS, Operand, Operation, Size};

/// What the program answers for the `bytes` of a frame that is `length` bytes long; 0: no match.
///
/// Always ends: a program that was decoded jumps forward only.
pub(super) fn run(program: &[Instruction], bytes: &[u8], length: u32) -> u32 {
    // No way leaves the program without an answer; if one did, it would not match.
    Machine { bytes, length, a: 0, x: 0, memory: [0; MEMORY_WORDS] }.run(program).unwrap_or(0)
}

struct Machine<'a> {
    bytes: &'a [u8],
    length: u32,
    a: u32,
    x: u32,
    memory: [u32; MEMORY_WORDS],
}

impl Machine<'_> {
    /// `None`: a byte was asked for that is not there, or a division by 0.
    fn run(&mut self, program: &[Instruction]) -> Option<u32> {
        let mut at = 0;
        loop {
            let mut next = at + 1;
            match *program.get(at)? {
                Instruction::LoadAbsolute(size, at) => self.a = self.load(size, at)?,
                Instruction::LoadIndirect(size, k) => self.a = self.load(size, self.x.checked_add(k)?)?,
                Instruction::LoadLength => self.a = self.length,
                Instruction::LoadConstant(k) => self.a = k,
                Instruction::LoadMemory(cell) => self.a = *self.memory.get(cell)?,
                Instruction::IndexLength => self.x = self.length,
                Instruction::IndexConstant(k) => self.x = k,
                Instruction::IndexMemory(cell) => self.x = *self.memory.get(cell)?,
                Instruction::IndexHeader(at) => self.x = (self.load(Size::Byte, at)? & 0xf) << 2,
                Instruction::Store(cell) => *self.memory.get_mut(cell)? = self.a,
                Instruction::StoreIndex(cell) => *self.memory.get_mut(cell)? = self.x,
                Instruction::Alter(operation, operand) => {
                    self.a = alter(operation, self.a, self.value(operand))?;
                }
                Instruction::Negate => self.a = self.a.wrapping_neg(),
                Instruction::Jump(to) => next = to,
                Instruction::Branch(comparison, operand, yes, no) => {
                    next = if holds(comparison, self.a, self.value(operand)) { yes } else { no };
                }
                Instruction::AnswerConstant(k) => return Some(k),
                Instruction::Answer => return Some(self.a),
                Instruction::ToIndex => self.x = self.a,
                Instruction::FromIndex => self.a = self.x,
            }
            at = next;
        }
    }

    fn value(&self, operand: Operand) -> u32 {
        match operand {
            Operand::K(k) => k,
            Operand::X => self.x,
        }
    }

    /// Big-endian bytes from an offset.
    fn load(&self, size: Size, at: u32) -> Option<u32> {
        let from = self.bytes.get(at as usize..)?;
        match size {
            Size::Word => from.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
            Size::Half => from.first_chunk().map(|bytes| u16::from_be_bytes(*bytes).into()),
            Size::Byte => from.first().map(|byte| u32::from(*byte)),
        }
    }
}

fn alter(operation: Operation, a: u32, by: u32) -> Option<u32> {
    Some(match operation {
        Operation::Add => a.wrapping_add(by),
        Operation::Sub => a.wrapping_sub(by),
        Operation::Mul => a.wrapping_mul(by),
        Operation::Div => a.checked_div(by)?,
        Operation::Mod => a.checked_rem(by)?,
        Operation::And => a & by,
        Operation::Or => a | by,
        Operation::Xor => a ^ by,
        Operation::ShiftLeft => a.checked_shl(by).unwrap_or(0),
        Operation::ShiftRight => a.checked_shr(by).unwrap_or(0),
    })
}

fn holds(comparison: Comparison, a: u32, with: u32) -> bool {
    match comparison {
        Comparison::Equal => a == with,
        Comparison::Greater => a > with,
        Comparison::GreaterEqual => a >= with,
        Comparison::AnyBit => a & with != 0,
    }
}
