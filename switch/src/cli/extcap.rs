//! `weft extcap`: the switch's ports in Wireshark's list of interfaces.
//!
//! Wireshark runs every program in its extcap folder and asks it what it has ("extcap", its user's guide, D.5). What we put
//! there is a link to this binary named [`LINK`]: called by that name, it is `weft extcap`. `doc/extcap.4` of Wireshark says
//! what is asked and how it is answered: one sentence a line, values in braces.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::time::timeout;

use super::Global;
use super::output::{print, remark};
use crate::api::client::Client;
use crate::api::schema::{PortInfo, Status};

/// What the link in Wireshark's folder is called.
pub(super) const LINK: &str = "weft-extcap";
/// Where instances have their sockets.
const SOCKETS: &str = "/run/weft";
/// How long an instance may take to say what it has: Wireshark starts no sooner.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before the name of each of our interfaces.
const SCHEME: &str = "weft:";

/// List the switch's ports in Wireshark
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("question").required(true)))]
#[expect(clippy::option_option, reason = "a flag that may have a value")]
pub(super) struct Options {
    /// Link this program into Wireshark's folder of such programs [default: the folder that tshark names]
    #[arg(long, value_name = "DIR", num_args = 0..=1, group = "question")]
    install: Option<Option<PathBuf>>,
    /// Wireshark asks: which interfaces are there
    #[arg(long, group = "question")]
    extcap_interfaces: bool,
    /// Wireshark asks: what kind of frames does it have
    #[arg(long, group = "question", requires = "extcap_interface")]
    extcap_dlts: bool,
    /// Wireshark asks: what can be chosen
    #[arg(long, group = "question", requires = "extcap_interface")]
    extcap_config: bool,
    /// Of this interface
    #[arg(long, value_name = "INTERFACE")]
    extcap_interface: Option<String>,
    /// Wireshark's version
    #[arg(long, value_name = "VERSION")]
    extcap_version: Option<String>,
}

pub(super) async fn run(global: &Global, options: Options) -> anyhow::Result<()> {
    if let Some(folder) = options.install {
        return install(folder);
    }
    if options.extcap_interfaces {
        let mut lines = format!("extcap {{version={}}}{{display=Weft}}\n", env!("CARGO_PKG_VERSION"));
        for Interface { value, display } in interfaces(global).await {
            lines.push_str(&["interface {value=", &value, "}{display=", &display, "}\n"].concat());
        }
        return Ok(print(&lines)?);
    }
    let interface = options.extcap_interface.unwrap_or_default();
    ensure!(
        interface.starts_with(SCHEME),
        "'{}' is none of our interfaces; see `weft extcap --extcap-interfaces`",
        interface.escape_debug()
    );
    if options.extcap_dlts {
        print("dlt {number=1}{name=EN10MB}{display=Ethernet}\n")?;
    }
    // Nothing is to be chosen: the filter is Wireshark's own field.
    Ok(())
}

/// What Wireshark shows as an interface: all ports of a switch, or one.
struct Interface {
    value: String,
    display: String,
}

/// Those of every instance that answers, or of the one whose socket was named.
async fn interfaces(global: &Global) -> Vec<Interface> {
    let sockets = global.socket.as_ref().map_or_else(|| sockets(Path::new(SOCKETS)), |socket| vec![socket.clone()]);
    let mut found = Vec::new();
    for socket in sockets {
        match timeout(PATIENCE, of_instance(&Client::new(&socket))).await {
            Ok(Ok(theirs)) => found.extend(theirs),
            Ok(Err(error)) => remark(&error.to_string()),
            Err(_) => remark(&format!("{}: no answer within {} s", socket.display(), PATIENCE.as_secs())),
        }
    }
    found
}

async fn of_instance(client: &Client) -> anyhow::Result<Vec<Interface>> {
    let Status { name, .. } = client.get("/v1/status").await?;
    let ports: Vec<PortInfo> = client.get("/v1/ports").await?;
    let all = Interface { value: format!("{SCHEME}{name}"), display: format!("Weft {name}: all ports") };
    let each = ports.iter().map(|port| Interface {
        value: format!("{SCHEME}{name}:{}", port.name),
        display: format!("Weft {name}: {}", port.name),
    });
    Ok(std::iter::once(all).chain(each).collect())
}

/// Sockets of all instances, by name.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut sockets: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}

fn install(folder: Option<PathBuf>) -> anyhow::Result<()> {
    let folder = folder.map_or_else(wiresharks_folder, Ok)?;
    let own = std::env::current_exe().context("this program's own path is not known")?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("{}: cannot be made; name another with --install DIR", folder.display()))?;
    let link = folder.join(LINK);
    match symlink(&own, &link) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_link(&link).ok().as_ref() != Some(&own) {
                bail!("{}: is there, and is no link to {}; remove it first", link.display(), own.display());
            }
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!("{}: cannot be written to; be root, or name another with --install DIR", folder.display())
            });
        }
    }
    Ok(print(&format!("{}\n", link.display()))?)
}

/// The folder that Wireshark looks into: the person's own where it has such, else that of all.
fn wiresharks_folder() -> anyhow::Result<PathBuf> {
    let asked = Command::new("tshark").args(["-G", "folders"]).output();
    let text = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    folder_in(&text)
        .context("Wireshark's extcap folder is not known, because there is no tshark; name it: --install DIR")
}

/// What `tshark -G folders` says of it.
fn folder_in(text: &str) -> Option<PathBuf> {
    let named = |wanted: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(name, _)| *name == wanted).map(|(_, folder)| PathBuf::from(folder.trim()))
    };
    ["Personal Extcap path", "Extcap path", "Global Extcap path"].into_iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_own_folder_is_taken_before_that_of_all() {
        let old = "Temp:\t/tmp\nExtcap path:         \t/usr/lib/wireshark/extcap\n";
        let new = "Personal Extcap path:\t/home/a/.local/lib/wireshark/extcap\nGlobal Extcap path:\t/usr/lib/extcap\n";
        assert_eq!(folder_in(old), Some("/usr/lib/wireshark/extcap".into()));
        assert_eq!(folder_in(new), Some("/home/a/.local/lib/wireshark/extcap".into()));
        assert_eq!(folder_in("Temp:\t/tmp\n"), None);
    }
}
