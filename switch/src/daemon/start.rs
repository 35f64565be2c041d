//! Start: the reflex loaded or adopted, the punt tap made or adopted, and the loop between them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use switch_common::{
    MacAddr, PortId, SETTING_PUNT, SETTING_PUNT_UNLIMITED, Settings, VERDICT_DROP, VERDICT_PUNT, VlanId,
};
use tokio::sync::oneshot;

use super::onlookers::Told;
use super::{diagnostics, pins};
use crate::clerk;
use crate::config::{self, Datapath, Flows, Runtime};
use crate::dataplane::Loop;
use crate::dataplane::thread::{Commands, now, spawn};
use crate::dataplane::verdicts::{Obedience, VerdictIndex};
use crate::events::sighting;
use crate::fdb::{Fdb, FdbLimits};
use crate::forwarding::Tables;
use crate::port::attach::Host;
use crate::port::punt_tap::{PUNT_RING, PuntTap};
use crate::port::spec::Mac;
use crate::reflex::{self, HearingRate, Load, Reflex, ticks_per_second};
use crate::state::SavedPort;

/// Frames on their way to the brain at most: the punt tap's ring, less what several processors may add at once.
const PUNT_IN_FLIGHT_MAX: u32 = PUNT_RING - 256;

/// What a start yields.
pub(super) struct Started {
    pub(super) reflex: Reflex,
    /// The counters are an earlier daemon's.
    pub(super) goes_on: bool,
    pub(super) commands: Commands,
    /// How the loop ended.
    pub(super) ended: oneshot::Receiver<io::Result<()>>,
    pub(super) punt_ifindex: u32,
    pub(super) told: Told,
}

/// Loads or adopts the reflex, makes or adopts the punt tap, and starts the loop between them.
pub(super) async fn start(runtime: &Runtime, host: &Host, ports: &[SavedPort]) -> Result<Started> {
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
    let told = Told { testimony, sightings, bell, notes };
    Ok(Started { reflex, goes_on, commands, ended, punt_ifindex, told })
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
