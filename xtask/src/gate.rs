//! `cargo xtask gate`: instructions of the brain per frame, counted by callgrind and held against a budget.
//!
//! A count of instructions is the same on an idle machine and on a busy one, so it can refuse a change where a clock could
//! only shrug. The program (`tests/programs/brain.rs`, in release) is run twice with different numbers of frames; what the
//! second has more is the frames' alone. The kernel half has its gate in `switch/src/reflex/tests/cost.rs`, allocations have
//! theirs in `switch/src/forwarding/allocation.rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, need};
use crate::workspace;

/// What a frame may cost. Raising it is a decision that belongs into the change that needs it; when a change makes frames
/// cheaper, it is lowered.
const INSTRUCTIONS_MAX: u64 = 1_400;
/// Frames of the two runs.
const FEW: u64 = 20_000;
const MANY: u64 = 120_000;

/// Counts, says, and refuses.
pub fn run() -> Result<()> {
    setup::ensure(&[need("valgrind", "valgrind", "counts the instructions of the brain")])?;
    let brain = workspace::brain()?;
    let (few, many) = (instructions(&brain, FEW)?, instructions(&brain, MANY)?);
    let per_frame = many.checked_sub(few).context("more frames cost less, so nothing was counted")? / (MANY - FEW);
    eprintln!("the brain takes {per_frame} instructions per frame; {INSTRUCTIONS_MAX} are allowed");
    if per_frame > INSTRUCTIONS_MAX {
        bail!(
            "the brain takes {per_frame} instructions per frame instead of {INSTRUCTIONS_MAX} at most; \
             `valgrind --tool=callgrind {} {MANY}` and callgrind_annotate say where",
            brain.display()
        );
    }
    if per_frame == 0 {
        bail!("the brain did nothing");
    }
    Ok(())
}

/// Instructions of a whole run, as callgrind counts them.
fn instructions(brain: &Path, frames: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(brain).arg(frames.to_string());
    let output = command.output().context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind ended with {}: {}", output.status, said.trim());
    }
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = line.with_context(|| format!("callgrind said no count: {}", said.trim()))?;
    count.trim().parse().context("callgrind's count")
}
