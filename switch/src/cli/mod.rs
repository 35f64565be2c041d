//! What the user typed.

pub mod demo;

/// Parses the command line and runs it.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
