//! Which netdev may be a mirror's target: judged against the ports there are, or those there will be once a file is applied.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Wanted, named};
use super::attachment::wanted_netdev;
use super::{Control, ControlError};
use crate::api::schema::Applied;
use crate::mirror::{Around, MirrorSpec, refuse};
use crate::port::spec::{IfName, PortName, PortSpec};
use crate::reflex::{Hook, Reflex};

/// The ports as they will be.
pub(super) struct Ahead<'a> {
    ports: BTreeMap<&'a PortName, &'a PortSpec>,
    /// Interface indices of netdevs that are ports and will be none.
    freed: BTreeSet<u32>,
}

impl Ahead<'_> {
    /// The port that a netdev will belong to.
    fn holder(&self, netdev: &str) -> Option<&PortName> {
        let holds = |spec: &PortSpec| wanted_netdev(spec).is_some_and(|wanted| wanted.as_str() == netdev);
        self.ports.iter().find(|(_, spec)| holds(spec)).map(|(name, _)| *name)
    }
}

impl Control {
    /// The ports as they will be with these new or changed, and without those that go.
    pub(super) fn ahead<'a>(&'a self, wanted: &'a [PortSpec], going: &[PortName]) -> Ahead<'a> {
        let stay = self.ports.iter().filter(|(name, _)| !going.contains(name));
        let mut ports: BTreeMap<_, _> = stay.map(|(name, port)| (name, &port.spec)).collect();
        ports.extend(wanted.iter().map(|spec| (&spec.name, spec)));
        let is_freed =
            |port: &&super::Port| ports.get(&port.spec.name).is_none_or(|spec| spec.attachment != port.spec.attachment);
        let attached = self.ports.values().filter(is_freed).filter_map(|port| port.attachment.as_ref());
        let freed = attached.map(|attachment| attachment.attached.ifindex).collect();
        Ahead { ports, freed }
    }

    /// The target's interface index, unless there is none (`NotFound`) or it must not be one.
    pub(super) async fn judge_target(&self, spec: &MirrorSpec, ahead: &Ahead<'_>) -> Result<u32, ControlError> {
        let to = &spec.to;
        if let Some(port) = ahead.holder(to.as_str()) {
            return Err(ControlError::Invalid(format!(
                "'{to}' is the netdev of port '{port}'; name one that is no port"
            )));
        }
        if spec.snaplen.is_some() && self.reflex.hook() != Hook::Tcx {
            return Err(ControlError::Invalid(
                "cutting a mirror's copies needs Linux 6.6; leave --snaplen out".to_owned(),
            ));
        }
        let links = self.host.links().await?;
        let Some(target) = links.iter().find(|link| link.name == to.as_str()) else {
            return Err(ControlError::NotFound(format!("there is no netdev '{to}'; make it first (ip link add …)")));
        };
        let is_switched = |link: &crate::port::LinkFacts| {
            let is_now = || Reflex::is_switched(&link.name, link.ifindex).unwrap_or(false);
            link.ifindex == self.punt_ifindex
                || ahead.holder(&link.name).is_some()
                || (!ahead.freed.contains(&link.ifindex) && is_now())
        };
        refuse(target, &Around { links: &links, is_switched: &is_switched }).map_err(ControlError::Invalid)?;
        Ok(target.ifindex)
    }

    /// Judges a file's mirrors before anything is done: those that are new or changed, by the ports as they will be, and that no
    /// port takes the netdev of one that stays. A target that is not there yet is waited for, as a port's netdev is.
    pub(super) async fn judge_mirrors(&self, wanted: &Wanted, diff: &Applied) -> Result<(), ControlError> {
        let ahead = self.ahead(&wanted.ports, &diff.ports.remove);
        for spec in wanted.mirrors.iter().map(|mirror| &mirror.spec).filter(|spec| diff.mirrors.makes(&spec.name)) {
            if let Some(nobody) = spec.sources().keys().find(|source| !ahead.ports.contains_key(*source)) {
                let error = ControlError::NotFound(format!("there will be no port '{nobody}' to mirror"));
                return Err(named("mirror", &spec.name, &error));
            }
            self.refuse_target(spec, &ahead).await?;
        }
        let stay = self.mirrors.values().map(|mirror| &mirror.spec);
        for spec in stay.filter(|spec| !diff.mirrors.makes(&spec.name) && !diff.mirrors.remove.contains(&spec.name)) {
            if let Some(port) = ahead.holder(spec.to.as_str()) {
                return Err(named("port", port, &taken(&spec.to, &spec.name)));
            }
        }
        Ok(())
    }

    /// Refuses a target that must not be one, and no other.
    pub(super) async fn refuse_target(&self, spec: &MirrorSpec, ahead: &Ahead<'_>) -> Result<(), ControlError> {
        match self.judge_target(spec, ahead).await {
            Ok(_) | Err(ControlError::NotFound(_)) => Ok(()),
            Err(error) => Err(named("mirror", &spec.name, &error)),
        }
    }
}

/// A netdev is a mirror's target, and cannot be a port.
pub(super) fn taken(netdev: &IfName, mirror: &PortName) -> ControlError {
    ControlError::Exists(format!(
        "'{netdev}' gets the copies of mirror '{mirror}' and cannot be a port; remove the mirror first"
    ))
}
