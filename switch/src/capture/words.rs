//! A frame's fate in words, as they stand beside it in the file.
//!
//! Made of port names, which an operator gave and whose characters are checked, of labels from closed lists, and of numbers:
//! never of bytes that a guest chose.

use std::collections::HashMap;
use std::fmt::Write as _;

use switch_common::DropReason;

use super::stream::{BY_BRAIN, Fate, Outcome, Port};

/// Egress ports that are named; of a flood to more, the others are counted.
const NAMED_MAX: usize = 16;

/// What ports are called.
#[derive(Debug, Default)]
pub struct Words {
    names: HashMap<u16, String>,
}

impl Words {
    /// Names a port.
    pub fn name(&mut self, port: &Port) {
        self.names.insert(port.id, port.name.clone());
    }

    /// The words for a fate.
    pub fn tell(&self, fate: &Fate<'_>) -> String {
        let mut line = format!("in {}", self.named(fate.ingress));
        let (refused, sent): (Vec<_>, Vec<_>) = fate.egress().partition(|(_, reason)| !reason.is_empty());
        if !sent.is_empty() {
            let for_whom = if fate.outcome == Outcome::Lost { "for" } else { "out" };
            let names: Vec<_> = sent.iter().take(NAMED_MAX).map(|(port, _)| self.named(*port)).collect();
            write!(line, "; {for_whom} {}", names.join(", ")).ok();
            if let Some(more @ 1..) = sent.len().checked_sub(NAMED_MAX) {
                write!(line, " and {more} more").ok();
            }
        }
        let how = match fate.outcome {
            Outcome::Forwarded => "forwarded",
            Outcome::Flooded => "flooded",
            Outcome::Dropped => "dropped",
            Outcome::Lost => "dropped by the kernel",
        };
        write!(line, "; {how}").ok();
        if !fate.reason.is_empty() {
            write!(line, ": {}{}", fate.reason, explained(fate.reason)).ok();
        }
        for (port, reason) in refused.iter().take(NAMED_MAX) {
            write!(line, "; refused for {}: {reason}{}", self.named(*port), explained(reason)).ok();
        }
        if fate.flags & BY_BRAIN != 0 {
            line.push_str("; decided by the brain");
        }
        if fate.segment_bytes > 0 {
            write!(line, "; super-frame: {} segments of {} bytes", fate.segments, fate.segment_bytes).ok();
        }
        line
    }

    fn named(&self, port: u16) -> String {
        match self.names.get(&port) {
            Some(name) => name.clone(),
            None if port == 0 => "an unknown port".to_owned(),
            None => format!("port {port}"),
        }
    }
}

/// What our own reasons mean, in a sentence.
fn explained(label: &str) -> String {
    let reason = DropReason::ALL.iter().find(|reason| reason.label() == label);
    reason.map_or_else(String::new, |reason| format!(" ({})", reason.describe().trim().trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::stream::FateHead;
    use super::*;

    fn told(head: FateHead<'_>, egress: &[(u16, &str)]) -> String {
        let mut words = Words::default();
        for (id, name) in [(1, "web1"), (2, "db1"), (3, "db2")] {
            words.name(&Port { id, name: name.to_owned(), ..Port::default() });
        }
        let mut bytes = Vec::new();
        head.encode(egress.iter().copied(), &mut bytes);
        words.tell(&Fate::decode(&bytes).unwrap())
    }

    const HEAD: FateHead<'_> =
        FateHead { ingress: 1, outcome: Outcome::Forwarded, flags: 0, segment_bytes: 0, segments: 0, reason: "" };

    #[test]
    fn a_fate_is_told_with_its_ports_its_verdict_and_its_reason() {
        assert_eq!(told(HEAD, &[(2, "")]), "in web1; out db1; forwarded");
        let gso = FateHead { segment_bytes: 1448, segments: 45, ..HEAD };
        assert_eq!(told(gso, &[(2, "")]), "in web1; out db1; forwarded; super-frame: 45 segments of 1448 bytes");
        let flood = FateHead { outcome: Outcome::Flooded, flags: BY_BRAIN, ..HEAD };
        let said = told(flood, &[(2, ""), (3, "too_big"), (9, "")]);
        assert!(said.starts_with("in web1; out db1, port 9; flooded; refused for db2: too_big (Longer than"), "{said}");
        assert!(said.ends_with("; decided by the brain"), "{said}");
        let dropped = FateHead { outcome: Outcome::Dropped, reason: "spoofed_source", ..HEAD };
        let said = told(dropped, &[]);
        assert!(said.starts_with("in web1; dropped: spoofed_source (The source is not"), "{said}");
        let lost = FateHead { ingress: 0, outcome: Outcome::Lost, reason: "ring_full", ..HEAD };
        assert_eq!(told(lost, &[(2, "")]), "in an unknown port; for db1; dropped by the kernel: ring_full");
    }

    #[test]
    fn a_flood_to_many_names_some_and_counts_the_others() {
        let egress: Vec<_> = (2..1000).map(|port| (port, "")).collect();
        let said = told(FateHead { outcome: Outcome::Flooded, ..HEAD }, &egress);
        assert!(said.ends_with("port 16, port 17 and 982 more; flooded"), "{said}");
    }

    #[test]
    fn a_port_that_is_named_anew_is_called_so() {
        let mut words = Words::default();
        let mut bytes = Vec::new();
        HEAD.encode([(2, "")].into_iter(), &mut bytes);
        let fate = Fate::decode(&bytes).unwrap();
        assert_eq!(words.tell(&fate), "in port 1; out port 2; forwarded");
        words.name(&Port { id: 1, name: "a".to_owned(), ..Port::default() });
        assert_eq!(words.tell(&fate), "in a; out port 2; forwarded");
    }
}
