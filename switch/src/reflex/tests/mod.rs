//! The programs in this kernel: on veth pairs in namespaces of their own, and one frame at a time by `BPF_PROG_TEST_RUN`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod adoption;
mod bench;
mod books;
mod cost;
mod drops;
mod evidence;
mod flow_copies;
mod flow_kinds;
mod flow_lives;
mod flow_segments;
mod flow_table;
mod lab;
mod names;
mod packets;
mod passing;
mod refusals;
mod tap;
mod traffic;
mod watching;

use aya::programs::Program;

use super::Hook;

/// The gate for the verifier's work, per program.
const VERIFIED_MAX: u32 = 250_000;

#[test]
fn the_verifier_takes_every_program_well_below_its_limit() {
    let Some(lab) = lab::enter("the_verifier_takes_every_program_well_below_its_limit") else { return };
    let (reflex, _) = lab.open(Hook::Auto);
    assert_eq!(reflex.kernel_drops_problem(), None);
    for (name, program) in reflex.ebpf.programs() {
        let info = match program {
            Program::SchedClassifier(program) => program.info(),
            Program::BtfTracePoint(program) => program.info(),
            _ => panic!("{name} is of no kind that is known here"),
        };
        let info = info.unwrap();
        let verified = info.verified_instruction_count().unwrap();
        let bytes = info.size_jitted();
        eprintln!("{name}: {verified} instructions verified of {VERIFIED_MAX} allowed, {bytes} bytes as machine code");
        assert!(verified < VERIFIED_MAX);
    }
}
