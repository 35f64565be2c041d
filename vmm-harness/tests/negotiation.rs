//! The device's registers: what a driver may say before it is ready, and what happens when it says something else.

#[expect(dead_code, reason = "the rig is shared with the tests of the queues")]
mod rig;

use rig::{MEMORY_BYTES, Rig};
use vmm_harness::Fault;
use vmm_harness::device::Wrote;

const RINGS: [u64; 3] = [0x1000, 0x2000, 0x3000];

#[test]
fn the_device_introduces_itself_and_its_configuration() {
    let rig = Rig::cold();
    let words = [0x00, 0x04, 0x08].map(|offset| rig.read_register(offset));
    assert_eq!(words, [0x7472_6976, 2, 1]);
    let mut config = [0; 12];
    rig.device.read(0x100, &mut config);
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5]);
    let mut far = [7; 8];
    rig.device.read(u64::MAX - 3, &mut far);
    assert_eq!(far, [0; 8]);
}

#[test]
fn all_promised_features_are_offered() {
    let mut rig = Rig::cold();
    let low = rig.read_register(0x10);
    for bit in [0, 1, 3, 5, 7, 8, 11, 12, 15, 16, 28, 29] {
        assert!(low & 1 << bit != 0, "feature {bit}");
    }
    rig.set(0x14, 1);
    assert_eq!(rig.read_register(0x10), 1);
}

#[test]
fn features_that_were_not_offered_or_lack_what_they_need_are_not_agreed_on() {
    // Multiqueue; receive segmentation without checksums; transmit segmentation without checksums.
    for features in [1 << 22, 1 << 7, 1 << 11] {
        let mut rig = Rig::cold();
        rig.negotiate(features);
        assert_eq!(rig.read_register(0x70) & 8, 0, "{features:#x}");
        assert_eq!(rig.register(0x70, 7), Err(Fault::Premature("FEATURES_OK")));
    }
    let mut rig = Rig::cold();
    rig.negotiate(1 << 7 | 1 << 1);
    assert_eq!(rig.read_register(0x70) & 8, 8);
}

#[test]
fn rings_outside_memory_and_odd_sizes_end_the_guest() {
    let sizes = [0, 3, 512, 0x1_0000, 0xffff_ffff];
    for size in sizes {
        let mut rig = Rig::cold();
        rig.negotiate(0);
        rig.describe(0, size, RINGS);
        rig.describe(1, 16, RINGS);
        let size = u32::try_from(size).expect("a register");
        assert_eq!(rig.register(0x70, 15), Err(Fault::QueueSize { queue: 0, size }));
    }
    for address in [MEMORY_BYTES, MEMORY_BYTES - 16, !15, 0x1001] {
        for which in 0..3 {
            let mut rings = RINGS;
            *rings.get_mut(which).expect("three rings") = address;
            let mut rig = Rig::cold();
            rig.negotiate(0);
            rig.describe(0, 16, RINGS);
            rig.describe(1, 16, rings);
            assert_eq!(rig.register(0x70, 15), Err(Fault::Rings(1)), "{which} {address:#x}");
        }
    }
}

#[test]
fn a_driver_that_is_ready_without_its_queues_is_ended() {
    let mut rig = Rig::cold();
    rig.negotiate(0);
    rig.describe(0, 16, RINGS);
    assert_eq!(rig.register(0x70, 15), Err(Fault::Premature("both queues were ready")));
}

#[test]
fn a_reset_forgets_everything() {
    let mut rig = Rig::new(0);
    assert!(rig.device.is_started());
    assert_eq!(rig.register(0x70, 0), Ok(Wrote::Changed));
    assert!(!rig.device.is_started());
    assert_eq!((rig.read_register(0x70), rig.read_register(0x44)), (0, 0));
    assert_eq!(rig.read_register(0x10) & 1 << 5, 1 << 5, "and still offers what it did");
}

#[test]
fn writes_of_another_width_and_to_no_register_do_nothing() {
    let mut rig = Rig::cold();
    for offset in (0..0x200).chain([u64::MAX]) {
        for bytes in [&[][..], &[0xff], &[0xff; 2], &[0xff; 8]] {
            assert_eq!(rig.device.write(offset, bytes), Ok(Wrote::Nothing));
        }
    }
    assert_eq!(rig.register(0x3c, 5), Ok(Wrote::Nothing));
    rig.set(0x30, 9);
    assert_eq!((rig.register(0x38, 5), rig.read_register(0x34)), (Ok(Wrote::Nothing), 0));
}
