//! An explanation in sentences, the most important one first.

use super::{End, Explanation, Foresight, Path};
use crate::flow::Verdict;
use crate::port::spec::PortState;

/// Ports that a sentence names at most.
const NAMED_MAX: usize = 8;

/// The sentences.
pub(super) fn of(explanation: &Explanation) -> Vec<String> {
    let Explanation { reachable, from, to, there, back, conversations, drops, events, .. } = explanation;
    let nowhere = [from, to].into_iter().find(|end| end.port.is_none());
    let mut words = vec![match nowhere {
        Some(end) => format!(
            "Nobody knows whether {} can reach {}, because nobody knows where {} is.",
            from.asked, to.asked, end.asked
        ),
        None if *reachable => format!("{} can reach {}.", from.asked, to.asked),
        None => format!("{} cannot reach {}.", from.asked, to.asked),
    }];
    if !reachable && there.arrives() {
        words.push("Frames arrive, but no answer does.".to_owned());
    }
    words.extend([from, to].into_iter().map(who));
    words.extend(way("There", from, to, there));
    words.extend(way("Back", to, from, back));
    words.push(match conversations.last() {
        None => "They have not talked to one another of late.".to_owned(),
        Some(last) => format!(
            "They last talked at {}: {}, {} frames from {} and {} in answer; see 'weft flows'.",
            last.end.strftime("%Y-%m-%d %H:%M:%SZ"),
            last.network_transport.as_ref().unwrap_or(&last.network_type),
            last.forward_frames,
            last.source_port_name,
            last.reverse_frames
        ),
    });
    words.extend(drops.iter().map(|drop| {
        format!("Frames dropped at {} as {} so far: {}. {}", drop.port, drop.reason, drop.frames, drop.description)
    }));
    words.extend(
        events.iter().map(|event| format!("At {}: {}.", event.time.strftime("%Y-%m-%d %H:%M:%SZ"), event.sentence())),
    );
    words
}

fn state(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::NoCarrier => "without anybody at the other end",
        PortState::Down => "down",
        PortState::Absent => "absent: its netdev does not exist",
        PortState::Failed => "failed to attach",
    }
}

/// Who one end is.
fn who(end: &End) -> String {
    let Some(port) = &end.port else {
        return format!("Nobody knows behind which port {} is.", end.mac);
    };
    let name = if end.asked == port.as_str() {
        format!("Port {port}")
    } else {
        format!("{} is behind port {port}, which", end.asked)
    };
    let problem = end.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
    let mtu = end.mtu.map(|mtu| format!(", with an MTU of {mtu}")).unwrap_or_default();
    let offloads = if end.guest_offloads { "offloads that its guest asks for" } else { "a kernel's own offloads" };
    let station = match &end.station {
        Some(station) if station.is_static => format!("The station {} is pinned to port {}.", end.mac, station.port),
        Some(station) => {
            format!("The station {} was heard {} s ago at port {}.", end.mac, station.age_secs, station.port)
        }
        None if end.stands_in => format!("No station has been heard behind it; {} stands for one.", end.mac),
        None => format!("The station {} has not been heard of late.", end.mac),
    };
    let is_allowed = end.macs.is_empty() || end.macs.contains(&end.mac);
    let allowed = if is_allowed { String::new() } else { format!(" The port does not allow {}.", end.mac) };
    format!("{name} is {}{problem}{mtu} and {offloads}. {station}{allowed}", end.state.map_or("unknown", state))
}

/// What becomes of frames in one direction.
fn way(title: &str, sender: &End, receiver: &End, path: &Path) -> Vec<String> {
    let Some(next) = &path.next else {
        return vec![format!("{title}: nobody knows by which port a frame from {} would come in.", sender.mac)];
    };
    let mut words = vec![format!("{title}: a frame from {} to {} {}", sender.mac, receiver.mac, fate(next, receiver))];
    words.extend(match next.learned.as_str() {
        "moved" => Some(format!("It would move {} to this port.", sender.mac)),
        "damped" => Some(format!("{} has moved too often within this second, and stays where it is.", sender.mac)),
        "static" => Some(format!("{} is pinned to another port, and stays there.", sender.mac)),
        _ => None,
    });
    words.push(match &path.cached {
        Some(cached) => format!(
            "The kernel repeats without asking: {}.",
            match (&cached.port, &cached.reason) {
                (Some(port), _) => format!("forward to {port}, up to {} bytes", cached.frame_bytes_max),
                (None, Some(reason)) => format!("drop as {reason}"),
                (None, None) => "forward to a port that is gone".to_owned(),
            }
        ),
        None if next.repeatable => "The kernel has no verdict for this pair: the daemon decides.".to_owned(),
        None => "The daemon decides about each frame of this pair.".to_owned(),
    });
    if let Some(longest) = path.longest.as_ref().filter(|longest| next.arrives && !longest.arrives) {
        words.push(format!(
            "One of {} bytes, which the sender's MTU allows, {}",
            longest.frame_bytes,
            fate(longest, receiver)
        ));
    }
    words
}

/// What becomes of a frame.
fn fate(foresight: &Foresight, receiver: &End) -> String {
    if let Some(refused) = &foresight.refused {
        let side = format!("{:?}", refused.side).to_lowercase();
        return format!("is dropped at {} ({side}) as {}. {}", refused.port, refused.reason, refused.description);
    }
    let named = foresight.ports.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let ports = match foresight.ports.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    };
    let sent = match foresight.verdict {
        Verdict::Flooded => format!("is flooded to {ports}, because nobody knows where {} is", receiver.mac),
        Verdict::Forwarded => format!("is forwarded to {ports}"),
        Verdict::Dropped => "is dropped".to_owned(),
    };
    match &receiver.port {
        Some(port) if !foresight.arrives => format!("{sent}, and not to {port}."),
        _ => format!("{sent}."),
    }
}
