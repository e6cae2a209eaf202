//! Whether a quote is what was announced.

use alloy_primitives::Address;
use chiral_core::{GateError, Price, Purchase};

use super::config::AgentConfig;
use crate::messages::{ChainFacts, Policy, Quote, Signed};

/// Checks a quote against the announcement, the buyer's limits and the chain. `offered` is the
/// price of the buyer's own counter-offer, if the quote answers it; whether the price is over
/// the limit is for the caller to say.
///
/// # Errors
/// [`GateError::Terms`] for whatever differs from the announcement or is not its wallet's;
/// [`GateError::RootUnknown`].
pub(super) fn check(
    quote: &Signed<Quote>,
    purchase: &Purchase,
    offered: Option<Price>,
    payer: Address,
    (chain, channels): (&ChainFacts, Option<Address>),
    config: &AgentConfig,
    now: u64,
) -> Result<(), GateError> {
    let (terms, offer) = (&quote.body, &purchase.offer);
    let announced = offer.valid_until.unwrap_or_default();
    let latest = now.saturating_add(config.max_quote_ahead.as_secs());
    let differs = |reason| Err(GateError::Terms { reason });
    let agreed = terms.price == offer.price || offered == Some(terms.price);
    match () {
        () if terms.cid != purchase.cid => differs("another file"),
        () if !agreed => differs("another price"),
        () if offered.is_none() && !terms.answers.is_zero() => differs("answers another offer"),
        () if offer.wallet.is_none() => differs("no wallet was announced"),
        () if Some(terms.payee) != offer.wallet => differs("another wallet"),
        () if terms.chain != *chain => differs("another chain"),
        () if !quote.is_by(terms.payee, chain) => differs("not signed by the wallet"),
        () if terms.valid_until <= now => differs("expired"),
        () if terms.valid_until < announced => differs("expires before the announcement does"),
        () if terms.valid_until > latest => differs("holds for too long"),
        () if terms.payee == payer => differs("the buyer's own wallet"),
        () if !terms.payer.is_zero() && terms.payer != payer => differs("for another buyer"),
        () if !config.policies.contains(&terms.policy) => differs("a policy that is not wanted"),
        () if terms.policy.needs_channel() && channels != Some(terms.channel.contract) => {
            differs("another contract of channels")
        }
        () if terms.policy.needs_channel() && terms.channel.challenge > config.max_challenge => {
            differs("locks a deposit for too long")
        }
        // A key opens what only its own hash can be held against.
        () if terms.policy == Policy::LockedVoucher && !purchase.root_known => {
            Err(GateError::RootUnknown)
        }
        () if terms.policy == Policy::PayFirst && !purchase.root_known => {
            Err(GateError::RootUnknown)
        }
        () if terms.policy == Policy::PayFirst && terms.prepay_bytes > config.max_prepay_bytes => {
            differs("wants too much in advance")
        }
        () => Ok(()),
    }
}
