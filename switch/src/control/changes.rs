//! Changes of ports and stations that are to outlive the daemon: made, then written down.

use super::{Control, ControlError, Port};
use crate::api::schema::PortInfo;
use crate::dataplane::commands::Command;
use crate::port::spec::{Mac, PortName, PortSpec};

impl Control {
    pub(super) async fn add_and_save(
        &mut self,
        spec: PortSpec,
        may_exist: bool,
        wait: bool,
    ) -> Result<PortInfo, ControlError> {
        let name = spec.name.clone();
        if may_exist && let Some(port) = self.ports.get(&name) {
            if port.spec == spec {
                return Ok(self.info(port));
            }
            return Err(ControlError::Exists(format!(
                "port '{name}' exists with other settings; see 'weft port show {name}', and remove it first to change them"
            )));
        }
        self.add(spec, wait).await?;
        self.tend_mirrors_quietly().await;
        if let Err(error) = self.save() {
            self.remove(&name).await?;
            return Err(error);
        }
        self.port_named(&name).map(|port| self.info(port))
    }

    pub(super) async fn remove_and_save(&mut self, name: &PortName, if_exists: bool) -> Result<(), ControlError> {
        if if_exists && !self.ports.contains_key(name) {
            return Ok(());
        }
        let removed = self.remove(name).await;
        self.tend_mirrors_quietly().await;
        self.save()?;
        removed
    }

    /// Pins a station to a port, and remembers it.
    pub(super) async fn pin(&mut self, name: PortName, mac: Mac) -> Result<(), ControlError> {
        let port = self.port_named(&name)?.id;
        let pinned = self.commands.ask(|done| Command::AddStation { port, mac: mac.0, done }).await?;
        pinned.map_err(|error| ControlError::Invalid(error.to_string()))?;
        self.saved.stations.insert(mac, name);
        self.save()
    }

    pub(super) async fn unpin(&mut self, mac: Mac) -> Result<(), ControlError> {
        let found = self.commands.ask(|done| Command::RemoveStation { mac: mac.0, done }).await?;
        let pinned = self.saved.stations.remove(&mac).is_some();
        if found.is_none() && !pinned {
            return Err(ControlError::NotFound(format!("no station {mac} is known; see 'weft fdb'")));
        }
        self.save()
    }

    /// Pins the stations that an operator gave this port, again: after a restart, or when its netdev is back.
    pub(super) async fn pin_again(&self, port: &Port) {
        let pinned = self.saved.stations.iter().filter(|(_, name)| **name == port.spec.name);
        for (mac, name) in pinned {
            let id = port.id;
            match self.commands.ask(|done| Command::AddStation { port: id, mac: mac.0, done }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(port = %name, %mac, %error, "static station not pinned again"),
                Err(error) => tracing::error!(port = %name, %error, "the loop could not be told"),
            }
        }
    }
}
