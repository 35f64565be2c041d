//! Words that guests choose, as printable ASCII: whatever shows them needs no care.

/// The bytes as text: what is not printable ASCII, and the backslash itself, as `\DDD` (RFC 1035, section 5.1); cut at `most` bytes.
pub(super) fn printable(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    bytes.iter().take(most).for_each(|byte| push(&mut text, *byte));
    text
}

/// Adds one byte in that form.
pub(super) fn push(text: &mut String, byte: u8) {
    if byte.is_ascii_graphic() && byte != b'\\' {
        text.push(byte.into());
    } else {
        text.push('\\');
        text.extend([byte / 100, byte / 10 % 10, byte % 10].map(|digit| char::from(b'0' + digit)));
    }
}

/// A cursor over bytes that may end anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}
