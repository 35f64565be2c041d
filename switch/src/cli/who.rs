//! `weft who`: who had an address, what a station had, what was behind a port, and when.

use clap::Args;
use jiff::Timestamp;

use super::Global;
use super::output::{Column, Format, print, remark, render};
use crate::flow::filter::parse_time;
use crate::names::{Holder, Subject};

/// Show who has, or had, an IP address, and behind which port
#[derive(Args, Debug)]
pub(super) struct Options {
    /// An IP address, a MAC address, or a port's name
    subject: Subject,
    /// Who it was then: 2026-11-22T07:00:00Z, or 90s, 5m, 2h, 1d ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    parse_time(text, Timestamp::now())
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let at = options.at.map(|at| format!("?at={at}")).unwrap_or_default();
    let holders: Vec<Holder> = global.client().get(&format!("/v1/who/{}{at}", options.subject)).await?;
    print(&render(global.output, &holders, COLUMNS)?)?;
    if holders.is_empty() && matches!(global.output, Format::Table | Format::Wide) {
        remark(&format!(
            "nothing is known of {}; what is known comes from ARP, IPv6 neighbour discovery and DHCP",
            options.subject
        ));
    }
    Ok(())
}

fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const COLUMNS: &[Column<Holder>] = &[
    Column::text("ADDRESS", |holder| holder.address.map_or_else(|| "-".to_owned(), |address| address.to_string())),
    Column::text("MAC", |holder| holder.mac.to_string()),
    Column::text("PORT", |holder: &Holder| holder.port.clone()),
    Column::text("FROM", |holder| moment(holder.from)),
    Column::text("UNTIL", |holder| moment(holder.until)),
    Column::text("LATEST", |holder| if holder.is_latest { "yes" } else { "no" }.to_owned()),
    Column::text("BY", |holder: &Holder| holder.source.clone()),
    Column::text("NAMES", |holder| holder.names.join(" ")),
    Column::number("SEEN", |holder: &Holder| holder.claims.to_string()).wide(),
    Column::number("VLAN", |holder: &Holder| holder.vlan.map_or_else(String::new, |vlan| vlan.to_string())).wide(),
];
