//! Random frames that look like something often enough for filters to tell them apart.

use crate::filter::pcap::oracle::Seen;

/// A plain generator (xorshift64*), the same on every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below a limit.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// So many frames.
pub(super) fn random(random: &mut Random, count: usize) -> Vec<Seen> {
    (0..count).map(|_| frame(random)).collect()
}

fn frame(random: &mut Random) -> Seen {
    let most = random.pick(&[8, 60, 160]);
    let mut bytes = vec![0u8; 14 + random.below(most)];
    bytes.fill_with(|| random.next().to_le_bytes()[3]);
    let mut put = |at: usize, what: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(what) {
            *to = *from;
        }
    };
    let mac =
        |random: &mut Random| random.pick(&[[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [255; 6], [1, 0, 0x5e, 0, 0, 1]]);
    if random.below(2) == 0 {
        put(0, &mac(random));
        put(6, &mac(random));
    }
    let mut at = 12;
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2]) {
        put(at, &random.pick(&[[0x81, 0], [0x88, 0xa8], [0x91, 0]]));
        put(at + 2, &random.pick(&[100u16, 10, 20, 0x6064]).to_be_bytes());
        at += 4;
    }
    let kind: u16 = random.pick(&[
        0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x8035, 0x88cc, 0x8847, 0x8864, 0x0040, 0x6003, 0x809b, 0x1234,
    ]);
    put(at, &kind.to_be_bytes());
    at += 2;
    let protocol = random.pick(&[1u8, 6, 6, 17, 17, 58, 132, 2, 50, 47, 0, 43, 44]);
    let ports = [80u16, 53, 443, 22, 1500, 5500, 6081, 9].map(u16::to_be_bytes);
    let mut layer4 = at;
    match kind {
        0x0800 => {
            let header = random.pick(&[5u8, 5, 6, 15, 3]);
            put(at, &[0x40 | header]);
            put(at + 2, &random.pick(&[40u16, 60, 576, 1500]).to_be_bytes());
            put(at + 6, &random.pick(&[[0, 0], [0x40, 0], [0x20, 0], [0, 9]]));
            put(at + 9, &[protocol]);
            put(at + 12, &random.pick(&[[198, 18, 0, 1], [198, 18, 0, 2], [10, 1, 2, 3], [192, 168, 1, 1]]));
            put(at + 16, &random.pick(&[[198, 18, 0, 1], [198, 18, 0, 2], [224, 0, 0, 1], [255; 4]]));
            layer4 = at + usize::from(header) * 4;
        }
        0x86dd => {
            put(at, &[0x60]);
            put(at + 6, &[protocol]);
            put(at + 8, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, random.pick(&[1, 2])]);
            put(at + 24, &[random.pick(&[0x20, 0xff]), 1, 0x0d, 0xb8, random.pick(&[0, 0x80])]);
            layer4 = at + 40;
        }
        0x8847 => put(at, &[0, 0x3e, 0x81, 64, 0x45]),
        0x8864 => put(at, &[0x11, 0, 0, 1, 0, 60, 0, 0x21]),
        0x0040 => put(at, &random.pick(&[[0x42, 0x42, 3], [0xfe, 0xfe, 3], [0xaa, 0xaa, 3], [0xe0, 0xe0, 3]])),
        _ => {}
    }
    if random.below(4) != 0 {
        put(layer4, &random.pick(&ports));
        put(layer4 + 2, &random.pick(&ports));
    }
    if protocol == 6 && random.below(2) == 0 {
        put(layer4 + 12, &[0x50, random.pick(&[2, 16, 17])]);
        put(layer4 + 20, b"GET ");
    }
    if matches!(protocol, 1 | 58) {
        put(layer4, &random.pick(&[[8], [128], [0]]));
    }
    let cut = if random.below(5) == 0 { random.below(200) } else { 0 };
    let length = u32::try_from(bytes.len() + cut).unwrap();
    Seen { bytes, length }
}
