//! Chiral's own extension: two nodes recognise each other in a public swarm.
//!
//! Each side's extended handshake carries its peer id, its wallet and a nonce. Then, to those
//! who sent such a greeting and under *their* number for the extension, each sends a [`Proof`]:
//! its key's signature over both nonces, the info-hash, both BitTorrent peer ids and its
//! wallet. So a proof is of use on this one connection only. Somebody in the middle can still
//! pass everything on; he gains nothing by it, since what is paid rests on bytes that were
//! proven and on the quote, not on the connection.
//!
//! Over the same extension they ask each other for the manifest, so that chunks are verified
//! as they come, and carry what payment agent and gate have to say.

use bytes::Bytes;
use chiral_core::manifest::MAX_PAGE_LEN;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{
    Address, Admission, ByteRange, PeerId, PeerSignError, PeerSigner, Price, Tariff, U256,
};
use ed25519_dalek::{Signature, VerifyingKey};

use super::handshake::ExtensionError;
use super::read;
use crate::bittorrent::bencode::{DictWriter, Value};

/// Version of the extension.
pub const PROTOCOL_VERSION: i64 = 1;

/// Longest body between payment gate and agent in bytes.
pub const MAX_CHIRAL_BODY: usize = MAX_PAYMENT_MESSAGE;

/// Longest answer in bytes: a page of a manifest.
pub const MAX_CHIRAL_ANSWER: usize = MAX_PAGE_LEN;

/// What every signed statement begins with.
const PREFIX: &[u8] = b"chiral/bittorrent/v1";

/// Before an ed25519 key in libp2p's encoding.
const ED25519: &[u8] = &[0x08, 0x01, 0x12, 0x20];

/// A peer id that is its key: multihash "identity".
const IDENTITY: u8 = 0;

/// Longest public key and longest signature that are looked at, in bytes.
const MAX_KEY: usize = 128;

/// What a Chiral node says of itself in the extended handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Who it is, it says.
    pub peer: PeerId,
    /// Where it is paid, or pays from.
    pub wallet: Option<Address>,
    /// Random, for this connection.
    pub nonce: [u8; 32],
}

impl Greeting {
    pub(super) fn write(&self) -> DictWriter {
        let dict = DictWriter::new()
            .bytes("id", self.peer.as_bytes())
            .bytes("n", &self.nonce)
            .int("v", PROTOCOL_VERSION);
        match &self.wallet {
            Some(wallet) => dict.bytes("w", wallet.as_slice()),
            None => dict,
        }
    }

    pub(super) fn take(dict: Value<'_, '_>) -> Option<Self> {
        if dict.int_of("v")? != PROTOCOL_VERSION {
            return None;
        }
        let wallet = match dict.bytes_of("w") {
            Some(bytes) => Some(Address::from(<[u8; 20]>::try_from(bytes).ok()?)),
            None => None,
        };
        Some(Self {
            peer: PeerId::from_bytes(dict.bytes_of("id")?).ok()?,
            wallet,
            nonce: dict.bytes_of("n")?.try_into().ok()?,
        })
    }
}

/// What is signed: the sides of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The greeting of who signs.
    pub signer: &'a Greeting,
    /// His BitTorrent peer id.
    pub signer_id: [u8; 20],
    /// The greeting of who verifies.
    pub verifier: &'a Greeting,
    /// His BitTorrent peer id.
    pub verifier_id: [u8; 20],
    /// The torrent.
    pub info_hash: [u8; 20],
}

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The key is not that of the peer id.
    #[error("the key of another peer")]
    Key,
    /// A kind of key that is not known here.
    #[error("a kind of key that is not supported")]
    Kind,
    /// The signature is not the key's, or over something else.
    #[error("a wrong signature")]
    Signature,
}

impl Statement<'_> {
    /// The bytes that are signed: all of fixed length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        bytes.extend(self.info_hash);
        bytes.extend(self.signer.nonce);
        bytes.extend(self.verifier.nonce);
        bytes.extend(self.signer_id);
        bytes.extend(self.verifier_id);
        match &self.signer.wallet {
            Some(wallet) => {
                bytes.push(1);
                bytes.extend(wallet.as_slice());
            }
            None => bytes.extend([0; 21]),
        }
        bytes
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`PeerSignError`] if the key cannot be used.
    pub fn sign(&self, signer: &dyn PeerSigner) -> Result<Proof, PeerSignError> {
        let signature = signer.sign(&self.to_bytes())?;
        Ok(Proof {
            key: signer.public_key().into(),
            signature: signature.into(),
        })
    }

    /// Checks a proof.
    ///
    /// # Errors
    /// [`HelloError`].
    pub fn check(&self, proof: &Proof) -> Result<(), HelloError> {
        let [IDENTITY, length, key @ ..] = self.signer.peer.as_bytes() else {
            return Err(HelloError::Kind);
        };
        if usize::from(*length) != key.len() || key != proof.key {
            return Err(HelloError::Key);
        }
        let key = key.strip_prefix(ED25519).ok_or(HelloError::Kind)?;
        let key = <&[u8; 32]>::try_from(key).map_err(|_| HelloError::Kind)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| HelloError::Key)?;
        let signature =
            Signature::from_slice(&proof.signature).map_err(|_| HelloError::Signature)?;
        key.verify_strict(&self.to_bytes(), &signature)
            .map_err(|_| HelloError::Signature)
    }
}

/// A key and what it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The public key as libp2p encodes it.
    pub key: Bytes,
    /// The signature.
    pub signature: Bytes,
}

/// A message of `chiral`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChiralMessage {
    /// Who sends this is who he says.
    Proof(Proof),
    /// From an agent to a gate.
    Payment {
        /// Number of the question, for its answer.
        question: u32,
        /// Unread here.
        body: Bytes,
    },
    /// Asks for the manifest's header.
    AskHeader {
        /// Number of the question, for its answer.
        question: u32,
    },
    /// Asks for a page of the manifest.
    AskPage {
        /// Number of the question, for its answer.
        question: u32,
        /// Which page.
        index: u32,
    },
    /// Asks that bytes which have a price may be asked for; answered by an [`Admitted`].
    Admit {
        /// Number of the question, for its answer.
        question: u32,
        /// Bytes of the torrent.
        range: ByteRange,
        /// What the agent shows. Unread here.
        credential: Option<Bytes>,
    },
    /// Nothing more of what was admitted will be asked for.
    Release {
        /// What was admitted.
        range: ByteRange,
    },
    /// Asks what the content costs; answered by [`write_tariff`].
    AskTariff {
        /// Number of the question, for its answer.
        question: u32,
    },
    /// The answer to any of these.
    Answer {
        /// The question's number.
        question: u32,
        /// Of a gate, unread here; a header; a page. Nothing if there is none.
        body: Option<Bytes>,
    },
}

impl ChiralMessage {
    /// The body of the message.
    pub fn encode(&self) -> Vec<u8> {
        let kind = |kind| DictWriter::new().int("t", kind);
        match self {
            Self::Proof(proof) => kind(0)
                .bytes("k", &proof.key)
                .bytes("s", &proof.signature)
                .finish(),
            Self::Payment { question, body } => kind(1)
                .int("q", (*question).into())
                .bytes("b", body)
                .finish(),
            Self::AskHeader { question } => kind(3).int("q", (*question).into()).finish(),
            Self::AskPage { question, index } => kind(4)
                .int("q", (*question).into())
                .int("i", (*index).into())
                .finish(),
            Self::Admit {
                question,
                range,
                credential,
            } => {
                let admit = kind(5)
                    .int("e", number(range.end))
                    .int("q", (*question).into())
                    .int("s", number(range.start));
                match credential {
                    Some(credential) => admit.bytes("b", credential).finish(),
                    None => admit.finish(),
                }
            }
            Self::Release { range } => kind(6)
                .int("e", number(range.end))
                .int("s", number(range.start))
                .finish(),
            Self::AskTariff { question } => kind(7).int("q", (*question).into()).finish(),
            Self::Answer { question, body } => {
                let answer = kind(2).int("q", (*question).into());
                match body {
                    Some(body) => answer.bytes("b", body).finish(),
                    None => answer.finish(),
                }
            }
        }
    }

    /// Reads one; `None` for a kind that a later version may have, to be ignored.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub fn decode(body: &[u8]) -> Result<Option<Self>, ExtensionError> {
        let what = "chiral message";
        let message = read(body, |dict, rest| {
            if !rest.is_empty() {
                return None;
            }
            let short = |key, most| {
                let bytes = dict.bytes_of(key).filter(|bytes| bytes.len() <= most)?;
                Some(Bytes::copy_from_slice(bytes))
            };
            let question = || u32::try_from(dict.int_of("q")?).ok();
            let range = || {
                let (start, end) = (dict.int_of("s")?, dict.int_of("e")?);
                let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end).ok()?);
                (start < end).then(|| ByteRange::new(start, end))
            };
            Some(match dict.int_of("t")? {
                0 => Some(Self::Proof(Proof {
                    key: short("k", MAX_KEY)?,
                    signature: short("s", MAX_KEY)?,
                })),
                1 => Some(Self::Payment {
                    question: question()?,
                    body: short("b", MAX_CHIRAL_BODY)?,
                }),
                2 => Some(Self::Answer {
                    question: question()?,
                    body: match dict.bytes_of("b") {
                        Some(_) => Some(short("b", MAX_CHIRAL_ANSWER)?),
                        None => None,
                    },
                }),
                3 => Some(Self::AskHeader {
                    question: question()?,
                }),
                4 => Some(Self::AskPage {
                    question: question()?,
                    index: u32::try_from(dict.int_of("i")?).ok()?,
                }),
                5 => Some(Self::Admit {
                    question: question()?,
                    range: range()?,
                    credential: match dict.bytes_of("b") {
                        Some(_) => Some(short("b", MAX_CHIRAL_BODY)?),
                        None => None,
                    },
                }),
                6 => Some(Self::Release { range: range()? }),
                7 => Some(Self::AskTariff {
                    question: question()?,
                }),
                _ => None,
            })
        });
        message.ok_or(ExtensionError { what })
    }
}

/// An offset as bencode has numbers. No torrent is so large that it does not fit.
fn number(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The answer to [`ChiralMessage::Admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// The bytes may be asked for.
    Granted,
    /// Not before payment is arranged: the terms, for the agent.
    PaymentRequired(Bytes),
    /// Not now, or not at all.
    Refused {
        /// Why, in words.
        reason: String,
        /// Whether asking again later makes sense.
        retryable: bool,
    },
}

/// Longest reason for a refusal that is sent or taken, in bytes.
const MAX_REASON: usize = 512;

impl Admitted {
    /// What a gate decided.
    pub fn of(admission: Admission) -> Self {
        match admission {
            Admission::Granted => Self::Granted,
            Admission::PaymentRequired(terms) => Self::PaymentRequired(terms),
            Admission::Refused { reason } => Self::Refused {
                reason,
                retryable: false,
            },
            _ => Self::Refused {
                reason: "not understood".to_owned(),
                retryable: false,
            },
        }
    }

    /// As the body of an answer.
    pub fn encode(&self) -> Bytes {
        let (kind, rest) = match self {
            Self::Granted => (0, &[][..]),
            Self::PaymentRequired(terms) => (1, &terms[..]),
            Self::Refused { reason, retryable } => {
                let mut end = reason.len().min(MAX_REASON);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                let kind = if *retryable { 3 } else { 2 };
                (kind, &reason.as_bytes()[..end])
            }
        };
        [&[kind], rest].concat().into()
    }

    /// Reads one; `None` for a body that is none.
    pub fn decode(body: &Bytes) -> Option<Self> {
        let rest = body.get(1..)?;
        let refused = |retryable| {
            let text = rest.get(..rest.len().min(MAX_REASON)).unwrap_or_default();
            let reason = String::from_utf8_lossy(text).into_owned();
            Self::Refused { reason, retryable }
        };
        match body[0] {
            0 => rest.is_empty().then_some(Self::Granted),
            1 => (rest.len() <= MAX_CHIRAL_BODY).then(|| Self::PaymentRequired(body.slice(1..))),
            2 => Some(refused(false)),
            3 => Some(refused(true)),
            _ => None,
        }
    }
}

/// What content costs, as the body of an answer: nothing if it is free; else the wallet, if
/// there is one, with a byte before it that says so, and the price in wei per MiB.
pub fn write_tariff(tariff: &Tariff) -> Bytes {
    if tariff.price.is_free() {
        return Bytes::new();
    }
    let mut body = Vec::with_capacity(53);
    match tariff.wallet {
        Some(wallet) => {
            body.push(1);
            body.extend(wallet.as_slice());
        }
        None => body.push(0),
    }
    body.extend(tariff.price.wei_per_mib().to_be_bytes_trimmed_vec());
    body.into()
}

/// Reads what [`write_tariff`] wrote; `None` for a body that is none.
pub fn read_tariff(body: &[u8]) -> Option<Tariff> {
    let mut tariff = Tariff::default();
    let price = match body.split_first() {
        None => return Some(tariff),
        Some((0, price)) => price,
        Some((1, rest)) => {
            let (wallet, price) = rest.split_first_chunk::<20>()?;
            tariff.wallet = Some(Address::from(*wallet));
            price
        }
        Some(_) => return None,
    };
    tariff.price = Price::from_wei_per_mib(U256::try_from_be_slice(price)?);
    Some(tariff)
}

#[cfg(test)]
mod tests;
