//! (next)

/// The document.
pub fn openapi() -> String {
    String::new()
}
