//! How a bench ends before its time: asked to, it stops between two slices, and its guards take everything away; killed, it leaves
//! namespaces and programs behind, and the next one takes those away.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::lab::{self, until};
use crate::shell;

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on the first SIGINT, SIGTERM or SIGHUP is a question; the second one does what it always does.
pub fn listen() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&ASKED))?;
        signal_hook::flag::register(signal, Arc::clone(&ASKED))?;
    }
    Ok(())
}

/// Whether to go on.
///
/// # Errors
/// The bench was asked to end.
pub fn go_on() -> Result<()> {
    ensure!(!ASKED.load(Ordering::Relaxed), "interrupted; what was measured is not written down");
    Ok(())
}

/// Takes away what benches that were killed have left.
pub fn sweep(weft: &Path) -> Result<()> {
    let Ok(namespaces) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in namespaces {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(bench) = owner(&name).filter(|bench| !lives(*bench)) else { continue };
        eprintln!("bench: {name} was left by a bench that was killed; it is taken away");
        end_all(&name)?;
        shell::line(&format!("ip netns del {name}"))?;
        for folder in fs::read_dir(std::env::temp_dir())?.filter_map(Result::ok) {
            if owner(&folder.file_name().to_string_lossy()) == Some(bench) {
                fs::remove_dir_all(folder.path()).with_context(|| folder.path().display().to_string())?;
            }
        }
        // A daemon that was killed as well has its programs pinned still.
        let prefix = lab::instance(bench.as_raw_nonzero().get().unsigned_abs(), "");
        for pins in fs::read_dir("/sys/fs/bpf/weft").into_iter().flatten().filter_map(Result::ok) {
            let instance = pins.file_name().to_string_lossy().into_owned();
            if is_of(&instance, &prefix) {
                shell::run(shell::command(weft).args(["--name", &instance, "down"]))?;
            }
        }
    }
    Ok(())
}

/// Whether an instance is one of the bench's whose instances begin so; a slot begins with a letter, another bench's number goes on.
fn is_of(instance: &str, prefix: &str) -> bool {
    instance.strip_prefix(prefix).is_some_and(|slot| slot.starts_with(|first: char| first.is_ascii_alphabetic()))
}

/// The bench whose namespace or folder this is.
fn owner(name: &str) -> Option<Pid> {
    Pid::from_raw(name.strip_prefix(lab::PREFIX)?.split('-').next()?.parse().ok()?)
}

/// Whether a process is there that has not ended: one that was killed answers to signals until its parent has asked for it.
fn lives(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| !has_ended(&stat))
}

/// Whether `/proc/PID/stat` is that of a process that has ended (`proc_pid_stat(5)`: its name in brackets, then its state).
fn has_ended(stat: &str) -> bool {
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
}

/// Ends what runs in a namespace, each by its id; what does not end when it is asked to is made to.
fn end_all(namespace: &str) -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        for process in inside(namespace)? {
            // It may have ended by itself.
            kill_process(process, signal).ok();
        }
        let gone = until(Duration::from_secs(10), || Ok(inside(namespace)?.is_empty().then_some(())));
        if gone.is_ok() {
            return Ok(());
        }
    }
    bail!("programs in {namespace} do not end")
}

fn inside(namespace: &str) -> Result<Vec<Pid>> {
    let text = shell::line(&format!("ip netns pids {namespace}"))?;
    Ok(text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect())
}

#[cfg(test)]
mod tests {
    use rustix::process::Pid;

    use super::{has_ended, is_of, lives, owner};

    #[test]
    fn an_instance_of_a_bench_with_a_longer_number_is_not_touched() {
        assert!(is_of("wb4711a", "wb4711") && is_of("wb4711l0", "wb4711"));
        for another in ["wb47110a", "wb4711", "wb471a", "weft0"] {
            assert!(!is_of(another, "wb4711"), "{another}");
        }
    }

    #[test]
    fn who_was_killed_and_not_yet_asked_for_lives_no_more() {
        assert!(lives(rustix::process::getpid()));
        assert!(!has_ended("12 (a) Z) S 1 12") && has_ended("12 (xtask) Z 1 12") && has_ended("12 (xtask) X 1 12"));
        assert!(has_ended(""));
    }

    #[test]
    fn a_name_tells_whose_it_is() {
        assert_eq!(owner("weftbench-4711-a"), Pid::from_raw(4711));
        assert_eq!(owner("weftbench-4711-capture-weftbench-4711-p"), Pid::from_raw(4711));
        for another in ["blue", "weftbench-", "weftbench-x-a", "weftbench--1-a", "notweftbench-1-a"] {
            assert_eq!(owner(another), None, "{another}");
        }
    }
}
