//! A terminal without a person: a pseudo-terminal, a program on it, and what a person would see.
//!
//! The program gets a session of its own with the terminal as its controlling one, so that resizing, interrupts and hang-ups
//! reach it as they do over ssh. What it writes is read at once by a thread and understood by `vt100`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::cli::Cli;
use crate::command::Running;
use crate::wait;

/// What the screen shows, and everything that was written to it.
struct Seen {
    screen: vt100::Parser,
    written: Vec<u8>,
}

/// A pseudo-terminal with a program on it, which is killed when this is dropped.
pub struct Terminal {
    running: Option<Running>,
    master: File,
    slave: OwnedFd,
    before: Termios,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn whole(size: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(size).context("a terminal without a size")
}

fn parser(columns: u16, rows: u16) -> Result<vt100::Parser> {
    Ok(vt100::Parser::new(whole(rows)?, whole(columns)?, 0))
}

fn hold(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Terminal {
    /// Runs a program on a new terminal of this size, with `TERM=xterm-256color` and these variables set.
    pub fn run(
        program: &Path,
        arguments: &[&str],
        columns: u16,
        rows: u16,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&slave, size(columns, rows))?;
        let before = tcgetattr(&slave)?;
        // util-linux's: a session of its own, and the terminal its controlling one; then it is the program.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--"]).arg(program).args(arguments);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(variables.iter().copied());
        let end = || Ok::<_, anyhow::Error>(Stdio::from(slave.try_clone()?));
        let running = Running::start(command.stdin(end()?).stdout(end()?).stderr(end()?))?;
        let seen = Arc::new(Mutex::new(Seen { screen: parser(columns, rows)?, written: Vec::new() }));
        let master = File::from(master);
        let (mut source, shown) = (master.try_clone()?, Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut room = [0; 4096];
            // It ends with an error when the last holder of the other side has gone.
            while let Ok(bytes @ 1..) = source.read(&mut room) {
                let mut seen = hold(&shown);
                let fresh = room.get(..bytes).unwrap_or_default();
                seen.screen.process(fresh);
                seen.written.extend_from_slice(fresh);
            }
        });
        Ok(Self { running: Some(running), master, slave, before, seen, reader: Some(reader) })
    }

    /// Runs `weft` with blank-separated words on a new terminal.
    pub fn weft(cli: &Cli, line: &str, columns: u16, rows: u16) -> Result<Self> {
        let words: Vec<&str> = ["--name", cli.name()].into_iter().chain(line.split_whitespace()).collect();
        Self::run(cli.binary(), &words, columns, rows, &[])
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) -> Result<()> {
        Ok((&self.master).write_all(keys.as_bytes())?)
    }

    /// Gives the terminal another size, as somebody does who drags the window's corner.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        hold(&self.seen).screen.screen_mut().set_size(whole(rows)?, whole(columns)?);
        Ok(tcsetwinsize(&self.master, size(columns, rows))?)
    }

    /// What is on the screen, line by line, without blanks at their ends.
    pub fn screen(&self) -> String {
        let seen = hold(&self.seen);
        let (_, columns) = seen.screen.screen().size();
        let lines: Vec<String> =
            seen.screen.screen().rows(0, columns.get()).map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// Everything that was ever written to it.
    pub fn written(&self) -> Vec<u8> {
        hold(&self.seen).written.clone()
    }

    /// Whether the program shows its own screen, and the one of before is kept.
    pub fn is_alternate(&self) -> bool {
        hold(&self.seen).screen.screen().alternate_screen()
    }

    /// Whether anything on the screen is shown in reverse.
    pub fn has_reverse(&self) -> bool {
        self.has(vt100::Cell::inverse)
    }

    /// Whether anything on the screen has a colour.
    pub fn has_colour(&self) -> bool {
        self.has(|cell| cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default)
    }

    fn has(&self, wanted: impl Fn(&vt100::Cell) -> bool) -> bool {
        let seen = hold(&self.seen);
        let screen = seen.screen.screen();
        let (rows, columns) = screen.size();
        let wanted = |row, column| screen.cell(row, column).is_some_and(&wanted);
        (0..rows.get()).any(|row| (0..columns.get()).any(|column| wanted(row, column)))
    }

    /// Waits until the screen is as it is wanted; the screen then.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let found = wait::until(what, wait::SOON, || Ok(Some(self.screen()).filter(|screen| wanted(screen))));
        found.with_context(|| format!("the screen was:\n{}", self.screen()))
    }

    /// The same for a text that is to be on it.
    pub fn until_shows(&self, text: &str) -> Result<String> {
        self.until(&format!("'{text}' on the screen"), |screen| screen.contains(text))
    }

    /// The program.
    pub fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().context("the program has been waited for")
    }

    /// Waits for the program's end; its exit code, or nothing after a signal. What it wrote has been read by then.
    pub fn end(&mut self, deadline: Duration) -> Result<Option<i32>> {
        let status = self.running()?.wait(deadline).with_context(|| format!("the screen was:\n{}", self.screen()))?;
        self.running = None;
        Ok(status.code())
    }

    /// Asserts that the terminal is as it was before the program ran: its modes, the screen of before, the cursor, no mouse.
    pub fn assert_as_before(&self) -> Result<()> {
        let now = tcgetattr(&self.slave)?;
        let modes =
            |termios: &Termios| (termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes);
        ensure!(modes(&now) == modes(&self.before), "other modes: {now:?}, not {:?}", self.before);
        ensure!(now.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON), "{now:?}");
        wait::until_true("the screen of before", wait::SOON, || {
            let seen = hold(&self.seen);
            let screen = seen.screen.screen();
            Ok(!screen.alternate_screen() && !screen.hide_cursor())
        })?;
        let seen = hold(&self.seen);
        let screen = seen.screen.screen();
        ensure!(screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None, "the mouse is taken");
        ensure!(!screen.bracketed_paste(), "pasting is taken");
        Ok(())
    }

    /// Asserts that the program has taken the terminal.
    pub fn assert_taken(&self) -> Result<()> {
        ensure!(self.is_alternate(), "it draws on the screen of before");
        ensure!(!tcgetattr(self.slave.as_fd())?.local_modes.contains(LocalModes::ECHO), "it echoes");
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.running = None;
        // The reader ends when nobody holds the other side any more.
        let read_only = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        if let Ok(nothing) = read_only {
            self.slave = nothing;
            let ended = self.reader.take().map(JoinHandle::join);
            assert!(matches!(ended, Some(Ok(()))) || thread::panicking(), "the reader failed");
        }
    }
}
