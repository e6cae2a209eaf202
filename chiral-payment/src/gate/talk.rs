//! What the gate says: quotes, agreements, acknowledgements, receipts.

use super::*;

impl ChainGate {
    pub(super) async fn quote(&self, cid: Cid, payer: Address) -> Result<Bytes, GateError> {
        let inner = &self.inner;
        let (price, now) = (self.price(cid), self.now());
        if payer.is_zero()
            && let Some((at, until, bytes)) = lock(&inner.shown).get(&cid)
            && *at == price
            && *until > now
        {
            return Ok(bytes.clone());
        }
        if inner.config.policy.needs_channel() && inner.channels.is_none() {
            return Err(GateError::Unsupported {
                what: "payment in channels",
            });
        }
        let bytes = self.terms_for(cid, payer, price, B256::ZERO).await?;
        let lifetime = inner.config.quote_lifetime.as_secs();
        if payer.is_zero() {
            let mut shown = lock(&inner.shown);
            if shown.len() >= MAX_SHOWN {
                shown.clear();
            }
            // Signed anew while most of its time is left.
            shown.insert(cid, (price, now + lifetime / 8, bytes.clone()));
        }
        Ok(bytes)
    }

    /// Signed terms for a wallet, or for nobody in particular.
    pub(super) async fn terms_for(
        &self,
        cid: Cid,
        payer: Address,
        price: Price,
        answers: B256,
    ) -> Result<Bytes, GateError> {
        let mut id = B256::ZERO;
        getrandom::fill(&mut id.0).map_err(|error| GateError::Wallet(Arc::new(error)))?;
        let (inner, now) = (&self.inner, self.now());
        let rules = &inner.config.credit;
        let least = price.cost(rules.least_bytes).unwrap_or(U256::MAX);
        let lifetime = inner.config.quote_lifetime.as_secs();
        let concessions = self.terms(cid).discounts.below(price);
        let (credit_limit, free) = {
            let mut books = self.books();
            let free = match payer.is_zero() {
                true => 0,
                false => books.gift(payer, cid, now),
            };
            (books.line(payer, least), free)
        };
        let quote = Quote {
            id,
            cid,
            payer,
            payee: inner.payee,
            price,
            concessions: concessions.with_free_bytes(free),
            answers,
            policy: inner.config.policy,
            credit_limit,
            prepay_bytes: inner.config.prepay_bytes,
            confirmations: inner.config.confirmations,
            chain: inner.chain,
            channel: inner.config.channel,
            valid_until: now.saturating_add(lifetime),
        };
        let quote = self.sign(quote).await?;
        Ok(Message::Quote(quote).encode())
    }

    // `Statement` is private to the crate, and so is this.
    pub(super) async fn sign<T: crate::messages::Statement>(
        &self,
        body: T,
    ) -> Result<Signed<T>, GateError> {
        let signed = Signed::sign(body, &self.inner.chain, &*self.inner.wallet).await;
        signed.map_err(|error| GateError::Wallet(Arc::new(error)))
    }

    pub(super) async fn accept(
        &self,
        message: Bytes,
        accept: Signed<Accept>,
        quote: Signed<Quote>,
    ) -> Result<Message, GateError> {
        let (chain, payee) = (&self.inner.chain, self.inner.payee);
        let now = self.now();
        let reason = match () {
            () if !quote.is_by(payee, chain) || quote.body.payee != payee => "not a quote of mine",
            () if quote.body.chain != *chain => "a quote for another chain",
            () if accept.body.quote != quote.digest(chain) => "accepts another quote",
            () if quote.body.payer.is_zero() => "a quote that is for nobody",
            () if quote.body.payer != accept.body.payer => "a quote for another wallet",
            () if !accept.is_by(accept.body.payer, chain) => "not signed by the payer",
            () if accept.body.session_key.is_zero() => "no session key",
            () if quote.body.valid_until <= now => "the quote has expired",
            () => {
                let agreement = agreement(&quote, &accept, chain);
                let Some(terms) = store::terms(message) else {
                    return Err(GateError::Message {
                        reason: "not an acceptance",
                    });
                };
                let made = self.books().accept(agreement, terms, now);
                match made {
                    Ok(()) => {
                        self.flush("gate-agreement").await.map_err(books_failed)?;
                        return Ok(Message::Accepted { agreement });
                    }
                    Err(NoAccount::Full) => "too many agreements",
                    // Terms that hold are not far away.
                    Err(NoAccount::GiftGone) => return Ok(Message::Ended { agreement }),
                }
            }
        };
        Ok(refused(reason))
    }

    /// Whether the key of a session signed a word.
    pub(super) fn is_of_session<T: crate::messages::Statement>(
        &self,
        agreement: B256,
        word: &Signed<T>,
    ) -> Option<bool> {
        let key = self.books().accounts.get(&agreement)?.terms.session_key;
        Some(self.inner.sessions.said(key, word, &self.inner.chain))
    }

    pub(super) async fn acknowledge(&self, ack: Signed<Ack>) -> Result<Message, GateError> {
        let agreement = ack.body.agreement;
        match self.is_of_session(agreement, &ack) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let noted = self.books().acknowledge(&ack.body);
        Ok(match noted {
            None => Message::Ended { agreement },
            Some(Ok(sequence)) => {
                self.flush("gate-ack").await.map_err(books_failed)?;
                Message::Acked {
                    agreement,
                    sequence,
                }
            }
            Some(Err(account::AckFault::Sequence)) => refused("an acknowledgement is missing"),
            Some(Err(account::AckFault::Total)) => refused("the total is not the sum"),
            Some(Err(account::AckFault::Ranges)) => refused("acknowledges what was not served"),
        })
    }

    pub(super) async fn notice(&self, notice: Signed<Notice>) -> Result<Message, GateError> {
        let agreement = notice.body.agreement;
        match self.is_of_session(agreement, &notice) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let notice = notice.body;
        let bill = BillId::derive(agreement, notice.sequence);
        if let Some(earning) = self.find_earning(bill).await? {
            return Ok(match earning.receipt.transaction == notice.transaction {
                true => Message::decode(&earning.message)?,
                false => refused("the bill was paid by another transaction"),
            });
        }
        let (payer, least) = {
            let books = self.books();
            let Some(account) = books.accounts.get(&agreement) else {
                return Ok(Message::Ended { agreement });
            };
            let least = account.terms.pricing.least(notice.bytes);
            (account.terms.payer, least)
        };
        let Some(cost) = least else {
            return Ok(refused("the amount overflows"));
        };
        if notice.bytes == 0 || notice.sequence >= account::MAX_BILLS || notice.amount < cost {
            return Ok(refused("the amount is too small for the bytes"));
        }
        let Ok(_look) = self.inner.looks.try_acquire() else {
            return Ok(not_yet());
        };
        let claim = Claim {
            bill,
            payer,
            payee: self.inner.payee,
            amount: notice.amount,
            transaction: notice.transaction,
        };
        Ok(match self.inner.witness.examine(&claim).await {
            Ok(Finding::Paid(payment)) => {
                self.earn(agreement, notice.sequence, notice.bytes, payment)
                    .await?
            }
            Ok(Finding::NotYet) => not_yet(),
            Ok(Finding::Refused { reason }) => refused(reason),
            Err(error) => {
                tracing::warn!(%error, "a payment cannot be looked up");
                not_yet()
            }
        })
    }

    pub(super) async fn find_earning(&self, bill: BillId) -> Result<Option<Earning>, GateError> {
        let found = self
            .inner
            .journal
            .read(move |step| store::find_earning(step, bill));
        found.await.map_err(books_failed)
    }

    /// Takes a verified payment for a bill, once; answers the receipt.
    pub(super) async fn earn(
        &self,
        agreement: B256,
        sequence: u32,
        bytes: u64,
        payment: Payment,
    ) -> Result<Message, GateError> {
        let now = self.now();
        let (cid, protocol) = {
            let books = self.books();
            let Some(account) = books.accounts.get(&agreement) else {
                return Ok(Message::Ended { agreement });
            };
            (account.terms.cid, account.protocol.clone())
        };
        let receipt = Receipt {
            bill: payment.bill,
            payer: payment.payer,
            payee: self.inner.payee,
            cid,
            bytes,
            amount: payment.amount,
            transaction: payment.transaction,
            time: now,
        };
        let receipt = self.sign(receipt).await?;
        let earning = Earning {
            agreement,
            sequence,
            protocol,
            message: Message::Receipt(receipt.clone()).encode(),
            receipt: receipt.body,
        };
        let gate = self.clone();
        let kept = self
            .step("gate-payment", move |step| {
                if let Some(before) = store::earning(step, earning.receipt.bill)? {
                    return Ok(before);
                }
                store::save_earning(step, &earning)?;
                let amount = earning.receipt.amount;
                gate.books().pay(agreement, sequence, bytes, amount, now);
                Ok(earning)
            })
            .await
            .map_err(books_failed)?;
        match kept.receipt.transaction == payment.transaction {
            true => Ok(Message::decode(&kept.message)?),
            false => Ok(refused("the bill was paid by another transaction")),
        }
    }
}
