//! Counter-offers: one for a seeder that asks for more than is wanted, and never a second.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use chiral_core::Price;

use super::*;
use crate::messages::CounterOffer;

/// Seeders of which the answer to a counter-offer is awaited, at most; beyond, all are
/// forgotten, and what answers them is refused.
const MAX_BIDS: usize = 4096;

/// Conversations with one seeder that may make an offer at the same time.
const MAX_AT_ONCE: usize = 16;

/// What was offered to whom, by the hash that was signed.
#[derive(Debug, Default)]
pub(super) struct Bids(Mutex<HashMap<Key, VecDeque<(B256, Price)>>>);

impl Bids {
    fn note(&self, key: Key, digest: B256, price: Price) {
        let mut bids = lock(&self.0);
        if bids.len() >= MAX_BIDS {
            bids.clear();
        }
        let its = bids.entry(key).or_default();
        if its.len() >= MAX_AT_ONCE {
            its.pop_front();
        }
        its.push_back((digest, price));
    }

    /// What was offered, if `digest` is the offer.
    pub(super) fn answered(&self, key: &Key, digest: B256) -> Option<Price> {
        let bids = lock(&self.0);
        let its = bids.get(key)?;
        let made = its.iter().find(|(made, _)| *made == digest)?;
        Some(made.1)
    }

    pub(super) fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }
}

impl ChainAgent {
    /// The price to offer instead of `asked`, if there is one.
    pub(super) fn bid(&self, asked: Price) -> Option<Price> {
        let config = &self.inner.config;
        let most = config.max_price;
        let bid = match config.bid {
            Some(bid) => most.map_or(bid, |most| bid.min(most)),
            None => most?,
        };
        (bid < asked && !bid.is_free()).then_some(bid)
    }

    /// What is said to terms that are too dear, if anything is.
    pub(super) async fn counter(
        &self,
        key: &Key,
        quote: &Signed<Quote>,
    ) -> Result<Option<Bytes>, GateError> {
        if !quote.body.answers.is_zero() {
            return Ok(None);
        }
        let Some(price) = self.bid(quote.body.price) else {
            return Ok(None);
        };
        let (chain, wallet) = (&self.inner.chain, &*self.inner.wallet);
        let offer = CounterOffer {
            quote: quote.digest(chain),
            payer: self.inner.payer,
            price,
        };
        let offer = Signed::sign(offer, chain, wallet).await;
        let offer = offer.map_err(|error| GateError::Wallet(Arc::new(error)))?;
        self.inner
            .bids
            .note(key.clone(), offer.digest(chain), price);
        let quote = quote.clone();
        Ok(Some(Message::CounterOffer { offer, quote }.encode()))
    }
}
