//! What the running kernel says of its own types (BTF, Documentation/bpf/btf.rst): where a field is, what a reason is called.
//!
//! A reader of just that much. The kernel's description is 5 MB of plain records, one behind the other; they are walked once,
//! and nothing of them is kept. Every read is checked: what does not parse is an error, never a wrong offset.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use switch_common::KernelLayout;

/// Where the kernel keeps it.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
/// Typedef, volatile, const, restrict and type tag: another type under another name.
const KINDS_TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];
/// Length of the head that every record has.
const HEAD_BYTES: usize = 12;
/// Names of names: no kernel nests that deep.
const DEPTH_MAX: u32 = 16;

/// Why the kernel's types cannot be known.
#[derive(Debug, thiserror::Error)]
pub(super) enum BtfError {
    #[error("{VMLINUX} cannot be read; a kernel with CONFIG_DEBUG_INFO_BTF has it")]
    Unreadable(#[source] io::Error),
    #[error("{VMLINUX} is not what Linux documents")]
    Malformed,
    #[error("this kernel has no {0}")]
    Missing(&'static str),
}

/// One type: its record's head, and what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Whether members' offsets hold a bit field's size too.
    packed: bool,
    /// Its size, or the number of the type it is a name for.
    target: u32,
    rest: &'a [u8],
}

impl<'a> Type<'a> {
    /// The record at the beginning of these bytes.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, behind) = bytes.split_at_checked(HEAD_BYTES)?;
        let info = word(head, 4)?;
        let (members, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
        let rest = behind.get(..rest_bytes(kind, members)?)?;
        Some(Self { name: word(head, 0)?, kind, packed: info >> 31 == 1, target: word(head, 8)?, rest })
    }
}

/// Where a member is, in bits, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bit: u32,
    /// Of a bit field; 0 for any other member.
    bits: u32,
    kind: u32,
}

/// Where each type's record begins, by number; number 0 is `void` and has none.
pub(super) struct Btf<'a> {
    records: &'a [u8],
    starts: Vec<u32>,
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Walks the records.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::walk(bytes).ok_or(BtfError::Malformed)
    }

    fn walk(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header = |at: usize| word(bytes, at).map(|word| word as usize);
        let body = bytes.get(header(4)?..)?;
        let section = |from: usize, length: usize| body.get(from..from.checked_add(length)?);
        let records = section(header(8)?, header(12)?)?;
        let strings = section(header(16)?, header(20)?)?;
        let mut starts = Vec::new();
        let mut at = 0;
        while at < records.len() {
            starts.push(u32::try_from(at).ok()?);
            at += HEAD_BYTES + Type::read(records.get(at..)?)?.rest.len();
        }
        Some(Self { records, starts, strings })
    }

    fn types(&self) -> impl Iterator<Item = Type<'a>> {
        self.starts.iter().filter_map(|start| Type::read(self.records.get(*start as usize..)?))
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let from = self.strings.get(offset as usize..).unwrap_or_default();
        from.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn named(&self, kind: u32, name: &str) -> Option<Type<'a>> {
        self.types().find(|it| it.kind == kind && self.name(it.name) == name.as_bytes())
    }

    /// A type by its number, under whatever names.
    fn resolve(&self, number: u32) -> Option<Type<'a>> {
        let mut number = number;
        for _ in 0..DEPTH_MAX {
            let start = *self.starts.get(number.checked_sub(1)? as usize)?;
            let found = Type::read(self.records.get(start as usize..)?)?;
            if !KINDS_TRANSPARENT.contains(&found.kind) {
                return Some(found);
            }
            number = found.target;
        }
        None
    }

    /// A member, looked for in nameless members too.
    fn member(&self, of: Type<'a>, name: &str, depth: u32) -> Option<Place> {
        if depth == 0 || ![KIND_STRUCT, KIND_UNION].contains(&of.kind) {
            return None;
        }
        of.rest.chunks_exact(12).find_map(|member| {
            let (called, kind, offset) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let (bit, bits) = if of.packed { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            match self.name(called) {
                [] => {
                    let inner = self.member(self.resolve(kind)?, name, depth - 1)?;
                    Some(Place { bit: bit + inner.bit, ..inner })
                }
                found if found == name.as_bytes() => Some(Place { bit, bits, kind }),
                _ => None,
            }
        })
    }

    /// Where `struct.member.member…` is.
    fn place(&self, path: &'static str) -> Result<Place, BtfError> {
        let find = || {
            let mut names = path.split('.');
            let mut of = self.named(KIND_STRUCT, names.next()?)?;
            let mut place = Place { bit: 0, bits: 0, kind: 0 };
            for name in names {
                let next = self.member(of, name, DEPTH_MAX)?;
                place = Place { bit: place.bit + next.bit, ..next };
                of = self.resolve(next.kind).unwrap_or(of);
            }
            Some(place)
        };
        find().ok_or(BtfError::Missing(path))
    }

    /// The same in bytes, for what is no bit field.
    fn offset(&self, path: &'static str) -> Result<u32, BtfError> {
        match self.place(path)? {
            Place { bit, bits: 0, .. } if bit % 8 == 0 => Ok(bit / 8),
            _ => Err(BtfError::Missing(path)),
        }
    }

    /// What the kernel half needs to know of this kernel, and what the kernel calls its reasons.
    pub(super) fn facts(&self, netns: u32) -> Result<(KernelLayout, BTreeMap<u32, String>), BtfError> {
        let reasons = self.drop_reasons()?;
        Ok((self.layout(netns, &reasons)?, reasons))
    }

    /// Every reason that the kernel has for dropping a frame, by number, as the kernel calls it.
    fn drop_reasons(&self) -> Result<BTreeMap<u32, String>, BtfError> {
        let missing = BtfError::Missing("enum skb_drop_reason");
        let Some(found) = self.named(KIND_ENUM, "skb_drop_reason") else { return Err(missing) };
        let reason = |member: &[u8]| {
            let name = String::from_utf8_lossy(self.name(word(member, 0)?)).into_owned();
            Some((word(member, 4)?, name))
        };
        found.rest.chunks_exact(8).map(reason).collect::<Option<_>>().ok_or(BtfError::Malformed)
    }

    fn layout(&self, netns: u32, reasons: &BTreeMap<u32, String>) -> Result<KernelLayout, BtfError> {
        let number = |name: &str| reasons.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
        let (skb_vlan_word, skb_vlan_mask) = self.vlan_presence()?;
        Ok(KernelLayout {
            netns,
            skb_dev: self.offset("sk_buff.dev")?,
            skb_iif: self.offset("sk_buff.skb_iif")?,
            skb_len: self.offset("sk_buff.len")?,
            skb_data_len: self.offset("sk_buff.data_len")?,
            skb_head: self.offset("sk_buff.head")?,
            skb_data: self.offset("sk_buff.data")?,
            skb_mac_header: self.offset("sk_buff.mac_header")?,
            skb_vlan_proto: self.offset("sk_buff.vlan_proto")?,
            skb_vlan_tci: self.offset("sk_buff.vlan_tci")?,
            skb_vlan_word,
            skb_vlan_mask,
            skb_mark: self.offset("sk_buff.mark")?,
            dev_ifindex: self.offset("net_device.ifindex")?,
            dev_net: self.offset("net_device.nd_net.net")?,
            net_inum: self.offset("net.ns.inum")?,
            reason_tc_ingress: number("SKB_DROP_REASON_TC_INGRESS")
                .ok_or(BtfError::Missing("SKB_DROP_REASON_TC_INGRESS"))?,
            reason_packet_socket: number("SKB_DROP_REASON_PACKET_SOCK_ERROR").unwrap_or(u32::MAX),
        })
    }

    /// Where it says whether a tag lies beside a frame's bytes: a bit of its own until 6.1, afterwards whether the tag is
    /// anything but zeros. The word and what of it counts.
    fn vlan_presence(&self) -> Result<(u32, u32), BtfError> {
        if let Ok(offset) = self.offset("sk_buff.vlan_all") {
            return Ok((offset, u32::MAX));
        }
        let Place { bit, bits, .. } = self.place("sk_buff.vlan_present")?;
        // The word that begins at the bit's own byte, so that it never ends behind its structure by more than the copy may.
        let mask = 1_u32.checked_shl(bit % 8).filter(|_| bits == 1);
        Ok((bit / 8, mask.ok_or(BtfError::Missing("sk_buff.vlan_present"))?))
    }
}

/// The kernel's own description.
pub(super) fn read() -> Result<Vec<u8>, BtfError> {
    std::fs::read(Path::new(VMLINUX)).map_err(BtfError::Unreadable)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Length of what follows a record's head; `None` for a kind that is not documented (include/uapi/linux/btf.h).
fn rest_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => members * 12,
        // Enumeration, prototype.
        6 | 13 => members * 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int a; union { struct { long b; int c : 3; }; }; };` and `enum e { X = 7 }`, by hand.
    fn small() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0c\0e\0X\0";
        let info = |packed: u32, kind: u32, members: u32| packed << 31 | kind << 24 | members;
        let types: Vec<u32> = [
            &[0, info(0, 1, 0), 4, 32][..],                                   // 1: int
            &[0, info(1, KIND_STRUCT, 2), 16, 5, 1, 0, 7, 1, 3 << 24 | 0x45], // 2: { b; c : 3 at bit 69 }
            &[0, info(0, KIND_UNION, 1), 16, 0, 2, 0],                        // 3: union { 2 }
            &[0, info(0, 10, 0), 3],                                          // 4: const 3
            &[1, info(0, KIND_STRUCT, 2), 24, 3, 1, 0, 0, 4, 64],             // 5: s
            &[9, info(0, KIND_ENUM, 1), 4, 11, 7],                            // 6: e
        ]
        .concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let header = [24, 0, types.len(), types.len(), strings.len()].map(|word| u32::try_from(word).unwrap_or(0));
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(header.into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_nameless_and_renamed_types() {
        let bytes = small();
        let Ok(btf) = Btf::parse(&bytes) else { panic!("malformed") };
        assert_eq!(btf.offset("s.a").ok(), Some(0));
        assert_eq!(btf.offset("s.b").ok(), Some(8));
        assert_eq!(btf.place("s.c").ok().map(|place| (place.bit, place.bits)), Some((64 + 69, 3)));
        assert!(btf.offset("s.c").is_err(), "a bit field has no offset in bytes");
        for missing in ["s.d", "t.a", "s.a.a"] {
            assert!(matches!(btf.place(missing), Err(BtfError::Missing(_))), "{missing}");
        }
        assert!(btf.drop_reasons().is_err());
    }

    #[test]
    fn what_is_cut_short_is_refused_and_never_a_panic() {
        let bytes = small();
        for length in 0..bytes.len() {
            let cut = bytes.get(..length).unwrap_or_default();
            assert!(Btf::parse(cut).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            if let Some(byte) = wrong.get_mut(at) {
                *byte ^= 0xff;
            }
            if let Ok(btf) = Btf::parse(&wrong) {
                btf.place("s.c").ok();
            }
        }
    }

    #[test]
    fn this_kernel_is_understood_where_it_describes_itself() {
        let Ok(bytes) = read() else { return };
        let Ok(btf) = Btf::parse(&bytes) else { panic!("malformed") };
        let reasons = btf.drop_reasons().unwrap_or_default();
        assert!(reasons.values().any(|name| name == "SKB_DROP_REASON_FULL_RING"), "{reasons:?}");
        let layout = btf.layout(1, &reasons);
        assert!(layout.as_ref().is_ok_and(|layout| layout.skb_dev > 0 && layout.net_inum > 0), "{layout:?}");
    }
}
