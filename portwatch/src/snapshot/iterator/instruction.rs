//! Instructions of eBPF, as far as the iterator's program has them. See
//! Documentation/bpf/standardization/instruction-set.rst.

/// Register that points behind the program's own memory.
pub const STACK: u8 = 10;

/// `struct bpf_insn` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    pub const EXIT: Self = Self::new(0x95, 0, 0, 0, 0);

    const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        let registers = if cfg!(target_endian = "big") {
            to << 4 | from
        } else {
            from << 4 | to
        };
        Self {
            code,
            registers,
            offset,
            value,
        }
    }

    /// `to = *(u64 *)(from + offset)`
    pub const fn load(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x79, to, from, offset, 0)
    }

    /// `to = *(u32 *)(from + offset)`
    pub const fn load_word(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    /// `*(u64 *)(to + offset) = from`
    pub const fn store(to: u8, offset: i16, from: u8) -> Self {
        Self::new(0x7b, to, from, offset, 0)
    }

    /// `to = from`
    pub const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    /// `to = value`
    pub const fn set(to: u8, value: i32) -> Self {
        Self::new(0xb7, to, 0, 0, value)
    }

    /// `to += value`
    pub const fn add(to: u8, value: i32) -> Self {
        Self::new(0x07, to, 0, 0, value)
    }

    /// Passes over as many instructions when the register is 0.
    pub const fn if_zero(register: u8, over: i16) -> Self {
        Self::new(0x15, register, 0, over, 0)
    }

    /// Calls a helper with registers 1 to 5; its answer is in register 0.
    pub const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }
}
