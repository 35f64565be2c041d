//! Programs that were made at run time, into the kernel.

use std::io;
#[cfg(test)]
use std::os::fd::AsFd;
use std::os::fd::{FromRawFd, OwnedFd};

use super::bpf;
#[cfg(test)]
use super::{BPF_PROG_TEST_RUN, TestAttr, raw};
use crate::filter::Translated;

const BPF_PROG_LOAD: libc::c_long = 5;

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as a classifier needs it: `expected_attach_type` stays 0, as in those that aya loads, or
/// the one could not jump into the other.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `BPF_PROG_TYPE_SCHED_CLS`.
const CLASSIFIER: u32 = 3;
/// How much of what the verifier says of a refused program is kept.
const LOG_BYTES: u32 = 1 << 16;

/// Loads a classifier that was made at run time.
pub(in crate::reflex) fn load_classifier(code: &[Translated]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind: CLASSIFIER,
        instructions: u32::try_from(code.len()).unwrap_or(u32::MAX),
        code: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        name: *b"weft_filters\0\0\0\0",
        ..LoadAttr::default()
    };
    let loaded = bpf(BPF_PROG_LOAD, &mut attr).or_else(|error| {
        // Once more, to hear why: the end of what the verifier says.
        let mut log = vec![0u8; LOG_BYTES as usize];
        (attr.log_level, attr.log_bytes, attr.log) = (1, LOG_BYTES, log.as_mut_ptr() as u64);
        bpf(BPF_PROG_LOAD, &mut attr).map_err(|_again| {
            let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            let last: Vec<&str> = said.lines().rev().filter(|line| !line.starts_with("processed ")).take(3).collect();
            io::Error::new(error.kind(), format!("{error}: {}", last.join(" / ")))
        })
    })?;
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

/// A classifier for tests.
#[cfg(test)]
pub(crate) struct TestClassifier(OwnedFd);

#[cfg(test)]
impl TestClassifier {
    pub(crate) fn load(code: &[Translated]) -> io::Result<Self> {
        load_classifier(code).map(Self)
    }

    /// Its answer to a frame with this control block.
    pub(crate) fn run(&self, frame: &[u8], control: [u32; 5]) -> io::Result<u32> {
        // `struct __sk_buff`, as far as the control block.
        let mut context = [0u32; 17];
        context[12..].copy_from_slice(&control);
        let mut attr = TestAttr {
            program_fd: raw(self.0.as_fd()),
            data_in_bytes: u32::try_from(frame.len()).unwrap_or(0),
            data_in: frame.as_ptr() as u64,
            context_in_bytes: u32::try_from(size_of_val(&context)).unwrap_or(0),
            context_in: context.as_ptr() as u64,
            ..TestAttr::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attr)?;
        Ok(attr.answer)
    }
}
