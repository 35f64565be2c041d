//! The daemon as a process, by the names that every exporter uses.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the kernel says of this process. What cannot be read is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Their limit; none: without limit.
    pub fds_max: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started_secs: f64,
}

impl Process {
    /// Looks, in a few reads of `/proc/self`.
    pub fn look() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let page = rustix::param::page_size() as u64;
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = pages.split_whitespace().map(|pages| pages.parse().unwrap_or(0) * page);
        Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            virtual_bytes: pages.next().unwrap_or(0),
            resident_bytes: pages.next().unwrap_or(0),
            // The directory itself is one while it is read.
            fds: fs::read_dir("/proc/self/fd").map_or(0, |all| (all.count() as u64).saturating_sub(1)),
            fds_max: getrlimit(Resource::Nofile).current,
            started_secs: started_secs().unwrap_or_default(),
        }
    }
}

/// Boot time plus the ticks from boot to start (proc(5): field 22 of `stat`, the 20th after the name's parenthesis).
fn started_secs() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u32 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let per_sec = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(f64::from(boot) + f64::from(ticks) / f64::from(per_sec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_started_before_now_and_uses_memory_and_descriptors() {
        let process = Process::look();
        let now = jiff::Timestamp::now().as_second();
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let age = now - process.started_secs as i64;
        assert!((0..86_400).contains(&age), "started {age} s ago");
        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.fds >= 3 && process.fds_max.is_none_or(|max| max >= process.fds));
        assert!(process.cpu > Duration::ZERO);
    }
}
