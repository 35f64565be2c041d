//! The terminal: taken whole, and given back as it was, at the end, after an error, in a panic.
//!
//! The screen of before is kept by the terminal itself (the alternate screen), its modes by `crossterm`. A panic gives the
//! terminal back before it speaks, so its message is read on the screen of before.

use std::io::{self, IsTerminal as _};

use ratatui::{DefaultTerminal, Frame};

/// Why there is nothing to draw on.
#[derive(Debug, thiserror::Error)]
pub enum NoScreen {
    /// The output goes elsewhere.
    #[error(
        "{0} is no terminal: top draws on one; for a script use `weft -o json port list`, `flows`, `drops` or `fdb`"
    )]
    NotATerminal(&'static str),
    /// A terminal that cannot be drawn on.
    #[error(
        "this terminal cannot be drawn on: TERM is {0}; use another one, or `weft port list`, `flows`, `drops` and `fdb`"
    )]
    Dumb(&'static str),
    /// It refused.
    #[error("the terminal cannot be drawn on: {0}; use another one, or `weft port list`, `flows`, `drops` and `fdb`")]
    Refused(#[from] io::Error),
}

/// A terminal that is drawn on until this is dropped.
#[derive(Debug)]
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Whether there is a terminal at all, before anything else is tried.
    ///
    /// # Errors
    /// [`NoScreen`]
    pub fn is_possible() -> Result<(), NoScreen> {
        if !io::stdout().is_terminal() {
            return Err(NoScreen::NotATerminal("standard output"));
        }
        if !io::stdin().is_terminal() {
            return Err(NoScreen::NotATerminal("standard input"));
        }
        match std::env::var_os("TERM") {
            Some(term) if term == "dumb" => Err(NoScreen::Dumb("dumb")),
            Some(_) => Ok(()),
            None => Err(NoScreen::Dumb("not set")),
        }
    }

    /// Takes the terminal.
    ///
    /// # Errors
    /// [`NoScreen`]
    pub fn enter() -> Result<Self, NoScreen> {
        Self::is_possible()?;
        ratatui::try_init().map(Self).map_err(|error| {
            // Half of it may have been done.
            ratatui::restore();
            NoScreen::Refused(error)
        })
    }

    /// Draws a picture; only what differs from the one before is sent.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(picture).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be given back.
        ratatui::try_restore().ok();
    }
}
