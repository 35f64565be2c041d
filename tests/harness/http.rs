//! Just enough HTTP over a unix socket to speak to the daemon, well or badly.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A reply: its status code and its body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code; 0 when the peer closed without one.
    pub status: u16,
    /// What follows the headers, as it came.
    pub body: String,
}

/// Sends one request and reads the reply to the end of the connection.
pub fn request(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Reply> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw(socket, &[head.as_bytes(), body].concat())
}

/// Sends bytes as they are and reads what comes until the peer closes.
pub fn raw(socket: &Path, bytes: &[u8]) -> Result<Reply> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(crate::wait::SOON))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    // A peer that refuses a long body closes while we still write; what it said is what counts.
    let written = stream.write_all(bytes);
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        written.and(Err(error)).context("no reply")?;
    }
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok(Reply { status, body: body.to_owned() })
}
