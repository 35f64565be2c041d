//! What the programs themselves have to say: a line when something happens that cannot happen, never one per frame.

use std::os::fd::{AsFd, BorrowedFd};

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::Reflex;

/// The programs' log. Readable as a file descriptor when there is something in it.
pub struct Diagnostics(EbpfLogger<ToTracing>);

impl Reflex {
    /// The programs' log; `None` when it has been taken before.
    pub fn diagnostics(&mut self) -> Option<Diagnostics> {
        EbpfLogger::init_with_logger(&mut self.ebpf, ToTracing).ok().map(Diagnostics)
    }
}

impl Diagnostics {
    /// Moves what the programs have said into this process's log.
    pub fn drain(&mut self) {
        self.0.flush();
    }
}

impl AsFd for Diagnostics {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `log` is what aya-log speaks, `tracing` is what this program writes.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::warn!(target: "weft::reflex", "{}", record.args());
    }

    fn flush(&self) {}
}
