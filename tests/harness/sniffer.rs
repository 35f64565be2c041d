//! tcpdump beside a test, and tshark's reading of what it wrote: another pair of eyes on the same frames.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::command::{self, Running};
use crate::{Namespace, wait};

/// A tcpdump that writes a file.
pub struct Sniffer {
    tcpdump: Running,
    words: BufReader<ChildStderr>,
    folder: tempfile::TempDir,
}

impl Sniffer {
    /// Starts tcpdump on a netdev inside a namespace, and waits until it listens. `filter`: an expression that the kernel evaluates.
    pub fn start(inside: &Namespace, netdev: &str, filter: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // What a packet is worth knowing of lies at its beginning; a buffer of 64 MiB loses none.
        let line = format!(
            "tcpdump -i {netdev} -n -U --immediate-mode -s 128 -B 65536 -Z root -w {} {filter}",
            Self::path(&folder).display()
        );
        let mut command: Command = inside.command(&line);
        let mut tcpdump = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let words = tcpdump.child().stderr.take().context("tcpdump has no stderr")?;
        let mut words = BufReader::new(words);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(words.read_line(&mut line)? > 0, "tcpdump ended before it listened");
        }
        Ok(Self { tcpdump, words, folder })
    }

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("sniffed.pcap")
    }

    /// Ends tcpdump, which must have lost nothing; the given fields of every frame, as tshark reads them.
    pub fn fields(mut self, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        // What is in the ring when tcpdump is interrupted stays there, so it is asked how far it is.
        wait::until("tcpdump has read all that it received", wait::SOON, || {
            self.tcpdump.signal(Signal::USR1)?;
            let mut line = String::new();
            ensure!(self.words.read_line(&mut line)? > 0, "tcpdump ended by itself");
            let mut counts = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            Ok((counts.next().context("no count")? == counts.next().context("no second count")?).then_some(()))
        })?;
        self.tcpdump.signal(Signal::INT)?;
        let mut words = String::new();
        self.words.read_to_string(&mut words)?;
        self.tcpdump.wait(wait::SOON)?;
        ensure!(words.contains("\n0 packets dropped by kernel"), "tcpdump: {words}");
        let mut tshark = command::words("tshark -n -T fields -r");
        tshark.arg(Self::path(&self.folder));
        for field in fields {
            tshark.args(["-e", field]);
        }
        let text = command::text(&mut tshark)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }
}
