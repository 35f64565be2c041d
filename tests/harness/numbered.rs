//! Numbered UDP datagrams, there and back: what a micro guest's talker and echo service are, for stations with an operating
//! system. In a container it runs as a thread; in a Linux guest as the program `numbered`.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::Duration;

/// The port of the echo service (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// First bytes of the payload, before the number.
const MARK: &[u8; 8] = b"WEFTTALK";
/// Datagrams under way.
const WINDOW: u64 = 16;
/// How long nothing may come before what is under way is given up, and how often that may happen in a row.
const SILENCE: Duration = Duration::from_millis(500);
const SILENCES: u32 = 20;

/// What came of a talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    /// Datagrams sent.
    pub sent: u64,
    /// Those that came back.
    pub returned: u64,
    /// Those of them that came after a later one.
    pub reordered: u64,
    /// What came back as something else.
    pub corrupt: u64,
}

impl Talk {
    /// Whether all of `count` datagrams came back, once, whole and in order.
    pub fn is_perfect(&self, count: u64) -> bool {
        *self == Self { sent: count, returned: count, ..Self::default() }
    }
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, returned, reordered, corrupt } = self;
        write!(f, r#"{{"sent":{sent},"returned":{returned},"reordered":{reordered},"corrupt":{corrupt}}}"#)
    }
}

/// Whether a call only waited in vain.
fn in_vain(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Sends every datagram back, until `ended`.
pub fn echo(socket: &UdpSocket, ended: impl Fn() -> bool) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut room = [0; 2048];
    while !ended() {
        match socket.recv_from(&mut room) {
            Ok((bytes, from)) => drop(socket.send_to(room.get(..bytes).unwrap_or_default(), from)?),
            Err(error) if in_vain(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends `count` numbered datagrams to the peer that the socket is connected to.
pub fn talk(socket: &UdpSocket, count: u64) -> io::Result<Talk> {
    socket.set_read_timeout(Some(SILENCE))?;
    let mut talk = Talk::default();
    let (mut lost, mut next, mut silences) = (0, 0, 0);
    let mut room = [0; 2048];
    while talk.returned < count && silences < SILENCES {
        while talk.sent < count && talk.sent.saturating_sub(talk.returned + lost) < WINDOW {
            socket.send(&[&MARK[..], &talk.sent.to_be_bytes()].concat())?;
            talk.sent += 1;
        }
        let bytes = match socket.recv(&mut room) {
            Ok(bytes) => bytes,
            Err(error) if in_vain(&error) => {
                silences += 1;
                lost = talk.sent - talk.returned;
                continue;
            }
            Err(error) => return Err(error),
        };
        silences = 0;
        let datagram = room.get(..bytes).unwrap_or_default();
        let number = datagram.strip_prefix(MARK).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
        match number.filter(|number| *number < talk.sent) {
            Some(number) => {
                talk.returned += 1;
                talk.reordered += u64::from(number < next);
                next = next.max(number + 1);
            }
            None => talk.corrupt += 1,
        }
    }
    Ok(talk)
}
