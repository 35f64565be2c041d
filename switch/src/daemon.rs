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
mod reload;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use switch_common::{
    MacAddr, PortId, SETTING_PUNT, SETTING_PUNT_UNLIMITED, Settings, VERDICT_DROP, VERDICT_PUNT, VlanId,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::api::Control as _;
use crate::api::server::Socket;
use crate::api::web;
use crate::capture::hub::Hub;
use crate::capture::ring::Ring;
use crate::clerk::{self, Clerk};
use crate::config::{self, Datapath, Flows, OnStop, Runtime};
use crate::control::{Control, Handle, LOOK_AT_DROPS_EVERY, Parts, lost, recordings};
use crate::dataplane::Loop;
use crate::dataplane::commands::Command;
use crate::dataplane::thread::{Commands, now, spawn};
use crate::dataplane::verdicts::{Obedience, VerdictIndex};
use crate::events::Events;
use crate::events::sighting::{self, Sightings};
use crate::evidence::Testimony;
use crate::export::FlowLog;
use crate::fdb::{Fdb, FdbLimits};
use crate::flow::Limits;
use crate::forwarding::Tables;
use crate::history::History;
use crate::notes::NoteReader;
use crate::observer::{Kernel, Observer, Outlet, PortNames, Setup};
use crate::port::attach::Host;
use crate::port::monitor;
use crate::port::punt_tap::{PUNT_RING, PuntTap};
use crate::port::spec::Mac;
use crate::reflex::{self, HearingRate, Load, Reflex, ticks_per_second};
use crate::state::{self, SavedPort, StateFile, Store};

pub use down::down;

/// Frames on their way to the brain at most: the punt tap's ring, less what several processors may add at once.
const PUNT_IN_FLIGHT_MAX: u32 = PUNT_RING - 256;

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
    let Started { mut reflex, goes_on, commands, ended, punt_ifindex, testimony, notes, sightings, bell } =
        match start(runtime, &host, &saved.ports).await {
            Ok(started) => started,
            Err(error) => {
                if runtime.on_stop == OnStop::Remove && saved.ports.is_empty() {
                    leave(runtime, &host).await?;
                }
                return Err(error);
            }
        };
    let ring = reflex.evidence();
    let hub = start_hub(&mut reflex)?;
    let witness = testimony.tally();
    let history = runtime.history.as_ref().map(|config| History::start(config, goes_on)).transpose();
    let history = history.context("cannot start the history's thread")?;
    let mut outlets: Vec<Box<dyn Outlet>> = flow_log.into_iter().map(|log| Box::new(log) as Box<dyn Outlet>).collect();
    outlets.extend(history.iter().map(|history| Box::new(history.outlet()) as Box<dyn Outlet>));
    let observer = observe(runtime, &reflex, &saved.ports, outlets, notes.clone())?;
    let events = Events::new(runtime.names.told);
    // Before the first one is told.
    if let Some(history) = &history {
        events.keep_with(history.keeper());
    }
    let sighted = sightings.tally();
    let clerk = clerk::Setup {
        heard: reflex.heard(),
        sightings,
        bell,
        events: events.clone(),
        limits: runtime.names.limits,
        state_dir: runtime.state_dir.clone(),
        has_config: runtime.config_path.is_some(),
    };
    let clerk = Clerk::start(clerk, observer.clone()).context("cannot start the clerk's thread")?;
    let parts = Parts {
        runtime: runtime.clone(),
        observer: observer.clone(),
        history: history.clone(),
        host: host.clone(),
        reflex,
        commands: commands.clone(),
        store,
        saved,
        punt_ifindex,
        witness,
        events,
        sighted,
        clerk: clerk.clone(),
        notes,
        hub: hub.clone(),
    };
    let mut control = Control::new(parts);
    control.adopt(same_boot).await;
    // What the file asks for in vain is no reason to take away what runs.
    if let Err(error) = control.begin(&runtime.ports).await {
        tracing::error!(%error, "the configuration's ports could not be made; those that were there go on");
    }
    let handle = Handle::new(control);
    if let Err(error) = handle.apply_mirrors(runtime.mirrors.clone(), false, false).await {
        tracing::error!(%error, "the configuration's mirrors could not be made; those that were there go on");
    }
    if let Some(ring) = ring {
        evidence::listen(ring, testimony, handle.clone())?;
    }

    let (stop, stopped) = watch::channel(false);
    let api = tokio::spawn(socket.serve(handle.clone(), told(stopped.clone())));
    let health = health.map(|listener| tokio::spawn(web::serve(listener, handle.clone(), web::LIMITS, told(stopped))));
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
    hub.stop();
    if let Some(health) = health {
        health.await?;
    }
    // What goes wrong inside is no wish to stop: what can go on goes on, for the next daemon to adopt.
    let keep = runtime.on_stop == OnStop::Keep || outcome.is_err();
    handle.keep_drops().await;
    let left = handle.stop(keep).await;
    observer.stop(!keep).await;
    clerk.stop().await;
    if let Some(history) = history {
        history.stop().await;
    }
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
async fn told(mut stopped: watch::Receiver<bool>) {
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

/// What a start yields.
struct Started {
    reflex: Reflex,
    /// The counters are an earlier daemon's.
    goes_on: bool,
    commands: Commands,
    ended: oneshot::Receiver<io::Result<()>>,
    punt_ifindex: u32,
    testimony: Testimony,
    sightings: Sightings,
    bell: Arc<OwnedFd>,
    notes: NoteReader,
}

/// Loads or adopts the reflex, makes or adopts the punt tap, and starts the loop between them.
async fn start(runtime: &Runtime, host: &Host, ports: &[SavedPort]) -> Result<Started> {
    let flows = runtime.flows;
    let load = Load {
        hook: hook(runtime.hook),
        flows: flows.enabled,
        flows_max: flows.max,
        hearing: hearing(runtime),
        records: 0,
    };
    let (mut reflex, adopted) = Reflex::open(&pins(&runtime.name), load)?;
    tracing::info!(?adopted, "reflex");
    diagnostics::listen(&mut reflex)?;
    let mut settings = reflex.settings()?;
    settings.flags = 0;
    reflex.set_settings(settings)?;
    Reflex::grace()?;

    let tap = PuntTap::open(&runtime.name)?;
    let punt_ifindex = tap.ifindex();
    let lost = reflex.book_unobserved()?;
    if lost > 0 {
        tracing::warn!(frames = lost, "frames on their way to the brain died with an earlier daemon (brain_restart)");
    }
    let limits = FdbLimits { stations_max: runtime.stations_max, aging: runtime.aging };
    let mut tables = Tables::new(limits);
    let brain = reflex.brain();
    let (tell, ended) = oneshot::channel();
    let userspace = runtime.datapath == Datapath::Userspace;
    host.raise_punt_tap(&tap).await?;
    let obedience = if userspace { Obedience::Notes } else { Obedience::Repeats };
    let index = VerdictIndex::adopt(reflex.verdicts()?, Arc::clone(&brain), obedience);
    relearn(&mut tables.fdb, &index, ports);
    let (witness, testimony) = crate::evidence::witness();
    let (notepad, notes) = crate::notes::notepad();
    let bell = clerk::bell()?;
    let (reporter, sightings) = sighting::queue(Arc::clone(&bell));
    let dataplane = Loop::new(tap, index, tables, brain, runtime.aging);
    let dataplane = dataplane.witnessed_by(witness).noted_by(notepad).reported_by(reporter);
    let (commands, thread) = spawn(dataplane, tell)?;
    // The loop says through `ended` how it ended; the thread itself has nothing more to tell.
    drop(thread);
    reflex.attach_inject(runtime.name.as_str(), punt_ifindex)?;
    let ticks = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_mul(ticks_per_second());
    // A share of the table that there is, which may be an earlier daemon's.
    let (room, _) = reflex.flows().room()?;
    let per_port = if room == flows.max { flows.per_port } else { flows.per_port.min(Flows::share(room)) };
    reflex.set_settings(Settings {
        punt_ifindex,
        flags: SETTING_PUNT | if userspace { SETTING_PUNT_UNLIMITED } else { 0 },
        punt_in_flight_max: PUNT_IN_FLIGHT_MAX,
        flow_port_max: per_port,
        flow_idle_jiffies: ticks(flows.idle),
        flow_closed_jiffies: ticks(flows.closed),
    })?;
    let goes_on = matches!(adopted, reflex::Adopted::All);
    Ok(Started { reflex, goes_on, commands, ended, punt_ifindex, testimony, notes, sightings, bell })
}

/// Starts the thread that gives out captured frames.
fn start_hub(reflex: &mut Reflex) -> Result<Hub> {
    let ring = reflex.captures().context("the ring of captures was taken before")?;
    let reasons = reflex.kernel_reasons();
    let (hub, thread) = Hub::start(Ring::new(ring, reasons)).context("cannot start the thread for captures")?;
    // It ends when it is told to, and has nothing to tell.
    drop(thread);
    Ok(hub)
}

/// Starts the observer, which calls the ports of an earlier daemon by their names from the beginning.
fn observe(
    runtime: &Runtime,
    reflex: &Reflex,
    ports: &[SavedPort],
    outlets: Vec<Box<dyn Outlet>>,
    notes: NoteReader,
) -> Result<Observer> {
    let mut names = PortNames::default();
    for port in ports {
        if let Some(id) = PortId::new(port.id) {
            names.insert(id, (&port.spec).into());
        }
    }
    let Flows { max, idle, closed, active, .. } = runtime.flows;
    let flows_max = reflex.flows().room()?;
    if flows_max.0 != max {
        let is = flows_max.0;
        tracing::warn!(
            is,
            asked = max,
            "the flow table stays as large as it was made; `weft down` makes room for another"
        );
    }
    let limits = Limits { active, idle, closed, ..Limits::default() };
    let setup = Setup { switch: runtime.name.to_string(), limits, flows_max, names };
    Observer::start(Kernel::of(reflex, notes)?, setup, outlets).context("cannot start the observer's thread")
}

/// The verdicts of an earlier brain say where its stations live. Only those that forward do: a refused source may be
/// anybody's.
fn relearn(fdb: &mut Fdb, verdicts: &VerdictIndex, ports: &[SavedPort]) {
    let at = now();
    let admitted = |id: u16, mac: [u8; 6]| {
        let port = ports.iter().find(|port| port.id == id);
        port.is_some_and(|port| port.spec.macs.is_empty() || port.spec.macs.contains(&Mac(MacAddr(mac))))
    };
    for (key, verdict) in verdicts.iter().filter(|(_, verdict)| verdict.action & !VERDICT_PUNT != VERDICT_DROP) {
        let lives = [(key.source, key.ingress), (key.destination, verdict.egress)];
        for (mac, id) in lives.into_iter().filter(|(mac, id)| admitted(*id, *mac)) {
            if let Some(port) = PortId::new(id) {
                fdb.learn(VlanId(key.vlan), MacAddr(mac), port, None, at);
            }
        }
    }
}

/// What of frames that say who is who is looked at: they are told by their flows.
fn hearing(runtime: &Runtime) -> Option<HearingRate> {
    runtime.names.hearing.filter(|_| runtime.flows.enabled)
}

fn hook(asked: config::Hook) -> reflex::Hook {
    match asked {
        config::Hook::Auto => reflex::Hook::Auto,
        config::Hook::Tcx => reflex::Hook::Tcx,
        config::Hook::Clsact => reflex::Hook::Clsact,
    }
}
