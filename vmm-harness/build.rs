//! Puts the micro guest's image where the monitor embeds it, and refuses one that is older than its sources.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "guest/places.rs"]
mod places;
#[path = "../switch-ebpf/source_hash.rs"]
mod source_hash;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("micro-guest.elf");
    tell("cargo::rerun-if-env-changed=WEFT_MICRO_GUEST");
    // CI builds the image anew with whatever toolchain it has, and tests that.
    if let Some(image) = env::var_os("WEFT_MICRO_GUEST") {
        tell(&format!("cargo::rerun-if-changed={}", Path::new(&image).display()));
        fs::copy(&image, &out)?;
        return Ok(());
    }
    for source in source_hash::sources(&root, places::PLACES)? {
        tell(&format!("cargo::rerun-if-changed={}", source.display()));
    }
    let prebuilt = root.join("vmm-harness/prebuilt");
    for file in ["micro-guest.elf", "PROVENANCE.toml"] {
        tell(&format!("cargo::rerun-if-changed={}", prebuilt.join(file).display()));
    }
    let image = fs::read(prebuilt.join("micro-guest.elf"))?;
    let provenance = fs::read_to_string(prebuilt.join("PROVENANCE.toml"))?;
    if field(&provenance, "object_sha256") != Some(&source_hash::sha256(&image)) {
        return Err(
            "vmm-harness/prebuilt/micro-guest.elf is not the image of its PROVENANCE.toml; run `cargo xtask micro`"
                .into(),
        );
    }
    if field(&provenance, "sources_sha256") != Some(&source_hash::source_hash(&root, places::PLACES)?) {
        return Err("the micro guest's sources (vmm-harness/guest, vmm-harness/abi) have changed since vmm-harness/prebuilt/micro-guest.elf was built; run `cargo xtask micro`".into());
    }
    fs::write(out, image)?;
    Ok(())
}

/// The value of `name = "value"`.
fn field<'a>(toml: &'a str, name: &str) -> Option<&'a str> {
    toml.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

/// Standard output is how a build script talks to cargo.
fn tell(line: &str) {
    println!("{line}");
}
