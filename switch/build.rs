//! Puts the kernel half's object where [`weft::reflex`] embeds it, and refuses one that is older than its sources.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    prebuilt::KERNEL_HALF.embed()
}
