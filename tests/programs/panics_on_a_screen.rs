//! Takes the terminal as `weft top` does, and panics: what is left of the terminal is what a test looks at.

use weft::cli::top::screen::Screen;

fn main() -> anyhow::Result<()> {
    let mut screen = Screen::enter()?;
    screen.draw(|frame| {
        let area = frame.area();
        frame.buffer_mut().set_string(area.x, area.y, "about to panic", ratatui::style::Style::new());
    })?;
    // Not before the test has seen it.
    std::io::stdin().read_line(&mut String::new())?;
    panic!("as this program is meant to");
}
