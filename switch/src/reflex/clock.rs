//! The kernel's clock as the programs read it, for who is to know what is dead by their rule.

use std::os::fd::{AsFd, OwnedFd};

use super::error::ReflexError;
use super::{CLOCK, Reflex, sys};
use aya::programs::{Program, ProgramError};

/// The program that reads the clock. It can be asked from any thread, and as long as this lives.
#[derive(Debug)]
pub struct Clock(OwnedFd);

impl Clock {
    /// Jiffies, the low half.
    ///
    /// # Errors
    /// The kernel cannot run a program for us.
    pub fn jiffies(&self) -> Result<u32, ReflexError> {
        sys::test_run(self.0.as_fd()).map_err(refused)
    }
}

impl Reflex {
    /// The clock, for another thread.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn clock(&self) -> Result<Clock, ReflexError> {
        let Some(Program::SchedClassifier(program)) = self.ebpf.program(CLOCK) else {
            return Err(ReflexError::Foreign { what: format!("classifier '{CLOCK}'") });
        };
        let fd = program.fd().map_err(|source| ReflexError::Program { program: CLOCK, source: Box::new(source) })?;
        fd.as_fd().try_clone_to_owned().map(Clock).map_err(refused)
    }
}

fn refused(source: std::io::Error) -> ReflexError {
    ReflexError::Program { program: CLOCK, source: Box::new(ProgramError::IOError(source)) }
}
