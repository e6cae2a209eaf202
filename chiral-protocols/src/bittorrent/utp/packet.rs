//! uTP packets (BEP 29).

use bytes::Bytes;

/// Bytes of a header without extensions.
pub const HEADER: usize = 20;
/// Longest selective acknowledgement that is read, in bytes.
pub const MAX_SACK: usize = 128;
/// Most extensions of a packet.
const MAX_EXTENSIONS: usize = 8;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data.
    Data,
    /// The last packet.
    Fin,
    /// An acknowledgement.
    State,
    /// There is no such connection.
    Reset,
    /// The first packet.
    Syn,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is for.
    pub kind: Kind,
    /// Which connection it belongs to.
    pub connection: u16,
    /// When it was sent, in microseconds of the sender's clock.
    pub timestamp: u32,
    /// How long the last packet was under way to the sender, in microseconds.
    pub delay: u32,
    /// How many bytes the sender has room for.
    pub window: u32,
    /// Its number.
    pub sequence: u16,
    /// The last number up to which the sender has all.
    pub acknowledged: u16,
    /// Which of those after the next one the sender has: a bit each, lowest first; empty for
    /// none. Of a length that is a multiple of four.
    pub selective: Vec<u8>,
    /// Data.
    pub payload: Bytes,
}

/// Why a datagram is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Too short for what it says.
    #[error("too short")]
    Short,
    /// Another version than 1.
    #[error("not version 1")]
    Version,
    /// An unknown type.
    #[error("an unknown type")]
    Kind,
    /// More extensions than any has, or one over its limit.
    #[error("extensions over their limit")]
    Extensions,
}

impl Packet {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// [`PacketError`].
    pub fn decode(datagram: &Bytes) -> Result<Self, PacketError> {
        let header: &[u8; HEADER] = datagram.first_chunk().ok_or(PacketError::Short)?;
        let [first, mut extension, rest @ ..] = *header;
        if first & 0x0f != 1 {
            return Err(PacketError::Version);
        }
        let kind = match first >> 4 {
            0 => Kind::Data,
            1 => Kind::Fin,
            2 => Kind::State,
            3 => Kind::Reset,
            4 => Kind::Syn,
            _ => return Err(PacketError::Kind),
        };
        let [
            c0,
            c1,
            t0,
            t1,
            t2,
            t3,
            d0,
            d1,
            d2,
            d3,
            w0,
            w1,
            w2,
            w3,
            s0,
            s1,
            a0,
            a1,
        ] = rest;
        let mut at = HEADER;
        let mut selective = Vec::new();
        let mut extensions = 0;
        while extension != 0 {
            extensions += 1;
            let head = datagram.get(at..at + 2).ok_or(PacketError::Short)?;
            let (next, len) = (head[0], usize::from(head[1]));
            let body = datagram
                .get(at + 2..at + 2 + len)
                .ok_or(PacketError::Short)?;
            if extensions > MAX_EXTENSIONS {
                return Err(PacketError::Extensions);
            }
            if extension == 1 {
                if len > MAX_SACK {
                    return Err(PacketError::Extensions);
                }
                selective = body.to_vec();
            }
            extension = next;
            at += 2 + len;
        }
        Ok(Self {
            kind,
            connection: u16::from_be_bytes([c0, c1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            delay: u32::from_be_bytes([d0, d1, d2, d3]),
            window: u32::from_be_bytes([w0, w1, w2, w3]),
            sequence: u16::from_be_bytes([s0, s1]),
            acknowledged: u16::from_be_bytes([a0, a1]),
            selective,
            payload: datagram.slice(at..),
        })
    }

    /// Writes a datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind: u8 = match self.kind {
            Kind::Data => 0,
            Kind::Fin => 1,
            Kind::State => 2,
            Kind::Reset => 3,
            Kind::Syn => 4,
        };
        let sack = &self.selective[..self.selective.len().min(MAX_SACK)];
        let mut out = Vec::with_capacity(HEADER + 2 + sack.len() + self.payload.len());
        out.push(kind << 4 | 1);
        out.push((!sack.is_empty()).into());
        out.extend_from_slice(&self.connection.to_be_bytes());
        for number in [self.timestamp, self.delay, self.window] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.acknowledged.to_be_bytes());
        if !sack.is_empty() {
            out.extend_from_slice(&[0, u8::try_from(sack.len()).unwrap_or(0)]);
            out.extend_from_slice(sack);
        }
        out.extend_from_slice(&self.payload);
        out
    }
}

/// How far `to` is behind `from`, around the end of the numbers; negative if before it.
pub(super) fn ahead(to: u16, from: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets() -> impl Strategy<Value = Packet> {
        let kinds = prop_oneof![
            Just(Kind::Data),
            Just(Kind::Fin),
            Just(Kind::State),
            Just(Kind::Reset),
            Just(Kind::Syn),
        ];
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
        let numbers = any::<(u16, u32, u32, u32, u16, u16)>();
        (kinds, numbers, bytes(33), bytes(50)).prop_map(|(kind, n, mut selective, payload)| {
            selective.truncate(selective.len() / 4 * 4);
            Packet {
                kind,
                connection: n.0,
                timestamp: n.1,
                delay: n.2,
                window: n.3,
                sequence: n.4,
                acknowledged: n.5,
                selective,
                payload: payload.into(),
            }
        })
    }

    #[test]
    fn a_packet_is_as_the_standard_has_it() {
        let bytes = [
            0x41, 2, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 5, 0, 6, 1, 2, 9, 9, 0, 4, 1, 0,
            0, 0x80, 7,
        ];
        let packet = Packet::decode(&Bytes::copy_from_slice(&bytes)).unwrap();
        let expected = Packet {
            kind: Kind::Syn,
            connection: 1,
            timestamp: 2,
            delay: 3,
            window: 4,
            sequence: 5,
            acknowledged: 6,
            selective: vec![1, 0, 0, 0x80],
            payload: Bytes::from_static(&[7]),
        };
        assert_eq!(packet, expected);
    }

    #[test]
    fn what_is_none_is_refused() {
        let decode = |bytes: &[u8]| Packet::decode(&Bytes::copy_from_slice(bytes));
        let mut packet = [0; 24];
        packet[0] = 0x01;
        assert_eq!(decode(&packet[..19]), Err(PacketError::Short));
        for (first, error) in [(0x02, PacketError::Version), (0x51, PacketError::Kind)] {
            packet[0] = first;
            assert_eq!(decode(&packet), Err(error));
        }
        packet[0] = 0x01;
        packet[1] = 1;
        packet[21] = 3;
        assert_eq!(decode(&packet), Err(PacketError::Short));
        packet[21] = 2;
        assert_eq!(decode(&packet).unwrap().payload.len(), 0);
        // Extensions without end.
        let mut endless = vec![0; 20 + 100];
        endless[0] = 0x01;
        endless[1] = 5;
        for at in (20..120).step_by(2) {
            endless[at] = 5;
        }
        assert_eq!(decode(&endless), Err(PacketError::Extensions));
        let mut long = vec![0; 20 + 2 + 200];
        long[..2].copy_from_slice(&[1, 1]);
        long[21] = 200;
        assert_eq!(decode(&long), Err(PacketError::Extensions));
    }

    #[test]
    fn numbers_go_around() {
        assert_eq!(ahead(5, 3), 2);
        assert_eq!(ahead(3, 5), -2);
        assert_eq!(ahead(2, 65_534), 4);
        assert_eq!(ahead(65_534, 2), -4);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(packet in packets()) {
            prop_assert_eq!(Packet::decode(&packet.encode().into()), Ok(packet));
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packet::decode(&Bytes::copy_from_slice(&bytes));
            if let Some(first) = bytes.first_mut() {
                *first = ((*first & 0xf0) % 0x50) | 1;
            }
            let _ = Packet::decode(&bytes.into());
        }
    }
}
