//! What a gate asks for each file, and what it says to those who want it for less.

use super::*;
use crate::messages::Concessions;

/// Files with terms of their own, at most.
const MAX_FILES: usize = 1 << 20;

/// What a seeder asks for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileTerms {
    /// The price that is announced.
    pub price: Price,
    /// The lowest price that a buyer who asks for another gets; without one there is no
    /// bargaining.
    pub floor: Option<Price>,
    /// Lower prices from some bytes on. Free bytes are not given here, but by
    /// [`GateConfig::allowance`].
    pub discounts: Concessions,
}

impl FileTerms {
    /// A price, and nothing off.
    pub fn new(price: Price) -> Self {
        Self {
            price,
            floor: None,
            discounts: Concessions::default(),
        }
    }

    /// See [`FileTerms::floor`].
    #[must_use]
    pub fn with_floor(mut self, floor: Price) -> Self {
        self.floor = Some(floor);
        self
    }

    /// See [`FileTerms::discounts`].
    #[must_use]
    pub fn with_discounts(mut self, discounts: Concessions) -> Self {
        self.discounts = discounts;
        self
    }
}

impl ChainGate {
    /// Sets a file's price, without bargaining or discounts, as [`ChainGate::set_terms`] does.
    pub fn set_price(&self, cid: Cid, price: Price) {
        self.set_terms(cid, FileTerms::new(price));
    }

    /// Sets what is asked for a file. Quotes that were given stay as they are, and so do the
    /// bills under them. It outlasts a restart once [`ChainGate::keep_terms`] has answered, or
    /// [`GateConfig::flush_interval`] has passed.
    pub fn set_terms(&self, cid: Cid, terms: FileTerms) {
        let mut files = lock(&self.inner.terms);
        if files.len() < MAX_FILES || files.contains_key(&cid) {
            files.insert(cid, terms);
            self.books().touch_file(cid);
        } else {
            tracing::warn!(%cid, "too many files with terms of their own; the general ones hold");
        }
        // What is shown to strangers is signed anew.
        lock(&self.inner.shown).remove(&cid);
    }

    /// A file has no terms of its own any more: the general ones hold.
    pub fn clear_terms(&self, cid: Cid) {
        if lock(&self.inner.terms).remove(&cid).is_some() {
            self.books().touch_file(cid);
        }
        lock(&self.inner.shown).remove(&cid);
    }

    /// Makes the terms of all files durable.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn keep_terms(&self) -> Result<(), JournalError> {
        self.flush("gate-terms").await
    }

    /// What is asked for a file now.
    pub fn terms(&self, cid: Cid) -> FileTerms {
        let files = lock(&self.inner.terms);
        files.get(&cid).cloned().unwrap_or_else(|| {
            let config = &self.inner.config;
            FileTerms {
                price: config.price,
                floor: config.floor,
                discounts: config.discounts.clone(),
            }
        })
    }

    /// A file's price now.
    pub fn price(&self, cid: Cid) -> Price {
        let files = lock(&self.inner.terms);
        let own = files.get(&cid).map(|terms| terms.price);
        own.unwrap_or(self.inner.config.price)
    }

    /// A buyer would pay another price: that one if it is not under the floor, or else the
    /// announced terms again. There is no second round: what answers a counter-offer cannot be
    /// bargained over.
    pub(super) async fn bargain(
        &self,
        offer: Signed<CounterOffer>,
        quote: Signed<Quote>,
    ) -> Result<Bytes, GateError> {
        let (chain, payee) = (&self.inner.chain, self.inner.payee);
        let (now, wanted) = (self.now(), offer.body.price);
        let (cid, payer) = (quote.body.cid, quote.body.payer);
        let reason = match () {
            () if !quote.is_by(payee, chain) || quote.body.payee != payee => "not a quote of mine",
            () if quote.body.chain != *chain => "a quote for another chain",
            () if offer.body.quote != quote.digest(chain) => "an offer for another quote",
            () if payer.is_zero() => "a quote that is for nobody",
            () if payer != offer.body.payer => "a quote for another wallet",
            () if !offer.is_by(payer, chain) => "not signed by the payer",
            () if quote.body.valid_until <= now => "the quote has expired",
            () if !quote.body.answers.is_zero() => "one counter-offer is enough",
            () if wanted.is_free() || wanted >= quote.body.price => "no offer of another price",
            () => {
                let terms = self.terms(cid);
                let price = match terms.floor {
                    Some(floor) if wanted >= floor => wanted.min(terms.price),
                    _ => terms.price,
                };
                let answers = offer.digest(chain);
                return self.terms_for(cid, payer, price, answers).await;
            }
        };
        Ok(refused(reason).encode())
    }
}
