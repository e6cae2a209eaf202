//! [`NodeId`], and how it follows from an address (BEP 42).

use std::fmt;
use std::net::IpAddr;

use crate::bittorrent::compact::is_local;
use crate::bittorrent::random::Random;

/// Identifies a node of the mainline DHT: 20 bytes, in the space of info-hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl NodeId {
    pub(super) fn random(random: &mut Random) -> Self {
        Self(random.bytes())
    }

    /// An id that others accept from this address (BEP 42).
    pub(super) fn for_address(ip: IpAddr, random: &mut Random) -> Self {
        let mut id: [u8; 20] = random.bytes();
        let crc = prefix(ip, id[19]);
        id[0] = crc[0];
        id[1] = crc[1];
        id[2] = (crc[2] & 0xf8) | (id[2] & 0x07);
        Self(id)
    }

    /// Whether the id belongs to its address (BEP 42). Any id belongs to an address that is
    /// not of the public internet.
    #[must_use]
    pub fn fits(&self, ip: IpAddr) -> bool {
        if is_local(ip) {
            return true;
        }
        let crc = prefix(ip, self.0[19]);
        self.0[0] == crc[0] && self.0[1] == crc[1] && self.0[2] & 0xf8 == crc[2] & 0xf8
    }

    /// XOR, as a big-endian number: the distance.
    #[must_use]
    pub fn distance(&self, other: &Self) -> [u8; 20] {
        std::array::from_fn(|i| self.0[i] ^ other.0[i])
    }

    /// How many leading bits two ids have in common, 160 if they are equal.
    #[must_use]
    pub fn shared_bits(&self, other: &Self) -> usize {
        let distance = self.distance(other);
        let zeros = distance.iter().take_while(|byte| **byte == 0).count();
        let bits = distance.get(zeros).map_or(0, |byte| byte.leading_zeros());
        zeros * 8 + bits as usize
    }

    /// An id that shares exactly so many leading bits with this one, fewer than 160.
    pub(super) fn at_bits(&self, bits: usize, random: &mut Random) -> Self {
        let mut id: [u8; 20] = random.bytes();
        let (whole, part) = (bits / 8, bits % 8);
        id[..whole].copy_from_slice(&self.0[..whole]);
        let kept = !(0xff_u8 >> part);
        let flip = 0x80 >> part;
        id[whole] = (self.0[whole] & kept) | (!self.0[whole] & flip) | (id[whole] & !kept & !flip);
        Self(id)
    }
}

/// The first bytes that an id must have, of which 21 bits count.
fn prefix(ip: IpAddr, seed: u8) -> [u8; 4] {
    let r = (seed & 7) << 5;
    let crc = match ip {
        IpAddr::V4(ip) => {
            let mask = [0x03, 0x0f, 0x3f, 0xff];
            let mut masked: [u8; 4] = std::array::from_fn(|i| ip.octets()[i] & mask[i]);
            masked[0] |= r;
            crc32c(&masked)
        }
        IpAddr::V6(ip) => {
            let mask = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
            let mut masked: [u8; 8] = std::array::from_fn(|i| ip.octets()[i] & mask[i]);
            masked[0] |= r;
            crc32c(&masked)
        }
    };
    crc.to_be_bytes()
}

/// CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(hex: &str) -> NodeId {
        let digit = |i: usize| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap();
        NodeId(std::array::from_fn(digit))
    }

    #[test]
    fn the_vectors_of_bep_42_hold() {
        for (ip, hex) in [
            ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
            ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
            ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
            ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
            ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert!(id(hex).fits(ip), "{ip}");
            let mut other = id(hex);
            other.0[0] ^= 1;
            assert!(!other.fits(ip), "{ip}");
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn made_ids_fit() {
        let mut random = Random::from_seed([3; 32]);
        for ip in ["8.8.8.8", "2606:4700::1111"] {
            let ip: IpAddr = ip.parse().unwrap();
            for _ in 0..20 {
                assert!(NodeId::for_address(ip, &mut random).fits(ip));
            }
            assert!(!NodeId::random(&mut random).fits(ip));
        }
        // In a network of one's own there is nothing to check.
        assert!(NodeId([0; 20]).fits("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn bits_are_counted_and_made() {
        let mut random = Random::from_seed([4; 32]);
        let own = NodeId::random(&mut random);
        for bits in 0..160 {
            assert_eq!(own.shared_bits(&own.at_bits(bits, &mut random)), bits);
        }
        assert_eq!(own.shared_bits(&own), 160);
    }
}
