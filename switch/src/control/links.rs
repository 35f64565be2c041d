//! What the kernel does to our netdevs, and what becomes of their ports.

use std::time::{Duration, Instant};

use super::{Control, errors};
use crate::port::attach::AttachError;
use crate::port::monitor::LinkEvent;
use crate::port::{PortName, PortState};

/// How long events are no reason to try again after a netdev could not be attached.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What is said of a port whose netdev was deleted, or whose namespace was.
const GONE: &str = "its netdev is gone";

impl Control {
    /// Follows one event.
    pub async fn follow(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Changed(facts) if facts.ifindex == self.punt_ifindex => {
                // What is told may be over: that it was made down comes after it was set up.
                let is_down =
                    !facts.up && matches!(self.host.look_index(facts.ifindex).await, Ok(Some(now)) if !now.up);
                if is_down {
                    tracing::warn!(
                        "somebody set the punt tap down, and no new pair of stations could talk; it goes up again"
                    );
                    if let Err(error) = self.host.raise(facts.ifindex).await {
                        tracing::error!(error = %errors::chain(&error), "the punt tap stays down; set it up by hand (ip link)");
                    }
                }
            }
            LinkEvent::Changed(facts) => {
                if let Some(port) = self.port_at(facts.ifindex) {
                    self.look_at(&port).await;
                }
                self.welcome(&facts.name).await;
            }
            LinkEvent::Gone { ifindex, moved, .. } => {
                if let Some(port) = self.port_at(ifindex) {
                    let why = if moved { "its netdev moved to another namespace" } else { GONE };
                    self.lose(&port, why).await;
                }
            }
            LinkEvent::Resync => self.look_at_all().await,
        }
        self.tend_mirrors_quietly().await;
    }

    /// Looks at every netdev: after events were lost, and at the start.
    pub async fn look_at_all(&mut self) {
        let names: Vec<PortName> = self.ports.keys().cloned().collect();
        for name in names {
            self.look_at(&name).await;
            let absent = self.ports.get(&name).filter(|port| port.attachment.is_none());
            if let Some(wanted) = absent.and_then(|port| super::attachment::wanted_netdev(&port.spec)).cloned() {
                self.welcome(wanted.as_str()).await;
            }
        }
    }

    fn port_at(&self, ifindex: u32) -> Option<PortName> {
        let at = |port: &super::Port| port.attachment.as_ref().is_some_and(|a| a.attached.ifindex == ifindex);
        self.ports.iter().find(|(_, port)| at(port)).map(|(name, _)| name.clone())
    }

    /// Looks at a port's netdev, and follows what changed.
    async fn look_at(&mut self, name: &PortName) {
        let Some(port) = self.ports.get(name) else { return };
        let Some(attachment) = port.attachment.clone() else { return };
        let facts = match self.host.look_index(attachment.attached.ifindex).await {
            Ok(Some(facts)) => facts,
            Ok(None) => return self.lose(name, GONE).await,
            Err(error) => {
                tracing::warn!(port = %name, %error, "the netdev could not be looked at");
                return;
            }
        };
        if facts.name != attachment.attached.ifname.as_str() {
            return self.renamed(name, &facts.name).await;
        }
        let state = facts.state();
        // The container may have given its interface another address, and only unicast to that may enter directly.
        let peer_mac = self.host.peer_mac(&port.spec).await.unwrap_or_default();
        let known = &attachment.attached;
        if state == port.state && facts.mtu == known.mtu && peer_mac == known.peer_mac {
            return;
        }
        tracing::info!(port = %name, ?state, mtu = facts.mtu, "netdev changed");
        let Some(port) = self.ports.get_mut(name) else { return };
        port.state = state;
        if let Some(attachment) = &mut port.attachment {
            attachment.attached.mtu = facts.mtu;
            attachment.attached.state = state;
            attachment.attached.peer_mac = peer_mac;
        }
        let (id, spec, attachment) = (port.id, port.spec.clone(), port.attachment.clone());
        self.show(id, &spec, state, attachment.as_ref().map(|attachment| &attachment.attached)).await;
    }

    /// A netdev that has another name is not the configured one: it is given back, and the port waits.
    async fn renamed(&mut self, name: &PortName, now: &str) {
        let Some(mut port) = self.ports.remove(name) else { return };
        tracing::warn!(port = %name, now, "netdev renamed; the port waits for one of the configured name");
        if let Err(error) = self.detach(&mut port).await {
            tracing::warn!(port = %name, %error, "while giving the netdev back");
        }
        port.problem = Some(format!("its netdev was renamed to '{now}'"));
        self.settle_absent(name, port).await;
    }

    /// A netdev is gone, by deletion or into another namespace.
    async fn lose(&mut self, name: &PortName, why: &str) {
        let Some(mut port) = self.ports.remove(name) else { return };
        tracing::warn!(port = %name, why, "port lost its netdev");
        if let Err(error) = self.detach(&mut port).await {
            // Nothing is left to restore on a netdev that does not exist.
            tracing::debug!(port = %name, %error, "while forgetting the netdev");
        }
        port.problem = Some(why.to_owned());
        self.settle_absent(name, port).await;
    }

    async fn settle_absent(&mut self, name: &PortName, port: super::Port) {
        if let Err(error) = self.show_absent(&port).await {
            tracing::error!(port = %name, %error, "the loop could not be told");
        }
        self.pin_again(&port).await;
        self.ports.insert(name.clone(), port);
        if let Err(error) = self.save() {
            tracing::error!(%error, "the state could not be saved");
        }
    }

    /// A netdev of this name exists: attaches it if a port waits for it.
    async fn welcome(&mut self, netdev: &str) {
        let now = Instant::now();
        let waits = |port: &super::Port| {
            port.attachment.is_none()
                && port.retry_after.is_none_or(|after| now >= after)
                && super::attachment::wanted_netdev(&port.spec).is_some_and(|wanted| wanted.as_str() == netdev)
        };
        let Some(name) = self.ports.iter().find(|(_, port)| waits(port)).map(|(name, _)| name.clone()) else { return };
        let Some(mut port) = self.ports.remove(&name) else { return };
        match self.attach(&mut port).await {
            Ok(()) => tracing::info!(port = %name, netdev, "netdev attached"),
            Err(AttachError::NoSuchNetdev { .. }) => {}
            Err(error) => {
                let problem = errors::chain(&error);
                if port.problem.as_ref() != Some(&problem) {
                    tracing::warn!(port = %name, netdev, error = problem, "netdev is there but cannot be attached");
                }
                port.state = PortState::Failed;
                port.problem = Some(problem);
                // What the attempt itself did to the netdev comes back as events, and must not be its own next cause.
                port.retry_after = Some(Instant::now() + RETRY_AFTER);
            }
        }
        if port.attachment.is_none()
            && let Err(error) = self.show_absent(&port).await
        {
            tracing::error!(port = %name, %error, "the loop could not be told");
        }
        self.ports.insert(name, port);
        if let Err(error) = self.save() {
            tracing::error!(%error, "the state could not be saved");
        }
    }
}
