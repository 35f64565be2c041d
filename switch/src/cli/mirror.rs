//! `weft mirror`: copies of ports' frames for an analyser.

use clap::{Args, Subcommand};

use super::Global;
use super::output::{Column, print, render};
use crate::api::schema::{MirrorInfo, MirrorState};
use crate::mirror::{MirrorSpec, Source};
use crate::port::spec::{IfName, Origin, PortName};

/// Mirror ports to a netdev: add, remove, list
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Add),
    /// End a mirror
    Del {
        /// The mirror
        #[arg(value_name = "NAME")]
        mirror: PortName,
    },
    /// Every mirror, and how much it was given
    List,
}

/// Start a mirror: it outlives the daemon, and ports and targets that come and go
#[derive(Args, Debug)]
pub(super) struct Add {
    /// The mirror's name
    #[arg(value_name = "NAME")]
    mirror: PortName,
    /// A port whose frames are mirrored, and which of them: PORT, PORT:ingress (what it sends) or PORT:egress; may be repeated
    #[arg(long, required = true, value_name = "PORT[:SIDE]")]
    from: Vec<Source>,
    /// Only frames that match this tcpdump expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Cut copies to so many bytes
    #[arg(long, value_name = "BYTES")]
    snaplen: Option<u32>,
    /// The netdev that gets the copies: a tap, a veth, a tunnel device
    #[arg(long, value_name = "NETDEV")]
    to: IfName,
}

pub(super) async fn run(global: &Global, command: Command) -> anyhow::Result<()> {
    let client = global.client();
    match command {
        Command::Add(Add { mirror: name, from, filter, snaplen, to }) => {
            let spec = MirrorSpec { name, from, filter, snaplen, to, origin: Origin::Command };
            let _added: MirrorInfo = client.post("/v1/mirrors", &spec).await?;
        }
        Command::Del { mirror } => client.delete_only(&format!("/v1/mirrors/{mirror}")).await?,
        Command::List => {
            let mirrors: Vec<MirrorInfo> = client.get("/v1/mirrors").await?;
            print(&render(global.output, &mirrors, COLUMNS)?)?;
        }
    }
    Ok(())
}

const COLUMNS: &[Column<MirrorInfo>] = &[
    Column::text("NAME", |mirror| mirror.name.to_string()),
    Column::text("FROM", |mirror| mirror.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    Column::text("TO", |mirror| mirror.to.to_string()),
    Column::text("STATE", |mirror| match mirror.state {
        MirrorState::Up => "up".to_owned(),
        MirrorState::Waiting => "waiting".to_owned(),
    }),
    Column::number("FRAMES", |mirror: &MirrorInfo| mirror.matched.frames.to_string()),
    Column::number("BYTES", |mirror: &MirrorInfo| mirror.matched.bytes.to_string()),
    Column::number("LOST", |mirror: &MirrorInfo| (mirror.lost.frames + mirror.target_dropped_frames).to_string()),
    Column::text("FILTER", |mirror: &MirrorInfo| mirror.filter.clone().unwrap_or_default()).wide(),
    Column::text("PROBLEM", |mirror: &MirrorInfo| mirror.problem.clone().unwrap_or_default()).wide(),
];
