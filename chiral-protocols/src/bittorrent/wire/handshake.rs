//! [`Handshake`]: the 68 bytes that both sides begin with.

use std::fmt;

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// The first 20 bytes of every handshake.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The eight reserved bytes: what a side can beyond BEP 3.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// What this library can.
    pub const OURS: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0x05]);

    /// The extension protocol (BEP 10).
    pub const fn extended(&self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// The fast extension (BEP 6).
    pub const fn fast(&self) -> bool {
        self.0[7] & 0x04 != 0
    }

    /// A node of the mainline DHT (BEP 5).
    pub const fn dht(&self) -> bool {
        self.0[7] & 0x01 != 0
    }

    /// A torrent of both versions, and the wish to go over to the second (BEP 52).
    pub const fn v2(&self) -> bool {
        self.0[7] & 0x10 != 0
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserved({:02x?})", self.0)
    }
}

/// A handshake (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What the side can.
    pub reserved: Reserved,
    /// Which torrent.
    pub info_hash: [u8; 20],
    /// Who, for this connection.
    pub peer_id: [u8; 20],
}

/// The bytes are no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a BitTorrent handshake")]
pub struct HandshakeError;

impl Handshake {
    /// The bytes.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash);
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// From the bytes.
    ///
    /// # Errors
    /// [`HandshakeError`] if they begin with another protocol's name.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, HandshakeError> {
        let part = |from: usize| {
            let mut part = [0; 20];
            part.copy_from_slice(&bytes[from..from + 20]);
            part
        };
        if !bytes.starts_with(PROTOCOL) {
            return Err(HandshakeError);
        }
        let mut reserved = [0; 8];
        reserved.copy_from_slice(&bytes[20..28]);
        Ok(Self {
            reserved: Reserved(reserved),
            info_hash: part(28),
            peer_id: part(48),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_bits_are_where_the_standards_have_them() {
        let ours = Reserved::OURS;
        assert!(ours.extended() && ours.fast() && ours.dht() && !ours.v2());
        assert!(!Reserved::default().extended() && !Reserved::default().fast());
        // What libtorrent 2.0 sends.
        let libtorrent = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0x05]);
        assert_eq!(libtorrent, ours);
    }

    proptest! {
        #[test]
        fn handshakes_come_back(reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20]) {
            let handshake = Handshake { reserved: Reserved(reserved), info_hash, peer_id };
            prop_assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
        }

        #[test]
        fn other_protocols_are_refused(at in 0usize..20, bit in 0u32..8) {
            let mut bytes = Handshake { reserved: Reserved::OURS, info_hash: [1; 20], peer_id: [2; 20] }.encode();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Handshake::decode(&bytes), Err(HandshakeError));
        }
    }
}
