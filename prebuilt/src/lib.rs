//! What is built for another machine than this one, and kept in the tree so that who builds Weft needs no second toolchain: the
//! kernel half and the micro guest.
//!
//! Beside each lies a `PROVENANCE.toml` with two numbers: of its bytes, and of the sources that they were made of. The build
//! scripts embed it with [`Prebuilt::embed`], which refuses one that is older than its sources; `cargo xtask ebpf` and `cargo xtask
//! micro` make it anew.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

/// One of them. Paths are relative to the repository's root.
#[derive(Debug)]
pub struct Prebuilt {
    /// What it is, in a sentence.
    pub what: &'static str,
    /// The file.
    pub file: &'static str,
    /// Its sources: files, and folders with all that is in them.
    pub sources: &'static [&'static str],
    /// What makes it.
    pub command: &'static str,
    /// Names another file to embed, in the environment: CI builds it anew with whatever toolchain it has, and tests that.
    pub variable: &'static str,
}

/// The programs that `weft` loads into the kernel.
pub const KERNEL_HALF: Prebuilt = Prebuilt {
    what: "the kernel half",
    file: "switch-ebpf/prebuilt/weft.bpf.o",
    sources: &[
        "switch-ebpf/Cargo.toml",
        "switch-ebpf/Cargo.lock",
        "switch-ebpf/src",
        "switch-common/Cargo.toml",
        "switch-common/src",
    ],
    command: "cargo xtask ebpf",
    variable: "WEFT_EBPF_OBJECT",
};

/// The bare-metal guest that `vmm-harness` boots.
pub const MICRO_GUEST: Prebuilt = Prebuilt {
    what: "the micro guest",
    file: "vmm-harness/prebuilt/micro-guest.elf",
    sources: &[
        "vmm-harness/guest/Cargo.toml",
        "vmm-harness/guest/Cargo.lock",
        "vmm-harness/guest/link.ld",
        "vmm-harness/guest/src",
        "vmm-harness/abi/Cargo.toml",
        "vmm-harness/abi/src",
    ],
    command: "cargo xtask micro",
    variable: "WEFT_MICRO_GUEST",
};

impl Prebuilt {
    /// The file's own name.
    pub fn name(&self) -> &'static str {
        self.file.rsplit('/').next().unwrap_or(self.file)
    }

    /// Where it says what it was made of.
    pub fn provenance(&self, root: &Path) -> PathBuf {
        root.join(self.file).with_file_name("PROVENANCE.toml")
    }

    /// SHA-256 over the names, lengths and contents of all its sources, in hexadecimal.
    ///
    /// # Errors
    /// A source cannot be read.
    pub fn sources_sha256(&self, root: &Path) -> io::Result<String> {
        let mut hash = Sha256::new();
        for path in self.source_files(root)? {
            let text = fs::read(&path)?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            hash.update(format!("{name}\n{}\n", text.len()));
            hash.update(text);
        }
        Ok(hex(&hash.finalize()))
    }

    /// For a build script: copies it, or what the variable names, into `OUT_DIR`, and says when that is to be done anew.
    ///
    /// # Errors
    /// It is not what its provenance says, or was made of other sources than there are.
    pub fn embed(&self) -> Result<(), Box<dyn Error>> {
        let root = root();
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join(self.name());
        tell(&format!("cargo::rerun-if-env-changed={}", self.variable));
        if let Some(file) = env::var_os(self.variable) {
            tell(&format!("cargo::rerun-if-changed={}", Path::new(&file).display()));
            fs::copy(&file, &out)?;
            return Ok(());
        }
        let (file, provenance) = (root.join(self.file), self.provenance(&root));
        for path in self.source_files(&root)?.iter().chain([&file, &provenance]) {
            tell(&format!("cargo::rerun-if-changed={}", path.display()));
        }
        let (bytes, provenance) = (fs::read(&file)?, fs::read_to_string(&provenance)?);
        let Self { what, file, command, .. } = self;
        if field(&provenance, "object_sha256") != Some(&sha256(&bytes)) {
            return Err(format!("{file} is not the one that its PROVENANCE.toml speaks of; run `{command}`").into());
        }
        if field(&provenance, "sources_sha256") != Some(&self.sources_sha256(&root)?) {
            return Err(format!("the sources of {what} have changed since {file} was built; run `{command}`").into());
        }
        Ok(fs::write(out, bytes)?)
    }

    /// All source files, sorted.
    fn source_files(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut left: Vec<PathBuf> = self.sources.iter().map(|place| root.join(place)).collect();
        while let Some(path) = left.pop() {
            if path.is_dir() {
                for entry in fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            } else {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// The repository that this crate is in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The value of `name = "value"`.
fn field<'a>(toml: &'a str, name: &str) -> Option<&'a str> {
    toml.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

#[expect(clippy::print_stdout, reason = "standard output is how a build script talks to cargo")]
fn tell(line: &str) {
    println!("{line}");
}
