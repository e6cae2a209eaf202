//! Peers: who they are and where they serve.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::Address;

use crate::{Coverage, ManifestHeader, Price, Protocol};

/// Limit on the length of a peer id in bytes (a libp2p multihash of an inlined key).
pub const MAX_PEER_ID_LEN: usize = 64;

/// Limit on the length of an endpoint in bytes.
pub const MAX_ENDPOINT_LEN: usize = 1024;

/// Identity of a peer: the bytes of a libp2p PeerId, shown in base58.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(Box<[u8]>);

/// The text or the bytes are no peer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a peer id")]
pub struct ParsePeerIdError;

impl PeerId {
    /// From the bytes of a libp2p PeerId (1 to [`MAX_PEER_ID_LEN`] of them).
    ///
    /// # Errors
    /// [`ParsePeerIdError`] if their number is out of bounds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParsePeerIdError> {
        if bytes.is_empty() || bytes.len() > MAX_PEER_ID_LEN {
            return Err(ParsePeerIdError);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        let mut digits: Vec<u8> = Vec::with_capacity(self.0.len() * 2);
        for &byte in &self.0[zeros..] {
            let mut carry = u32::from(byte);
            for digit in &mut digits {
                carry += u32::from(*digit) << 8;
                *digit = (carry % 58) as u8;
                carry /= 58;
            }
            while carry > 0 {
                digits.push((carry % 58) as u8);
                carry /= 58;
            }
        }
        let text: String = std::iter::repeat_n(0, zeros)
            .chain(digits.into_iter().rev())
            .map(|digit| char::from(BASE58[usize::from(digit)]))
            .collect();
        f.pad(&text)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, ParsePeerIdError> {
        if text.len() > MAX_PEER_ID_LEN * 2 {
            return Err(ParsePeerIdError);
        }
        let zeros = text.bytes().take_while(|byte| *byte == b'1').count();
        let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
        for character in text.bytes().skip(zeros) {
            let digit = BASE58
                .iter()
                .position(|c| *c == character)
                .ok_or(ParsePeerIdError)?;
            let mut carry = digit as u32;
            for byte in &mut bytes {
                carry += u32::from(*byte) * 58;
                *byte = carry as u8;
                carry >>= 8;
            }
            while carry > 0 {
                bytes.push(carry as u8);
                carry >>= 8;
            }
        }
        bytes.extend(std::iter::repeat_n(0, zeros));
        bytes.reverse();
        Self::from_bytes(&bytes)
    }
}

/// Where a peer serves over one protocol: a URL for HTTP, a multiaddr for libp2p. What it
/// means is the protocol's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(String);

/// An endpoint that is empty, too long, or holds a control character or a blank.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint is 1 to {MAX_ENDPOINT_LEN} printable characters without blanks")]
pub struct EndpointError;

impl Endpoint {
    /// Checks length and characters only.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn new(text: impl Into<String>) -> Result<Self, EndpointError> {
        let text = text.into();
        let bad = |c: char| c.is_control() || c.is_whitespace();
        if text.is_empty() || text.len() > MAX_ENDPOINT_LEN || text.contains(bad) {
            return Err(EndpointError);
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A seeder's offer of one file over one protocol: whom to connect to, and at what price.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerOffer {
    /// Who, if known; a web mirror is nobody.
    pub peer: Option<PeerId>,
    /// Over what.
    pub protocol: Protocol,
    /// Where.
    pub endpoint: Endpoint,
    /// What it holds, if said; whoever connects asks for the present state.
    pub coverage: Option<Coverage>,
    /// Price, free if none is asked.
    pub price: Price,
    /// Where payments go; none is needed for free content.
    pub wallet: Option<Address>,
    /// Until when price and wallet hold, as announced: seconds since 1970 (UTC).
    pub valid_until: Option<u64>,
    /// Identity and hints, as announced.
    pub header: Option<ManifestHeader>,
    /// A plain copy of the file, served by something that knows nothing of Chiral.
    pub mirror: bool,
    /// Neither the user nor whoever serves there says so, but something that anybody may have
    /// written, as a torrent is: it is dialled only where strangers may have us dial.
    pub hearsay: bool,
}

impl PeerOffer {
    /// A free offer of unknown coverage.
    pub fn new(protocol: Protocol, endpoint: Endpoint) -> Self {
        Self {
            peer: None,
            protocol,
            endpoint,
            coverage: None,
            price: Price::FREE,
            wallet: None,
            valid_until: None,
            header: None,
            mirror: false,
            hearsay: false,
        }
    }

    /// Says who offers.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Marks the offer as a plain mirror.
    #[must_use]
    pub fn as_mirror(mut self) -> Self {
        self.mirror = true;
        self
    }

    /// Marks the offer as one that something tells of which anybody may have written.
    #[must_use]
    pub fn as_hearsay(mut self) -> Self {
        self.hearsay = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_peer_id_comes_back() {
        let text = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
        let peer: PeerId = text.parse().unwrap();
        assert_eq!(peer.as_bytes().len(), 38);
        assert_eq!(&peer.as_bytes()[..6], [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        assert_eq!(peer.to_string(), text);
        assert!("0OIl".parse::<PeerId>().is_err());
        assert!("".parse::<PeerId>().is_err());
    }

    proptest! {
        #[test]
        fn base58_comes_back(bytes in proptest::collection::vec(any::<u8>(), 1..=64)) {
            let peer = PeerId::from_bytes(&bytes).unwrap();
            prop_assert_eq!(peer.to_string().parse::<PeerId>().unwrap(), peer);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = text.parse::<PeerId>().map(|peer| peer.to_string());
            let _ = Endpoint::new(text);
        }
    }
}
