//! A running guest: a thread per processor, one for the network, and a handle that ends them all when it is dropped.
//!
//! Whoever first finds a reason for the guest to end writes it into [`Shared`]; later reasons are consequences and are
//! not kept. Processors are fetched out of the kernel by a signal that is repeated until the thread has gone, because one
//! that arrives just before the processor enters the kernel is lost.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_superio::Trigger;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::config::Config;
use crate::device::{Stats, Work};
use crate::ending::{Ending, Error};
use crate::machine::{self, Built, Console, Machine};
use crate::port::Tap;

/// Between two signals to a processor that has not come out of the kernel yet.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(1);

struct Shared {
    machine: Machine,
    stopping: AtomicBool,
    stop: EventFd,
    ending: Mutex<Option<Ending>>,
    ended: Condvar,
}

impl Shared {
    fn ending(&self) -> MutexGuard<'_, Option<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, ending: Ending) {
        self.ending().get_or_insert(ending);
        self.stopping.store(true, Ordering::SeqCst);
        // A full event has been rung already.
        self.stop.write(1).unwrap_or_default();
        self.ended.notify_all();
    }
}

/// A running guest. Dropped, it is killed and its tap released.
pub struct Guest {
    shared: Arc<Shared>,
    processors: Vec<JoinHandle<()>>,
    network: Option<JoinHandle<()>>,
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Guest {
    /// Boots a guest whose console goes to `console`.
    pub fn start(config: &Config, console: Console) -> Result<Self, Error> {
        config.check()?;
        let host = |what| move |source| Error::Host { what, source };
        let tap = Tap::open(&config.tap, config.offloads)?;
        let frames = tap.watch().map_err(host("watch the tap"))?;
        let Built { machine, vcpus } = machine::build(config, tap, console)?;
        register_signal_handler(SIGRTMIN(), on_signal)
            .map_err(|error| Error::Host { what: "take a signal", source: error.into() })?;
        let stop = EventFd::new(EFD_NONBLOCK).map_err(host("make an event"))?;
        let shared = Arc::new(Shared {
            machine,
            stopping: AtomicBool::new(false),
            stop,
            ending: Mutex::new(None),
            ended: Condvar::new(),
        });
        let mut guest = Self { shared: Arc::clone(&shared), processors: Vec::new(), network: None };
        let spawn = |name: String| thread::Builder::new().name(name);
        let timeout = config.driver_timeout;
        let network = spawn("network".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let ending = run_network(&shared, &frames, timeout);
                if let Some(ending) = ending {
                    shared.finish(ending);
                }
            }
        });
        guest.network = Some(network.map_err(host("start a thread"))?);
        for (id, mut vcpu) in vcpus.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let processor = spawn(format!("processor {id}")).spawn(move || {
                if let Some(ending) = run_processor(&shared, &mut vcpu) {
                    shared.finish(ending);
                }
            });
            guest.processors.push(processor.map_err(host("start a thread"))?);
        }
        Ok(guest)
    }

    /// Waits until the guest has ended, and says how.
    pub fn wait(mut self) -> (Ending, Stats) {
        let ending = {
            let ended = self.shared.ending();
            let ended = self.shared.ended.wait_while(ended, |ending| ending.is_none());
            ended.unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Ending::Stopped)
        };
        self.end();
        (ending, self.stats())
    }

    /// As [`Self::wait`], but gives up at `limit`: then the guest is still running.
    pub fn wait_for(&self, limit: Duration) -> Option<Ending> {
        let ended = self.shared.ending();
        let waited = self.shared.ended.wait_timeout_while(ended, limit, |ending| ending.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Stops the guest and says how it ended, which may have been before.
    pub fn stop(mut self) -> (Ending, Stats) {
        self.end();
        let ending = self.shared.ending().clone().unwrap_or(Ending::Stopped);
        (ending, self.stats())
    }

    /// What its network device counted.
    pub fn stats(&self) -> Stats {
        self.shared.machine.device().stats()
    }

    /// Whether its driver has taken the network device.
    pub fn has_driver(&self) -> bool {
        self.shared.machine.device().is_started()
    }

    fn end(&mut self) {
        self.shared.finish(Ending::Stopped);
        for processor in self.processors.drain(..) {
            while !processor.is_finished() {
                // A thread that has just gone cannot be signalled, and need not be.
                processor.kill(SIGRTMIN()).unwrap_or_default();
                thread::sleep(SIGNAL_INTERVAL);
            }
            // A thread that panicked has nothing to hand over.
            processor.join().unwrap_or_default();
        }
        if let Some(network) = self.network.take() {
            network.join().unwrap_or_default();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a processor's exit asks for once the kernel's buffer is no longer borrowed.
enum Next {
    Go,
    End(Ending),
    Explain(&'static str),
}

fn run_processor(shared: &Shared, vcpu: &mut VcpuFd) -> Option<Ending> {
    let machine = &shared.machine;
    while !shared.stopping.load(Ordering::SeqCst) {
        let end = |ending: Option<Ending>| ending.map_or(Next::Go, Next::End);
        let next = match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => end(machine.port_write(port, data)),
            Ok(VcpuExit::IoIn(port, data)) => {
                machine.port_read(port, data);
                Next::Go
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                machine.mmio_read(address, data);
                Next::Go
            }
            Ok(VcpuExit::MmioWrite(address, data)) => end(machine.mmio_write(address, data)),
            Ok(VcpuExit::Shutdown) => Next::End(Ending::TripleFault),
            Ok(VcpuExit::SystemEvent(..)) => Next::End(Ending::PoweredOff),
            Ok(VcpuExit::InternalError) => Next::Explain("KVM cannot emulate the instruction"),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                Next::End(Ending::Processor(format!("entry failed for reason {reason:#x}")))
            }
            Ok(_) => Next::Go,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Next::Go,
            Err(error) => Next::End(Ending::Processor(error.to_string())),
        };
        match next {
            Next::Go => {}
            Next::End(ending) => return Some(ending),
            Next::Explain(what) => {
                let at = vcpu.get_regs().map_or_else(|_| String::new(), |regs| format!(" at {:#x}", regs.rip));
                return Some(Ending::Processor(format!("{what}{at}")));
            }
        }
    }
    None
}

fn run_network(shared: &Shared, frames: &File, timeout: Duration) -> Option<Ending> {
    let machine = &shared.machine;
    let deadline = Instant::now() + timeout;
    while !shared.stopping.load(Ordering::SeqCst) {
        let (work, patience) = {
            let mut device = machine.device();
            let work = match device.work() {
                Ok(work) => work,
                Err(fault) => return Some(fault.into()),
            };
            let left = (!device.is_started()).then(|| deadline.saturating_duration_since(Instant::now()));
            (work, left)
        };
        if work.interrupt {
            // An interrupt that is pending already needs no second one.
            machine.line.trigger().unwrap_or_default();
        }
        if patience.is_some_and(|left| left.is_zero()) {
            return Some(Ending::NoDriver(timeout.as_secs()));
        }
        let patience = if work.more { Some(Duration::ZERO) } else { patience };
        if let Err(error) = wait(shared, frames, work, patience) {
            return Some(Ending::Processor(format!("the network thread cannot wait: {error}")));
        }
        for (queue, kick) in (0..).zip(&machine.kicks) {
            // Nothing to read means nothing was kicked.
            let Ok(kicks) = kick.read() else { continue };
            if let Err(fault) = machine.device().kicked(queue, kicks) {
                return Some(fault.into());
            }
        }
        // Not rung is as good as rung and read.
        machine.wake.read().unwrap_or_default();
    }
    None
}

fn wait(shared: &Shared, frames: &File, work: Work, patience: Option<Duration>) -> io::Result<()> {
    let [receive, transmit] = &shared.machine.kicks;
    let events = [receive, transmit, &shared.machine.wake, &shared.stop];
    let mut waits: Vec<PollFd<'_>> =
        events.iter().map(|event| PollFd::from_borrowed_fd(crate::sys::borrow_event(event), PollFlags::IN)).collect();
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, work.awaits_frame);
    wanted.set(PollFlags::OUT, work.awaits_room);
    if !wanted.is_empty() {
        waits.push(PollFd::from_borrowed_fd(frames.as_fd(), wanted));
    }
    let patience = patience.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
    match poll(&mut waits, patience.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
