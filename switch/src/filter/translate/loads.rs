//! Reading the frame's bytes: directly, by the helper, or out of a tag that is beside them.

use super::super::assembler::{Alu, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Register, When, Width, With};
use super::super::instruction::Size;
use super::{
    DIRECT_MAX, Detour, END, HEAD, LENGTH, READ, Reading, TAG_AT, TAG_BYTES, TAG_END, Translator, constant, helper,
    width,
};

impl Translator {
    pub(super) fn load_absolute(&mut self, to: Register, size: Size, at: u32) {
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
        if let Some(offset) = i16::try_from(at).ok().filter(|_| at <= DIRECT_MAX && self.reading == Reading::Directly) {
            self.code.load(Width::Double, R1, R10, END);
            self.code.copy(R2, R9);
            self.code.alu64(Alu::Add, R2, constant(at + bytes));
            self.code.jump64(When::Greater, R2, With::Register(R1), here);
            self.code.load(width(size), to, R9, offset);
            self.code.big_endian(to, width(size));
        } else {
            self.code.jump(here);
        }
        self.code.place(back);
        self.detours.push(Detour { here, back, to, size, at: Some(at) });
    }

    pub(super) fn load_indirect(&mut self, size: Size, k: u32) {
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
        if self.reading == Reading::Directly {
            self.read_directly(size, here);
        } else {
            self.code.jump(here);
        }
        self.code.place(back);
        self.code.place(near);
        self.detours.push(Detour { here, back, to: R7, size, at: None });
    }

    /// Reads at R1, or leaves for the detour.
    fn read_directly(&mut self, size: Size, here: Label) {
        self.code.jump64(When::Greater, R1, constant(DIRECT_MAX), here);
        self.code.copy(R2, R9);
        self.code.alu64(Alu::Add, R2, With::Register(R1));
        self.code.copy(R3, R2);
        self.code.alu64(Alu::Add, R3, constant(size.bytes()));
        self.code.load(Width::Double, R4, R10, END);
        self.code.jump64(When::Greater, R3, With::Register(R4), here);
        self.code.load(width(size), R7, R2, 0);
        self.code.big_endian(R7, width(size));
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
    pub(super) fn detour(&mut self, detour: &Detour) {
        let no = self.no();
        let code = &mut self.code;
        code.place(detour.here);
        if let Some(at) = detour.at {
            code.set(R2, at);
        } else {
            code.copy(R2, R1);
            code.jump64(When::Greater, R2, constant(u32::MAX >> 1), no);
        }
        code.copy(R1, R6);
        code.stack_address(R3, READ);
        code.set(R4, detour.size.bytes());
        code.call(helper::LOAD_BYTES);
        code.jump64(When::NotEqual, R0, constant(0), no);
        code.load(width(detour.size), detour.to, R10, READ);
        code.big_endian(detour.to, width(detour.size));
        code.jump(detour.back);
    }
}
