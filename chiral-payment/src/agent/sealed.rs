//! Chunks that come sealed: their keys are bought, told again, or read off the chain.

use alloy_primitives::B256;
use bytes::Bytes;
use chiral_core::{ByteRange, GateError, PayAndLock, Purchase, Sealed};

use super::channels::failed;
use super::deal::Key;
use super::{ChainAgent, key};
use crate::channel::cipher::{self, MAX_SEALED};
use crate::channel::messages::{ChannelMessage, Reopen, Seal};
use crate::channel::payer::{Lock, PayFault};
use crate::channel::voucher::Share;
use crate::channel::{ChannelsError, NextLock};
use crate::messages::{Message, Policy};

/// Pause before another look whether the lock of another agreement is paid.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// How long a lock waits for the payment of another agreement to arrive, which may go over
/// another connection: before that the seeder would not take it.
const PAYMENT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Sealed bytes that were looked at, and found to be what they should be.
struct Inspected {
    key: Key,
    seal: Seal,
    data: Bytes,
}

impl Inspected {
    /// Whether these are the bytes: as long as they are held here no others lie there.
    fn is(&self, data: &Bytes) -> bool {
        self.data.as_ptr() == data.as_ptr() && self.data.len() == data.len()
    }
}

impl ChainAgent {
    /// Looks at sealed bytes: what takes long need not be done once more.
    pub(super) fn inspect_sealed(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: Sealed,
    ) -> Result<Sealed, GateError> {
        let (key, seal) = self.seal(purchase, range, &sealed)?;
        let data = sealed.data.clone();
        Ok(sealed.with_finding(Inspected { key, seal, data }))
    }

    /// The word of the seeder on sealed bytes, if it is what was asked for.
    fn seal(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<(Key, Seal), GateError> {
        let bad = |reason| GateError::Message { reason };
        let Some(key) = key(purchase) else {
            return Err(bad("no wallet was announced"));
        };
        let seen: Option<&Inspected> = sealed.finding();
        let seen = seen.filter(|seen| seen.is(&sealed.data) && seen.key == key);
        if let Some(seen) = seen.filter(|seen| seen.seal.range == range) {
            return Ok((key, seen.seal));
        }
        let Ok(Message::Channel(ChannelMessage::Seal(word))) = Message::decode(&sealed.header)
        else {
            return Err(bad("not a seal"));
        };
        let seal = word.body;
        let its = {
            let books = self.books();
            let deal = books.deals.get(&seal.agreement);
            deal.is_some_and(|deal| deal.key == key && deal.policy == Policy::LockedVoucher)
        };
        let length = sealed.data.len() as u64;
        match () {
            () if !its => Err(bad("a seal under another agreement")),
            () if seal.range != range || length != range.len() => Err(bad("another range")),
            () if length > MAX_SEALED => Err(bad("over the limit")),
            () if !self.inner.sellers.said(key.payee, &word, &self.inner.chain) => {
                Err(bad("not signed by the wallet"))
            }
            () if seal.data != cipher::data_hash(&sealed.data) => {
                Err(bad("not the bytes that were sealed"))
            }
            () => Ok((key, seal)),
        }
    }

    pub(super) async fn lock_sealed(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Bytes, GateError> {
        let (_, seal) = self.seal(purchase, range, sealed)?;
        let agreement = seal.agreement;
        let channel = self.channel_for(agreement).await?;
        let channels = self.channels()?;
        if self.is_bought(agreement, range) {
            return self.reopening(agreement, seal.counter).await;
        }
        let before = channels
            .payer(channel)
            .map_or(0, |c| c.share(agreement).bytes);
        let bytes = before.saturating_add(range.len());
        let amount = {
            let books = self.books();
            let deal = books.deals.get(&agreement);
            let deal = deal.filter(|deal| deal.agreed && !deal.ended);
            let deal = deal.ok_or(GateError::Message {
                reason: "an agreement that is over",
            })?;
            deal.total_cost(bytes).ok_or(GateError::Price)?
        };
        let share = Share {
            agreement,
            bytes,
            amount,
        };
        let until = tokio::time::Instant::now() + self.inner.config.settle_patience;
        let queue = &self.inner.queue;
        // Those that wait go first, unless it is locked for this already.
        let waited_for = queue.is_waited_for(channel) && self.lock_of(agreement).is_none();
        let mut place = waited_for.then(|| queue.wait_for(channel));
        // What the lock of another agreement was for, and when it was seen last.
        let mut other: Option<(Share, tokio::time::Instant)> = None;
        loop {
            let is_behind = place.as_ref().is_some_and(|place| !place.is_first());
            let on_its_way = other.is_some_and(|(share, seen)| {
                seen.elapsed() < PAYMENT_PATIENCE && !self.is_confirmed(&share)
            });
            if (is_behind || on_its_way) && tokio::time::Instant::now() < until {
                tokio::time::sleep(LOCK_PAUSE).await;
                continue;
            }
            let (counter, key_hash) = (seal.counter, seal.key_hash);
            let locked = channels.lock_up(channel, share, counter, key_hash, range);
            match locked.await {
                Ok(lock) => return Ok(Message::Channel(ChannelMessage::Lock(lock)).encode()),
                // Of another agreement: what is bought there comes first. Of this one: it has to
                // be asked for before anything else.
                Err(ChannelsError::Pay(PayFault::Locked))
                    if tokio::time::Instant::now() < until && self.lock_of(agreement).is_none() =>
                {
                    place.get_or_insert_with(|| queue.wait_for(channel));
                    let held = channels.payer(channel);
                    let held = held.and_then(|channel| channel.lock().copied());
                    let now = tokio::time::Instant::now();
                    other = held.map(|lock| (lock.share, now)).or(other);
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(ChannelsError::Pay(PayFault::Locked)) => return Err(GateError::Ledger),
                Err(ChannelsError::Pay(PayFault::Short { missing })) => {
                    self.top_up(channel, missing).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Pays for what the key of the open lock opened, and locks for the next, in one step.
    /// `None` if that cannot be done at once: there is no lock that is opened, what it opened is
    /// not verified, more has to be deposited first, or another agreement's turn has come.
    pub(super) async fn pay_and_lock_sealed(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<PayAndLock>, GateError> {
        let (_, seal) = self.seal(purchase, range, sealed)?;
        let (agreement, channels) = (seal.agreement, self.channels()?);
        let Some(channel) = channels.of(agreement) else {
            return Ok(None);
        };
        let opened = self.lock_of(agreement).filter(|lock| lock.key.is_some());
        let Some(opened) = opened.filter(|_| channels.is_in(&self.inner.journal)) else {
            return Ok(None);
        };
        // Whoever waits to lock under another agreement has its turn in between.
        if self.is_bought(agreement, range) || self.inner.queue.is_waited_for(channel) {
            return Ok(None);
        }
        let bytes = opened.share.bytes.saturating_add(range.len());
        let amount = {
            let mut books = self.books();
            let deal = books.deals.get_mut(&agreement);
            let deal = deal.filter(|deal| deal.agreed && !deal.ended);
            let Some(deal) = deal.filter(|deal| deal.opened() >= opened.share.bytes) else {
                return Ok(None);
            };
            let amount = deal.total_cost(bytes).ok_or(GateError::Price)?;
            deal.paid_by_lock(opened.share.bytes);
            books.touch(agreement);
            amount
        };
        let next = NextLock {
            share: Share {
                agreement,
                bytes,
                amount,
            },
            counter: seal.counter,
            key_hash: seal.key_hash,
            range,
        };
        let promised = channels.redeem_and_lock_with(channel, next, self.writes());
        match promised.await {
            Ok((pay, lock, written)) => {
                written.keep(self);
                let encode = |message| Message::Channel(message).encode();
                let both = encode(ChannelMessage::PayAndLock(pay, lock));
                Ok(Some(PayAndLock::new(
                    both,
                    encode(ChannelMessage::Pay(pay)),
                )))
            }
            // One by one it is seen what is in the way.
            Err(ChannelsError::Pay(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether the seeder said that it has what pays for so much.
    fn is_confirmed(&self, share: &Share) -> bool {
        let books = self.books();
        let deal = books.deals.get(&share.agreement);
        deal.is_none_or(|deal| deal.confirmed >= share.bytes)
    }

    fn lock_of(&self, agreement: B256) -> Option<Lock> {
        let channels = self.inner.channels.as_ref()?;
        let channel = channels.payer(channels.of(agreement)?)?;
        let lock = channel.lock().copied();
        lock.filter(|lock| lock.share.agreement == agreement)
    }

    /// What is locked and not paid for under the agreement with a seeder.
    pub(super) fn pending_of(&self, purchase: &Purchase) -> Option<ByteRange> {
        let key = key(purchase).filter(|_| !purchase.offer.price.is_free())?;
        let agreement = {
            let now = self.now();
            let mut books = self.books();
            books.usable(&key, now)?.0
        };
        self.lock_of(agreement)?.range
    }

    /// Whether the key of a sealed range was bought before: what it opened is on the books as
    /// verified, or its lock was claimed while nobody was here to open it. What was lost since
    /// is not paid for again.
    fn is_bought(&self, agreement: B256, range: ByteRange) -> bool {
        let channels = self.inner.channels.as_ref();
        let channel = channels.and_then(|channels| channels.payer(channels.of(agreement)?));
        let books = self.books();
        let Some((deal, channel)) = books.deals.get(&agreement).zip(channel) else {
            return false;
        };
        if deal.unknown.covers(range) {
            return false;
        }
        let locked = channel
            .lock()
            .is_some_and(|lock| lock.share.agreement == agreement);
        let missing = channel.share(agreement).bytes.saturating_sub(deal.opened());
        deal.verified.covers(range) || (!locked && missing == range.len())
    }

    async fn reopening(&self, agreement: B256, counter: u64) -> Result<Bytes, GateError> {
        let session = self.session_of(agreement)?;
        let reopen = self.sign(Reopen { agreement, counter }, &session).await?;
        Ok(Message::Channel(ChannelMessage::Reopen(reopen)).encode())
    }

    pub(super) async fn unseal_with(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
        answer: &Bytes,
    ) -> Result<Bytes, GateError> {
        let (_, seal) = self.seal(purchase, range, sealed)?;
        let key = match Message::decode(answer)? {
            Message::Channel(ChannelMessage::Key { agreement, key })
                if agreement == seal.agreement =>
            {
                key
            }
            // It does not see the deposit yet.
            Message::NotYet { .. } => return Err(GateError::Ledger),
            Message::Refused { reason } => {
                tracing::debug!(%reason, "the seeder gives no key");
                if self.is_bought(seal.agreement, range) {
                    // It has forgotten that it sold it. The next time it is bought.
                    if let Some(deal) = self.books().deals.get_mut(&seal.agreement) {
                        deal.unknown.insert(range);
                    }
                    return Err(GateError::Ledger);
                }
                return Err(GateError::Terms {
                    reason: "the seeder refuses",
                });
            }
            _ => {
                return Err(GateError::Message {
                    reason: "not an answer to a lock",
                });
            }
        };
        self.opened_with(&seal, range, sealed, key).await
    }

    /// The same with the key that was shown on the chain, if it was: to whoever did not hear it
    /// from the seeder, who claimed what was locked.
    pub(super) async fn unseal_by_claim(
        &self,
        purchase: &Purchase,
        range: ByteRange,
        sealed: &Sealed,
    ) -> Result<Option<Bytes>, GateError> {
        let (_, seal) = self.seal(purchase, range, sealed)?;
        let channels = self.channels()?;
        let Some(channel) = channels.of(seal.agreement) else {
            return Ok(None);
        };
        let shown = channels.key_shown(channel, seal.key_hash).await;
        match shown.map_err(failed)? {
            Some(key) => self.opened_with(&seal, range, sealed, key).await.map(Some),
            None => Ok(None),
        }
    }

    async fn opened_with(
        &self,
        seal: &Seal,
        range: ByteRange,
        sealed: &Sealed,
        key: B256,
    ) -> Result<Bytes, GateError> {
        if cipher::key_hash(&key) != seal.key_hash {
            return Err(GateError::Message {
                reason: "not the key of the lock",
            });
        }
        let channels = self.channels()?;
        let channel = channels.of(seal.agreement).ok_or(GateError::Message {
            reason: "nothing is locked",
        })?;
        let lock = channels
            .payer(channel)
            .and_then(|channel| channel.lock().copied());
        let lock = lock.filter(|lock| lock.voucher.key_hash == seal.key_hash);
        if lock.is_some() || !self.is_bought(seal.agreement, range) {
            match channels.unlock(channel, key) {
                // The lock was claimed before its key came: it opens what it is for all the same.
                Ok(()) | Err(ChannelsError::Pay(PayFault::NotUnlocked)) => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(deal) = self.books().deals.get_mut(&seal.agreement) {
                deal.unsealed = Some(range);
                // No key is told before what was locked until then is paid.
                let paid = lock.map_or(0, |lock| lock.share.bytes.saturating_sub(range.len()));
                deal.confirmed = deal.confirmed.max(paid);
            }
        }
        Ok(cipher::applied(&key, &sealed.data, &self.inner.buffers))
    }

    /// Whether a seeder sells sealed bytes, as far as anything is agreed on.
    pub(super) fn is_sealed_by(&self, purchase: &Purchase) -> bool {
        let Some(key) = key(purchase).filter(|_| !purchase.offer.price.is_free()) else {
            return false;
        };
        let now = self.now();
        let mut books = self.books();
        let deal = books.usable(&key, now);
        deal.is_some_and(|(_, deal)| deal.policy == Policy::LockedVoucher)
    }
}
