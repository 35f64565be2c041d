//! The binary: what was typed goes to [`weft::cli`].

fn main() -> std::process::ExitCode {
    weft::cli::main()
}
