//! Builds the kernel half (placeholder of this branch; the real one comes with the reflex).

/// Builds the object, or with `check` compares it with what is committed.
pub fn build(check: bool) -> anyhow::Result<()> {
    anyhow::bail!("building the kernel half is not merged here yet (check: {check})")
}
