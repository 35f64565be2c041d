//! All sessions' filters as one eBPF program: the first of [`switch_common::WATCHERS_FILTER`].
//!
//! ```text
//! for each session with a filter:  its bit is not set in the control block? ─▶ next
//!                                  the frame has its tag beside its bytes? ─▶ the variant for that
//!                                  the filter's instructions; a "no" clears the bit
//! bits left? ─ yes ─▶ jump into the program that serves them ─ fails ─┐
//!               no ──────────────────────────────────────────────────┴─▶ do what the fate says
//! ```
//!
//! Bytes are read directly where they lie in a row, compared with the packet's end each time, and by a helper where they do
//! not. The mask stays in the control block, because of what is loaded from there the verifier knows nothing: it walks each
//! filter once, not once for each way through those before it.
//!
//! A tag beside the bytes is put back in thought: offsets behind it are off by four, those in it are answered from a copy of the
//! frame's first bytes on the stack. A punted frame's tag is the switch's own, and no part of the frame.

use switch_common::{
    WATCH_ACTION_MASK, WATCH_ACTION_SHIFT, WATCH_PUNTED, WATCH_REDIRECT, WATCH_REDIRECT_PEER, WATCHERS_SERVE,
};

use super::Program;
use super::assembler::{Alu, Assembler, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Register, When, Width, With};
use super::instruction::{Comparison, Instruction, Operand, Operation, Size};

pub use super::assembler::Instruction as Translated;

/// Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h).
mod context {
    pub(super) const LENGTH: i16 = 0;
    pub(super) const TAG_PRESENT: i16 = 20;
    pub(super) const TAG_CONTENT: i16 = 24;
    pub(super) const TAG_TYPE: i16 = 28;
    pub(super) const CONTROL: i16 = 48;
    pub(super) const DATA: i16 = 76;
    pub(super) const DATA_END: i16 = 80;
}

/// Helpers of the kernel's, by number.
mod helper {
    pub(super) const TAIL_CALL: i32 = 12;
    #[cfg(test)]
    pub(super) const VLAN_PUSH: i32 = 18;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const LOAD_BYTES: i32 = 26;
    pub(super) const REDIRECT_PEER: i32 = 155;
}

/// Places on the stack. The packet's end.
const END: i16 = -8;
/// The frame's length, its tag included.
const LENGTH: i16 = -16;
/// What the helper reads.
const READ: i16 = -24;
/// The frame's first bytes, its tag in place.
const HEAD: i16 = -48;
/// The filter's memory.
const MEMORY: i16 = -112;

/// Where a tag begins, and where the rest goes on.
const TAG_AT: u32 = 12;
const TAG_END: u32 = 16;
const TAG_BYTES: u32 = 4;
/// Offsets up to here are read directly.
const DIRECT_MAX: u32 = 0x3fff;

/// The answer of a classifier that drops.
const TC_ACT_SHOT: u32 = 2;

/// A session's filter.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The session's bit.
    pub bit: u8,
    /// Its filter.
    pub program: &'a Program,
}

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// A jump in it would be too far for the kernel.
    #[error(
        "the filter is too long to be run in the kernel; make it shorter, for instance with networks instead of hosts"
    )]
    TooLong,
}

/// The program for all sessions; `watchers` is the descriptor of the program array.
///
/// # Errors
/// A filter is too long.
pub fn translate(filters: &[Wanted<'_>], watchers: i32) -> Result<Vec<Translated>, TranslateError> {
    let mut translator = Translator::new();
    for filter in filters {
        translator.session(filter);
    }
    translator.serve(watchers);
    translator.code.finish().ok_or(TranslateError::TooLong)
}

/// The same, but its answer is the low half of the mask that is left; a tag in the last word of the control block is pushed
/// first (type in the high half).
#[cfg(test)]
pub(super) fn translate_to_answer(filters: &[Wanted<'_>]) -> Result<Vec<Translated>, TranslateError> {
    let mut translator = Translator::new();
    let code = &mut translator.code;
    let untagged = code.label();
    code.load(Width::Word, R3, R6, context::CONTROL + 16);
    code.jump32(When::Equal, R3, With::Constant(0), untagged);
    code.copy(R2, R3);
    code.alu32(Alu::ShiftRight, R2, With::Constant(16));
    code.from_big_endian(R2, Width::Half);
    code.alu32(Alu::And, R3, With::Constant(0xffff));
    code.copy(R1, R6);
    code.call(helper::VLAN_PUSH);
    code.place(untagged);
    for filter in filters {
        translator.session(filter);
    }
    translator.code.load(Width::Word, R0, R6, control(2));
    translator.code.exit();
    translator.code.finish().ok_or(TranslateError::TooLong)
}

/// A word of the control block.
const fn control(word: i16) -> i16 {
    context::CONTROL + 4 * word
}

fn constant(value: u32) -> With {
    With::Constant(value)
}

fn width(size: Size) -> Width {
    match size {
        Size::Word => Width::Word,
        Size::Half => Width::Half,
        Size::Byte => Width::Byte,
    }
}

/// Where bytes are read from when they cannot be read directly; out of the way of frames that can.
struct Detour {
    here: Label,
    back: Label,
    to: Register,
    size: Size,
    /// The offset among the bytes; `None`: it is in R1.
    at: Option<u32>,
}

/// R6: the context; R7: A; R8: X; R9: where the bytes begin.
struct Translator {
    code: Assembler,
    detours: Vec<Detour>,
    /// Where a filter goes that says no.
    no: Option<Label>,
    tagged: bool,
}

impl Translator {
    fn new() -> Self {
        let mut code = Assembler::default();
        code.copy(R6, R1);
        Self { code, detours: Vec::new(), no: None, tagged: false }
    }

    /// The filter of one session.
    fn session(&mut self, Wanted { bit, program }: &Wanted<'_>) {
        let word = control(2 + i16::from(bit / 32));
        let mask = 1u32 << (bit % 32);
        let code = &mut self.code;
        let [next, no, plain, tagged] = [(); 4].map(|()| code.label());
        code.load(Width::Word, R0, R6, word);
        code.alu32(Alu::And, R0, constant(mask));
        code.jump32(When::Equal, R0, constant(0), next);
        code.set(R7, 0);
        code.set(R8, 0);
        code.load(Width::Word, R9, R6, context::DATA);
        code.load(Width::Word, R1, R6, context::DATA_END);
        code.store(Width::Double, R10, END, R1);
        let uses_memory =
            |instruction: &Instruction| matches!(instruction, Instruction::LoadMemory(_) | Instruction::IndexMemory(_));
        if program.instructions.iter().any(uses_memory) {
            (0..8).for_each(|pair| code.store_zero(Width::Double, R10, MEMORY + 8 * pair));
        }
        code.load(Width::Word, R0, R6, control(1));
        code.jump32(When::AnyBit, R0, constant(WATCH_PUNTED), plain);
        code.load(Width::Word, R0, R6, context::TAG_PRESENT);
        code.jump32(When::NotEqual, R0, constant(0), tagged);
        code.place(plain);
        self.no = Some(no);
        self.tagged = false;
        self.variant(&program.instructions, next);
        self.code.place(tagged);
        self.tagged = true;
        self.head();
        self.variant(&program.instructions, next);
        let code = &mut self.code;
        if code.is_used(no) {
            code.place(no);
            code.load(Width::Word, R0, R6, word);
            code.alu32(Alu::And, R0, constant(!mask));
            code.store(Width::Word, R6, word, R0);
        }
        code.place(next);
    }

    fn no(&mut self) -> Label {
        let code = &mut self.code;
        *self.no.get_or_insert_with(|| code.label())
    }

    /// Lays out the beginning of a frame whose tag is beside its bytes.
    fn head(&mut self) {
        let no = self.no();
        let code = &mut self.code;
        code.store_zero(Width::Double, R10, HEAD + 16);
        code.copy(R1, R6);
        code.set(R2, 0);
        code.stack_address(R3, HEAD);
        code.set(R4, TAG_AT);
        code.call(helper::LOAD_BYTES);
        code.jump64(When::NotEqual, R0, constant(0), no);
        code.load(Width::Word, R0, R6, context::TAG_TYPE);
        code.store(Width::Half, R10, HEAD + 12, R0);
        code.load(Width::Word, R0, R6, context::TAG_CONTENT);
        code.from_big_endian(R0, Width::Half);
        code.store(Width::Half, R10, HEAD + 14, R0);
        // Zeros where there are no bytes; nothing is read beyond the frame's length.
        code.copy(R1, R6);
        code.set(R2, TAG_AT);
        code.stack_address(R3, HEAD + 16);
        code.set(R4, TAG_BYTES);
        code.call(helper::LOAD_BYTES);
        code.load(Width::Word, R0, R6, context::LENGTH);
        code.alu32(Alu::Add, R0, constant(TAG_BYTES));
        code.store(Width::Double, R10, LENGTH, R0);
    }

    /// The filter's instructions, for frames with or without a tag beside them; goes on at `next` with a match.
    fn variant(&mut self, program: &[Instruction], next: Label) {
        let places: Vec<Label> = program.iter().map(|_| self.code.label()).collect();
        let reached = reached(program);
        let place = |at: usize| places.get(at).copied().unwrap_or(next);
        for (at, instruction) in program.iter().enumerate() {
            if reached.get(at) == Some(&true) {
                self.code.place(place(at));
                self.instruction(*instruction, at, &place, next);
            }
        }
        for detour in std::mem::take(&mut self.detours) {
            self.detour(&detour);
        }
    }

    fn instruction(&mut self, instruction: Instruction, at: usize, place: &dyn Fn(usize) -> Label, next: Label) {
        let cell = |cell: usize| MEMORY + 4 * i16::try_from(cell).unwrap_or(0);
        match instruction {
            Instruction::LoadAbsolute(size, at) => self.load_absolute(R7, size, at),
            Instruction::LoadIndirect(size, k) => self.load_indirect(size, k),
            Instruction::LoadLength => self.length(R7),
            Instruction::IndexLength => self.length(R8),
            Instruction::LoadConstant(k) => self.code.set(R7, k),
            Instruction::IndexConstant(k) => self.code.set(R8, k),
            Instruction::LoadMemory(from) => self.code.load(Width::Word, R7, R10, cell(from)),
            Instruction::IndexMemory(from) => self.code.load(Width::Word, R8, R10, cell(from)),
            Instruction::IndexHeader(at) => {
                self.load_absolute(R8, Size::Byte, at);
                self.code.alu32(Alu::And, R8, constant(0xf));
                self.code.alu32(Alu::ShiftLeft, R8, constant(2));
            }
            Instruction::Store(to) => self.code.store(Width::Word, R10, cell(to), R7),
            Instruction::StoreIndex(to) => self.code.store(Width::Word, R10, cell(to), R8),
            Instruction::Alter(operation, operand) => self.alter(operation, operand),
            Instruction::Negate => self.code.alu32(Alu::Negate, R7, constant(0)),
            Instruction::ToIndex => self.code.copy(R8, R7),
            Instruction::FromIndex => self.code.copy(R7, R8),
            Instruction::Jump(to) => self.code.jump(place(to)),
            Instruction::Branch(comparison, operand, yes, no) => {
                let when = match comparison {
                    Comparison::Equal => When::Equal,
                    Comparison::Greater => When::Greater,
                    Comparison::GreaterEqual => When::GreaterEqual,
                    Comparison::AnyBit => When::AnyBit,
                };
                self.code.jump32(when, R7, with(operand), place(yes));
                if no != at + 1 {
                    self.code.jump(place(no));
                }
            }
            Instruction::AnswerConstant(0) => {
                let no = self.no();
                self.code.jump(no);
            }
            Instruction::AnswerConstant(_) => self.code.jump(next),
            Instruction::Answer => {
                let no = self.no();
                self.code.jump32(When::Equal, R7, constant(0), no);
                self.code.jump(next);
            }
        }
    }

    fn length(&mut self, to: Register) {
        self.code.load(Width::Word, to, R6, context::LENGTH);
        if self.tagged {
            self.code.alu32(Alu::Add, to, constant(TAG_BYTES));
        }
    }

    fn alter(&mut self, operation: Operation, operand: Operand) {
        let no = self.no();
        let code = &mut self.code;
        let alu = match operation {
            Operation::Add => Alu::Add,
            Operation::Sub => Alu::Sub,
            Operation::Mul => Alu::Mul,
            Operation::And => Alu::And,
            Operation::Or => Alu::Or,
            Operation::Xor => Alu::Xor,
            Operation::Div | Operation::Mod => {
                if operand == Operand::X {
                    code.jump32(When::Equal, R8, constant(0), no);
                }
                if operation == Operation::Div { Alu::Div } else { Alu::Mod }
            }
            Operation::ShiftLeft | Operation::ShiftRight => {
                let alu = if operation == Operation::ShiftLeft { Alu::ShiftLeft } else { Alu::ShiftRight };
                match operand {
                    // The processor would take the amount modulo 32.
                    Operand::K(32..) => code.set(R7, 0),
                    Operand::K(k) => code.alu32(alu, R7, constant(k)),
                    Operand::X => {
                        let [far, done] = [code.label(), code.label()];
                        code.jump32(When::Greater, R8, constant(31), far);
                        code.alu32(alu, R7, With::Register(R8));
                        code.jump(done);
                        code.place(far);
                        code.set(R7, 0);
                        code.place(done);
                    }
                }
                return;
            }
        };
        code.alu32(alu, R7, with(operand));
    }

    fn load_absolute(&mut self, to: Register, size: Size, at: u32) {
        let bytes = size.bytes();
        if self.tagged && at < TAG_END && at + bytes > TAG_AT {
            let no = self.no();
            self.code.load(Width::Double, R1, R10, LENGTH);
            let whole = self.code.label();
            self.code.jump64(When::Greater, R1, constant(at + bytes - 1), whole);
            self.code.jump(no);
            self.code.place(whole);
            self.code.stack_address(R2, HEAD);
            return self.gather(to, size, i16::try_from(at).unwrap_or(0));
        }
        let at = if self.tagged && at >= TAG_END { at - TAG_BYTES } else { at };
        let [here, back] = [self.code.label(), self.code.label()];
        if let Some(offset) = i16::try_from(at).ok().filter(|_| at <= DIRECT_MAX) {
            self.code.load(Width::Double, R1, R10, END);
            self.code.copy(R2, R9);
            self.code.alu64(Alu::Add, R2, constant(at + bytes));
            self.code.jump64(When::Greater, R2, With::Register(R1), here);
            self.code.load(width(size), to, R9, offset);
            self.code.from_big_endian(to, width(size));
        } else {
            self.code.jump(here);
        }
        self.code.place(back);
        self.detours.push(Detour { here, back, to, size, at: Some(at) });
    }

    fn load_indirect(&mut self, size: Size, k: u32) {
        let no = self.no();
        if i32::try_from(k).is_err() {
            // No frame is that long, whatever is in X.
            return self.code.jump(no);
        }
        let [here, back, far, near] = [(); 4].map(|()| self.code.label());
        self.code.copy(R1, R8);
        self.code.alu64(Alu::Add, R1, constant(k));
        if self.tagged {
            self.code.jump64(When::Greater, R1, constant(TAG_END - 1), far);
            self.code.copy(R2, R1);
            self.code.alu64(Alu::Add, R2, constant(size.bytes()));
            self.code.load(Width::Double, R3, R10, LENGTH);
            self.code.jump64(When::Greater, R2, With::Register(R3), no);
            self.code.stack_address(R2, HEAD);
            self.code.alu64(Alu::Add, R2, With::Register(R1));
            self.gather(R7, size, 0);
            self.code.jump(near);
            self.code.place(far);
            self.code.alu64(Alu::Sub, R1, constant(TAG_BYTES));
        }
        self.code.jump64(When::Greater, R1, constant(DIRECT_MAX), here);
        self.code.copy(R2, R9);
        self.code.alu64(Alu::Add, R2, With::Register(R1));
        self.code.copy(R3, R2);
        self.code.alu64(Alu::Add, R3, constant(size.bytes()));
        self.code.load(Width::Double, R4, R10, END);
        self.code.jump64(When::Greater, R3, With::Register(R4), here);
        self.code.load(width(size), R7, R2, 0);
        self.code.from_big_endian(R7, width(size));
        self.code.place(back);
        self.code.place(near);
        self.detours.push(Detour { here, back, to: R7, size, at: None });
    }

    /// Puts bytes together that R2 points to: on the stack nothing may be read that is not aligned.
    fn gather(&mut self, to: Register, size: Size, offset: i16) {
        let last = i16::try_from(size.bytes()).unwrap_or(1);
        self.code.load(Width::Byte, to, R2, offset);
        for byte in 1..last {
            self.code.alu32(Alu::ShiftLeft, to, constant(8));
            self.code.load(Width::Byte, R0, R2, offset + byte);
            self.code.alu32(Alu::Or, to, With::Register(R0));
        }
    }

    /// Reads by the helper what is scattered; what is not there is a "no".
    fn detour(&mut self, detour: &Detour) {
        let no = self.no();
        let code = &mut self.code;
        code.place(detour.here);
        match detour.at {
            Some(at) => code.set(R2, at),
            None => {
                code.copy(R2, R1);
                code.jump64(When::Greater, R2, constant(u32::MAX >> 1), no);
            }
        }
        code.copy(R1, R6);
        code.stack_address(R3, READ);
        code.set(R4, detour.size.bytes());
        code.call(helper::LOAD_BYTES);
        code.jump64(When::NotEqual, R0, constant(0), no);
        code.load(width(detour.size), detour.to, R10, READ);
        code.from_big_endian(detour.to, width(detour.size));
        code.jump(detour.back);
    }

    /// What comes behind the filters.
    fn serve(&mut self, watchers: i32) {
        let code = &mut self.code;
        let [act, redirect, peer] = [(); 3].map(|()| code.label());
        code.load(Width::Word, R0, R6, control(2));
        code.load(Width::Word, R1, R6, control(3));
        code.alu32(Alu::Or, R0, With::Register(R1));
        code.jump32(When::Equal, R0, constant(0), act);
        code.copy(R1, R6);
        code.map(R2, watchers);
        code.set(R3, WATCHERS_SERVE);
        code.call(helper::TAIL_CALL);
        code.place(act);
        code.load(Width::Word, R0, R6, control(1));
        code.alu32(Alu::ShiftRight, R0, constant(WATCH_ACTION_SHIFT));
        code.alu32(Alu::And, R0, constant(WATCH_ACTION_MASK));
        code.load(Width::Word, R1, R6, control(0));
        code.set(R2, 0);
        code.jump32(When::Equal, R0, constant(WATCH_REDIRECT), redirect);
        code.jump32(When::Equal, R0, constant(WATCH_REDIRECT_PEER), peer);
        code.set(R0, TC_ACT_SHOT);
        code.exit();
        code.place(redirect);
        code.call(helper::REDIRECT);
        code.exit();
        code.place(peer);
        code.call(helper::REDIRECT_PEER);
        code.exit();
    }
}

fn with(operand: Operand) -> With {
    match operand {
        Operand::K(k) => With::Constant(k),
        Operand::X => With::Register(R8),
    }
}

/// Which instructions a program can come to: the kernel takes no other ones.
fn reached(program: &[Instruction]) -> Vec<bool> {
    let mut reached = vec![false; program.len()];
    let mark = |reached: &mut Vec<bool>, at: usize| {
        if let Some(one) = reached.get_mut(at) {
            *one = true;
        }
    };
    mark(&mut reached, 0);
    for (at, instruction) in program.iter().enumerate() {
        if reached.get(at) != Some(&true) {
            continue;
        }
        match instruction {
            Instruction::Jump(to) => mark(&mut reached, *to),
            Instruction::Branch(_, _, yes, no) => {
                mark(&mut reached, *yes);
                mark(&mut reached, *no);
            }
            Instruction::Answer | Instruction::AnswerConstant(_) => {}
            // A division by X may end there, but mostly goes on.
            _ => mark(&mut reached, at + 1),
        }
    }
    reached
}
