//! `weft fdb`: who lives behind which port.

use clap::{Args, Subcommand};

use super::Global;
use super::output::{Column, Format, print, render};
use crate::api::schema::{Flushed, NewStation, StationInfo};
use crate::config::StationMac;
use crate::port::spec::PortName;

/// List, pin and forget stations
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pin a station to a port: it is neither aged nor moved
    Add {
        /// The port
        port: PortName,
        /// The station's address
        mac: StationMac,
    },
    /// Forget a station, learnt or pinned
    Del {
        /// The station's address
        mac: StationMac,
    },
    /// Forget what was learnt
    Flush {
        /// Only behind this port
        #[arg(long)]
        port: Option<PortName>,
    },
}

pub(super) async fn run(global: &Global, options: Options) -> anyhow::Result<()> {
    let client = global.client();
    match options.command {
        None => {
            let stations: Vec<StationInfo> = client.get("/v1/stations").await?;
            print(&render(global.output, &stations, COLUMNS)?)?;
        }
        Some(Command::Add { port, mac }) => {
            client.post_only("/v1/stations", &NewStation { port, mac: mac.mac() }).await?;
        }
        Some(Command::Del { mac }) => client.delete_only(&format!("/v1/stations/{mac}")).await?,
        Some(Command::Flush { port }) => {
            let query = port.map(|port| format!("?port={port}")).unwrap_or_default();
            let flushed: Flushed = client.delete(&format!("/v1/stations{query}")).await?;
            print(&match global.output {
                Format::Table | Format::Wide => format!("{} stations forgotten\n", flushed.stations),
                Format::Json | Format::Jsonl | Format::Hubble => serde_json::to_string(&flushed)? + "\n",
            })?;
        }
    }
    Ok(())
}

const COLUMNS: &[Column<StationInfo>] = &[
    Column::text("MAC", |station| station.mac.to_string()),
    Column::number("VLAN", |station: &StationInfo| station.vlan.to_string()).wide(),
    Column::text("PORT", |station| station.port.to_string()),
    Column::text("KIND", |station| if station.is_static { "static" } else { "learnt" }.to_owned()),
    Column::number("AGE", |station| station.age_secs.to_string()),
    Column::number("MOVES", |station| station.moves.to_string()),
];
