//! Puts the micro guest's image where the monitor embeds it, and refuses one that is older than its sources.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    prebuilt::MICRO_GUEST.embed()
}
