//! Capture filters: tcpdump's expressions, compiled by libpcap, run where the frame is.
//!
//! ```text
//! "tcp port 80" ─ libpcap ─▶ classic BPF ─ decode ─▶ Program ─┬─ interpret:  frames in user space
//!                                                             └─ translate:  eBPF, spliced into one program for all sessions
//! ```
//!
//! libpcap is loaded when the first expression is compiled; where it is absent only expressions are refused. Both ways of
//! running a program give the answers of libpcap's own `bpf_filter`; tests compare all three.
//!
//! **Limit**: names of hosts in an expression are resolved when it is compiled, by the host's resolver, which may take seconds:
//! compile on a thread that may wait.

mod assembler;
mod instruction;
mod interpret;
mod pcap;
mod position;
mod translate;

#[cfg(test)]
mod tests;

use std::fmt;

use instruction::Instruction;

pub use instruction::Raw;
pub use translate::{TranslateError, Translated, Wanted, translate};

/// Longest expression that is taken, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Why an expression is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", position.map(|position| format!(" (at character {})", position + 1)).unwrap_or_default())]
pub struct FilterError {
    /// For people; says what to do where there is something.
    pub message: String,
    /// Where in the expression, in bytes from its beginning, when that is known.
    pub position: Option<usize>,
}

/// A compiled filter.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    expression: String,
    instructions: Vec<Instruction>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?}, {} instructions)", self.expression, self.instructions.len())
    }
}

impl Program {
    /// Compiles a tcpdump expression for Ethernet frames. Blocks, maybe for seconds, when it names hosts.
    ///
    /// # Errors
    /// It is none, or libpcap is not there.
    pub fn compile(expression: &str) -> Result<Self, FilterError> {
        let plain = |message: String| FilterError { message, position: None };
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(plain(format!("the filter has more than {EXPRESSION_BYTES_MAX} characters; shorten it")));
        }
        let library = pcap::library().map_err(plain)?;
        match library.compile(expression) {
            Ok(raw) => Self::new(expression, &raw).map_err(plain),
            Err(message) => {
                let position = position::of_error(expression, |text| library.compile(text).is_ok());
                Err(FilterError { message, position })
            }
        }
    }

    fn new(expression: &str, raw: &[Raw]) -> Result<Self, String> {
        Ok(Self { expression: expression.to_owned(), instructions: instruction::decode(raw)? })
    }

    /// The expression it was made of.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether a whole frame matches, its tags among its bytes.
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.matches_beginning(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX))
    }

    /// Whether a frame of `length` bytes matches, of which only the first are at hand. What lies behind them does not match.
    pub fn matches_beginning(&self, bytes: &[u8], length: u32) -> bool {
        interpret::run(&self.instructions, bytes, length) != 0
    }
}
