//! The unix socket: made so that only those who may can connect, and checked again for each who does.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Context;

use axum::http::StatusCode;
use axum::{Extension, Router};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::input::Refusal;
use super::limits::{Limits, bounded, serve_all};
use super::peer::Doorkeeper;
use super::{Control, routes};
use crate::capture::audit::Peer;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error(
        "{}: a daemon (pid {pid}) of this name is running already; stop it, or start this one with another --name",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The daemon.
        pid: i32,
    },
    /// Something else is there.
    #[error("{}: exists and is not a socket; move it away, or give another --socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {source}; check that its directory can be written to, or give another --socket", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The API's socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    doorkeeper: Doorkeeper,
    limits: Limits,
}

impl Socket {
    /// Listens at `path`: mode 0660, group `weft` where it exists. A socket there is removed only if nobody answers it.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io = |source| BindError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        remove_stale(path)?;
        let doorkeeper = Doorkeeper::new();
        let listener = UnixListener::bind(path).map_err(io)?;
        let socket = Self { listener, path: path.to_owned(), doorkeeper, limits: Limits::default() };
        if let Some(gid) = doorkeeper.gid {
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(io)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io)?;
        Ok(socket)
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Answers until `stop`.
    pub async fn serve<C: Control>(self, control: C, stop: impl Future<Output = ()> + Send) {
        let followers = Arc::new(Semaphore::new(self.limits.followers));
        let welcome = bounded(routes::router(control, followers), self.limits);
        let refusal = bounded(refusal(), self.limits);
        let accept = |cx: &mut Context<'_>| self.listener.poll_accept(cx).map_ok(|(stream, _)| stream);
        let route = |stream: &UnixStream| match stream.peer_cred() {
            Ok(peer) if self.doorkeeper.admits(&peer) => welcome.clone().layer(Extension(named(peer))),
            _ => refusal.clone(),
        };
        serve_all(accept, route, self.limits, stop).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), error = %e, "the API's socket was gone already");
        }
    }
}

/// Who asks, for those who write down who asked.
fn named(peer: UCred) -> Peer {
    Peer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() }
}

/// What those are told who may not.
fn refusal() -> Router {
    Router::new().fallback(async || {
        let message = "not allowed; be root or a member of the group weft".to_owned();
        Refusal::new(StatusCode::FORBIDDEN, message)
    })
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io = |source| BindError::Io { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned() });
    }
    match net::UnixStream::connect(path) {
        Ok(stream) => {
            let daemon = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| io(e.into()))?;
            Err(BindError::InUse { path: path.to_owned(), pid: daemon.pid.as_raw_nonzero().get() })
        }
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
        Err(e) => Err(io(e)),
    }
}
