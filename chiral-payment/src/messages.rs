//! What gate and agent say to each other.
//!
//! A message is a tag byte, an ABI-encoded struct and, for words that are signed, 65 bytes
//! of signature (`r ‖ s ‖ y`, the lower `s` only). Signed is the EIP-712 hash of the same
//! struct in [`ChainFacts::domain`]. A message has one encoding: whatever does not encode
//! back to the same bytes is refused.

use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolValue;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{Cid, GateError, WalletSignature};

use crate::channel::{self, ChannelMessage};
use crate::receipt::Receipt;

mod pricing;
mod quote;
pub(crate) mod ranges;
mod session;
mod signed;
pub(crate) mod sol;

pub use pricing::{Concessions, Discount, MAX_DISCOUNTS, NoConcession, Pricing};
pub use quote::{Accept, CounterOffer, Policy, Quote, agreement};
pub use session::{Ack, Notice, Request};
pub(crate) use signed::Statement;
pub use signed::{ChainFacts, Signed};

/// Most ranges in one acknowledgement.
pub const MAX_ACK_RANGES: usize = 256;

/// Most bytes of a refusal's reason.
pub const MAX_REASON: usize = 256;

const SIGNATURE: usize = 65;

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a payment message: {reason}")]
pub struct Malformed {
    /// What is wrong.
    pub reason: &'static str,
}

impl From<Malformed> for GateError {
    fn from(malformed: Malformed) -> Self {
        Self::Message {
            reason: malformed.reason,
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Buyer: what are your terms for me?
    QuoteRequest {
        /// The file.
        cid: Cid,
        /// The buyer's wallet.
        payer: Address,
    },
    /// Seeder: these.
    Quote(Signed<Quote>),
    /// Buyer: taken. The quote comes back, so that the seeder need not remember it.
    Accept {
        /// The word of the payer's wallet.
        accept: Signed<Accept>,
        /// The seeder's own word.
        quote: Signed<Quote>,
    },
    /// Buyer: not at this price, but at that one. Once for a quote.
    CounterOffer {
        /// The word of the payer's wallet.
        offer: Signed<CounterOffer>,
        /// The seeder's own word.
        quote: Signed<Quote>,
    },
    /// Seeder: then we have an agreement.
    Accepted {
        /// Its hash.
        agreement: B256,
    },
    /// Buyer, with each request: it is me, and for this.
    Request(Signed<Request>),
    /// Buyer: I verified this much.
    Ack(Signed<Ack>),
    /// Seeder: noted.
    Acked {
        /// The agreement.
        agreement: B256,
        /// The last acknowledgement that is noted.
        sequence: u32,
    },
    /// Seeder: before I serve more, settle or acknowledge.
    Due {
        /// The agreement.
        agreement: B256,
        /// Wei to be settled; zero if an acknowledgement will do.
        amount: U256,
        /// Under [`Policy::PayFirst`]: bytes that the request needs to be paid for.
        prepay_bytes: u64,
    },
    /// Buyer: paid, look.
    Notice(Signed<Notice>),
    /// Seeder: received.
    Receipt(Signed<Receipt>),
    /// Seeder: I cannot see it yet, or it is not deep enough yet.
    NotYet {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Seeder: no such agreement here, or no longer; ask for terms again.
    Ended {
        /// The agreement.
        agreement: B256,
    },
    /// Seeder: no, and asking again will not help.
    Refused {
        /// Why, in words; at most [`MAX_REASON`] bytes.
        reason: String,
    },
    /// About a channel.
    Channel(ChannelMessage),
}

impl Message {
    /// The message as bytes, at most [`MAX_PAYMENT_MESSAGE`].
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::QuoteRequest { cid, payer } => plain(
                &mut out,
                1,
                &sol::QuoteRequest {
                    cid: B256::from(*cid.as_bytes()),
                    payer: *payer,
                },
            ),
            Self::Quote(quote) => signed(&mut out, 2, quote),
            Self::Accept { accept, quote } => with_quote(&mut out, 3, accept, quote),
            Self::CounterOffer { offer, quote } => with_quote(&mut out, 14, offer, quote),
            Self::Accepted { agreement } => {
                let agreement = *agreement;
                plain(&mut out, 4, &sol::Accepted { agreement });
            }
            Self::Request(request) => signed(&mut out, 5, request),
            Self::Ack(ack) => signed(&mut out, 6, ack),
            Self::Acked {
                agreement,
                sequence,
            } => plain(
                &mut out,
                7,
                &sol::Acked {
                    agreement: *agreement,
                    sequence: *sequence,
                },
            ),
            Self::Due {
                agreement,
                amount,
                prepay_bytes,
            } => plain(
                &mut out,
                8,
                &sol::Due {
                    agreement: *agreement,
                    amount: *amount,
                    prepayBytes: *prepay_bytes,
                },
            ),
            Self::Notice(notice) => signed(&mut out, 9, notice),
            Self::Receipt(receipt) => signed(&mut out, 10, receipt),
            Self::NotYet { retry_after } => {
                let millis = retry_after.as_millis();
                let millis = u32::try_from(millis).unwrap_or(u32::MAX);
                plain(
                    &mut out,
                    11,
                    &sol::NotYet {
                        retryAfterMillis: millis,
                    },
                );
            }
            Self::Ended { agreement } => {
                let agreement = *agreement;
                plain(&mut out, 12, &sol::Ended { agreement });
            }
            Self::Refused { reason } => {
                let reason = readable(reason);
                plain(&mut out, 13, &sol::Refused { reason });
            }
            Self::Channel(message) => message.encode(&mut out),
        }
        out.into()
    }

    /// Reads a message. Signatures are checked in form only.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_PAYMENT_MESSAGE {
            return Err(Malformed {
                reason: "over the limit",
            });
        }
        let (&tag, rest) = bytes.split_first().ok_or(Malformed { reason: "empty" })?;
        Ok(match tag {
            1 => {
                let sol::QuoteRequest { cid, payer } = read(rest)?;
                let cid = Cid::from_bytes(cid.0);
                Self::QuoteRequest { cid, payer }
            }
            2 => Self::Quote(read_signed(rest)?),
            3 => {
                let (accept, quote) = read_with_quote(rest)?;
                Self::Accept { accept, quote }
            }
            14 => {
                let (offer, quote) = read_with_quote(rest)?;
                Self::CounterOffer { offer, quote }
            }
            4 => {
                let sol::Accepted { agreement } = read(rest)?;
                Self::Accepted { agreement }
            }
            5 => Self::Request(read_signed(rest)?),
            6 => Self::Ack(read_signed(rest)?),
            7 => {
                let sol::Acked {
                    agreement,
                    sequence,
                } = read(rest)?;
                Self::Acked {
                    agreement,
                    sequence,
                }
            }
            8 => {
                let due: sol::Due = read(rest)?;
                Self::Due {
                    agreement: due.agreement,
                    amount: due.amount,
                    prepay_bytes: due.prepayBytes,
                }
            }
            9 => Self::Notice(read_signed(rest)?),
            10 => Self::Receipt(read_signed(rest)?),
            11 => {
                let not_yet: sol::NotYet = read(rest)?;
                let retry_after = Duration::from_millis(not_yet.retryAfterMillis.into());
                Self::NotYet { retry_after }
            }
            12 => {
                let sol::Ended { agreement } = read(rest)?;
                Self::Ended { agreement }
            }
            13 => {
                let sol::Refused { reason } = read(rest)?;
                if readable(&reason) != reason {
                    return Err(Malformed {
                        reason: "a reason that is too long or not printable",
                    });
                }
                Self::Refused { reason }
            }
            tag if channel::messages::TAGS.contains(&tag) => {
                Self::Channel(ChannelMessage::decode(tag, rest)?)
            }
            _ => {
                return Err(Malformed {
                    reason: "an unknown kind of message",
                });
            }
        })
    }
}

const SHORT: Malformed = Malformed {
    reason: "too short",
};

pub(crate) fn plain(out: &mut Vec<u8>, tag: u8, body: &impl SolValue) {
    out.push(tag);
    out.extend_from_slice(&body.abi_encode());
}

pub(crate) fn signed<T: Statement>(out: &mut Vec<u8>, tag: u8, word: &Signed<T>) {
    plain(out, tag, &word.body.to_sol());
    out.extend_from_slice(word.signature.as_bytes());
}

/// A buyer's word about a quote, and the quote.
fn with_quote<T: Statement>(out: &mut Vec<u8>, tag: u8, word: &Signed<T>, quote: &Signed<Quote>) {
    signed(out, tag, word);
    out.extend_from_slice(&quote.body.to_sol().abi_encode());
    out.extend_from_slice(quote.signature.as_bytes());
}

/// A buyer's word about a quote, of three words of 32 bytes, and the quote.
fn read_with_quote<T: Statement>(bytes: &[u8]) -> Result<(Signed<T>, Signed<Quote>), Malformed>
where
    T::Sol: From<<<T::Sol as SolValue>::SolType as alloy_sol_types::SolType>::RustType>,
{
    let (word, quote) = bytes.split_at_checked(3 * 32 + SIGNATURE).ok_or(SHORT)?;
    Ok((read_signed(word)?, read_signed(quote)?))
}

/// Reads a struct that is all of `bytes`, in its one encoding.
pub(crate) fn read<T>(bytes: &[u8]) -> Result<T, Malformed>
where
    T: SolValue + From<<T::SolType as alloy_sol_types::SolType>::RustType>,
{
    const BAD: Malformed = Malformed {
        reason: "not in the form of its kind",
    };
    let body = T::abi_decode_validate(bytes).map_err(|_| BAD)?;
    if body.abi_encode() != bytes {
        return Err(BAD);
    }
    Ok(body)
}

pub(crate) fn read_signed<T: Statement>(bytes: &[u8]) -> Result<Signed<T>, Malformed>
where
    T::Sol: From<<<T::Sol as SolValue>::SolType as alloy_sol_types::SolType>::RustType>,
{
    let length = bytes.len().checked_sub(SIGNATURE).ok_or(SHORT)?;
    let (body, signature) = bytes.split_at(length);
    let signature = signature.try_into().map_err(|_| SHORT)?;
    let signature = WalletSignature::from_bytes(signature).map_err(|_| Malformed {
        reason: "no signature, or one with the higher s",
    })?;
    let body = T::from_sol(read(body)?)?;
    Ok(Signed { body, signature })
}

/// The beginning of a text that fits, without anything that is not printable ASCII.
fn readable(text: &str) -> String {
    text.chars()
        .filter(|c| *c == ' ' || c.is_ascii_graphic())
        .take(MAX_REASON)
        .collect()
}

#[cfg(test)]
mod tests;
