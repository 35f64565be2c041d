//! What can perform a scenario: a Linux bridge (the oracle) and Weft on taps; memory is the third.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Result, bail};
use switch_common::MacAddr;

use crate::scenario::{Feature, PortPlan};

pub mod bridge;
pub mod memory;
pub mod taps;

/// A switch under test, its ports numbered as in the scenario.
pub trait Fabric {
    /// What it can do beyond forwarding.
    fn features(&self) -> &[Feature];
    /// Adds a port and waits until it forwards.
    fn add_port(&mut self, index: usize, plan: &PortPlan) -> Result<()>;
    /// Takes a port away.
    fn remove_port(&mut self, index: usize) -> Result<()>;
    /// Sets a port's netdev up or down, and waits until the switch has seen it.
    fn set_up(&mut self, index: usize, up: bool) -> Result<()>;
    /// Makes a static entry.
    fn pin(&mut self, index: usize, station: MacAddr) -> Result<()>;
    /// Deletes an entry.
    fn unpin(&mut self, station: MacAddr) -> Result<()>;
    /// Forgets learned stations, of one port or of all.
    fn flush(&mut self, index: Option<usize>) -> Result<()>;
    /// A station behind a port sends a frame.
    fn send(&mut self, index: usize, frame: &[u8]) -> io::Result<()>;
    /// What has arrived at a port since the last call.
    fn receive(&mut self, index: usize) -> Result<Vec<Vec<u8>>>;
    /// The stations, and behind which port they are.
    fn stations(&mut self) -> Result<BTreeMap<MacAddr, usize>>;

    /// Whether it counts drops by reason.
    fn counts_drops(&self) -> bool {
        self.features().contains(&Feature::Drops)
    }
    /// Frames dropped at a port for a reason, so far.
    fn drops(&mut self, _index: usize, reason: &str) -> Result<u64> {
        bail!("this fabric does not count {reason}")
    }
    /// Lets time pass.
    fn advance(&mut self, _secs: u64) -> Result<()> {
        bail!("this fabric's time is not ours")
    }
    /// Waits until nothing is on its way, when no sentinel can show it.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
    /// The orderly end, with its assertions.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
