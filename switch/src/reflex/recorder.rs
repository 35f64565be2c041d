//! The recorder's memory: for each port a ring of the beginnings of its last frames, written by the kernel half all the time, read
//! when somebody asks what happened before.
//!
//! A record that is being written while it is read is left out: its sequence is 0 then, or another one when it is read again.

use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use switch_common::{Captured, PortId, Record, Slice};

use super::error::ReflexError;
use super::maps::with_fd;
use super::{Reflex, sys};

/// The maps.
pub(super) struct Recorder {
    slices: Array<MapData, Slice>,
    records: OwnedFd,
}

impl Recorder {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, ReflexError> {
        let (slices, _) = with_fd(ebpf, "SLICES")?;
        let (_, records) = with_fd::<Array<MapData, Record>>(ebpf, "RECORDS")?;
        Ok(Self { slices, records })
    }
}

impl Reflex {
    /// Gives a port its part of the recorder's memory: `records`, a power of two, from `first` on; 0 takes it away. What it has
    /// written counts from 0 again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_slice(&mut self, port: PortId, first: u32, records: u32) -> Result<(), ReflexError> {
        debug_assert!(records == 0 || records.is_power_of_two());
        let slice = Slice { written: 0, first, records };
        self.recorder.slices.set(port.get().into(), slice, 0).map_err(ReflexError::map("SLICES"))
    }

    /// What is recorded of a port, in the order of time; what is overwritten meanwhile is left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_slice(&self, port: PortId) -> Result<Vec<(Captured, Vec<u8>)>, ReflexError> {
        let slice = self.recorder.slices.get(&port.get().into(), 0).map_err(ReflexError::map("SLICES"))?;
        let read = || {
            sys::lookup_range::<Record>(self.recorder.records.as_fd(), slice.first, slice.records as usize)
                .map_err(ReflexError::map("RECORDS"))
        };
        if slice.records == 0 {
            return Ok(Vec::new());
        }
        let (first, again) = (read()?, read()?);
        // A record of an earlier slice may lie there: its port tells, or its sequence, which no frame of this one has had.
        let whole = |(a, b): &(Record, Record)| {
            let is_ours = a.about.ingress == port.get() && a.sequence <= slice.written + u64::from(slice.records);
            a.sequence != 0 && a.sequence == b.sequence && is_ours
        };
        let mut records: Vec<Record> = first.into_iter().zip(again).filter(whole).map(|(record, _)| record).collect();
        records.sort_by_key(|record| (record.about.time_ns, record.sequence));
        Ok(records
            .into_iter()
            .map(|record| {
                let captured = (record.about.captured as usize).min(record.bytes.len());
                (record.about, record.bytes.get(..captured).unwrap_or_default().to_vec())
            })
            .collect())
    }
}
