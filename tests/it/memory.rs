//! What only the loop in memory can show: failures between a decision and its delivery.

use anyhow::{Result, ensure};
use switch_common::{DropReason, PortId};
use weft_tests::fabric::Fabric as _;
use weft_tests::fabric::memory::Memory;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::scenario;

/// Three ports; the last one's copies fail from now on.
fn failing(fail: impl FnOnce(&mut Memory, PortId), reason: DropReason) -> Result<()> {
    let scenario = scenario::read("learning")?;
    let mut memory = Memory::new(&scenario);
    for (index, plan) in scenario.port.iter().enumerate() {
        memory.add_port(index, plan)?;
    }
    let third = PortId::new(3).expect("3 is a port id");
    fail(&mut memory, third);
    memory.send(0, &Builder::new(frames::station(1), MacAddr::BROADCAST).build())?;
    ensure!(memory.receive(1)?.len() == 1, "a port's trouble is that port's trouble");
    ensure!(memory.receive(2)?.is_empty() && memory.receive(0)?.is_empty());
    ensure!(memory.egress_drops(2, reason)? == 1);
    memory.finish()
}

#[test]
fn a_copy_for_a_port_that_went_away_is_egress_gone() -> Result<()> {
    failing(|memory, port| memory.medium().lose(port), DropReason::EgressGone)
}

#[test]
fn a_copy_that_the_kernel_refuses_is_inject_failed() -> Result<()> {
    failing(|memory, port| memory.medium().refuse(port, libc::ENOMEM), DropReason::InjectFailed)
}
