//! Start, run, reload, stop: wires the rooms together.
//!
//! ```text
//! lock ─▶ state ─▶ reflex (adopt maps) ─▶ punting off, grace ─▶ punt tap ─▶ book what died with an earlier brain
//!      ─▶ loop ─▶ punting on ─▶ adopt ports ─▶ file's ports ─▶ API ─▶ ready ─▶ events … ─▶ stop
//! ```
//!
//! **Why punting is off at first**: what an earlier brain never settled is punted − settled, and that is only a number
//! when no program adds to it. So programs are told that nobody listens, the kernel's grace period ends those that have
//! not heard it, and then the difference is booked as unobserved.

mod diagnostics;
mod down;
mod evidence;
mod lock;
mod onlookers;
mod reload;
mod start;

use std::io;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::api::server::Socket;
use crate::api::web;
use crate::config::{OnStop, Runtime};
use crate::control::{Control, Handle, LOOK_AT_DROPS_EVERY, Parts, lost, recordings};
use crate::dataplane::commands::Command;
use crate::export::FlowLog;
use crate::port::attach::Host;
use crate::port::monitor;
use crate::reflex::Reflex;
use crate::state::{self, StateFile, Store};
use onlookers::Onlookers;
use start::{Started, start};

pub use down::down;

/// Where an instance's maps and links are pinned.
fn pins(name: &crate::port::IfName) -> std::path::PathBuf {
    std::path::Path::new("/sys/fs/bpf/weft").join(name.as_str())
}

/// Runs until told to stop.
///
/// # Errors
/// Why it could not start, or what ended it.
pub fn run(runtime: &Runtime) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(runtime))
}

async fn serve(runtime: &Runtime) -> Result<()> {
    // From here on a signal is heard, and waits until what is under way is done.
    let signals = Signals::new()?;
    let mut lock = lock::take(&runtime.name)?;
    let store = Store::new(&runtime.state_dir);
    let boot_id = state::boot_id()?;
    let mut saved = store.load()?.unwrap_or_else(|| StateFile::new(boot_id.clone()));
    let same_boot = saved.boot_id == boot_id;
    saved.boot_id = boot_id;
    // Whatever can be refused is asked for before anything is changed on the host.
    store.save(&saved)?;
    let flow_log = runtime.flow_log.as_ref().map(FlowLog::open).transpose()?;
    let socket = Socket::bind(&runtime.socket)?;
    let health = match runtime.metrics {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} for metrics; choose another address with --metrics, or --metrics off")
        })?),
        None => None,
    };

    let host = Host::connect()?;
    let links = monitor::watch()?;
    let Started { mut reflex, goes_on, commands, ended, punt_ifindex, told } =
        match start(runtime, &host, &saved.ports).await {
            Ok(started) => started,
            Err(error) => {
                if runtime.on_stop == OnStop::Remove && saved.ports.is_empty() {
                    leave(runtime, &host).await?;
                }
                return Err(error);
            }
        };
    let (onlookers, (ring, testimony)) = Onlookers::start(runtime, &mut reflex, told, &saved.ports, flow_log, goes_on)?;
    let parts = Parts {
        runtime: runtime.clone(),
        observer: onlookers.observer.clone(),
        history: onlookers.history.clone(),
        host: host.clone(),
        reflex,
        commands: commands.clone(),
        store,
        saved,
        punt_ifindex,
        witness: onlookers.witness.clone(),
        events: onlookers.events.clone(),
        sighted: onlookers.sighted.clone(),
        clerk: onlookers.clerk.clone(),
        notes: onlookers.notes.clone(),
        hub: onlookers.hub.clone(),
    };
    let mut control = Control::new(parts);
    control.adopt(same_boot).await;
    // What the file asks for in vain is no reason to take away what runs.
    if let Err(error) = control.begin(&runtime.ports).await {
        tracing::error!(%error, "the configuration's ports could not be made; those that were there go on");
    }
    let handle = Handle::new(control);
    if let Err(error) = handle.begin_mirrors(runtime.mirrors.clone()).await {
        tracing::error!(%error, "the configuration's mirrors could not be made; those that were there go on");
    }
    if let Some(ring) = ring {
        evidence::listen(ring, testimony, handle.clone())?;
    }

    let (stop, stopped) = watch::channel(false);
    let api = tokio::spawn(socket.serve(handle.clone(), until_told(stopped.clone())));
    let health =
        health.map(|listener| tokio::spawn(web::serve(listener, handle.clone(), web::LIMITS, until_told(stopped))));
    handle.set_ready(true);
    lock.say_ready()?;
    let (name, datapath, socket) = (&runtime.name, runtime.datapath, runtime.socket.display());
    tracing::info!(%name, %datapath, %socket, "ready");
    let mut looks = JoinSet::new();
    looks.spawn(look_for_lost(handle.clone()));
    looks.spawn(look_at_drops(handle.clone()));
    if runtime.recorder.enabled {
        handle.start_recorder().await?;
        looks.spawn(recordings::watch(handle.clone(), runtime.recorder, runtime.state_dir.clone()));
    }
    let outcome = watch_over(runtime, &handle, links, ended, signals).await;
    looks.abort_all();
    handle.set_ready(false);
    tracing::info!(%name, "stopping");
    handle.end_captures().await;
    stop.send_replace(true);
    api.await?;
    onlookers.hub.stop();
    if let Some(health) = health {
        health.await?;
    }
    // What goes wrong inside is no wish to stop: what can go on goes on, for the next daemon to adopt.
    let keep = runtime.on_stop == OnStop::Keep || outcome.is_err();
    handle.keep_drops().await;
    let left = handle.stop(keep).await;
    onlookers.stop(!keep).await;
    if commands.send(Command::Stop).is_err() {
        tracing::debug!("the loop had ended before");
    }
    left?;
    if !keep {
        leave(runtime, &host).await?;
    }
    outcome
}

/// The signals the daemon hears.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Comes to an end when the daemon is told to stop.
async fn until_told(mut stopped: watch::Receiver<bool>) {
    // The sender lives as long as the daemon; its end is an end too.
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Removes what is the instance's own once its ports are gone: pins, programs, the punt tap.
async fn leave(runtime: &Runtime, host: &Host) -> Result<()> {
    Reflex::remove(&pins(&runtime.name))?;
    host.remove_punt_tap(&runtime.name).await?;
    Ok(())
}

/// Follows events and signals until one of them ends the daemon.
async fn watch_over(
    runtime: &Runtime,
    handle: &Handle,
    mut events: tokio::sync::mpsc::Receiver<monitor::LinkEvent>,
    mut ended: oneshot::Receiver<io::Result<()>>,
    mut signals: Signals,
) -> Result<()> {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => handle.follow(event).await,
                None => return Err(anyhow!("the kernel closed the subscription to link events")),
            },
            _ = signals.hangup.recv() => reload::reload(runtime, handle).await,
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            outcome = &mut ended => {
                return match outcome {
                    Ok(Ok(())) | Err(_) => Err(anyhow!("the forwarding loop has ended")),
                    Ok(Err(error)) => {
                        Err(anyhow!(error).context("the punt tap is gone; start the daemon again to make a new one"))
                    }
                };
            }
        }
    }
}

/// Looks for frames that were lost on their way to the brain. A task of its own, because it waits for the kernel, and events
/// are to be followed meanwhile.
async fn look_for_lost(handle: Handle) {
    let mut look = tokio::time::interval(lost::LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        handle.look_for_lost().await;
    }
}

/// Has what was dropped kept in the history, once a minute.
async fn look_at_drops(handle: Handle) {
    let mut look = tokio::time::interval(LOOK_AT_DROPS_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        handle.keep_drops().await;
    }
}
