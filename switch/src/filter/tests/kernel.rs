//! The translated programs in this kernel, one frame at a time by `BPF_PROG_TEST_RUN`, many filters at once.

use crate::filter::pcap::oracle::Seen;
use crate::filter::tests::expressions::EXPRESSIONS;
use crate::filter::tests::{captured_frames, frames, random_frames};
use crate::filter::translate::{Reading, translate_to_answer};
use crate::filter::{Program, Wanted};
use crate::reflex::TestClassifier;

/// Filters in one program: their answers come back as one word.
const AT_ONCE: usize = 32;
/// What the kernel takes for a test run: a page, less what it puts around.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 18..=3000;

struct Loaded {
    program: TestClassifier,
    filters: Vec<Program>,
}

/// The expressions, in this kernel; `None` without root.
fn load(reading: Reading) -> Option<Vec<Loaded>> {
    let required = std::env::var("WEFT_TESTS_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "bpf"));
    if !rustix::process::geteuid().is_root() {
        assert!(!required, "WEFT_TESTS_REQUIRE names bpf, but this is not root");
        eprintln!("skipped: loading eBPF programs takes root");
        return None;
    }
    let load_some = |expressions: &[&str]| {
        let filters: Vec<Program> = expressions.iter().map(|text| Program::compile(text).unwrap()).collect();
        let wanted: Vec<Wanted<'_>> = filters.iter().zip(0..).map(|(program, bit)| Wanted { bit, program }).collect();
        let code = translate_to_answer(&wanted, reading).unwrap();
        let program = TestClassifier::load(&code).unwrap_or_else(|error| panic!("{expressions:?}: {error}"));
        Loaded { program, filters }
    };
    Some(EXPRESSIONS.chunks(AT_ONCE).map(load_some).collect())
}

/// One program's answer; `None`: the kernel does not take such a frame for a test run (a cut IP header, for one).
fn answer(program: &TestClassifier, frame: &[u8], control: [u32; 5]) -> Option<u32> {
    match program.run(frame, control) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
        answer => Some(answer.unwrap()),
    }
}

/// Compares the kernel's answers with the interpreter's; how many frames it took.
fn compare(loaded: &[Loaded], frames: &[Seen]) -> usize {
    // The kernel has whole frames only.
    let whole = frames.iter().filter(|frame| FRAME_BYTES.contains(&frame.bytes.len()));
    let (mut runs, mut refused) = (0, 0);
    for frame in whole {
        for Loaded { program, filters } in loaded {
            let wanted = filters
                .iter()
                .enumerate()
                .fold(0u32, |mask, (bit, filter)| mask | u32::from(filter.matches(&frame.bytes)) << bit);
            let all = u32::try_from((1u64 << filters.len()) - 1).unwrap();
            match answer(program, &frame.bytes, [0, 0, all, 0, 0]) {
                Some(answer) => assert_eq!(answer, wanted, "{filters:?} {:02x?}", frame.bytes),
                None => refused += 1,
            }
            runs += 1;
            // The same frame with its tag beside its bytes, as the kernel keeps it.
            if let [0x81, 0x00] | [0x88, 0xa8] = frame.bytes[12..14] {
                let tag = u32::from_be_bytes(frame.bytes[12..16].try_into().unwrap());
                let bytes = [&frame.bytes[..12], &frame.bytes[16..]].concat();
                if tag & 0xffff != 0 && bytes.len() >= 14 {
                    match answer(program, &bytes, [0, 0, all, 0, tag]) {
                        Some(answer) => assert_eq!(answer, wanted, "tag {tag:#x} beside {filters:?} {bytes:02x?}"),
                        None => refused += 1,
                    }
                    runs += 1;
                }
            }
        }
    }
    assert!(refused < runs / 4, "{refused} of {runs} were refused");
    runs - refused
}

#[test]
fn the_kernel_agrees_with_the_interpreter_on_every_frame_of_the_captures() {
    let Some(loaded) = load(Reading::Directly) else { return };
    let Some(frames) = captured_frames() else { return };
    eprintln!("{} runs of {} filters each", compare(&loaded, &frames), AT_ONCE);
}

#[test]
fn the_kernel_agrees_with_the_interpreter_on_random_frames() {
    let Some(loaded) = load(Reading::Directly) else { return };
    let runs = compare(&loaded, &frames::random(&mut frames::Random::new(2), random_frames()));
    eprintln!("{runs} runs of {AT_ONCE} filters each");
}

#[test]
fn frames_that_are_scattered_are_read_by_the_helper_with_the_same_answers() {
    let Some(loaded) = load(Reading::ByHelper) else { return };
    let runs = compare(&loaded, &frames::random(&mut frames::Random::new(3), random_frames() / 4));
    eprintln!("{runs} runs of {AT_ONCE} filters each");
}

#[test]
fn a_session_whose_bit_is_not_set_stays_out_and_so_does_its_answer() {
    let Some(loaded) = load(Reading::Directly) else { return };
    let frame = frames::random(&mut frames::Random::new(4), 1).remove(0).bytes;
    // The first expression matches everything.
    assert_eq!(loaded[0].program.run(&frame, [0, 0, 1, 0, 0]).unwrap(), 1);
    assert_eq!(loaded[0].program.run(&frame, [0, 0, 0, 0, 0]).unwrap(), 0);
}
