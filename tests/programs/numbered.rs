//! `numbered echo` and `numbered talk PEER COUNT`: numbered UDP datagrams in a Linux guest, the report as a line of JSON.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, UdpSocket};

use weft_tests::numbered;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["echo"] => numbered::echo(&UdpSocket::bind((Ipv4Addr::UNSPECIFIED, numbered::ECHO_PORT))?, || false),
        ["talk", peer, count] => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((peer, numbered::ECHO_PORT))?;
            let talk = numbered::talk(&socket, count.parse().map_err(io::Error::other)?)?;
            writeln!(io::stdout(), "{talk}")
        }
        _ => Err(io::Error::other("usage: numbered echo | numbered talk PEER COUNT")),
    }
}
