//! Message stream encryption (MSE/PE): hides that a connection is BitTorrent's from those who
//! slow BitTorrent down. It is no protection against anybody else: RC4 under a key that whoever
//! knows the info-hash can take part in making.
//!
//! Both roles are state machines: bytes in, bytes out, until the ciphers are there. Each holds
//! at most [`MAX_PENDING`] bytes, and nobody is waited for in it: time is the driver's business.

mod cipher;
mod dh;
mod initiator;
mod responder;

use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;

pub use cipher::{Cipher, Ciphers};
pub use dh::{DH_LEN, DhSecret};
pub use initiator::Initiator;
pub use responder::Responder;

/// Longest padding of the standard, in bytes.
pub const MAX_PAD: usize = 512;

/// Most bytes that either side keeps of what the other sent: a key, two paddings, and the
/// fields around an initial payload of at most [`MAX_PAD`].
pub const MAX_PENDING: usize = DH_LEN + 4 * MAX_PAD + 64;

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Whoever can is met encrypted, the rest in the clear; RC4 only if the other side wants it.
    #[default]
    Prefer,
    /// Everything under RC4; others are refused.
    Require,
    /// Nothing is; who comes encrypted is refused.
    Off,
}

/// The text is no setting of [`Encryption`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encryption is one of prefer, require, off")]
pub struct ParseEncryptionError;

impl FromStr for Encryption {
    type Err = ParseEncryptionError;

    fn from_str(text: &str) -> Result<Self, ParseEncryptionError> {
        match text {
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "off" => Ok(Self::Off),
            _ => Err(ParseEncryptionError),
        }
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::Off => "off",
        })
    }
}

/// Ways to go on after the handshake, as its bits have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u32);

impl Methods {
    const PLAIN: u32 = 1;
    const RC4: u32 = 2;

    /// Those that a setting allows.
    pub const fn of(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Require => Self(Self::RC4),
            Encryption::Prefer | Encryption::Off => Self(Self::PLAIN | Self::RC4),
        }
    }

    /// What is chosen of those offered: the cheapest that both allow. Whether it is RC4.
    fn choose(self, offered: u32) -> Option<bool> {
        match self.0 & offered {
            both if both & Self::PLAIN != 0 => Some(false),
            both if both & Self::RC4 != 0 => Some(true),
            _ => None,
        }
    }

    /// Whether a choice is one of these and only one; whether it is RC4.
    fn accept(self, chosen: u32) -> Option<bool> {
        match chosen {
            Self::PLAIN | Self::RC4 if self.0 & chosen != 0 => Some(chosen == Self::RC4),
            _ => None,
        }
    }
}

/// Why no encrypted connection came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MseError {
    /// A public key outside the group.
    #[error("a public key that is none")]
    Key,
    /// What must follow the padding did not, within its limit.
    #[error("no synchronisation")]
    Sync,
    /// Nobody here has that torrent.
    #[error("an unknown torrent")]
    Torrent,
    /// The fields under the cipher are not what they must be.
    #[error("a malformed encrypted handshake")]
    Malformed,
    /// No method that both sides allow.
    #[error("no method in common")]
    Method,
}

/// What a step of a handshake led to.
#[derive(Debug)]
pub enum Step {
    /// More must come in. These bytes are to be sent.
    More(Vec<u8>),
    /// It is over.
    Done(Box<Done>),
}

/// The end of a handshake.
#[derive(Debug)]
pub struct Done {
    /// To be sent.
    pub send: Vec<u8>,
    /// What the stream goes on under; nothing if it goes on in the clear.
    pub ciphers: Option<Ciphers>,
    /// What came in behind the handshake, deciphered.
    pub rest: BytesMut,
    /// The torrent's info-hash, which both knew.
    pub info_hash: [u8; 20],
}

/// Random numbers for one handshake.
#[derive(Clone)]
pub struct Randomness {
    /// The private key.
    pub secret: [u8; 20],
    /// How long the padding is; taken modulo [`MAX_PAD`] + 1.
    pub pad_len: u16,
    /// The padding.
    pub pad: [u8; MAX_PAD],
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness(..)")
    }
}

impl Randomness {
    fn padding(&self) -> &[u8] {
        &self.pad[..usize::from(self.pad_len) % (MAX_PAD + 1)]
    }
}

/// Eight zeros, by which the receiver knows that it deciphers right.
const VC: [u8; 8] = [0; 8];

#[cfg(test)]
mod tests;
