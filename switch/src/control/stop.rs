//! The ends of a daemon's life: taking over what an earlier one left, and leaving.

use std::time::{Duration, Instant};

use switch_common::PortId;

use super::attachment::{Attachment, SavedAttachment};
use super::{Control, ControlError, Port, errors};
use crate::dataplane::commands::Command;
use crate::port::attach::Host;
use crate::port::{Origin, PortSpec, PortState};
use crate::reflex::Reflex;
use crate::state::SavedPort;

/// How long a stop waits for the frames that are on their way through the loop.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

impl Control {
    /// Takes over the ports that the state file names. Those whose netdev is still the same go on without a gap; the
    /// others wait for it. `same_boot`: what was attached then may be attached still, and command ports still exist.
    pub async fn adopt(&mut self, same_boot: bool) {
        for saved in std::mem::take(&mut self.saved.ports) {
            if saved.spec.origin == Origin::Command && !same_boot {
                continue;
            }
            let Some(id) = PortId::new(saved.id) else { continue };
            self.adopt_port(id, saved, same_boot).await;
        }
        self.take_off_orphans().await;
        if let Err(error) = self.adopt_mirrors(same_boot).await {
            tracing::error!(%error, "the mirrors could not be taken over");
        }
        if let Err(error) = self.save() {
            tracing::error!(%error, "the state could not be saved");
        }
    }

    /// A program whose port nobody knows (its daemon died before it could note it, or the note was moved away) would go on
    /// forwarding under an id that is soon another port's.
    async fn take_off_orphans(&mut self) {
        let attached = self.reflex.attached_ports().unwrap_or_default();
        let unknown: Vec<PortId> = attached.into_iter().filter(|id| self.name_of(*id).is_none()).collect();
        for id in unknown {
            tracing::warn!(%id, "a program of an unknown port is taken off its netdev");
            let told = self.commands.ask(|done| Command::RemovePort { port: id, done }).await.map(drop);
            let ifindex = self.reflex.port(id).map_or(0, |port| port.ifindex);
            let undone = [
                told.map_err(ControlError::from),
                self.reflex.clear_port(id).map_err(ControlError::from),
                Reflex::grace().map_err(ControlError::from),
                self.reflex.detach_port(id).map(drop).map_err(ControlError::from),
                self.reflex.unlink(ifindex).map_err(ControlError::from),
            ];
            for error in undone.into_iter().filter_map(Result::err) {
                tracing::warn!(%id, %error, "while taking off an unknown port");
            }
        }
    }

    /// Makes the file's ports be, each for itself: one that cannot be attached is shown as failed and hinders no other.
    pub async fn begin(&mut self, wanted: &[PortSpec]) -> Result<(), ControlError> {
        let diff = self.compare(wanted, false)?;
        for name in &diff.remove {
            if let Err(error) = self.remove(name).await {
                tracing::warn!(port = %name, %error, "while removing a port that the file no longer names");
            }
        }
        self.end_flows().await;
        let changed = diff.change.iter().map(|change| &change.name);
        for name in changed.chain(&diff.add) {
            let Some(spec) = wanted.iter().find(|spec| spec.name == *name) else { continue };
            let made = if self.ports.contains_key(name) {
                self.change(spec.clone()).await
            } else {
                self.add(spec.clone(), true).await
            };
            if let Err(error) = made {
                tracing::error!(port = %name, %error, "port could not be made");
                self.keep_failed(spec, &error).await?;
            }
        }
        self.save()
    }

    /// A port of the file that could not be made stays in the table, so that it is seen.
    async fn keep_failed(&mut self, spec: &PortSpec, error: &ControlError) -> Result<(), ControlError> {
        if !self.ports.contains_key(&spec.name) {
            let Some(id) = self.give_id(&spec.name) else { return Ok(()) };
            let port = Port {
                id,
                spec: spec.clone(),
                state: PortState::Failed,
                problem: None,
                attachment: None,
                retry_after: None,
            };
            self.show_absent(&port).await?;
            self.ports.insert(spec.name.clone(), port);
        }
        let port = self.port_mut(&spec.name)?;
        port.state = PortState::Failed;
        port.problem = Some(error.to_string());
        Ok(())
    }

    async fn adopt_port(&mut self, id: PortId, saved: SavedPort, same_boot: bool) {
        let name = saved.spec.name.clone();
        let mut port =
            Port { id, spec: saved.spec, state: PortState::Absent, problem: None, attachment: None, retry_after: None };
        let attachment: Option<SavedAttachment> =
            saved.restore.filter(|_| same_boot).and_then(|value| serde_json::from_value(value).ok());
        let adopted = match attachment {
            Some(attachment) => self.adopt_attachment(&mut port, attachment).await,
            None => false,
        };
        if !adopted {
            match self.attach(&mut port).await {
                Ok(()) | Err(crate::port::attach::AttachError::NoSuchNetdev { .. }) => {}
                Err(error) => {
                    port.state = PortState::Failed;
                    port.problem = Some(errors::chain(&error));
                    tracing::warn!(port = %name, error = %errors::chain(&error), "port could not be attached");
                }
            }
        }
        if port.attachment.is_none()
            && let Err(error) = self.show_absent(&port).await
        {
            tracing::error!(port = %name, %error, "the loop could not be told");
        }
        self.pin_again(&port).await;
        self.ports.insert(name, port);
    }

    /// Goes on with a netdev that an earlier daemon attached, if it is still there.
    async fn adopt_attachment(&mut self, port: &mut Port, saved: SavedAttachment) -> bool {
        let adopted = self.host.adopt(&port.spec, &saved.restore).await;
        let attached = match adopted {
            Ok(Some(attached)) => attached,
            Ok(None) => return self.forget_netdev(port, saved.restore.ifindex),
            Err(error) => {
                tracing::warn!(port = %port.spec.name, error = %errors::chain(&error), "netdev could not be taken over");
                return self.forget_netdev(port, saved.restore.ifindex);
            }
        };
        port.state = attached.state;
        if let Err(error) = self.wire(port, port.state, &attached).await {
            tracing::warn!(port = %port.spec.name, error = %errors::chain(&error), "netdev could not be taken over");
            return self.forget_netdev(port, attached.ifindex);
        }
        self.show(port.id, &port.spec, port.state, Some(&attached)).await;
        tracing::info!(port = %port.spec.name, netdev = %attached.ifname, "port adopted");
        port.attachment = Some(Attachment { attached, before: saved.before });
        true
    }

    /// The netdev is not, or no longer, the port's: the program comes off it, wherever it is. Always `false`.
    fn forget_netdev(&mut self, port: &Port, ifindex: u32) -> bool {
        let undone = [
            self.reflex.clear_port(port.id),
            Reflex::grace(),
            self.reflex.detach_port(port.id).map(drop),
            self.reflex.unlink(ifindex),
        ];
        for error in undone.into_iter().filter_map(Result::err) {
            tracing::debug!(port = %port.spec.name, %error, "while forgetting the netdev");
        }
        false
    }

    /// Lets the loop decide about what is in the punt ring, while nothing more comes in.
    async fn drain(&self) {
        let deadline = Instant::now() + DRAIN_WITHIN;
        while self.ports.values().any(|port| self.in_flight(port.id) > 0) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Leaves. `keep`: everything stays as it is but new pairs, which nobody decides about any more. Otherwise every
    /// netdev is given back as it was found and nothing of ours is left, but a tap that a VMM holds open.
    pub async fn stop(&mut self, keep: bool) -> Result<(), ControlError> {
        if keep {
            let mut settings = self.reflex.settings()?;
            settings.flags &= !switch_common::SETTING_PUNT;
            self.reflex.set_settings(settings)?;
            Reflex::grace()?;
            self.drain().await;
            return self.save();
        }
        let names: Vec<_> = self.ports.keys().cloned().collect();
        for name in names {
            let Some(mut port) = self.ports.remove(&name) else { continue };
            let Some(attachment) = port.attachment.take() else { continue };
            self.lower(&attachment.attached).await;
            self.unwire(port.id, &attachment.attached).await;
            if let Err(error) = self.host.leave(&attachment.attached.restore).await {
                tracing::warn!(port = %name, error = %errors::chain(&error), "while giving the netdev back");
            }
        }
        self.save()
    }
}

/// Gives back what a dead daemon left on the host: its netdevs, then its programs and maps.
pub async fn clear_away(host: &Host, pins: &std::path::Path, ports: &[SavedPort]) -> Result<(), ControlError> {
    let attachments = ports.iter().filter_map(|saved| saved.restore.clone());
    for attachment in attachments.filter_map(|value| serde_json::from_value::<SavedAttachment>(value).ok()) {
        if let Err(error) = host.lower(&attachment.restore).await {
            tracing::debug!(netdev = %attachment.restore.ifname, error = %errors::chain(&error), "not set down");
        }
    }
    Reflex::remove(pins)?;
    let mut first_error = None;
    for saved in ports {
        let Some(value) = &saved.restore else { continue };
        let released = match serde_json::from_value::<SavedAttachment>(value.clone()) {
            Ok(attachment) => host.leave(&attachment.restore).await.map_err(|error| errors::chain(&error)),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = released {
            tracing::warn!(port = %saved.spec.name, error, "netdev not restored");
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), |error| Err(ControlError::Failed(error)))
}
