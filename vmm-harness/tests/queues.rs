//! The device against hand-made rings: what is moved, and what ends the guest.

mod rig;

use proptest::prelude::*;
use rig::{BUFFERS, EVENT_IDX, INDIRECT, MEMORY_BYTES, MERGE, NEXT, QUEUE_SIZE, RX, Rig, TX, WRITE};
use vmm_harness::Fault;

const HEADER: usize = 12;

/// A header of zeros and `bytes` of a counting pattern.
fn frame(bytes: usize) -> Vec<u8> {
    let body = (0_u8..=255).cycle().take(bytes);
    [0; HEADER].into_iter().chain(body).collect()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("small")
}

#[test]
fn a_header_split_over_one_to_twelve_descriptors_is_put_together() {
    for parts in 1..=HEADER {
        let mut rig = Rig::new(0);
        let all = frame(60);
        rig.put(BUFFERS, &all);
        let mut buffers: Vec<(u64, u32)> = (0..parts - 1).map(|part| (BUFFERS + part as u64, 1)).collect();
        buffers.push((BUFFERS + parts as u64 - 1, length(all.len() - (parts - 1))));
        rig.transmit(&buffers).expect("a lawful chain");
        assert_eq!(rig.device.port().sent, [all], "{parts} parts");
        assert_eq!(rig.used_index(TX), 1);
    }
}

#[test]
fn descriptors_of_no_length_are_passed_over() {
    let mut rig = Rig::new(0);
    let all = frame(60);
    rig.put(BUFFERS, &all);
    let buffers = [(0, 0), (BUFFERS, 12), (u64::MAX, 0), (BUFFERS + 12, 60), (0, 0)];
    rig.transmit(&buffers).expect("a lawful chain");
    assert_eq!(rig.device.port().sent, [all]);
}

#[test]
fn a_chain_shorter_than_the_header_ends_the_guest() {
    for bytes in 0..12 {
        let fault = Rig::new(0).transmit(&[(BUFFERS, bytes)]);
        assert_eq!(fault, Err(Fault::NoHeader { queue: 1, bytes: bytes.into() }));
    }
}

#[test]
fn a_chain_that_loops_ends_the_guest() {
    let mut rig = Rig::new(0);
    rig.descriptor(TX, 0, (BUFFERS, 12, NEXT, 1));
    rig.descriptor(TX, 1, (BUFFERS, 12, NEXT, 0));
    rig.offer(TX, 0);
    assert_eq!(rig.work(), Err(Fault::Chain(1)));
}

#[test]
fn a_chain_that_leaves_its_table_ends_the_guest() {
    let mut rig = Rig::new(0);
    rig.descriptor(TX, 0, (BUFFERS, 12, NEXT, QUEUE_SIZE));
    rig.offer(TX, 0);
    assert_eq!(rig.work(), Err(Fault::Chain(1)));
    let mut rig = Rig::new(0);
    rig.offer(TX, QUEUE_SIZE);
    assert_eq!(rig.work(), Err(Fault::Chain(1)));
}

#[test]
fn a_buffer_beyond_memory_ends_the_guest() {
    let cases = [(MEMORY_BYTES - 10, 72), (MEMORY_BYTES, 72), (u64::MAX - 20, 72), (BUFFERS, u32::MAX), (1 << 63, 72)];
    for buffer in cases {
        assert_eq!(Rig::new(0).transmit(&[buffer]), Err(Fault::Buffer(1)), "{buffer:x?}");
    }
    let mut rig = Rig::new(0);
    rig.put(MEMORY_BYTES - 72, &frame(60));
    rig.transmit(&[(MEMORY_BYTES - 72, 72)]).expect("the very end of memory is memory");
    assert_eq!(rig.device.port().sent, [frame(60)]);
}

#[test]
fn a_chain_longer_than_any_frame_ends_the_guest() {
    let fault = Rig::new(0).transmit(&[(BUFFERS, 0x8000), (BUFFERS, 0x8000), (BUFFERS, 0x100)]);
    assert_eq!(fault, Err(Fault::TooLong(0x1_0100)));
}

#[test]
fn an_index_that_jumps_ends_the_guest() {
    for index in [QUEUE_SIZE + 1, 0x8000, u16::MAX] {
        let mut rig = Rig::new(0);
        rig.set_available(TX, index);
        assert_eq!(rig.work(), Err(Fault::IndexJump(1)), "{index}");
        let mut rig = Rig::new(0);
        rig.set_available(RX, index);
        assert_eq!(rig.work(), Err(Fault::IndexJump(0)), "{index}");
    }
}

#[test]
fn a_buffer_in_the_wrong_direction_ends_the_guest() {
    let mut rig = Rig::new(0);
    rig.descriptor(TX, 0, (BUFFERS, 72, WRITE, 0));
    rig.offer(TX, 0);
    assert_eq!(rig.work(), Err(Fault::Direction(1)));
    let mut rig = Rig::new(0);
    rig.descriptor(RX, 0, (BUFFERS, 72, 0, 0));
    rig.offer(RX, 0);
    assert_eq!(rig.work(), Err(Fault::Direction(0)));
}

#[test]
fn an_indirect_table_is_followed_once() {
    let mut rig = Rig::new(0);
    let all = frame(60);
    rig.put(BUFFERS, &all);
    let table = 0x8_0000;
    rig.descriptor_at(table, (BUFFERS, 12, NEXT, 1));
    rig.descriptor_at(table + 16, (BUFFERS + 12, 60, 0, 0));
    rig.descriptor(TX, 0, (table, 32, INDIRECT, 0));
    rig.offer(TX, 0);
    rig.work().expect("a lawful chain");
    assert_eq!(rig.device.port().sent, [all]);

    for (entry, bytes) in [((table, 32, INDIRECT, 0), 32), ((BUFFERS, 12, NEXT, 7), 32), ((BUFFERS, 12, 0, 0), 7)] {
        let mut rig = Rig::new(0);
        rig.descriptor_at(table, entry);
        rig.descriptor(TX, 0, (table, bytes, INDIRECT, 0));
        rig.offer(TX, 0);
        assert_eq!(rig.work(), Err(Fault::Chain(1)), "{entry:x?}");
    }
}

#[test]
fn a_frame_that_the_kernel_refuses_is_counted_and_the_guest_goes_on() {
    let mut rig = Rig::new(0);
    rig.device.port().refusal = Some(22);
    rig.transmit(&[(BUFFERS, 72)]).expect("not the guest's end");
    rig.device.port().refusal = Some(5);
    rig.transmit(&[(BUFFERS, 72)]).expect("not the guest's end");
    let stats = rig.device.stats();
    assert_eq!((stats.tx_refused, stats.tx_failed, stats.tx_frames), (1, 1, 0));
    assert_eq!(rig.used_index(TX), 2);
}

#[test]
fn a_frame_for_which_the_port_has_no_room_is_sent_later() {
    let mut rig = Rig::new(0);
    rig.device.port().refusal = Some(11);
    let work = rig.transmit(&[(BUFFERS, 72)]).expect("lawful");
    assert!(work.awaits_room && !work.more);
    assert_eq!(rig.used_index(TX), 0);
    rig.device.port().refusal = None;
    assert!(!rig.work().expect("lawful").awaits_room);
    assert_eq!((rig.device.port().sent.len(), rig.used_index(TX)), (1, 1));
}

#[test]
fn a_received_frame_is_spread_over_merged_buffers_that_appear_together() {
    let mut rig = Rig::new(MERGE);
    rig.device.port().incoming.push_back(frame(200));
    for index in 0_u16..2 {
        rig.descriptor(RX, index, (BUFFERS + 0x100 * u64::from(index), 100, WRITE, 0));
        rig.offer(RX, index);
    }
    rig.work().expect("lawful");
    assert_eq!(rig.used_index(RX), 0, "two buffers are too few: nothing appears");
    rig.descriptor(RX, 2, (BUFFERS + 0x200, 100, WRITE, 0));
    rig.offer(RX, 2);
    rig.work().expect("lawful");
    assert_eq!(rig.used_index(RX), 3);
    assert_eq!([rig.used(RX, 0), rig.used(RX, 1), rig.used(RX, 2)], [(0, 100), (1, 100), (2, 12)]);
    let got = [rig.get(BUFFERS, 100), rig.get(BUFFERS + 0x100, 100), rig.get(BUFFERS + 0x200, 12)].concat();
    assert_eq!(got.get(10..12), Some(&[3, 0][..]), "the number of buffers");
    assert_eq!(got.get(12..), frame(200).get(12..));
}

#[test]
fn without_merging_a_frame_that_is_too_long_is_dropped_and_the_buffer_kept() {
    let mut rig = Rig::new(0);
    rig.device.port().incoming.extend([frame(200), frame(60)]);
    for index in 0_u16..2 {
        rig.descriptor(RX, index, (BUFFERS + 0x100 * u64::from(index), 100, WRITE, 0));
        rig.offer(RX, index);
    }
    rig.work().expect("lawful");
    assert_eq!((rig.device.stats().rx_dropped, rig.device.stats().rx_frames), (1, 1));
    assert_eq!((rig.used_index(RX), rig.used(RX, 0)), (1, (0, 72)));
}

#[test]
fn without_buffers_frames_stay_in_the_port() {
    let mut rig = Rig::new(MERGE);
    rig.device.port().incoming.push_back(frame(60));
    let work = rig.work().expect("lawful");
    assert!(!work.awaits_frame && !work.more);
    assert_eq!(rig.device.port().incoming.len(), 1);
}

#[test]
fn the_driver_is_interrupted_when_it_asked_to_be() {
    let mut rig = Rig::new(EVENT_IDX);
    rig.put(BUFFERS, &frame(60));
    rig.set_used_event(TX, 1);
    assert!(!rig.transmit(&[(BUFFERS, 72)]).expect("lawful").interrupt, "one is not yet the second");
    assert!(rig.transmit(&[(BUFFERS, 72)]).expect("lawful").interrupt);
    assert_eq!(rig.read_register(0x60), 1);
    rig.set(0x64, 1);
    assert_eq!(rig.read_register(0x60), 0);
    assert!(!rig.transmit(&[(BUFFERS, 72)]).expect("lawful").interrupt);
}

#[test]
fn kicks_with_nothing_to_do_end_the_guest_and_kicks_with_something_do_not() {
    let mut rig = Rig::new(0);
    rig.put(BUFFERS, &frame(60));
    for _ in 0..20_000 {
        rig.transmit(&[(BUFFERS, 72)]).expect("lawful");
        rig.device.kicked(1, 1).expect("each kick brings something");
    }
    let fault = (0..20_000).find_map(|_| rig.device.kicked(1, 1).err());
    assert!(matches!(fault, Some(Fault::IdleKicks { queue: 1, .. })), "{fault:?}");
}

proptest! {
    /// Whatever stands in the rings: a fault or frames, never a panic, and never more than a portion at a time.
    #[test]
    fn random_rings_do_no_harm(
        descriptors in prop::collection::vec((0..2_u64, 0..QUEUE_SIZE, any::<u32>(), 0..80_000_u32, 0..8_u16, 0..20_u16), 1..40),
        heads in prop::collection::vec((0..2_u64, 0..20_u16), 1..30),
        incoming in prop::collection::vec(12..3000_usize, 0..5),
    ) {
        let mut rig = Rig::new(MERGE | EVENT_IDX);
        for (queue, index, address, bytes, flags, next) in descriptors {
            let address = u64::from(address) % (MEMORY_BYTES + 0x1000);
            rig.descriptor(queue, index, (address, bytes, flags, next));
        }
        rig.device.port().incoming.extend(incoming.into_iter().map(|bytes| frame(bytes - HEADER)));
        for (queue, head) in heads {
            rig.offer(queue, head);
            if rig.work().is_err() {
                break;
            }
        }
        prop_assert!(rig.device.port().sent.len() <= 256 * 30);
    }
}
