//! [`Quote`] of the seeder and [`Accept`] of the buyer: together, an agreement.

use alloy_primitives::{Address, B256, keccak256};
use chiral_core::{Cid, Price};

use super::pricing::{Concessions, Pricing};
use super::signed::{ChainFacts, Signed, Statement};
use super::{Malformed, sol};
use crate::channel::ChannelTerms;

/// When is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Transfer, verify, settle: the buyer risks nothing, the seeder its credit line.
    PayAfter,
    /// Pay, then transfer: the seeder risks nothing, the buyer what is paid and not yet
    /// delivered.
    PayFirst,
    /// Settle, or pay with a voucher, every [`ChannelTerms::batch`] chunks: the seeder risks
    /// those.
    Incremental,
    /// Pay with vouchers out of a channel: the seeder risks a window, which grows from one
    /// chunk on ([`ChannelTerms::window`]).
    Channel,
    /// Sealed chunks, each paid with a locked voucher for its key: the buyer risks the price
    /// of one chunk, the seeder the upload of a window.
    LockedVoucher,
}

impl Policy {
    /// Whether a channel may pay under it.
    pub(crate) fn may_use_channel(self) -> bool {
        !matches!(self, Self::PayAfter | Self::PayFirst)
    }

    /// Whether a channel is needed before anything is served.
    pub fn needs_channel(self) -> bool {
        matches!(self, Self::Channel | Self::LockedVoucher)
    }
}

/// A seeder's terms for one file, signed by its wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Random; makes every quote another.
    pub id: B256,
    /// The file.
    pub cid: Cid,
    /// Who may accept; zero for terms that are only shown, to somebody who did not say who
    /// it is.
    pub payer: Address,
    /// The seeder's wallet.
    pub payee: Address,
    /// The price.
    pub price: Price,
    /// What is taken off it.
    pub concessions: Concessions,
    /// What was signed as the counter-offer that this answers; zero for terms that are as
    /// they were announced.
    pub answers: B256,
    /// When is paid.
    pub policy: Policy,
    /// Most that the payer may owe at a time, in wei, as things stand.
    pub credit_limit: alloy_primitives::U256,
    /// Fewest bytes that are paid for at once in advance (all that are left, if fewer).
    pub prepay_bytes: u64,
    /// Blocks, its own included, that make a payment firm for this seeder.
    pub confirmations: u32,
    /// Where payments are made.
    pub chain: ChainFacts,
    /// Channels, windows and batches, where the policy has them.
    pub channel: ChannelTerms,
    /// Until when it can be accepted and requests are served under it: seconds since 1970
    /// (UTC). What was delivered by then is paid at this price whenever it is settled.
    pub valid_until: u64,
}

impl Quote {
    /// What bytes cost under it.
    pub fn pricing(&self) -> Pricing {
        Pricing::new(self.price, self.concessions.clone())
    }
}

impl Statement for Quote {
    type Sol = sol::Quote;

    fn to_sol(&self) -> sol::Quote {
        sol::Quote {
            id: self.id,
            cid: B256::from(*self.cid.as_bytes()),
            payer: self.payer,
            payee: self.payee,
            pricePerMib: self.price.wei_per_mib(),
            freeBytes: self.concessions.free_bytes(),
            discounts: self.concessions.to_sol(),
            answers: self.answers,
            policy: match self.policy {
                Policy::PayAfter => 0,
                Policy::PayFirst => 1,
                Policy::Incremental => 2,
                Policy::Channel => 3,
                Policy::LockedVoucher => 4,
            },
            creditLimit: self.credit_limit,
            prepayBytes: self.prepay_bytes,
            confirmations: self.confirmations,
            chainId: self.chain.chain_id,
            genesis: self.chain.genesis,
            batchPay: self.chain.batch_pay,
            channel: sol::ChannelTerms {
                contractAt: self.channel.contract,
                challenge: self.channel.challenge,
                windowFirst: self.channel.window_first,
                windowCap: self.channel.window_cap,
                batchChunks: self.channel.batch,
            },
            validUntil: self.valid_until,
        }
    }

    fn from_sol(quote: sol::Quote) -> Result<Self, Malformed> {
        let policy = match quote.policy {
            0 => Policy::PayAfter,
            1 => Policy::PayFirst,
            2 => Policy::Incremental,
            3 => Policy::Channel,
            4 => Policy::LockedVoucher,
            _ => {
                return Err(Malformed {
                    reason: "an unknown policy",
                });
            }
        };
        let channel = ChannelTerms {
            contract: quote.channel.contractAt,
            challenge: quote.channel.challenge,
            window_first: quote.channel.windowFirst,
            window_cap: quote.channel.windowCap,
            batch: quote.channel.batchChunks,
        };
        if !channel.make_sense() || (policy.needs_channel() && channel.contract.is_zero()) {
            return Err(Malformed {
                reason: "terms that nobody can keep to",
            });
        }
        Ok(Self {
            id: quote.id,
            cid: Cid::from_bytes(quote.cid.0),
            payer: quote.payer,
            payee: quote.payee,
            price: Price::from_wei_per_mib(quote.pricePerMib),
            concessions: Concessions::from_sol(quote.freeBytes, quote.discounts)?,
            answers: quote.answers,
            policy,
            credit_limit: quote.creditLimit,
            prepay_bytes: quote.prepayBytes,
            confirmations: quote.confirmations,
            chain: ChainFacts {
                chain_id: quote.chainId,
                genesis: quote.genesis,
                batch_pay: quote.batchPay,
            },
            channel,
            valid_until: quote.validUntil,
        })
    }
}

/// A buyer would take a quote at another price, signed by its wallet. The quote's hash binds it
/// to the payee, the file, the chain, and the time that the quote holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterOffer {
    /// What was signed as the quote.
    pub quote: B256,
    /// Who would pay.
    pub payer: Address,
    /// The price that it would pay.
    pub price: Price,
}

impl Statement for CounterOffer {
    type Sol = sol::CounterOffer;

    fn to_sol(&self) -> sol::CounterOffer {
        sol::CounterOffer {
            quote: self.quote,
            payer: self.payer,
            pricePerMib: self.price.wei_per_mib(),
        }
    }

    fn from_sol(offer: sol::CounterOffer) -> Result<Self, Malformed> {
        Ok(Self {
            quote: offer.quote,
            payer: offer.payer,
            price: Price::from_wei_per_mib(offer.pricePerMib),
        })
    }
}

/// A buyer takes a quote, signed by its wallet, and names the key that speaks for it from
/// then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// What was signed as the quote.
    pub quote: B256,
    /// Who pays.
    pub payer: Address,
    /// Address of the key that signs requests, acknowledgements and notices.
    pub session_key: Address,
}

impl Statement for Accept {
    type Sol = sol::Accept;

    fn to_sol(&self) -> sol::Accept {
        sol::Accept {
            quote: self.quote,
            payer: self.payer,
            sessionKey: self.session_key,
        }
    }

    fn from_sol(accept: sol::Accept) -> Result<Self, Malformed> {
        Ok(Self {
            quote: accept.quote,
            payer: accept.payer,
            session_key: accept.sessionKey,
        })
    }
}

/// The agreement that quote and accept make on a chain; bills are derived from it
/// ([`BillId::derive`](chiral_core::BillId::derive)).
pub fn agreement(quote: &Signed<Quote>, accept: &Signed<Accept>, chain: &ChainFacts) -> B256 {
    let mut bytes = quote.digest(chain).to_vec();
    bytes.extend_from_slice(accept.digest(chain).as_slice());
    keccak256(&bytes)
}
