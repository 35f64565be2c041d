//! Mirrors as control keeps them: by name, told to the kernel half by number, and told anew whenever a port or a target has come or
//! gone.
//!
//! A mirror whose target is not there, or must not be one any more, goes on: its copies are lost, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Control, ControlError};
use crate::api::schema::{Change, Diff, MirrorInfo, MirrorState};
use crate::dataplane::commands::Command;
use crate::filter::Program;
use crate::metrics::sample::MirrorSample;
use crate::mirror::MirrorSpec;
use crate::port::spec::{IfName, Origin, PortName};
use crate::reflex::{Kind, Ports, Wish};
use crate::state::SavedMirror;

/// A mirror.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) spec: MirrorSpec,
    /// The session's bit.
    pub(super) bit: u8,
    filter: Option<Arc<Program>>,
    /// The target's interface index; 0: there is none.
    target: u32,
    /// Why there is none.
    problem: Option<String>,
}

/// A mirror that was asked for, its filter compiled: what may take time is done without the lock.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) spec: MirrorSpec,
    filter: Option<Arc<Program>>,
}

impl Prepared {
    /// Checks a mirror, and compiles its filter on a thread that may wait for the resolver.
    pub(super) async fn of(spec: MirrorSpec) -> Result<Self, ControlError> {
        spec.check().map_err(ControlError::Invalid)?;
        let Some(expression) = spec.filter.clone() else { return Ok(Self { spec, filter: None }) };
        let compiled = tokio::task::spawn_blocking(move || Program::compile(&expression)).await;
        let program = compiled
            .map_err(|error| ControlError::Failed(format!("the filter was not compiled: {error}")))?
            .map_err(|error| ControlError::Invalid(format!("mirror '{}': its filter: {error}", spec.name)))?;
        Ok(Self { spec, filter: Some(Arc::new(program)) })
    }
}

impl Control {
    /// Adds a mirror that a command asked for.
    pub(super) async fn add_mirror(&mut self, mirror: Prepared) -> Result<MirrorInfo, ControlError> {
        let name = mirror.spec.name.clone();
        if self.mirrors.contains_key(&name) {
            return Err(ControlError::Exists(format!(
                "mirror '{name}' exists already; remove it with 'weft mirror del {name}', or choose another name"
            )));
        }
        for source in mirror.spec.sources().keys() {
            self.port_named(source)?;
        }
        self.judge_target(&mirror.spec, &self.ahead(&[], &[])).await?;
        self.put_mirror(mirror)?;
        if let Err(error) = self.tend_mirrors().await.and_then(|()| self.save()) {
            self.mirrors.remove(&name);
            self.tend_mirrors().await?;
            return Err(error);
        }
        tracing::info!(mirror = %name, "mirror added");
        self.mirror_info(&name)
    }

    /// Removes a mirror.
    pub(super) async fn remove_mirror(&mut self, name: &PortName) -> Result<(), ControlError> {
        if self.mirrors.remove(name).is_none() {
            return Err(ControlError::NotFound(format!("there is no mirror '{name}'; see 'weft mirror list'")));
        }
        tracing::info!(mirror = %name, "mirror removed");
        self.tend_mirrors().await?;
        self.save()
    }

    /// Gives a mirror a bit; [`Self::tend_mirrors`] starts it.
    pub(super) fn put_mirror(&mut self, mirror: Prepared) -> Result<(), ControlError> {
        let taken: BTreeSet<u8> = self.mirrors.values().map(|mirror| mirror.bit).collect();
        let free = self.reflex.free_session(Kind::Mirror { target: 0 });
        let bit = free
            .filter(|bit| !taken.contains(bit))
            .or_else(|| (0..64).find(|bit| !taken.contains(bit) && !self.reflex.sessions().contains_key(bit)));
        let bit = bit.ok_or_else(|| {
            ControlError::Invalid("64 captures and mirrors run, which is the most there can be; end one".to_owned())
        })?;
        let Prepared { spec, filter } = mirror;
        self.mirrors.insert(spec.name.clone(), Mirror { spec, bit, filter, target: 0, problem: None });
        Ok(())
    }

    /// What would change to make the mirrors of the file (`prune`: all) be these.
    ///
    /// # Errors
    /// A wanted name belongs to a mirror that a command made.
    pub(super) fn compare_mirrors(&self, wanted: &[Prepared], prune: bool) -> Result<Diff, ControlError> {
        let mut diff = Diff::default();
        for Prepared { spec, .. } in wanted {
            match self.mirrors.get(&spec.name) {
                None => diff.add.push(spec.name.clone()),
                Some(mirror) if mirror.spec.origin == Origin::Command && !prune => {
                    return Err(ControlError::Exists(format!(
                        "mirror '{0}' was made by a command; remove it with 'weft mirror del {0}', or take it over with --prune",
                        spec.name
                    )));
                }
                Some(mirror) if mirror.spec != *spec => {
                    diff.change.push(Change { name: spec.name.clone(), what: vec!["mirror".to_owned()] });
                }
                Some(_) => {}
            }
        }
        let is_wanted = |name: &PortName| wanted.iter().any(|mirror| mirror.spec.name == *name);
        diff.remove = self
            .mirrors
            .values()
            .filter(|mirror| (prune || mirror.spec.origin == Origin::File) && !is_wanted(&mirror.spec.name))
            .map(|mirror| mirror.spec.name.clone())
            .collect();
        Ok(diff)
    }

    /// Makes the mirrors of the file be these, at the start: one whose target cannot be had is there, and waits for another.
    pub(super) async fn begin_mirrors(&mut self, wanted: Vec<Prepared>) -> Result<(), ControlError> {
        let diff = self.compare_mirrors(&wanted, false)?;
        for name in diff.remove.iter().chain(diff.change.iter().map(|change| &change.name)) {
            self.mirrors.remove(name);
        }
        for mirror in wanted {
            if !self.mirrors.contains_key(&mirror.spec.name) {
                self.put_mirror(mirror)?;
            }
        }
        self.tend_mirrors().await?;
        self.save()
    }

    /// Takes over the mirrors of an earlier daemon, under the bits that the kernel half knows them by.
    pub(super) async fn adopt_mirrors(&mut self, same_boot: bool) -> Result<(), ControlError> {
        for SavedMirror { bit, spec } in std::mem::take(&mut self.saved.mirrors) {
            if spec.origin == Origin::Command && !same_boot {
                continue;
            }
            match Prepared::of(spec).await {
                Ok(Prepared { spec, filter }) => {
                    let mirror = Mirror { spec, bit, filter, target: 0, problem: None };
                    self.mirrors.insert(mirror.spec.name.clone(), mirror);
                }
                Err(error) => tracing::error!(%error, "a mirror could not be taken over"),
            }
        }
        if self.reflex.sessions_found() == 0 && self.mirrors.is_empty() {
            return Ok(());
        }
        self.look_at_targets().await;
        self.set_mirrors(true).await?;
        self.save()
    }

    /// Looks at ports and targets anew, and tells the kernel half what has changed.
    pub(super) async fn tend_mirrors(&mut self) -> Result<(), ControlError> {
        self.look_at_targets().await;
        self.set_mirrors(false).await
    }

    /// The same, when something happened that nobody waits for an answer to.
    pub(super) async fn tend_mirrors_quietly(&mut self) {
        if self.mirrors.is_empty() {
            return;
        }
        if let Err(error) = self.tend_mirrors().await {
            tracing::error!(%error, "mirrors could not be told of what has come or gone");
        }
    }

    /// The same, to go back to what was before something failed, which is what is told.
    pub(super) async fn tend_mirrors_again(&mut self) {
        if let Err(error) = self.tend_mirrors().await {
            tracing::error!(%error, "mirrors could not be put back as they were");
        }
    }

    async fn look_at_targets(&mut self) {
        let specs: Vec<MirrorSpec> = self.mirrors.values().map(|mirror| mirror.spec.clone()).collect();
        for spec in specs {
            let judged = self.judge_target(&spec, &self.ahead(&[], &[])).await;
            let Some(mirror) = self.mirrors.get_mut(&spec.name) else { continue };
            let problem = judged.as_ref().err().map(ToString::to_string);
            if problem != mirror.problem {
                tracing::info!(mirror = %spec.name, problem, "a mirror's target has changed");
            }
            mirror.target = judged.unwrap_or(0);
            mirror.problem = problem;
        }
    }

    /// Whether a netdev is given copies by a mirror.
    pub(super) fn mirror_to(&self, netdev: &IfName) -> Option<&PortName> {
        self.mirrors.values().find(|mirror| mirror.spec.to == *netdev).map(|mirror| &mirror.spec.name)
    }

    fn wish(&self, mirror: &Mirror) -> Wish {
        let (mut ingress, mut egress) = (BTreeSet::new(), BTreeSet::new());
        for (port, sides) in mirror.spec.sources() {
            let Some(port) = self.ports.get(port) else { continue };
            if sides.iter().any(|sides| sides.has_ingress()) {
                ingress.insert(port.id);
            }
            if sides.iter().any(|sides| sides.has_egress()) {
                egress.insert(port.id);
            }
        }
        Wish {
            filter: mirror.filter.clone(),
            ingress: Ports::These(ingress),
            egress: Ports::These(egress),
            bytes_max: mirror.spec.snaplen.unwrap_or(0),
            ..Wish::all(Kind::Mirror { target: mirror.target })
        }
    }

    /// Tells kernel half and loop, if there is anything new. `anew`: in any case.
    async fn set_mirrors(&mut self, anew: bool) -> Result<(), ControlError> {
        let others = self.reflex.sessions().iter().filter(|(_, wish)| !matches!(wish.kind, Kind::Mirror { .. }));
        let mut sessions: BTreeMap<u8, Wish> = others.map(|(bit, wish)| (*bit, wish.clone())).collect();
        sessions.extend(self.mirrors.values().map(|mirror| (mirror.bit, self.wish(mirror))));
        if !anew && sessions == *self.reflex.sessions() {
            return Ok(());
        }
        let tell = self.mirrors.values().any(|mirror| mirror.spec.from.iter().any(|source| source.sides.has_egress()));
        self.commands.ask(|done| Command::TellOrigins { tell, done }).await?;
        self.reflex.set_sessions(sessions)?;
        let cut: BTreeMap<u8, (IfName, u32)> = self
            .mirrors
            .values()
            .filter(|mirror| mirror.spec.snaplen.is_some() && mirror.target != 0)
            .map(|mirror| (mirror.bit, (mirror.spec.to.clone(), mirror.target)))
            .collect();
        Ok(self.reflex.cut_copies(&cut)?)
    }

    /// What is kept of the mirrors on disk.
    pub(super) fn saved_mirrors(&self) -> Vec<SavedMirror> {
        self.mirrors.values().map(|mirror| SavedMirror { bit: mirror.bit, spec: mirror.spec.clone() }).collect()
    }

    /// The mirrors as they were asked for.
    pub(super) fn mirror_specs(&self) -> Vec<MirrorSpec> {
        self.mirrors.values().map(|mirror| mirror.spec.clone()).collect()
    }

    /// Every mirror.
    pub(super) fn mirror_infos(&self) -> Vec<MirrorInfo> {
        self.mirrors.keys().filter_map(|name| self.mirror_info(name).ok()).collect()
    }

    /// What metrics tell of mirrors.
    pub(super) fn mirror_samples(&self) -> Vec<MirrorSample> {
        let sample = |mirror: &Mirror| {
            let counts = self.reflex.session_counts(mirror.bit).ok()?;
            Some(MirrorSample {
                name: mirror.spec.name.to_string(),
                is_up: mirror.problem.is_none(),
                delivered: counts.kernel.delivered,
                lost_frames: counts.kernel.lost.frames + counts.target_dropped.frames,
            })
        };
        self.mirrors.values().filter_map(sample).collect()
    }

    fn mirror_info(&self, name: &PortName) -> Result<MirrorInfo, ControlError> {
        let mirror = self
            .mirrors
            .get(name)
            .ok_or_else(|| ControlError::NotFound(format!("there is no mirror '{name}'; see 'weft mirror list'")))?;
        let counts = self.reflex.session_counts(mirror.bit)?;
        let absent: Vec<&str> = mirror
            .spec
            .sources()
            .into_keys()
            .filter(|port| self.ports.get(*port).is_none_or(|port| port.attachment.is_none()))
            .map(PortName::as_str)
            .collect();
        let problem =
            mirror.problem.clone().or_else(|| (!absent.is_empty()).then(|| format!("waits for {}", absent.join(", "))));
        Ok(MirrorInfo {
            name: name.clone(),
            from: mirror.spec.from.clone(),
            filter: mirror.spec.filter.clone(),
            snaplen: mirror.spec.snaplen,
            to: mirror.spec.to.clone(),
            ifindex: Some(mirror.target).filter(|target| *target != 0),
            origin: mirror.spec.origin,
            state: if problem.is_some() { MirrorState::Waiting } else { MirrorState::Up },
            problem,
            matched: counts.kernel.matched.into(),
            delivered: counts.kernel.delivered.into(),
            lost: counts.kernel.lost.into(),
            target_dropped_frames: counts.target_dropped.frames,
        })
    }
}
