//! How the commands ask the daemon: one connection per question, over the unix socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::schema::Problem;

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon.
    #[error("no daemon answers at {}: {source}; start it with `weft run`, or name another with --name or --socket", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One may not ask.
    #[error("{}: {source}; be root, or a member of the group weft", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It ended while it was answering.
    #[error("the daemon at {} is not reachable any more: it ended while it was answering; see its log", path.display())]
    Gone {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: hyper::Error,
    },
    /// It ended without a word while it was telling.
    #[error("the daemon at {} is not reachable any more: it ended without a word; see its log", path.display())]
    Vanished {
        /// The socket.
        path: PathBuf,
    },
    /// It is no Weft of this version.
    #[error("the daemon's answer cannot be understood: {0}; is it another version? See `weft --version` and its log")]
    Garbled(String),
}

fn garbled(error: impl std::fmt::Display) -> ClientError {
    ClientError::Garbled(error.to_string())
}

/// A daemon to ask.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens there.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// What to say when an answer that has an end of its own broke off without it.
    pub fn vanished(&self) -> ClientError {
        ClientError::Vanished { path: self.socket.clone() }
    }

    /// Asks for JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.collect(Method::GET, path, Bytes::new()).await?)
    }

    /// Asks for text.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.collect(Method::GET, path, Bytes::new()).await?;
        String::from_utf8(bytes.into()).map_err(garbled)
    }

    /// Sends JSON, gets JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        decode(&self.collect(Method::POST, path, encode(body)?).await?)
    }

    /// Sends JSON, gets nothing.
    pub async fn post_only(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.collect(Method::POST, path, encode(body)?).await.map(|_| ())
    }

    /// Deletes, gets JSON.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.collect(Method::DELETE, path, Bytes::new()).await?)
    }

    /// Deletes, gets nothing.
    pub async fn delete_only(&self, path: &str) -> Result<(), ClientError> {
        self.collect(Method::DELETE, path, Bytes::new()).await.map(|_| ())
    }

    /// Asks for an answer without an end, and hands over each line of it, until `each` fails or the daemon ends.
    pub async fn follow<E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut body = self.ask(Method::GET, path, Bytes::new()).await?.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(error))?;
            pending.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(String::from_utf8_lossy(&line).trim_end())?;
            }
        }
        Ok(())
    }

    /// Sends JSON, gets an answer without an end, to be read piece by piece.
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Incoming, ClientError> {
        Ok(self.ask(Method::POST, path, encode(body)?).await?.into_body())
    }

    async fn collect(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let answer = self.ask(method, path, body).await?;
        Ok(answer.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes())
    }

    /// Why an answer broke off: it is no HTTP, or nobody is there any more.
    fn broken(&self, source: hyper::Error) -> ClientError {
        if source.is_parse() { garbled(source) } else { ClientError::Gone { path: self.socket.clone(), source } }
    }

    /// Asks, and turns a refusal into an error.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source: io::Error| {
            let path = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { path, source },
                _ => ClientError::Unreachable { path, source },
            }
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %e, "the connection to the daemon ended early");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "weft")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(garbled)?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        if status.is_success() { Ok(answer) } else { Err(refused(status, answer.into_body()).await) }
    }
}

async fn refused(status: StatusCode, body: Incoming) -> ClientError {
    let text = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return garbled(e),
    };
    let message = match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => problem.error,
        Err(_) => format!("the daemon answered {status}"),
    };
    ClientError::Refused { status: status.as_u16(), message }
}

fn encode(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(garbled)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(garbled)
}
