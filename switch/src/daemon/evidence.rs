//! Evidence of drops, fetched from both halves as it comes and told to whoever follows.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::control::Handle;
use crate::evidence::Testimony;
use crate::reflex::EvidenceRing;

/// Fetches evidence until the daemon ends.
///
/// # Errors
/// The ring cannot be waited for.
pub(super) fn listen(mut ring: EvidenceRing, mut testimony: Testimony, handle: Handle) -> Result<()> {
    #[expect(
        deprecated,
        reason = "unsound for descriptors that are closed meanwhile; an OwnedFd in the AsyncFd is not"
    )]
    let bell = AsyncFd::with_interest(ring.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    tokio::spawn(async move {
        loop {
            let mut seen = Vec::new();
            ring.drain(|evidence| seen.push(evidence));
            seen.extend(std::iter::from_fn(|| testimony.try_next()));
            handle.tell(seen).await;
            tokio::select! {
                has_more = rings(&bell) => if !has_more { return },
                told = testimony.next() => match told {
                    Some(evidence) => handle.tell(vec![evidence]).await,
                    // The loop has ended, and with it, soon, the daemon.
                    None => return,
                },
            }
        }
    });
    Ok(())
}

/// Waits until the ring has something new; `false` when it cannot be waited for.
async fn rings(bell: &AsyncFd<OwnedFd>) -> bool {
    match bell.readable().await {
        Ok(mut rung) => {
            rung.clear_ready();
            true
        }
        Err(_) => false,
    }
}
