//! What the programs have to say, moved into the log as it comes.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reflex::{Diagnostics, Reflex};

/// Listens to the programs until the daemon ends.
///
/// # Errors
/// The descriptor cannot be waited for.
pub(super) fn listen(reflex: &mut Reflex) -> Result<()> {
    let Some(mut diagnostics) = reflex.diagnostics() else { return Ok(()) };
    #[expect(
        deprecated,
        reason = "unsound for descriptors that are closed meanwhile; an OwnedFd in the AsyncFd is not"
    )]
    let bell = AsyncFd::with_interest(diagnostics.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    tokio::spawn(async move { follow(&bell, &mut diagnostics).await });
    Ok(())
}

async fn follow(bell: &AsyncFd<OwnedFd>, diagnostics: &mut Diagnostics) {
    diagnostics.drain();
    while let Ok(mut rung) = bell.readable().await {
        diagnostics.drain();
        rung.clear_ready();
    }
}
