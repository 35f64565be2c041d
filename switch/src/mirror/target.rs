//! What cannot be a mirror's target, and why: whatever leads its copies into a switch.

use crate::port::LinkFacts;

/// What is known around a target.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// All netdevs of the host's namespace.
    pub links: &'a [LinkFacts],
    /// Whether a netdev is a port, or the punt tap, of this switch or of another one here.
    pub is_switched: &'a dyn Fn(&LinkFacts) -> bool,
}

/// Devices on top of devices are followed so far.
const DEPTH_MAX: usize = 8;

/// Says why a netdev cannot be the target of a mirror; `Ok` as far as the host can tell.
///
/// # Errors
/// The reason, and what to name instead.
pub fn refuse(target: &LinkFacts, around: &Around<'_>) -> Result<(), String> {
    let name = &target.name;
    if target.loopback || !target.ethernet {
        return Err(format!("'{name}' does not carry Ethernet frames; name a tap, a veth or a tunnel device"));
    }
    if (around.is_switched)(target) {
        return Err(format!("'{name}' belongs to a switch itself; name a netdev that is no port"));
    }
    // The other end of a veth pair, or what a device is built on, step by step.
    let mut at = target;
    for _ in 0..DEPTH_MAX {
        let Some(below) = around.links.iter().find(|link| Some(link.ifindex) == below_of(at)) else { break };
        if (around.is_switched)(below) {
            return Err(format!(
                "what '{name}' is given comes back into the switch by '{}'; name a netdev that leads elsewhere",
                below.name
            ));
        }
        if below.kind == "veth" && at.kind == "veth" {
            break;
        }
        at = below;
    }
    // A bridge hands on to its members, and to what is behind them.
    let member = |link: &&LinkFacts| link.master == Some(target.ifindex);
    for member in around.links.iter().filter(member) {
        let behind = around.links.iter().find(|link| Some(link.ifindex) == below_of(member));
        if let Some(back) = [Some(member), behind].into_iter().flatten().find(|link| (around.is_switched)(link)) {
            return Err(format!(
                "the bridge '{name}' hands what it is given back to the switch by '{}'; name a netdev that leads elsewhere",
                back.name
            ));
        }
    }
    Ok(())
}

/// The netdev in this namespace that a netdev's frames go to next, if one does.
fn below_of(link: &LinkFacts) -> Option<u32> {
    link.link.filter(|below| !link.link_elsewhere && *below != link.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, kind: &str, below: Option<u32>) -> LinkFacts {
        let name = format!("{kind}{ifindex}");
        LinkFacts { ifindex, name, kind: kind.to_owned(), link: below, ethernet: true, ..LinkFacts::default() }
    }

    #[test]
    fn what_leads_back_into_the_switch_is_refused_and_what_does_not_is_not() {
        // 1 and 2 are a pair, 2 is a port; 3 and 4 a pair of which none is; 5 a tunnel over 1, 6 one over 3.
        let mut links = vec![
            link(1, "veth", Some(2)),
            link(2, "veth", Some(1)),
            link(3, "veth", Some(4)),
            link(4, "veth", Some(3)),
            link(5, "vxlan", Some(1)),
            link(6, "vxlan", Some(3)),
            link(7, "tun", None),
            link(8, "bridge", None),
            link(9, "bridge", None),
        ];
        // The bridge 8 has a member that leads to the port, the bridge 9 one that does not.
        links.push(LinkFacts { master: Some(8), ..link(10, "veth", Some(2)) });
        links.push(LinkFacts { master: Some(9), ..link(11, "veth", Some(4)) });
        let around = Around { links: &links, is_switched: &|link| link.ifindex == 2 };
        let refused: Vec<u32> =
            links.iter().filter(|link| refuse(link, &around).is_err()).map(|link| link.ifindex).collect();
        assert_eq!(refused, [1, 2, 5, 8, 10]);
        // The same number in another namespace is another netdev.
        let elsewhere = LinkFacts { link_elsewhere: true, ..link(12, "veth", Some(2)) };
        assert_eq!(refuse(&elsewhere, &around), Ok(()));
        let lo = LinkFacts { loopback: true, ..link(13, "lo", None) };
        assert!(refuse(&lo, &around).is_err());
    }
}
