//! `weft apply`: make the running switch be what a file says.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{print, remark, render_one};
use super::{Global, read_config};
use crate::api::schema::{Applied, Diff, Intent};
use crate::config::{Config, Datapath, File};

/// Make ports and mirrors be what a file says, all or nothing, and print the difference
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the difference and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove also the ports and mirrors that commands made
    #[arg(long)]
    prune: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let config = read_config(&options.file)?;
    let client = global.client();
    let path = format!("/v1/apply?dry_run={}&prune={}", options.dry_run, options.prune);
    let intent = Intent { ports: config.ports, mirrors: config.mirrors };
    let applied: Applied = client.post(&path, &intent).await?;
    print(&render_one(global.output, &applied, differences)?)?;
    let running = Config::parse(Path::new("the running configuration"), &client.get_text("/v1/config").await?)?;
    if !is_same_switch(&config.file, &running.file) {
        remark(
            "[switch] or [metrics] of the file is not what runs; it takes effect when the daemon is started with it",
        );
    }
    Ok(())
}

fn is_same_switch(file: &File, running: &File) -> bool {
    Datapath::from(file.switch.datapath) == Datapath::from(running.switch.datapath)
        && file.switch.aging_secs == running.switch.aging_secs
        && file.switch.stations_max == running.switch.stations_max
        && file.metrics == running.metrics
}

pub(super) fn differences(Applied { ports, mirrors }: &Applied) -> String {
    if mirrors.is_empty() {
        return difference(ports);
    }
    format!("{}mirrors:\n{}", difference(ports), difference(mirrors))
}

fn difference(diff: &Diff) -> String {
    if diff.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let added = diff.add.iter().map(|name| format!("+ {name}\n"));
    let changed = diff.change.iter().map(|change| format!("~ {}  {}\n", change.name, change.what.join(", ")));
    let removed = diff.remove.iter().map(|name| format!("- {name}\n"));
    let end = if diff.applied { "applied\n" } else { "not applied\n" };
    added.chain(changed).chain(removed).chain([end.to_owned()]).collect()
}
