//! `vmm-harness run`: one guest on one tap, its console on stdout, its counters as a line of JSON on stderr.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use vmm_harness::{Config, Console, Guest, Image, LinuxGuest, MICRO_GUEST, MacAddr, MicroGuest, Payload, Role};

#[derive(Parser)]
#[command(version, about = "Boots a guest on a tap")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots a guest and waits for its end.
    Run(Box<Run>),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Echo,
    Talker,
    Hostile,
    Linux,
}

#[derive(Args)]
struct Run {
    /// What runs in the guest.
    #[arg(long)]
    guest: Kind,
    /// The tap; made if there is none, and then gone with the guest.
    #[arg(long)]
    tap: String,
    /// The guest's station address.
    #[arg(long)]
    mac: MacAddr,
    /// The guest's IPv4 address.
    #[arg(long, default_value = "0.0.0.0")]
    ip: Ipv4Addr,
    /// The guest's IPv6 address.
    #[arg(long, default_value = "::")]
    ip6: Ipv6Addr,
    /// The peer's IPv4 address.
    #[arg(long, default_value = "0.0.0.0")]
    peer: Ipv4Addr,
    /// The peer's IPv6 address.
    #[arg(long, default_value = "::")]
    peer6: Ipv6Addr,
    /// The peer's station address, found out by ARP unless given.
    #[arg(long, default_value = "00:00:00:00:00:00")]
    peer_mac: MacAddr,
    /// The station that an attack is about.
    #[arg(long, default_value = "00:00:00:00:00:00")]
    victim_mac: MacAddr,
    /// Datagrams that a talker sends.
    #[arg(long, default_value_t = 100)]
    count: u32,
    /// Name of a hostile guest's attack.
    #[arg(long, default_value = "")]
    attack: String,
    /// Linux: the kernel, a bzImage. Else: another image of the micro guest.
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Linux: the initial file system.
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// Linux: the command line.
    #[arg(long, default_value = "console=ttyS0 panic=-1 reboot=a")]
    cmdline: String,
    /// Memory in MiB; 32 for a micro guest, 256 for Linux.
    #[arg(long, value_name = "MIB")]
    mem: Option<u64>,
    /// Processors.
    #[arg(long, default_value_t = 1)]
    cpus: u8,
    /// MTU told to the guest.
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
    /// A tap without virtio-net header, and thus without offloads.
    #[arg(long)]
    plain: bool,
    /// A file for the console instead of stdout.
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Seconds until the guest's driver must be ready; 10 for a micro guest, 300 for Linux.
    #[arg(long, value_name = "SECONDS")]
    driver_timeout: Option<u64>,
}

impl Run {
    fn config(self) -> Result<Config> {
        let role = match self.guest {
            Kind::Echo => Some(Role::Echo),
            Kind::Talker => Some(Role::Talker),
            Kind::Hostile => Some(Role::Hostile),
            Kind::Linux => None,
        };
        let payload = match role {
            Some(role) => Payload::Micro(MicroGuest {
                image: self.kernel.map_or_else(|| Image::Bytes(MICRO_GUEST.to_vec()), Image::File),
                role,
                ip: self.ip,
                ip6: self.ip6,
                peer: self.peer,
                peer6: self.peer6,
                peer_mac: self.peer_mac,
                victim: self.victim_mac,
                count: self.count,
                attack: self.attack,
            }),
            None => Payload::Linux(LinuxGuest {
                kernel: self.kernel.context("--guest linux needs a kernel: give --kernel a bzImage")?,
                initrd: self.initrd,
                cmdline: self.cmdline,
            }),
        };
        let (memory_mib, patience) = if role.is_some() { (32, 10) } else { (256, 300) };
        Ok(Config {
            payload,
            tap: self.tap,
            offloads: !self.plain,
            mac: self.mac,
            mtu: self.mtu,
            memory_mib: self.mem.unwrap_or(memory_mib),
            cpus: self.cpus,
            driver_timeout: Duration::from_secs(self.driver_timeout.unwrap_or(patience)),
        })
    }
}

fn run(run: Run) -> Result<()> {
    let console: Console = match &run.console {
        Some(path) => Box::new(File::create(path).with_context(|| format!("cannot make {}", path.display()))?),
        None => Box::new(io::stdout()),
    };
    let (ending, stats) = Guest::start(&run.config()?, console)?.wait();
    eprintln!(
        r#"{{"tx_frames":{},"tx_refused":{},"tx_failed":{},"rx_frames":{},"rx_dropped":{}}}"#,
        stats.tx_frames, stats.tx_refused, stats.tx_failed, stats.rx_frames, stats.rx_dropped
    );
    if !ending.is_good() {
        bail!("guest ended: {ending}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let Command::Run(arguments) = Cli::parse().command;
    match run(*arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmm-harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
