//! What the agent says: accepts, acknowledgements, notices; and the leases that keep it from
//! saying the same twice at once.

use super::*;

impl ChainAgent {
    /// Terms have come.
    pub(super) async fn consider(
        &self,
        purchase: &Purchase,
        quote: Signed<Quote>,
    ) -> Result<Option<Bytes>, GateError> {
        let inner = &self.inner;
        let now = self.now();
        let (payer, chain) = (inner.payer, &inner.chain);
        let Some(key) = key(purchase) else {
            return Err(GateError::Terms {
                reason: "no wallet was announced",
            });
        };
        let offered = inner.bids.answered(&key, quote.body.answers);
        let contract = inner.channels.as_ref().map(|c| c.domain().contract());
        let chains = (chain, contract);
        terms::check(&quote, purchase, offered, payer, chains, &inner.config, now)?;
        let too_dear = inner
            .config
            .max_price
            .is_some_and(|most| quote.body.price > most);
        let can_bargain = quote.body.answers.is_zero() && self.bid(quote.body.price).is_some();
        if too_dear && !can_bargain {
            inner.bids.forget(&key);
            return Err(GateError::Price);
        }
        if quote.body.payer.is_zero() {
            let cid = purchase.cid;
            let usable = self.books().usable(&key, now).is_some();
            return Ok((!usable).then(|| Message::QuoteRequest { cid, payer }.encode()));
        }
        if can_bargain && let Some(offer) = self.counter(&key, &quote).await? {
            return Ok(Some(offer));
        }
        if !self.lease(&key).await {
            return Ok(None);
        }
        inner.bids.forget(&key);
        let session = PrivateKey::random().map_err(|error| GateError::Wallet(Arc::new(error)))?;
        let accept = Accept {
            quote: quote.digest(chain),
            payer,
            session_key: session.address(),
        };
        let accept = Signed::sign(accept, chain, &*inner.wallet).await;
        let accept = accept.map_err(|error| GateError::Wallet(Arc::new(error)))?;
        let agreement = agreement(&quote, &accept, chain);
        let message = Message::Accept { accept, quote }.encode();
        let (peer, protocol) = (purchase.offer.peer.clone(), purchase.offer.protocol.clone());
        let deal = store::propose(message.clone(), session, key.endpoint, peer, protocol);
        let deal = deal.ok_or(GateError::Message {
            reason: "not terms that can be accepted",
        })?;
        self.books().propose(agreement, deal, now);
        // Before the seeder hears of it: whatever it serves is served under a known key.
        self.keep("agent-agreement").await?;
        Ok(Some(message))
    }

    /// Waits for the turn to make an agreement; false if another conversation made one.
    pub(super) async fn lease(&self, key: &Key) -> bool {
        loop {
            let agreed = self.inner.agreed.notified();
            let until = {
                let now = Instant::now();
                if self.books().usable(key, self.now()).is_some() {
                    return false;
                }
                let mut leases = lock(&self.inner.leases);
                leases.retain(|_, until| *until > now);
                match leases.get(key) {
                    Some(until) => *until,
                    None => {
                        leases.insert(key.clone(), now + LEASE);
                        return true;
                    }
                }
            };
            let _ = tokio::time::timeout_at(until, agreed).await;
        }
    }

    pub(super) async fn agreed(
        &self,
        purchase: &Purchase,
        agreement: B256,
    ) -> Result<Option<Bytes>, GateError> {
        let known = key(purchase).is_some_and(|key| {
            let known = self.books().agreed(agreement, &key);
            lock(&self.inner.leases).remove(&key);
            known
        });
        if !known {
            return Err(GateError::Message {
                reason: "an agreement that was not proposed",
            });
        }
        self.keep("agent-agreed").await?;
        self.inner.agreed.notify_waiters();
        Ok(None)
    }

    pub(super) fn ended(&self, purchase: &Purchase, agreement: B256) -> Option<Bytes> {
        let key = key(purchase)?;
        // An agreement that did not come about holds up no other.
        lock(&self.inner.leases).remove(&key);
        let mut books = self.books();
        // Only what this seeder itself agreed to.
        if books
            .deals
            .get(&agreement)
            .is_some_and(|deal| deal.key == key)
        {
            books.end(agreement);
        }
        let (cid, payer) = (purchase.cid, self.inner.payer);
        let usable = books.usable(&key, self.now()).is_some();
        (!usable).then(|| Message::QuoteRequest { cid, payer }.encode())
    }

    /// What comes after a pause that the seeder asked for: notice of what it did not see, or
    /// the request again.
    pub(super) async fn pause(
        &self,
        purchase: &Purchase,
        pause: Duration,
    ) -> Result<Option<Bytes>, GateError> {
        tokio::time::sleep(pause.min(MAX_PAUSE)).await;
        match purchase.offer.wallet {
            Some(payee) => self.next_notice(payee).await,
            None => Ok(None),
        }
    }

    pub(super) async fn next_notice(&self, payee: Address) -> Result<Option<Bytes>, GateError> {
        let notice = self.books().to_notify(payee);
        match notice {
            Some(notice) => self.sign_notice(notice).await,
            None => Ok(None),
        }
    }

    pub(super) async fn sign_notice(&self, notice: Notice) -> Result<Option<Bytes>, GateError> {
        let session = {
            let books = self.books();
            let deal = books.deals.get(&notice.agreement);
            deal.map(|deal| Arc::clone(&deal.session))
        };
        let Some(session) = session else {
            return Ok(None);
        };
        let notice = self.sign(notice, &session).await?;
        Ok(Some(Message::Notice(notice).encode()))
    }

    pub(super) async fn sign<T: Statement>(
        &self,
        body: T,
        session: &PrivateKey,
    ) -> Result<Signed<T>, GateError> {
        let signed = Signed::sign(body, &self.inner.chain, session).await;
        signed.map_err(|error| GateError::Wallet(Arc::new(error)))
    }

    /// The acknowledgement that is to be sent, durable.
    pub(super) async fn acknowledgement(&self, key: &Key) -> Result<Option<Bytes>, GateError> {
        let (ack, session) = {
            let mut books = self.books();
            let Some((agreement, deal)) = books.latest(key) else {
                return Ok(None);
            };
            let session = Arc::clone(&deal.session);
            let Some((ack, new)) = deal.acknowledge(agreement) else {
                return Ok(None);
            };
            if new {
                books.touch(agreement);
            }
            (ack, session)
        };
        self.keep("agent-ack").await?;
        let ack = self.sign(ack, &session).await?;
        Ok(Some(Message::Ack(ack).encode()))
    }

    /// Keeps a receipt that says what it should; false for a bill that needs none.
    pub(super) async fn take_receipt(
        &self,
        receipt: Signed<Receipt>,
        message: Bytes,
    ) -> Result<bool, GateError> {
        let body = &receipt.body;
        let expected = {
            let books = self.books();
            let Some(owed) = books.open.get(&body.bill) else {
                return Ok(false);
            };
            let bill = &owed.bill;
            Receipt {
                bill: bill.id,
                payer: self.inner.payer,
                payee: bill.payee.unwrap_or_default(),
                cid: bill.cid,
                bytes: bill.bytes,
                amount: bill.amount,
                transaction: owed.settled.unwrap_or_default(),
                time: body.time,
            }
        };
        if *body != expected || !receipt.is_by(expected.payee, &self.inner.chain) {
            return Err(GateError::Message {
                reason: "not a receipt for this bill",
            });
        }
        self.books().received(expected.bill, message);
        self.keep("agent-receipt").await?;
        Ok(true)
    }
}
