//! Running other programs: said aloud, checked, and with the command in the error.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command in the repository's folder.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// The cargo that started us, with these arguments.
pub fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = command(workspace::cargo());
    command.args(args);
    command
}

/// Says the command, runs it, and fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", describe(command));
    quietly(command)
}

/// Runs the command with our own output, and fails unless it succeeds.
pub fn quietly(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", describe(command));
    }
    Ok(())
}

/// Runs the command and answers with what it printed; its errors are part of ours.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", describe(command), output.status, errors.trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something else than text", describe(command)))
}

/// The same for a line as one would type it; words are separated by spaces, nothing is quoted.
pub fn line(text: &str) -> Result<String> {
    let mut words = text.split_whitespace();
    let program = words.next().context("an empty command")?;
    output(command(program).args(words))
}

/// Where a program is on PATH, or in the folders for administrators that a user's PATH lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether we are root in the sense that counts here.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails with how to become root.
pub fn need_root(what: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{what} needs root: network namespaces, taps and eBPF programs. Run it as\n    \
         sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME env \"PATH=$PATH\" cargo xtask …"
    )
}

/// The command as one would type it.
fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
