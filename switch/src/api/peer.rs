//! Who may: root, the user the daemon runs as, and members of the group `weft`. The socket's mode says the same; this
//! says it again, for a socket whose mode somebody changed.

use std::fs;

use tokio::net::unix::UCred;

/// The group whose members may use the API.
const GROUP: &str = "weft";

/// Whom a socket serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doorkeeper {
    own_uid: u32,
    /// The group's id, when it exists.
    pub(super) gid: Option<u32>,
}

impl Doorkeeper {
    /// Asks `/etc/group` who may.
    pub(super) fn new() -> Self {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self { own_uid: rustix::process::geteuid().as_raw(), gid: group_id(&groups, GROUP) }
    }

    /// Whether this peer may.
    pub(super) fn admits(&self, peer: &UCred) -> bool {
        let (uid, gid) = (peer.uid(), peer.gid());
        uid == 0
            || uid == self.own_uid
            || self.gid.is_some_and(|group| gid == group || peer.pid().is_some_and(|pid| is_member(pid, uid, group)))
    }
}

/// A group's id in the text of `/etc/group`.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

/// Whether a process has the group among its supplementary ones. A process that took over the id of one that ended is
/// believed only if it is the same user's.
fn is_member(pid: i32, uid: u32, group: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has_group(&status, uid, group))
}

fn has_group(status: &str, uid: u32, group: u32) -> bool {
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    // Uid: real, effective, saved, file system.
    numbers("Uid:").get(1) == Some(&uid) && numbers("Groups:").contains(&group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nweftless:x:7:\nweft:x:990:alice,bob\n";
        assert_eq!(group_id(groups, "weft"), Some(990));
        assert_eq!(group_id("weft:x:none:\n", "weft"), None);
        assert_eq!(group_id("", "weft"), None);
    }

    #[test]
    fn a_member_is_known_by_its_supplementary_groups_and_its_user() {
        let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t27 990 \n";
        assert!(has_group(status, 1000, 990));
        assert!(!has_group(status, 1000, 991), "not a member");
        assert!(!has_group(status, 1001, 990), "another user's process");
    }
}
