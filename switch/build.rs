//! Puts the kernel half's object where [`weft::reflex`] embeds it, and refuses one that is older than its sources.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../switch-ebpf/places.rs"]
mod places;
#[path = "../switch-ebpf/source_hash.rs"]
mod source_hash;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("weft.bpf.o");
    tell("cargo::rerun-if-env-changed=WEFT_EBPF_OBJECT");
    // CI builds the object anew with whatever toolchain it has, and tests that.
    if let Some(object) = env::var_os("WEFT_EBPF_OBJECT") {
        tell(&format!("cargo::rerun-if-changed={}", Path::new(&object).display()));
        fs::copy(&object, &out)?;
        return Ok(());
    }
    for source in source_hash::sources(&root, places::PLACES)? {
        tell(&format!("cargo::rerun-if-changed={}", source.display()));
    }
    let prebuilt = root.join("switch-ebpf/prebuilt");
    for file in ["weft.bpf.o", "PROVENANCE.toml"] {
        tell(&format!("cargo::rerun-if-changed={}", prebuilt.join(file).display()));
    }
    let object = fs::read(prebuilt.join("weft.bpf.o"))?;
    let provenance = fs::read_to_string(prebuilt.join("PROVENANCE.toml"))?;
    if field(&provenance, "object_sha256") != Some(&source_hash::sha256(&object)) {
        return Err(
            "switch-ebpf/prebuilt/weft.bpf.o is not the object of its PROVENANCE.toml; run `cargo xtask ebpf`".into()
        );
    }
    if field(&provenance, "sources_sha256") != Some(&source_hash::source_hash(&root, places::PLACES)?) {
        return Err("the kernel half's sources (switch-ebpf, switch-common) have changed since switch-ebpf/prebuilt/weft.bpf.o was built; run `cargo xtask ebpf`".into());
    }
    fs::write(out, object)?;
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
