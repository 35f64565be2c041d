//! Fetches a Debian cloud kernel by its version, and unpacks it without installing it.
//!
//! The machine's own apt is asked first. What its sources do not offer comes from Debian's archive through an apt with
//! lists, cache and sources of its own under `target/kernels`: nothing of the system is touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{shell, workspace};

/// An unpacked kernel.
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The folder that holds `lib/modules/RELEASE`, with `modules.dep`.
    pub root: PathBuf,
}

/// Where the kernels of the matrix are in Debian: 6.1 is bookworm's own, 6.12 is in its security archive and backports.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
";

/// The newest kernel of a series (`6.1`, `6.12`), fetched unless an earlier run did.
pub fn fetch(series: &str) -> Result<Kernel> {
    ensure!(
        !series.is_empty() && series.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
        "`{series}` is no series of kernels such as 6.1 or 6.12"
    );
    let folder = workspace::target().join("kernels").join(series);
    if !folder.join("root").is_dir() {
        fs::create_dir_all(&folder)?;
        download(series, &folder)?;
    }
    open(&folder.join("root"))
}

fn open(root: &Path) -> Result<Kernel> {
    let image = entry(&root.join("boot"), "vmlinuz-", "")?.context("the package holds no kernel")?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let release = name.trim_start_matches("vmlinuz-").to_owned();
    Ok(Kernel { release, image, root: root.to_owned() })
}

fn download(series: &str, folder: &Path) -> Result<()> {
    let mut options = Vec::new();
    let mut package = newest(series, &options)?;
    if package.is_none() {
        options = own_apt(&workspace::target().join("kernels/apt"))?;
        package = newest(series, &options)?;
    }
    let package = package.with_context(|| {
        format!("neither this machine's apt sources nor Debian bookworm's offer a cloud kernel {series}")
    })?;
    eprintln!("kernels: fetching {package}");
    let fetching = folder.join("fetching");
    fs::create_dir_all(&fetching)?;
    // apt's sandbox user may not write to a folder of ours; root may, and the archive's signature is checked all the same.
    let sandbox = ["-q", "-o", "APT::Sandbox::User=root"];
    let mut command = shell::command("apt-get");
    shell::output(command.args(sandbox).args(&options).args(["download", &package]).current_dir(&fetching))?;
    let archive = entry(&fetching, &package, ".deb")?.context("apt fetched a package and yet it is not there")?;
    let unpacked = folder.join("unpacked");
    shell::output(shell::command("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    index(&unpacked)?;
    fs::remove_dir_all(fetching)?;
    // Whole or not at all: an interrupted run leaves no half kernel behind.
    fs::rename(unpacked, folder.join("root"))?;
    Ok(())
}

/// The newest package of a series that an apt with these options knows.
fn newest(series: &str, options: &[String]) -> Result<Option<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*-cloud-amd64$", series.replace('.', "\\."));
    let found = shell::output(shell::command("apt-cache").args(options).args(["search", "--names-only", &pattern]))?;
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.max_by_key(|name| numbers(name)).map(ToOwned::to_owned))
}

/// The numbers in a name, which order versions as one would.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Options that make apt use sources, lists and a cache of its own, which are brought up to date.
fn own_apt(folder: &Path) -> Result<Vec<String>> {
    for name in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let sources = folder.join("sources.list");
    fs::write(&sources, SOURCES)?;
    let options: Vec<String> = [
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
        "APT::Sandbox::User=root".to_owned(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect();
    shell::run(shell::command("apt-get").args(["-q"]).args(&options).arg("update"))?;
    Ok(options)
}

/// Unpacks modules that are compressed, and computes which needs which.
fn index(root: &Path) -> Result<()> {
    let modules = root.join("lib/modules");
    let release = entry(&modules, "", "")?.context("the package holds no modules")?;
    let mut unxz = shell::command("find");
    shell::output(unxz.arg(&modules).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]))?;
    let mut depmod = shell::command("busybox");
    let name = release.file_name().unwrap_or_default();
    shell::output(depmod.args(["depmod", "-b"]).arg(root).arg(name))?;
    if !release.join("modules.dep").is_file() {
        bail!("depmod left no modules.dep in {}", release.display());
    }
    Ok(())
}

/// The first entry of a folder whose name begins and ends so.
fn entry(folder: &Path, start: &str, end: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(start) && name.ends_with(end) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
