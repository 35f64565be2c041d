//! `weft port`: ports come, go and are looked at.

use clap::{ArgGroup, Args, Subcommand};

use super::Global;
use super::output::{Column, print, properties, render, render_one};
use crate::api::schema::{PortInfo, Traffic};
use crate::config::{Cidr, Mtu, Netns, PortTable, StationLimit, StationMac, placed};
use crate::port::spec::{IfName, Origin, PortName, PortSpec, Role};

/// Add, remove and look at ports
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Box<Add>),
    Del(Del),
    /// List the ports
    List,
    Show(Show),
}

/// Add a port and attach it
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("kind").required(true).args(["netdev", "tap", "netns", "host"])))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(super) struct Add {
    /// Its name
    #[arg(value_name = "NAME")]
    port: PortName,
    /// Attach this tap, veth or uplink
    #[arg(long, value_name = "IF")]
    netdev: Option<IfName>,
    /// Create this persistent tap for a VMM to open, and attach it
    #[arg(long, value_name = "IF")]
    tap: Option<IfName>,
    /// Give this namespace (a name, a path or a process id) an interface
    #[arg(long, value_name = "NS")]
    netns: Option<Netns>,
    /// Give the host itself an interface
    #[arg(long)]
    host: bool,
    /// With --netdev: when it is missing, attach it as soon as it appears
    #[arg(long, conflicts_with_all = ["tap", "netns", "host"])]
    wait: bool,
    /// With --netdev: take it although it has an address or is a bridge member
    #[arg(long, conflicts_with_all = ["tap", "netns", "host"])]
    force: bool,
    /// With --tap: the user (name or number) who may open it
    #[arg(long, conflicts_with_all = ["netdev", "netns", "host"])]
    user: Option<String>,
    /// With --netns or --host: the interface's name [default: eth0 in a namespace, the port's name on the host]
    #[arg(long, value_name = "IF", conflicts_with_all = ["netdev", "tap"])]
    ifname: Option<IfName>,
    /// With --netns or --host: an address of the interface, as 198.18.0.1/24; may be repeated
    #[arg(long = "address", value_name = "CIDR", conflicts_with_all = ["netdev", "tap"])]
    addresses: Vec<Cidr>,
    /// What lives behind it: guest (limited) or uplink (the outside)
    #[arg(long, value_name = "ROLE", default_value = "guest", value_parser = role)]
    role: Role,
    /// A word of your own; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A source address that is allowed, all others are dropped; may be repeated. An interface made for --netns or
    /// --host gets the first
    #[arg(long = "mac", value_name = "MAC")]
    macs: Vec<StationMac>,
    /// The MTU to set [default: the netdev's own]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<Mtu>,
    /// Stations it may have [default: 1024; uplinks are exempt]
    #[arg(long, value_name = "N")]
    station_limit: Option<StationLimit>,
    /// An equal port that exists already is no error
    #[arg(long)]
    may_exist: bool,
}

/// Detach a port and remove it
#[derive(Args, Debug)]
pub(super) struct Del {
    /// Its name
    #[arg(value_name = "NAME")]
    port: PortName,
    /// A port that does not exist is no error
    #[arg(long)]
    if_exists: bool,
}

/// Show everything about one port
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Its name
    #[arg(value_name = "NAME")]
    port: PortName,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "guest" => Ok(Role::Guest),
        "uplink" => Ok(Role::Uplink),
        _ => Err("a port is a guest or an uplink".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("write it as key=value".to_owned()),
    }
}

pub(super) async fn run(global: &Global, command: Command) -> anyhow::Result<()> {
    let client = global.client();
    match command {
        Command::Add(add) => {
            let path = format!("/v1/ports?may_exist={}&wait={}", add.may_exist, add.wait);
            let port: PortInfo = client.post(&path, &add.spec()?).await?;
            print(&render_one(global.output, &port, |port| {
                format!("port {} added: {} is {}\n", port.name, port.netdev, word(&port.state))
            })?)?;
        }
        Command::Del(del) => {
            client.delete_only(&format!("/v1/ports/{}?if_exists={}", del.port, del.if_exists)).await?;
        }
        Command::List => {
            let ports: Vec<PortInfo> = client.get("/v1/ports").await?;
            print(&render(global.output, &ports, COLUMNS)?)?;
        }
        Command::Show(show) => {
            let port: PortInfo = client.get(&format!("/v1/ports/{}", show.port)).await?;
            print(&render_one(global.output, &port, everything)?)?;
        }
    }
    Ok(())
}

impl Add {
    /// The same table that a file would have, so that the same checks apply.
    fn spec(self) -> anyhow::Result<PortSpec> {
        let mut table = PortTable::new(self.port);
        table.netdev = self.netdev.map(placed);
        table.tap = self.tap.map(placed);
        table.netns = self.netns.map(placed);
        table.host = self.host.then_some(placed(true));
        table.force = self.force.then_some(placed(true));
        table.user = self.user.map(placed);
        table.ifname = self.ifname.map(placed);
        table.addresses = (!self.addresses.is_empty()).then_some(placed(self.addresses));
        table.role = self.role;
        table.macs = self.macs;
        table.mtu = self.mtu;
        table.station_limit = self.station_limit.unwrap_or(table.station_limit);
        table.labels = self.labels.into_iter().collect();
        table.spec(Origin::Command).map_err(|fault| anyhow::anyhow!(fault.message))
    }
}

/// The columns of `weft port list`.
pub(super) const COLUMNS: &[Column<PortInfo>] = &[
    Column::text("NAME", |port| port.name.to_string()),
    Column::number("ID", |port| port.id.to_string()),
    Column::text("KIND", |port| port.kind.clone()),
    Column::text("ROLE", |port| word(&port.role)),
    Column::text("ORIGIN", |port: &PortInfo| word(&port.origin)).wide(),
    Column::text("NETDEV", |port| port.netdev.clone()),
    Column::number("IFINDEX", |port: &PortInfo| or_dash(port.ifindex)).wide(),
    Column::text("STATE", |port| word(&port.state)),
    Column::number("MTU", |port| or_dash(port.mtu)),
    Column::number("IN-FRAMES", |port| port.ingress.frames.to_string()),
    Column::number("IN-BYTES", |port: &PortInfo| port.ingress.bytes.to_string()).wide(),
    Column::number("OUT-FRAMES", |port| port.egress.frames.to_string()),
    Column::number("OUT-BYTES", |port: &PortInfo| port.egress.bytes.to_string()).wide(),
    Column::number("DROPS", |port| port.drops.values().sum::<u64>().to_string()),
    Column::text("MACS", |port: &PortInfo| joined(&port.macs)).wide(),
    Column::text("LABELS", labels).wide(),
    Column::text("PROBLEM", |port: &PortInfo| port.problem.clone().unwrap_or_default()).wide(),
];

/// What `weft port show` says.
pub(super) fn everything(port: &PortInfo) -> String {
    let traffic = |t: &Traffic| {
        format!("{} frames, {} bytes (on a wire: {} frames, {} bytes)", t.frames, t.bytes, t.wire_frames, t.wire_bytes)
    };
    let drops: Vec<_> = port.drops.iter().map(|(reason, frames)| format!("{reason} {frames}")).collect();
    properties(&[
        ("name", port.name.to_string()),
        ("id", port.id.to_string()),
        ("kind", port.kind.clone()),
        ("role", word(&port.role)),
        ("origin", word(&port.origin)),
        ("netdev", port.netdev.clone()),
        ("ifindex", or_dash(port.ifindex)),
        ("state", word(&port.state)),
        ("problem", port.problem.clone().unwrap_or_default()),
        ("mtu", or_dash(port.mtu)),
        ("macs", joined(&port.macs)),
        ("labels", labels(port)),
        ("ingress", traffic(&port.ingress)),
        ("egress", traffic(&port.egress)),
        ("drops", drops.join(", ")),
    ])
}

fn labels(port: &PortInfo) -> String {
    let pairs: Vec<_> = port.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn joined<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The word that JSON has for it, so that there is one word for one thing.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
