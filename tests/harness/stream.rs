//! A numbered stream from one station to another: none lost, none reordered, none doubled.
//!
//! The sender sends a volley and waits until all of it has arrived. This back-pressure keeps a burst at a rate that the
//! receiver and the brain can follow on a machine of any speed: between two volleys nothing waits. (A sender that always
//! keeps frames under way is a backlog without end, which the switch breaks after 50 ms at the price of some order; that
//! is not what is promised here.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::frames::{self, Builder};
use crate::station::{Station, until_readable};
use crate::wait;

/// Frames in a volley; below the ring of a tap, which holds 500.
const VOLLEY: u64 = 128;

/// One direction between two stations.
#[derive(Debug)]
pub struct Stream<'a> {
    from: &'a Station,
    to: &'a Station,
    frame: Builder,
    sent: u64,
    arrived: u64,
}

impl<'a> Stream<'a> {
    /// A stream of copies of `frame`, each with its number in place of the payload.
    pub fn new(from: &'a Station, to: &'a Station, frame: Builder) -> Self {
        Self { from, to, frame, sent: 0, arrived: 0 }
    }

    /// Sends `count` more frames and waits until all have arrived in order.
    pub fn pump(&mut self, count: u64) -> Result<()> {
        let end = self.sent + count;
        while self.arrived < end {
            for _ in self.sent..end.min(self.sent + VOLLEY) {
                self.send()?;
            }
            while self.arrived < self.sent {
                self.receive()?;
            }
        }
        Ok(())
    }

    /// Goes on until told to stop; how many frames arrived.
    pub fn pump_until(&mut self, stop: &AtomicBool) -> Result<u64> {
        let before = self.arrived;
        while !stop.load(Ordering::Relaxed) {
            self.pump(VOLLEY / 4)?;
        }
        Ok(self.arrived - before)
    }

    fn send(&mut self) -> Result<()> {
        let frame = self.frame.clone().number(self.sent).build();
        self.from.send(&frame).with_context(|| format!("frame {}", self.sent))?;
        self.sent += 1;
        Ok(())
    }

    /// Takes in at least one frame; each must be the next one.
    fn receive(&mut self) -> Result<()> {
        let before = self.arrived;
        let end = wait::end_of(wait::SOON);
        while self.arrived == before {
            while let Some(frame) = self.to.receive()? {
                match frames::number_of(&frame) {
                    Some(number) if number == self.arrived => self.arrived += 1,
                    Some(number) => bail!("frame {number} arrived when {} was due", self.arrived),
                    None => bail!("a frame of somebody else's arrived at {}: {frame:02x?}", self.to.netdev()),
                }
            }
            if self.arrived == before {
                ensure!(std::time::Instant::now() < end, "frame {} of {} never arrived", self.arrived, self.sent);
                until_readable(&[self.to], Duration::from_secs(1))?;
            }
        }
        Ok(())
    }
}
