//! `weft demo`: namespaces and guests that talk.

/// Shows the switch at work.
pub(super) fn run() -> anyhow::Result<()> {
    anyhow::bail!("the demo is not built yet; run `cargo xtask demo`")
}
