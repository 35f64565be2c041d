//! The three ways of running a filter say the same: libpcap's own interpreter, ours, and the eBPF program in this kernel.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod expressions;
mod frames;
mod kernel;
mod refusals;

use std::path::PathBuf;

use super::pcap::oracle::Seen;
use super::{Program, pcap};
use expressions::EXPRESSIONS;

/// Random frames per run; `WEFT_FILTER_FRAMES` asks for more.
const RANDOM_FRAMES: usize = 20_000;

/// How many random frames to try.
fn random_frames() -> usize {
    std::env::var("WEFT_FILTER_FRAMES").ok().and_then(|number| number.parse().ok()).unwrap_or(RANDOM_FRAMES)
}

/// All frames of the captures that the environment names; `None` without them.
fn captured_frames() -> Option<Vec<Seen>> {
    let required = std::env::var("WEFT_TESTS_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "pcaps"));
    let Some(folder) = std::env::var_os("WEFT_PCAPS").map(PathBuf::from) else {
        assert!(!required, "WEFT_TESTS_REQUIRE names pcaps, but WEFT_PCAPS names no folder");
        eprintln!("skipped: WEFT_PCAPS names no folder");
        return None;
    };
    let library = pcap::library().unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let frames: Vec<Seen> = files.iter().flat_map(|file| library.read(file)).collect();
    assert!(frames.len() > 1000, "{} frames", frames.len());
    Some(frames)
}

/// Compares ours with libpcap's for all expressions; the number of matches of each.
fn compare(frames: &[Seen]) -> Vec<usize> {
    let library = pcap::library().unwrap();
    let compare_one = |expression: &&str| {
        let program = Program::compile(expression).unwrap();
        let judged = library.judge(&library.compile(expression).unwrap(), frames);
        for (frame, judged) in frames.iter().zip(&judged) {
            let ours = program.matches_beginning(&frame.bytes, frame.length);
            assert_eq!(ours, *judged, "{expression}: {:02x?} of {} bytes", frame.bytes, frame.length);
        }
        judged.into_iter().filter(|matched| *matched).count()
    };
    EXPRESSIONS.iter().map(compare_one).collect()
}

#[test]
fn there_are_enough_expressions_and_all_of_them_are_different() {
    let different: std::collections::BTreeSet<_> = EXPRESSIONS.iter().collect();
    assert!(different.len() >= 60 && different.len() == EXPRESSIONS.len());
}

#[test]
fn the_interpreter_agrees_with_libpcap_on_every_frame_of_the_captures() {
    let Some(frames) = captured_frames() else { return };
    let matches = compare(&frames);
    let some = matches.iter().filter(|matches| (1..frames.len()).contains(matches)).count();
    eprintln!("{} expressions on {} frames; {some} told frames apart", EXPRESSIONS.len(), frames.len());
    assert!(some > EXPRESSIONS.len() * 2 / 3);
}

#[test]
fn the_interpreter_agrees_with_libpcap_on_random_frames() {
    let (mut done, mut sums) = (0, vec![0; EXPRESSIONS.len()]);
    let mut random = frames::Random::new(1);
    while done < random_frames() {
        let batch = frames::random(&mut random, 10_000);
        for (sum, matches) in sums.iter_mut().zip(compare(&batch)) {
            *sum += matches;
        }
        done += batch.len();
    }
    let dumb: Vec<_> = EXPRESSIONS.iter().zip(&sums).filter(|(_, sum)| **sum == 0 || **sum == done).collect();
    eprintln!("{} expressions on {done} random frames; these told none apart: {dumb:?}", EXPRESSIONS.len());
    assert!(dumb.len() < EXPRESSIONS.len() / 6, "{dumb:?}");
}

#[test]
fn a_frame_that_is_cut_short_does_not_match_what_lies_behind_its_end() {
    let program = Program::compile("ether[20] = 7").unwrap();
    let frame: Vec<u8> = (0..64).map(|at| if at == 20 { 7 } else { 0 }).collect();
    assert!(program.matches(&frame));
    assert!(program.matches_beginning(&frame[..21], 64));
    assert!(!program.matches_beginning(&frame[..20], 64));
    assert!(!program.matches(&[]));
}
