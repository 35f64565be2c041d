//! Community ID, version 1: one text for both directions of a conversation that other monitors (Zeek, Suricata,
//! Wireshark) compute alike, so that their records and ours can be joined.
//!
//! Specification: <https://github.com/corelight/community-id-spec>. The SHA-1 of seed, addresses, protocol and ports in
//! network byte order, the smaller end first, in base64 after `1:`. ICMP has types that answer one another; these take the
//! place of ports, and a type that has no answer keeps its direction. VLANs are not part of it.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::key::{Ports, icmp_answer};

/// Protocols whose ports are part of the text: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// The community ID of a flow or of its reverse. A fragment or a cut header has no ports: it is hashed without, as any
/// protocol that has none.
pub fn v1(seed: u16, source: IpAddr, destination: IpAddr, protocol: u8, ports: Ports) -> String {
    let (near, far, one_way) = match ports {
        Ports::L4 { source, destination } if WITH_PORTS.contains(&protocol) => (source, destination, false),
        Ports::Icmp { kind, code } => match icmp_answer(protocol, kind) {
            Some(answer) => (u16::from(kind), u16::from(answer), false),
            None => (u16::from(kind), u16::from(code), true),
        },
        Ports::L4 { .. } | Ports::None | Ports::Fragment | Ports::Cut => {
            return hash(seed, source, destination, protocol, None);
        }
    };
    if one_way || (source, near) < (destination, far) {
        hash(seed, source, destination, protocol, Some((near, far)))
    } else {
        hash(seed, destination, source, protocol, Some((far, near)))
    }
}

fn hash(seed: u16, first: IpAddr, second: IpAddr, protocol: u8, ports: Option<(u16, u16)>) -> String {
    let (first, second) = if ports.is_none() && second < first { (second, first) } else { (first, second) };
    let mut sha = Sha1::new();
    sha.update(seed.to_be_bytes());
    for address in [first, second] {
        match address {
            IpAddr::V4(v4) => sha.update(v4.octets()),
            IpAddr::V6(v6) => sha.update(v6.octets()),
        }
    }
    sha.update([protocol, 0]);
    if let Some((near, far)) = ports {
        sha.update(near.to_be_bytes());
        sha.update(far.to_be_bytes());
    }
    let digest: [u8; 20] = sha.finalize().into();
    format!("1:{}", base64(&digest))
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain([&0; 2]).take(3).fold(0, |group: usize, byte| group << 8 | usize::from(*byte));
        for at in 0..4 {
            let digit = ALPHABET.get(group >> (18 - 6 * at) & 0x3f).copied().unwrap_or(b'=');
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]
    use super::*;

    /// Protocol, source, destination, both ports (ICMP: type and code; 0 and 0 where the protocol has none), and what
    /// the seeds 0 and 1 make of it. The specification's baseline and the vectors of its reference implementation.
    type Vector = (u8, &'static str, &'static str, u16, u16, &'static str, Option<&'static str>);

    const VECTORS: &[Vector] = &[
        (1, "192.168.0.89", "192.168.0.1", 8, 0, "X0snYXpgwiv9TZtqg64sgzUn6Dk=", Some("03g6IloqVBdcZlPyX8r0hgoE7kA=")),
        (1, "192.168.0.1", "192.168.0.89", 0, 8, "X0snYXpgwiv9TZtqg64sgzUn6Dk=", Some("03g6IloqVBdcZlPyX8r0hgoE7kA=")),
        (1, "192.168.0.1", "192.168.0.89", 0, 20, "X0snYXpgwiv9TZtqg64sgzUn6Dk=", None),
        (1, "192.168.0.89", "192.168.0.1", 20, 0, "3o2RFccXzUgjl7zDpqmY7yJi8rI=", Some("lCXHHxavE1Vq3oX9NH5ladQg02o=")),
        (1, "192.168.0.89", "192.168.0.1", 20, 1, "tz/fHIDUHs19NkixVVoOZywde+I=", Some("Ie3wmFyxiEyikbsbcO03d2nh+PM=")),
        (1, "10.0.0.1", "10.0.0.2", 11, 0, "YHxtAirCG//0OzkcVAukqKQN9xM=", None),
        (
            58,
            "fe80::200:86ff:fe05:80da",
            "fe80::260:97ff:fe07:69ea",
            135,
            0,
            "dGHyGvjMfljg6Bppwm3bg0LO8TY=",
            Some("kHa1FhMYIT6Ym2Vm2AOtoOARDzY="),
        ),
        (
            58,
            "fe80::260:97ff:fe07:69ea",
            "fe80::200:86ff:fe05:80da",
            136,
            0,
            "dGHyGvjMfljg6Bppwm3bg0LO8TY=",
            Some("kHa1FhMYIT6Ym2Vm2AOtoOARDzY="),
        ),
        (58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 135, 136, "zavyT/cezQr1fmImYCwYnMXbgck=", None),
        (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 136, 135, "zavyT/cezQr1fmImYCwYnMXbgck=", None),
        (58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0, "2ObVBgIn28oZvibYZhZMBgh7WdQ=", None),
        (
            58,
            "3ffe:501:410:0:2c0:dfff:fe47:33e",
            "3ffe:507:0:1:200:86ff:fe05:80da",
            1,
            4,
            "hLZd0XGWojozrvxqE0dWB1iM6R0=",
            None,
        ),
        (58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 129, "+TW+HtLHvV1xnGhV1lv7XoJrqQg=", None),
        (58, "3ffe:501:0:1001::2", "3ffe:507:0:1:200:86ff:fe05:80da", 129, 128, "+TW+HtLHvV1xnGhV1lv7XoJrqQg=", None),
        (58, "fe80::200:86ff:fe05:80da", "ff02::2", 133, 134, "hO+sN4H+MG5MY/8hIrXPqc4ZQz0=", None),
        (58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 133, "pkvHqCL88/tg1k4cPigmZXUtL00=", None),
        (
            58,
            "3ffe:507:0:1:260:97ff:fe07:69ea",
            "3ffe:507:0:1:200:86ff:fe05:80da",
            3,
            0,
            "NdobDX8PQNJbAyfkWxhtL2Pqp5w=",
            Some("OlOWx9psIbBFi7lOCw/4MhlKR9M="),
        ),
        (
            58,
            "3ffe:507:0:1:200:86ff:fe05:80da",
            "3ffe:507:0:1:260:97ff:fe07:69ea",
            3,
            0,
            "/OGBt9BN1ofenrmSPWYicpij2Vc=",
            Some("Ij4ZxnC87/MXzhOjvH2vHu7LRmE="),
        ),
        (
            6,
            "2001:470:e5bf:dead:4957:2174:e82c:4887",
            "2607:f8b0:400c:c03::1a",
            63943,
            25,
            "/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            None,
        ),
        (
            6,
            "2607:f8b0:400c:c03::1a",
            "2001:470:e5bf:dead:4957:2174:e82c:4887",
            25,
            63943,
            "/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            None,
        ),
        (
            6,
            "128.232.110.120",
            "66.35.250.204",
            34855,
            80,
            "LQU9qZlK+B5F3KDmev6m5PMibrg=",
            Some("3V71V58M3Ksw/yuFALMcW0LAHvc="),
        ),
        (
            6,
            "66.35.250.204",
            "128.232.110.120",
            80,
            34855,
            "LQU9qZlK+B5F3KDmev6m5PMibrg=",
            Some("3V71V58M3Ksw/yuFALMcW0LAHvc="),
        ),
        (6, "10.0.0.1", "10.0.0.2", 10, 11569, "SXBGMX1lBOwhhoDrZynfROxnhnM=", Some("HmBRGR+fUyXF4t8WEtal7Y0gEAo=")),
        (
            17,
            "192.168.1.52",
            "8.8.8.8",
            54585,
            53,
            "d/FP5EW3wiY1vCndhwleRRKHowQ=",
            Some("Q9We8WO3piVF8yEQBNJF4uiSVrI="),
        ),
        (
            17,
            "8.8.8.8",
            "192.168.1.52",
            53,
            54585,
            "d/FP5EW3wiY1vCndhwleRRKHowQ=",
            Some("Q9We8WO3piVF8yEQBNJF4uiSVrI="),
        ),
        (132, "192.168.170.8", "192.168.170.56", 7, 7, "MP2EtRCAUIZvTw6MxJHLV7N7JDs=", None),
        (132, "192.168.170.56", "192.168.170.8", 7, 7, "MP2EtRCAUIZvTw6MxJHLV7N7JDs=", None),
        (
            132,
            "192.168.170.8",
            "192.168.170.56",
            7,
            80,
            "jQgCxbku+pNGw8WPbEc/TS/uTpQ=",
            Some("Y1/0jQg6e+I3ZwZZ9LP65DNbTXU="),
        ),
        (
            132,
            "192.168.170.56",
            "192.168.170.8",
            80,
            7,
            "jQgCxbku+pNGw8WPbEc/TS/uTpQ=",
            Some("Y1/0jQg6e+I3ZwZZ9LP65DNbTXU="),
        ),
        (46, "10.1.12.1", "10.1.12.2", 0, 0, "KHlLkgoJW7ifUTyTSgyVfkFHzKw=", None),
        (46, "10.1.12.2", "10.1.12.1", 0, 0, "KHlLkgoJW7ifUTyTSgyVfkFHzKw=", None),
        (46, "10.1.24.4", "10.1.12.1", 0, 0, "/nQI4Rh/TtY3mf0R2gJFBkVlgS4=", Some("BK3BVW3U2eemuwVQVN3zd/GULno=")),
        (46, "10.1.12.1", "10.1.24.4", 0, 0, "/nQI4Rh/TtY3mf0R2gJFBkVlgS4=", Some("BK3BVW3U2eemuwVQVN3zd/GULno=")),
    ];

    #[test]
    fn the_vectors_of_the_specification_come_out() {
        for (protocol, source, destination, near, far, seed_0, seed_1) in VECTORS {
            let (from, to): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
            let narrow = |number: u16| u8::try_from(number).unwrap();
            let ports = match protocol {
                1 | 58 => Ports::Icmp { kind: narrow(*near), code: narrow(*far) },
                46 => Ports::None,
                _ => Ports::L4 { source: *near, destination: *far },
            };
            assert_eq!(v1(0, from, to, *protocol, ports), format!("1:{seed_0}"), "{protocol} {source} {destination}");
            if let Some(seed_1) = seed_1 {
                assert_eq!(
                    v1(1, from, to, *protocol, ports),
                    format!("1:{seed_1}"),
                    "{protocol} {source} {destination}"
                );
            }
        }
    }

    #[test]
    fn base64_pads_as_the_rfc_says() {
        // RFC 4648, section 10.
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
