//! DHCP clients that wait for an answer: a lease belongs to the port its client asked at, not to the server's.

use switch_common::MacAddr;

use super::Port;
use super::dhcp::Dhcp;
use super::shelf::{Room, Shelf};

/// Clients that may wait.
const ROOM: Room = Room { total: 4096, per_port: 256 };

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    vlan: u16,
    number: u32,
    client: Vec<u8>,
}

/// Who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) port: Port,
    pub(super) mac: MacAddr,
    pub(super) name: Option<String>,
}

/// Those who wait.
#[derive(Clone, Debug)]
pub(super) struct Leases(Shelf<Transaction, Client>);

impl Leases {
    pub(super) fn new() -> Self {
        Self(Shelf::new(ROOM))
    }

    fn transaction(vlan: u16, dhcp: &Dhcp<'_>) -> Transaction {
        Transaction { vlan, number: dhcp.transaction, client: dhcp.client.to_vec() }
    }

    /// A client asks.
    pub(super) fn ask(&mut self, port: &Port, vlan: u16, source: MacAddr, dhcp: &Dhcp<'_>) {
        let client = Client { port: port.clone(), mac: dhcp.mac.unwrap_or(source), name: dhcp.name.clone() };
        self.0.insert(port.clone(), Self::transaction(vlan, dhcp), client);
    }

    /// A server answers: who had asked, if anybody did. The answer may come again, to one who asks again.
    pub(super) fn answer(&self, vlan: u16, dhcp: &Dhcp<'_>) -> Option<&Client> {
        self.0.get(&Self::transaction(vlan, dhcp))
    }
}
