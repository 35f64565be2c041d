//! Make ports and mirrors be what a file says: all or nothing.
//!
//! ```text
//! compare, judge  ─▶  mirrors that go or change stop  ─▶  ports let go, change, come  ─▶  new mirrors  ─▶  other ports go
//! nothing is done      if a port takes their target           (what fails undoes all before it)
//! ```

use std::collections::BTreeMap;

use super::attachment::{same_netdev, wanted_netdev};
use super::mirrors::Prepared;
use super::{Control, ControlError, errors};
use crate::api::schema::{Applied, Change, Diff};
use crate::port::{IfName, Origin, PortName, PortSpec};

/// What a file asks for.
pub(super) struct Wanted {
    pub(super) ports: Vec<PortSpec>,
    pub(super) mirrors: Vec<Prepared>,
}

/// What was done, to be undone in reverse.
enum Done {
    Added(PortName),
    Changed(Box<PortSpec>),
    Removed(Box<PortSpec>),
}

impl Control {
    /// What would change to make the ports of the file (`prune`: all ports) be `wanted`.
    ///
    /// # Errors
    /// A wanted name belongs to a port that a command made.
    pub(super) fn compare(&self, wanted: &[PortSpec], prune: bool) -> Result<Diff, ControlError> {
        let by_name: BTreeMap<&PortName, &PortSpec> = wanted.iter().map(|spec| (&spec.name, spec)).collect();
        let mut diff = Diff::default();
        for (name, spec) in &by_name {
            match self.ports.get(name) {
                None => diff.add.push((*name).clone()),
                Some(port) if port.spec.origin == Origin::Command && !prune => {
                    return Err(ControlError::Exists(format!(
                        "port '{name}' was made by a command; remove it with 'weft port del {name}', or take it over with --prune"
                    )));
                }
                Some(port) if port.spec != **spec => {
                    diff.change.push(Change { name: (*name).clone(), what: differences(&port.spec, spec) });
                }
                // A namespace that is back announces itself to nobody; the file says that it is wanted still.
                Some(port) if port.attachment.is_none() && is_retried(spec) => {
                    let what = port.problem.clone().unwrap_or_else(|| "absent".to_owned());
                    diff.change.push(Change { name: (*name).clone(), what: vec![format!("tried again: {what}")] });
                }
                Some(_) => {}
            }
        }
        let ours = |port: &super::Port| prune || port.spec.origin == Origin::File;
        diff.remove = self
            .ports
            .iter()
            .filter(|(name, port)| ours(port) && !by_name.contains_key(name))
            .map(|(name, _)| name.clone())
            .collect();
        Ok(diff)
    }

    /// Applies `wanted`; when a step fails, what was done is undone and the error says which port or mirror it was.
    pub(super) async fn apply(&mut self, wanted: Wanted, dry_run: bool, prune: bool) -> Result<Applied, ControlError> {
        let ports = self.compare(&wanted.ports, prune)?;
        let mut diff = Applied { ports, mirrors: self.compare_mirrors(&wanted.mirrors, prune)? };
        self.judge_mirrors(&wanted, &diff).await?;
        if dry_run {
            return Ok(diff);
        }
        let (mut done, mirrors) = (Vec::new(), self.mirrors.clone());
        // Saved once: a file of all ports after each of them would cost the square of their number.
        let outcome = match self.carry_out(&diff, &wanted, &mut done).await {
            Ok(()) => self.save(),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // No copy goes to a netdev that is to be a port again.
            self.mirrors = mirrors;
            self.tend_mirrors_again().await;
            self.undo(done).await;
            self.tend_mirrors_again().await;
            self.save()?;
            return Err(error);
        }
        diff.ports.applied = true;
        diff.mirrors.applied = true;
        Ok(diff)
    }

    async fn carry_out(&mut self, diff: &Applied, wanted: &Wanted, done: &mut Vec<Done>) -> Result<(), ControlError> {
        let find = |name: &PortName| wanted.ports.iter().find(|spec| spec.name == *name).cloned();
        let new_mirrors = || wanted.mirrors.iter().filter(|mirror| diff.mirrors.makes(&mirror.spec.name));
        let targets = new_mirrors().map(|mirror| &mirror.spec.to);
        let netdevs: Vec<&IfName> = wanted.ports.iter().filter_map(wanted_netdev).collect();
        let changed = diff.mirrors.change.iter().map(|change| &change.name);
        let old: Vec<_> =
            diff.mirrors.remove.iter().chain(changed).filter_map(|name| self.mirrors.remove(name)).collect();
        if old.iter().any(|mirror| netdevs.contains(&&mirror.spec.to)) {
            self.tend_mirrors().await?;
        }
        let claimed: Vec<&IfName> = netdevs.into_iter().chain(targets).collect();
        let diff = &diff.ports;
        // A netdev must be let go before another port or a mirror can have it; everything else goes last, when nothing can fail.
        let (first, last): (Vec<&PortName>, Vec<&PortName>) = diff.remove.iter().partition(|name| {
            self.ports
                .get(name)
                .and_then(|port| wanted_netdev(&port.spec))
                .is_some_and(|netdev| claimed.contains(&netdev))
        });
        for name in first {
            self.remove_noting(name, done).await?;
        }
        // Ports may change netdevs among themselves: all let go before any takes hold.
        let changed: Vec<PortSpec> = diff.change.iter().filter_map(|change| find(&change.name)).collect();
        for spec in &changed {
            self.let_go_noting(spec, done).await.map_err(|error| named("port", &spec.name, &error))?;
        }
        for spec in changed {
            let name = spec.name.clone();
            self.change(spec).await.map_err(|error| named("port", &name, &error))?;
        }
        for name in &diff.add {
            if let Some(spec) = find(name) {
                self.add(spec, true).await.map_err(|error| named("port", name, &error))?;
                done.push(Done::Added(name.clone()));
            }
        }
        // What was made just now is judged as well.
        for mirror in new_mirrors() {
            self.refuse_target(&mirror.spec, &self.ahead(&[], &diff.remove)).await?;
            self.put_mirror(mirror.clone())?;
        }
        if !old.is_empty() || new_mirrors().next().is_some() {
            self.tend_mirrors().await?;
        }
        for name in last {
            self.remove_noting(name, done).await?;
        }
        Ok(())
    }

    async fn remove_noting(&mut self, name: &PortName, done: &mut Vec<Done>) -> Result<(), ControlError> {
        let spec = self.port_named(name)?.spec.clone();
        done.push(Done::Removed(Box::new(spec)));
        self.remove(name).await.map_err(|error| named("port", name, &error))
    }

    /// Notes what a port was, and detaches it if its netdev is to change: from then on it is the new one, absent.
    async fn let_go_noting(&mut self, new: &PortSpec, done: &mut Vec<Done>) -> Result<(), ControlError> {
        let Some(mut port) = self.ports.remove(&new.name) else { return Err(errors::no_such_port(&new.name)) };
        done.push(Done::Changed(Box::new(port.spec.clone())));
        let mut let_go = Ok(());
        if !same_netdev(&port.spec, new) {
            let_go = self.detach(&mut port).await;
            port.spec = new.clone();
        }
        self.ports.insert(new.name.clone(), port);
        let_go
    }

    /// Changes a port: in place where the netdev stays as it is, else by detaching and attaching anew.
    pub(super) async fn change(&mut self, spec: PortSpec) -> Result<(), ControlError> {
        let name = spec.name.clone();
        let Some(mut port) = self.ports.remove(&name) else { return Err(errors::no_such_port(&name)) };
        let in_place = same_netdev(&port.spec, &spec) && port.attachment.is_some();
        if let Err(error) = self.refuse_taken_netdev(&spec) {
            self.ports.insert(name, port);
            return Err(error);
        }
        let old = std::mem::replace(&mut port.spec, spec);
        if in_place {
            let attached = port.attachment.as_ref().map(|attachment| &attachment.attached);
            self.show(port.id, &port.spec, port.state, attached).await;
            self.ports.insert(name, port);
            return Ok(());
        }
        let new = std::mem::replace(&mut port.spec, old);
        // The old netdev is given back by the port as it was.
        let detached = self.detach(&mut port).await;
        port.spec = new;
        let attached = match detached {
            Ok(()) => match self.attach(&mut port).await {
                Err(crate::port::attach::AttachError::NoSuchNetdev { .. }) => self.show_absent(&port).await,
                other => other.map_err(ControlError::from),
            },
            Err(error) => Err(error),
        };
        self.ports.insert(name, port);
        attached
    }

    /// Puts back what was done, in reverse. What cannot be put back is said and left.
    async fn undo(&mut self, done: Vec<Done>) {
        for step in done.into_iter().rev() {
            let (name, undone) = match step {
                Done::Added(name) => {
                    let undone = self.remove(&name).await;
                    (name, undone)
                }
                Done::Changed(old) => (old.name.clone(), self.change(*old).await),
                Done::Removed(old) if self.ports.contains_key(&old.name) => continue,
                Done::Removed(old) => (old.name.clone(), self.add(*old, true).await),
            };
            if let Err(error) = undone {
                tracing::error!(port = %name, %error, "could not be put back as it was");
            }
        }
    }
}

/// Whether only an operator's word brings a port back: one that waits for a netdev is attached when that appears.
fn is_retried(spec: &PortSpec) -> bool {
    wanted_netdev(spec).is_none()
}

/// The error with what it was about: a port or a mirror.
pub(super) fn named(what: &str, name: &PortName, error: &ControlError) -> ControlError {
    let text = format!("{what} '{name}': {error}");
    match error {
        ControlError::NotFound(_) => ControlError::NotFound(text),
        ControlError::Exists(_) => ControlError::Exists(text),
        ControlError::Invalid(_) => ControlError::Invalid(text),
        ControlError::Failed(_) => ControlError::Failed(text),
        ControlError::Busy(_) => ControlError::Busy(text),
    }
}

/// What differs between two specs, as `key: before → after`.
fn differences(old: &PortSpec, new: &PortSpec) -> Vec<String> {
    let fields = |spec: &PortSpec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let text = |value: Option<&serde_json::Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key}: {} → {}", text(old.get(key)), text(new.get(key))))
        .collect()
}
