//! The ends of a daemon's life: taking over what an earlier one left, and leaving.

use switch_common::PortId;

use super::attachment::Attachment;
use super::{Control, ControlError, Port, errors};
use crate::port::attach::Host;
use crate::port::{Origin, PortState};
use crate::reflex::{self, Reflex};
use crate::state::SavedPort;

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
        if let Err(error) = self.save() {
            tracing::error!(%error, "the state could not be saved");
        }
    }

    async fn adopt_port(&mut self, id: PortId, saved: SavedPort, same_boot: bool) {
        let name = saved.spec.name.clone();
        let mut port = Port { id, spec: saved.spec, state: PortState::Absent, problem: None, attachment: None };
        let attachment: Option<Attachment> =
            saved.restore.filter(|_| same_boot).and_then(|value| serde_json::from_value(value).ok());
        let adopted = match attachment {
            Some(attachment) => self.adopt_attachment(&mut port, attachment).await,
            None => false,
        };
        if !adopted {
            match self.attach(&mut port).await {
                Ok(()) => {}
                Err(crate::port::attach::AttachError::NoSuchNetdev { .. }) => {}
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
    async fn adopt_attachment(&mut self, port: &mut Port, mut attachment: Attachment) -> bool {
        let attached = &mut attachment.attached;
        let facts = match self.host.look(attached.ifindex).await {
            Ok(Some(facts)) if facts.name == attached.ifname.as_str() => facts,
            _ => {
                // Another netdev may have the index by now; nothing of the old one is left to restore.
                for error in [self.reflex.unlink(attached.ifindex), self.reflex.clear_port(port.id)]
                    .into_iter()
                    .filter_map(Result::err)
                {
                    tracing::debug!(port = %port.spec.name, %error, "while forgetting the netdev");
                }
                return false;
            }
        };
        attached.mtu = facts.mtu;
        attached.state = facts.state();
        port.state = attached.state;
        if let Err(error) = self.wire(port, attached).await {
            tracing::warn!(port = %port.spec.name, error = %errors::chain(&error), "netdev could not be taken over");
            return false;
        }
        self.show(port.id, &port.spec, port.state, Some(attached)).await;
        tracing::info!(port = %port.spec.name, netdev = %attached.ifname, "port adopted");
        port.attachment = Some(attachment);
        true
    }

    /// Leaves. `keep`: everything stays as it is but new pairs, which nobody decides about any more. Otherwise every
    /// netdev is given back as it was found and nothing of ours is left.
    pub async fn stop(&mut self, keep: bool) -> Result<(), ControlError> {
        if keep {
            let mut settings = self.reflex.settings();
            settings.flags &= !switch_common::SETTING_PUNT;
            self.reflex.set_settings(settings)?;
            return self.save();
        }
        let names: Vec<_> = self.ports.keys().cloned().collect();
        for name in names {
            let Some(mut port) = self.ports.remove(&name) else { continue };
            if let Err(error) = self.detach(&mut port).await {
                tracing::warn!(port = %name, %error, "while giving the netdev back");
            }
        }
        self.save()
    }
}

/// Gives back what a dead daemon left on the host: its netdevs, then its programs and maps.
pub async fn clear_away(host: &Host, pins: &std::path::Path, ports: &[SavedPort]) -> Result<(), ControlError> {
    let mut first_error = None;
    for saved in ports {
        let Some(value) = &saved.restore else { continue };
        let released = match serde_json::from_value::<Attachment>(value.clone()) {
            Ok(attachment) => {
                Reflex::detach_leftover(attachment.attached.ifname.as_str());
                host.release(&attachment.attached.restore).await.map_err(|error| errors::chain(&error))
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = released {
            tracing::warn!(port = %saved.spec.name, error, "netdev not restored");
            first_error.get_or_insert(error);
        }
    }
    reflex::remove(pins)?;
    first_error.map_or(Ok(()), |error| Err(ControlError::Failed(error)))
}
