//! DHCP (RFC 2131), and that for IPv6 (RFC 8415), as far as a lease is told of: who asks, and what the server says is theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use switch_common::MacAddr;

use super::text::{Reader, printable};

/// Longest host name that is kept, in bytes of the option.
const NAME_BYTES_MAX: usize = 255;
/// Addresses of one reply over IPv6 that are looked at.
const ADDRESSES_MAX: usize = 8;
/// Longest DUID (RFC 8415, section 11.1).
const DUID_BYTES_MAX: usize = 130;

/// One side's word about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp<'a> {
    /// What ties an answer to its question.
    pub transaction: u32,
    /// Who wants the lease: a hardware address, over IPv6 a DUID.
    pub client: &'a [u8],
    /// The station that it is for, where the message says so.
    pub mac: Option<MacAddr>,
    /// What the client calls itself.
    pub name: Option<String>,
    /// Of the server's answer: what is the client's now. Empty: this is the client's question.
    pub given: Vec<IpAddr>,
}

/// Reads a message from its first byte on.
pub(super) fn dhcp_v4(message: &[u8]) -> Option<Dhcp<'_>> {
    let mut fields = Reader::new(message);
    let [op, hardware, hardware_bytes, _] = fields.array()?;
    if hardware != 1 || hardware_bytes != 6 {
        return None;
    }
    let transaction = fields.u32()?;
    fields.take(8)?;
    let yours = Ipv4Addr::from(fields.array::<4>()?);
    fields.take(8)?;
    let client = fields.take(16)?.get(..6)?;
    let mac = MacAddr(*client.first_chunk()?);
    fields.take(64 + 128)?;
    if fields.u32()? != 0x6382_5363 || !mac.is_station() {
        return None;
    }
    let (mut kind, mut name) = (0, None);
    // An option that is cut short ends them.
    while let Some(option) = fields.u8().filter(|option| *option != 255) {
        if option == 0 {
            continue;
        }
        let Some(body) = fields.u8().and_then(|length| fields.take(length.into())) else { break };
        match option {
            53 => kind = *body.first()?,
            12 => name = Some(printable(body, NAME_BYTES_MAX)),
            _ => {}
        }
    }
    let given = match (op, kind) {
        // DISCOVER, REQUEST
        (1, 1 | 3) => Vec::new(),
        // ACK; that of an INFORM gives nothing
        (2, 5) if !yours.is_unspecified() => vec![IpAddr::from(yours)],
        _ => return None,
    };
    Some(Dhcp { transaction, client, mac: Some(mac), name: name.filter(|name| !name.is_empty()), given })
}

/// Reads a message from its first byte on. What relays wrap is not looked into.
pub(super) fn dhcp_v6(message: &[u8]) -> Option<Dhcp<'_>> {
    let mut fields = Reader::new(message);
    let kind = fields.u8()?;
    let [a, b, c] = fields.array()?;
    let transaction = u32::from_be_bytes([0, a, b, c]);
    let (mut client, mut name, mut given) = (None, None, Vec::new());
    while let Some((option, body)) = option_v6(&mut fields) {
        match option {
            1 => client = Some(body).filter(|duid| duid.len() <= DUID_BYTES_MAX),
            3 => addresses(body, &mut given),
            39 => name = body.get(1..).and_then(fqdn),
            _ => {}
        }
    }
    let given = match kind {
        // SOLICIT, REQUEST, CONFIRM, RENEW, REBIND
        1 | 3..=6 => Vec::new(),
        // REPLY
        7 if !given.is_empty() => given,
        _ => return None,
    };
    Some(Dhcp { transaction, client: client?, mac: None, name, given })
}

fn option_v6<'a>(fields: &mut Reader<'a>) -> Option<(u16, &'a [u8])> {
    let (option, length) = (fields.u16()?, fields.u16()?);
    Some((option, fields.take(length.into())?))
}

/// The addresses in an `IA_NA` (section 21.4), whose time is not over.
fn addresses(body: &[u8], into: &mut Vec<IpAddr>) {
    let mut fields = Reader::new(body);
    if fields.take(12).is_none() {
        return;
    }
    while let Some((option, body)) = option_v6(&mut fields) {
        let mut lease = Reader::new(body);
        if let (5, Some(address), Some(_preferred), Some(1..)) = (option, lease.array::<16>(), lease.u32(), lease.u32())
            && into.len() < ADDRESSES_MAX
        {
            into.push(Ipv6Addr::from(address).into());
        }
    }
}

/// A name in labels, without pointers (RFC 4704).
fn fqdn(labels: &[u8]) -> Option<String> {
    let mut fields = Reader::new(labels);
    let mut name = String::new();
    while let Some(length @ 1..=63) = fields.u8() {
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&printable(fields.take(length.into())?, 63));
        if name.len() > 4 * NAME_BYTES_MAX {
            return None;
        }
    }
    Some(name).filter(|name| !name.is_empty())
}
