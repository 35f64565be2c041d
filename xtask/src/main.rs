//! `cargo xtask`: everything that is done *to* Weft, in one place and one language.
//!
//! This file only dispatches. Each command is a module, and does all the set-up it needs; `cargo xtask ci` is what
//! `.ci/run` runs, word for word.
#![expect(unreachable_pub, reason = "a binary has no outside: `pub` says that another module uses it")]

mod bench;
mod ci;
mod demo;
mod dist;
mod ebpf;
mod gate;
mod guest;
mod kernels;
mod micro;
mod prebuilt;
mod setup;
mod shell;
mod test;
mod tidy;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, tests and shows Weft")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need, or list what is missing and how to get it.
    Setup {
        /// Also what builds the kernel half and the micro guest from source (a second rustc, LLVM, bpf-linker).
        #[arg(long)]
        ebpf: bool,
    },
    /// Build in release and run the daemon alone: `cargo xtask run -- --metrics 127.0.0.1:9798`.
    Run {
        /// What `weft run` is given.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Build in release and show containers, a host port and a guest that talk; Ctrl-C removes every trace.
    Demo {
        /// What `weft demo` is given.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run every test, as root: `cargo xtask test [FILTER] [-- ARGS]`.
    Test {
        /// Run the datapath tests in a virtual machine with Debian's newest kernel of this series instead (6.1, 6.12); may
        /// be repeated, needs no root.
        #[arg(long, value_name = "SERIES")]
        kernel: Vec<String>,
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// What the test binaries are given.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// What continuous integration runs: format, lints, the kernel half from source, documentation, every test, tidiness,
    /// and at the end the datapath tests under the other kernels that are promised.
    Ci {
        /// Leave the other kernels out.
        #[arg(long)]
        no_kernels: bool,
    },
    /// Build the kernel half from source into `switch-ebpf/prebuilt/`.
    Ebpf {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
        /// Only lint the sources.
        #[arg(long, conflicts_with = "check")]
        lint: bool,
    },
    /// Build the micro guest from source into `vmm-harness/prebuilt/`.
    Micro {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
        /// Only lint the sources.
        #[arg(long, conflicts_with = "check")]
        lint: bool,
    },
    /// Make the Linux guest of the demo in `target/guest`, and say where it is.
    Guest,
    /// Measure Weft against a Linux bridge, Open vSwitch and VDE on this machine, as root; writes `docs/BENCHMARKS.md`.
    Bench(bench::Options),
    /// Count the instructions of the brain per frame, and hold them against their budget; says the same on any machine.
    Gate,
    /// Collect the binary, man pages, completions, unit and licence in `target/dist`.
    Dist,
    /// Check what a compiler does not: headers, promises, names in documents.
    Tidy,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup { ebpf } => setup::run(ebpf),
        Task::Run { args } => demo::daemon(&args),
        Task::Demo { args } => demo::run(&args),
        Task::Test { kernel, filter, args } if kernel.is_empty() => test::run(filter.as_deref(), &args, &[]),
        Task::Test { kernel, filter, args } => kernels::run(&kernel, filter.as_deref(), &args, &[]),
        Task::Ci { no_kernels } => ci::run(!no_kernels),
        Task::Ebpf { check, lint } => {
            setup::run(true)?;
            if lint { ebpf::lint() } else { ebpf::build(check) }
        }
        Task::Micro { check, lint } => {
            setup::run(true)?;
            if lint { micro::lint() } else { micro::build(check) }
        }
        Task::Guest => {
            setup::run(false)?;
            guest::prepare().map(|guest| eprintln!("{}\n{}", guest.kernel.display(), guest.initrd.display()))
        }
        Task::Bench(options) => bench::run(&options),
        Task::Gate => gate::run(),
        Task::Dist => dist::run(),
        Task::Tidy => tidy::run(),
    }
}
