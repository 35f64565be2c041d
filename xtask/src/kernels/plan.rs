//! What runs in a machine: which tests under which kernel, and the shell that starts them.

use std::ffi::OsString;

use anyhow::{Context, Result};

use super::{initramfs, results};
use crate::workspace;

/// The tests that a kernel can change: programs attached, frames forwarded by every verdict, books balanced, daemons killed.
const DATAPATH: &[&str] = &["scenarios::taps_", "bad_frames::", "frames_in_order::", "lifecycle::", "links::"];
/// Linux guests on KVM, in a machine of their own.
const GUESTS: &str = "linux_guests::";
/// What needs QEMU, apt or files that are not in the guest, and what demands a speed, be it a ratio of two: what is cheap
/// for a processor is not what is cheap for an emulator.
const OUTSIDE: &[&str] = &["a_linux_guest_and_a_container", "demo::", "replay::", "floods::", "cost::"];
/// Other ways through the same scenarios, which this machine tests: clsact, which on 6.1 is what `cached` is, and without cached
/// verdicts, where the kernel half does what it does for the first frames of the cached way.
const TWICE: &[&str] = &["clsact::", "taps_clsact", "taps_uncached"];
/// What TCX is for, on kernels before 6.6.
const WITHOUT_TCX: &[&str] = &["tcx"];
/// What is tested once, on 6.6 and later: frames that mean harm, who looks on, order without cached verdicts, and clsact where
/// it is asked for, which is what earlier kernels do anyway.
const LATER: &[&str] = &["bad_frames::", "uncached::", "watching::", "killed_with_clsact"];
/// What is tested once, before 6.6: what the programs make of a frame's bytes and of their own tables, whatever is around
/// them, and clsact's filters that another daemon finds.
const EARLIER: &[&str] = &[
    "flow_",
    "refusals::",
    "names::",
    "passing::",
    "evidence::",
    "clsact_filters_are_adopted",
    "filters_of_another_layout",
];
/// The first series with TCX.
const TCX: (u32, u32) = (6, 6);
/// The first series in whose machine KVM boots Linux guests too; once is enough.
const LINUX_GUESTS: (u32, u32) = (6, 12);
/// The test that says how many instructions the verifier went through.
const VERIFIER: &str = "the_verifier_takes";
/// How much longer than usual a test waits.
const PATIENCE: u32 = 15;
/// Processors of a machine.
const PROCESSORS: u32 = 2;
/// Of one in which KVM runs guests: of two that take turns, one would wait out the other's for each word between them.
const WITH_GUESTS: u32 = 1;
/// Tests at once for each processor, and one more: some wait most of their time.
const fn threads(processors: u32) -> u32 {
    if processors == WITH_GUESTS { 1 } else { processors + 1 }
}

/// One machine's life.
pub struct Boot {
    /// What tells it from the kernel's others.
    pub name: &'static str,
    /// What it runs once it is up.
    pub script: String,
    /// How many processors it has.
    pub processors: u32,
    /// The part that ends it.
    pub last: &'static str,
    /// Whether it says what the verifier had to do.
    pub verifies: bool,
}

/// The machines of a kernel, one after the other: for all tests, or for those whose name contains `filter`.
pub fn boots(series: &str, filter: Option<&str>, args: &[OsString]) -> Result<Vec<Boot>> {
    let given = args.iter().map(|arg| arg.to_str().context("an argument is not UTF-8")).collect::<Result<Vec<_>>>()?;
    let tcx = at_least(series, TCX);
    let mut skip = OUTSIDE.to_vec();
    if !tcx {
        skip.extend(WITHOUT_TCX);
    }
    if let Some(filter) = filter {
        let words = [quote(filter), words(&skip, &given)].join(" ");
        let parts = [part("reflex", "reflex", &words), part("it", "it", &words)];
        // Whoever asks for guests by name gets a machine that is made for them.
        let processors = if filter.contains("guests") { WITH_GUESTS } else { PROCESSORS };
        return Ok(vec![Boot {
            name: "some",
            script: script(series, processors, &parts),
            processors,
            last: "it",
            verifies: false,
        }]);
    }
    skip.extend(TWICE);
    skip.extend(if tcx { EARLIER } else { LATER });
    let words = words(&skip, &given);
    let parts = [
        // What the verifier had to do is said by a test, so that one is not captured.
        part("verifier", "reflex", &format!("{VERIFIER} --nocapture")),
        part("reflex", "reflex", &format!("reflex::tests:: {words} --skip {VERIFIER}")),
        part("it", "it", &format!("{} {words}", DATAPATH.join(" "))),
    ];
    let most = Boot {
        name: "most",
        script: script(series, PROCESSORS, &parts),
        processors: PROCESSORS,
        last: "it",
        verifies: true,
    };
    let guests = has_guests(series).then(|| {
        let parts = [part("guests", "it", &format!("{GUESTS} {words}"))];
        let script = script(series, WITH_GUESTS, &parts);
        Boot { name: "guests", script, processors: WITH_GUESTS, last: "guests", verifies: false }
    });
    Ok([most].into_iter().chain(guests).collect())
}

/// Whether KVM boots Linux guests in this kernel's machine.
pub fn has_guests(series: &str) -> bool {
    at_least(series, LINUX_GUESTS)
}

/// The end of a test binary's command line.
fn words(skip: &[&str], given: &[&str]) -> String {
    let skip = skip.iter().flat_map(|name| ["--skip", name]);
    skip.chain(given.iter().copied()).map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs a program of the machine's, and says how it ended.
fn part(name: &str, program: &str, words: &str) -> String {
    format!("{} {words}\necho {}{name} $?", initramfs::inside(program), results::ENDED)
}

/// Shell, with every word quoted.
fn script(series: &str, processors: u32, parts: &[String]) -> String {
    let here = quote(&workspace::root().to_string_lossy());
    let weft = initramfs::inside("weft");
    let guests = has_guests(series);
    let require = if guests { "root,bpf,kvm,linux_guest" } else { "root,bpf" };
    let mut script = vec![format!("export WEFT_BIN={weft} WEFT_TESTS_PATIENCE={PATIENCE} RUST_BACKTRACE=1")];
    script.push(format!("export WEFT_TESTS_REQUIRE={require} RUST_TEST_THREADS={}", threads(processors)));
    if guests {
        script.push(format!("export WEFT_GUEST_KERNEL={}", initramfs::inside(initramfs::GUEST_KERNEL)));
    }
    script.push(format!("cd {here}/tests\nuname -r"));
    script.extend(parts.iter().cloned());
    script.join("\n")
}

/// Whether a series is this one or a later one.
fn at_least(series: &str, than: (u32, u32)) -> bool {
    let mut numbers = series.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= than
}

/// A word as a shell takes it literally.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{EARLIER, GUESTS, LATER, TCX, at_least, boots, has_guests, quote};

    #[test]
    fn tcx_came_with_linux_6_6() {
        for (series, has) in
            [("6.1", false), ("6.5", false), ("6.6", true), ("6.12", true), ("7.0", true), ("5.15", false)]
        {
            assert_eq!(at_least(series, TCX), has, "{series}");
        }
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn what_one_kernel_leaves_out_is_tested_under_the_other() {
        let script = |series| boots(series, None, &[]).expect("no arguments").swap_remove(0).script;
        for (names, tested, left_out) in [(EARLIER, "6.1", "6.12"), (LATER, "6.12", "6.1")] {
            for name in names {
                let skip = format!("'--skip' '{name}'");
                assert!(script(left_out).contains(&skip) && !script(tested).contains(&skip), "{name}");
            }
        }
    }

    #[test]
    fn guests_are_booted_where_they_can_be_and_nowhere_else() {
        for series in ["6.1", "6.12"] {
            let boots = boots(series, None, &[]).expect("no arguments");
            let with_guests = boots.iter().filter(|boot| boot.script.contains(GUESTS)).count();
            assert_eq!((boots.len(), with_guests), if has_guests(series) { (2, 1) } else { (1, 0) }, "{series}");
        }
    }
}
