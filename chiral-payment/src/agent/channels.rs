//! Paying in channels: what the agent opens, binds and promises.

use std::sync::Arc;

use alloy_primitives::B256;
use bytes::Bytes;
use chiral_chain::PrivateKey;
use chiral_core::{GateError, Purchase};

use super::deal::{Deal, Key, difference};
use super::{ChainAgent, key};
use crate::channel::cipher::MAX_SEALED;
use crate::channel::messages::{Bind, ChannelMessage, Leave, wei};
use crate::channel::payer::{PayFault, Phase};
use crate::channel::voucher::Share;
use crate::channel::{Channels, ChannelsError};
use crate::gate::books_failed;
use crate::messages::{Message, Policy};

/// Times that a voucher is said again before an agreement is given up.
const MAX_REPEATS: u8 = 4;

/// Why a channel's payment was not made, as the caller sees it.
pub(super) fn failed(error: ChannelsError) -> GateError {
    match error {
        ChannelsError::Journal(error) => books_failed(error),
        ChannelsError::Signer(error) => GateError::Wallet(Arc::new(error)),
        ChannelsError::Pay(PayFault::Key) => GateError::Message {
            reason: "not the key of the lock",
        },
        ChannelsError::Pay(_) | ChannelsError::Terms { .. } => GateError::Terms {
            reason: "the channel cannot pay it",
        },
        ChannelsError::NoContract => GateError::Unsupported {
            what: "payment in channels",
        },
        error => {
            tracing::warn!(%error, "a channel cannot be used");
            GateError::Ledger
        }
    }
}

impl ChainAgent {
    pub(super) fn channels(&self) -> Result<&Channels, GateError> {
        let channels = self.inner.channels.as_ref();
        channels.ok_or(GateError::Unsupported {
            what: "payment in channels",
        })
    }

    /// Whether a deal is paid by vouchers: always under some policies, and under another if
    /// there is a channel anyway. Never by vouchers and bills both.
    pub(super) fn pays_in_channel(&self, deal: &Deal) -> bool {
        match deal.policy {
            Policy::PayAfter | Policy::PayFirst => false,
            Policy::Channel | Policy::LockedVoucher => true,
            Policy::Incremental if deal.in_band > 0 => true,
            Policy::Incremental if deal.next_bill > 0 => false,
            Policy::Incremental => {
                let channel = self.inner.channels.as_ref();
                let channel = channel.and_then(|channels| channels.to(deal.key.payee));
                channel.is_some_and(|channel| channel.phase() == Phase::Open)
            }
        }
    }

    /// The seeder wants to be paid before it serves more, and it is paid out of a channel.
    pub(super) async fn pay_in_channel(
        &self,
        key: &Key,
        agreement: B256,
        rebind: bool,
    ) -> Result<Option<Bytes>, GateError> {
        let channel = self.channel_for(agreement).await?;
        if rebind || !self.is_bound(agreement) {
            return self.binding(agreement, channel).await.map(Some);
        }
        self.wait_for_unpaid(agreement).await;
        match self.voucher(agreement).await? {
            Some(voucher) => Ok(Some(voucher)),
            None => match self.again(agreement).await? {
                Some(voucher) => Ok(Some(voucher)),
                None => {
                    // Much of what was sent never arrived: the next request begins anew.
                    let (latest, sealed) = {
                        let mut books = self.books();
                        let latest = books.latest(key);
                        let latest = latest.map(|(of, deal)| (of == agreement, deal.policy));
                        let sealed = matches!(latest, Some((_, Policy::LockedVoucher)));
                        (latest.is_some_and(|(latest, _)| latest), sealed)
                    };
                    if latest {
                        self.books().end(agreement);
                    }
                    match latest && sealed {
                        // At once: nothing but uploads is lost with it. A buyer that was killed
                        // has forgotten what was sealed for it.
                        true => Ok(Some(self.anew(key))),
                        false => Err(GateError::Credit),
                    }
                }
            },
        }
    }

    fn anew(&self, key: &Key) -> Bytes {
        let (cid, payer) = (key.cid, self.inner.payer);
        Message::QuoteRequest { cid, payer }.encode()
    }

    /// The last voucher once more: it may have been lost, or have crossed the seeder's demand.
    /// `None` if it was repeated often enough.
    async fn again(&self, agreement: B256) -> Result<Option<Bytes>, GateError> {
        let channels = self.channels()?;
        let Some(channel) = channels.of(agreement) else {
            return Ok(None);
        };
        let share = channels
            .payer(channel)
            .map(|channel| channel.share(agreement));
        let Some(share) = share.filter(|share| share.bytes > 0) else {
            return Ok(None);
        };
        {
            let mut books = self.books();
            let deal = books.deals.get_mut(&agreement);
            let Some(deal) = deal.filter(|deal| deal.repeats < MAX_REPEATS) else {
                return Ok(None);
            };
            deal.repeats += 1;
        }
        match channels.pay(channel, share).await {
            Ok(pay) => Ok(Some(Message::Channel(ChannelMessage::Pay(pay)).encode())),
            Err(ChannelsError::Pay(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn is_bound(&self, agreement: B256) -> bool {
        let books = self.books();
        let deal = books.deals.get(&agreement);
        deal.is_some_and(|deal| deal.bound)
    }

    /// The channel out of which a deal is paid, opened if need be.
    pub(super) async fn channel_for(&self, agreement: B256) -> Result<B256, GateError> {
        let channels = self.channels()?;
        let (payee, terms, price) = {
            let books = self.books();
            let deal = books.deals.get(&agreement).ok_or(GateError::Message {
                reason: "an agreement that was not made",
            })?;
            (deal.key.payee, deal.channel, deal.price())
        };
        if let Some(channel) = channels.of(agreement) {
            channels.ready(channel).await.map_err(failed)?;
            return Ok(channel);
        }
        let chunk = price.cost(chiral_core::CHUNK_SIZE).and_then(wei);
        let chunk = chunk.ok_or(GateError::Price)?;
        let usable = channels.to(payee);
        let usable = usable
            .filter(|channel| channel.challenge() >= terms.challenge && channel.free() >= chunk);
        let channel = match usable {
            Some(channel) => channel.id(),
            None => {
                let deposit = self.inner.config.channel_deposit.max(chunk);
                if deposit > self.inner.config.max_channel_deposit {
                    return Err(GateError::Price);
                }
                let opened = channels.open(payee, terms.challenge, deposit).await;
                opened.map_err(failed)?
            }
        };
        channels.ready(channel).await.map_err(failed)?;
        channels.adopt(channel, agreement).await.map_err(failed)?;
        Ok(channel)
    }

    /// The key that signs under an agreement.
    pub(super) fn session_of(&self, agreement: B256) -> Result<Arc<PrivateKey>, GateError> {
        let books = self.books();
        let deal = books.deals.get(&agreement);
        let session = deal.map(|deal| Arc::clone(&deal.session));
        session.ok_or(GateError::Message {
            reason: "an agreement that was not made",
        })
    }

    async fn binding(&self, agreement: B256, channel: B256) -> Result<Bytes, GateError> {
        let session = self.session_of(agreement)?;
        let bind = self.sign(Bind { agreement, channel }, &session).await?;
        Ok(Message::Channel(ChannelMessage::Bind(bind)).encode())
    }

    /// Bytes on their way become verified soon.
    async fn wait_for_unpaid(&self, agreement: B256) {
        let until = tokio::time::Instant::now() + self.inner.config.verify_patience;
        loop {
            let unpaid = {
                let books = self.books();
                let deal = books.deals.get(&agreement);
                deal.map_or(0, |deal| difference(&deal.verified, &deal.billed).len())
            };
            if unpaid > 0 || tokio::time::Instant::now() >= until {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The voucher for all that is verified and not paid, durable; `None` if there is nothing.
    ///
    /// What it is for is on the books before it is promised: a kill in between leaves a promise
    /// to be made, and never two.
    async fn voucher(&self, agreement: B256) -> Result<Option<Bytes>, GateError> {
        let channels = self.channels()?;
        let Some(channel) = channels.of(agreement) else {
            return Ok(None);
        };
        let locked = channels
            .payer(channel)
            .and_then(|channel| channel.lock().copied());
        if let Some(lock) = locked {
            return self
                .redeem(agreement, channel, lock.share, lock.key.is_some())
                .await;
        }
        let target = {
            let mut books = self.books();
            let Some(deal) = books.deals.get_mut(&agreement) else {
                return Ok(None);
            };
            let fresh = difference(&deal.verified, &deal.billed);
            // A lock that was claimed on the chain has paid for what its key opened.
            let claimed = channels
                .payer(channel)
                .map_or(0, |channel| channel.share(agreement).bytes);
            if deal.policy == Policy::LockedVoucher
                && claimed > deal.in_band
                && deal.opened() >= claimed
            {
                deal.paid_by_lock(claimed);
                books.touch(agreement);
                return Ok(None);
            }
            // Sealed bytes are paid by locks only.
            if deal.policy != Policy::LockedVoucher {
                fresh.iter().for_each(|range| {
                    deal.billed.insert(range);
                });
                deal.in_band = deal.in_band.saturating_add(fresh.len());
                if !fresh.is_empty() {
                    deal.repeats = 0;
                }
            }
            let (bytes, amount) = (deal.in_band, deal.total_cost(deal.in_band));
            let fresh = !fresh.is_empty() && deal.policy != Policy::LockedVoucher;
            if fresh {
                books.touch(agreement);
            }
            let paid = channels
                .payer(channel)
                .map_or(0, |c| c.share(agreement).bytes);
            match bytes > paid {
                false => return Ok(None),
                true => (bytes, amount),
            }
        };
        let (bytes, amount) = target;
        let share = amount.map(|amount| Share {
            agreement,
            bytes,
            amount,
        });
        if let Some(share) = share
            && channels.is_in(&self.inner.journal)
        {
            // In one step, which is half of what two take.
            let promised = channels.pay_with(channel, share, "agent-voucher", self.writes());
            match promised.await {
                Ok((pay, written)) => {
                    written.keep(self);
                    return Ok(Some(Message::Channel(ChannelMessage::Pay(pay)).encode()));
                }
                Err(ChannelsError::Pay(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.keep("agent-voucher").await?;
        let share = share.ok_or(GateError::Price)?;
        match channels.pay(channel, share).await {
            Ok(pay) => Ok(Some(Message::Channel(ChannelMessage::Pay(pay)).encode())),
            Err(ChannelsError::Pay(PayFault::Short { missing })) => {
                self.top_up(channel, missing).await?;
                // The seeder has to see it before it takes a voucher over the old deposit.
                self.binding(agreement, channel).await.map(Some)
            }
            // Another agreement's lock comes first.
            Err(ChannelsError::Pay(PayFault::Locked)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn top_up(&self, channel: B256, missing: u128) -> Result<(), GateError> {
        let channels = self.channels()?;
        let config = &self.inner.config;
        let before = channels.payer(channel).map_or(0, |c| c.deposit());
        let more = missing.max(config.channel_deposit);
        let most = config.max_channel_deposit.saturating_sub(before);
        let more = more.min(most);
        if more < missing {
            return Err(GateError::Price);
        }
        channels.top_up(channel, more).await.map_err(failed)?;
        let wanted = before.saturating_add(more);
        channels.deposited(channel, wanted).await.map_err(failed)
    }

    /// The voucher that takes a lock's place, once what the key opened is verified.
    async fn redeem(
        &self,
        agreement: B256,
        channel: B256,
        share: Share,
        opened: bool,
    ) -> Result<Option<Bytes>, GateError> {
        if share.agreement != agreement || !opened {
            return Ok(None);
        }
        {
            let mut books = self.books();
            let deal = books.deals.get_mut(&agreement);
            let Some(deal) = deal.filter(|deal| deal.opened() >= share.bytes) else {
                return Ok(None);
            };
            deal.paid_by_lock(share.bytes);
            books.touch(agreement);
        }
        self.keep("agent-voucher").await?;
        let pay = self.channels()?.redeem(channel).await.map_err(failed)?;
        Ok(Some(Message::Channel(ChannelMessage::Pay(pay)).encode()))
    }

    /// Whether a seeder is paid in a channel, as far as anything is agreed on.
    pub(super) fn is_in_channel(&self, key: &Key) -> bool {
        let mut books = self.books();
        let deal = books.usable(key, self.now());
        deal.is_some_and(|(_, deal)| self.pays_in_channel(deal))
    }

    /// What takes the place of a lock under an agreement that is over: its key came, and another
    /// agreement was made, or the time was up, before it was paid. Nothing else can be locked
    /// until then.
    pub(super) async fn due_before(&self, key: &Key) -> Result<Option<Bytes>, GateError> {
        let Some(channels) = &self.inner.channels else {
            return Ok(None);
        };
        let opened = channels.opened_to(key.payee);
        let found = {
            let now = self.now();
            let mut books = self.books();
            let current = books.usable(key, now).map(|(agreement, _)| agreement);
            opened.into_iter().find(|agreement| {
                let deal = books.deals.get(agreement);
                deal.is_some_and(|deal| deal.key == *key) && Some(*agreement) != current
            })
        };
        match found {
            Some(agreement) => self.voucher(agreement).await,
            None => Ok(None),
        }
    }

    /// What is due to a seeder that is paid in a channel though nothing is requested; nothing
    /// waits for more of it if it is the last.
    pub(super) async fn due_in_channel(
        &self,
        key: &Key,
        last: bool,
    ) -> Result<Option<Bytes>, GateError> {
        let found = {
            let mut books = self.books();
            let now = self.now();
            books.usable(key, now).map(|(agreement, deal)| {
                let unpaid = difference(&deal.verified, &deal.billed).len();
                let batch = u64::from(deal.channel.batch) * chiral_core::CHUNK_SIZE;
                // The last of what was asked for is not kept waiting for a batch.
                let all = last || difference(&deal.requested, &deal.verified).is_empty();
                let locked = deal.policy == Policy::LockedVoucher;
                let due = unpaid > 0 && (unpaid >= batch || all || locked);
                // Promised, perhaps by an earlier run, and nobody knows whether it arrived. A
                // payment that is not there keeps the next lock out.
                let due = due || ((all || locked) && deal.in_band > deal.confirmed);
                let due = due || (locked && deal.again > 0);
                (agreement, due, deal.bound)
            })
        };
        let Some((agreement, true, bound)) = found else {
            return Ok(None);
        };
        if self
            .inner
            .channels
            .as_ref()
            .and_then(|c| c.of(agreement))
            .is_none()
        {
            // Not bound yet: the gate asks for that when it wants it.
            return Ok(None);
        }
        match bound {
            true => self.voucher_or_again(agreement).await,
            false => self.pay_in_channel(key, agreement, true).await,
        }
    }

    /// The next voucher, or the last one if the seeder has not said that it has it.
    async fn voucher_or_again(&self, agreement: B256) -> Result<Option<Bytes>, GateError> {
        if let Some(voucher) = self.voucher(agreement).await? {
            return Ok(Some(voucher));
        }
        let unconfirmed = {
            let books = self.books();
            let deal = books.deals.get(&agreement);
            deal.is_some_and(|deal| deal.in_band > deal.confirmed)
        };
        match unconfirmed {
            true => self.again(agreement).await,
            false => Ok(None),
        }
    }

    /// A message about a channel has come.
    pub(super) async fn about_channel(
        &self,
        purchase: &Purchase,
        message: ChannelMessage,
    ) -> Result<Option<Bytes>, GateError> {
        match message {
            ChannelMessage::Bound {
                agreement, channel, ..
            } => {
                let expected = self.channels()?.of(agreement) == Some(channel);
                let its = {
                    let mut books = self.books();
                    let deal = books.deals.get_mut(&agreement);
                    let deal = deal.filter(|deal| Some(&deal.key) == key(purchase).as_ref());
                    let deal = deal.filter(|_| expected);
                    deal.map(|deal| deal.bound = true).is_some()
                };
                match its {
                    true => self.voucher_or_again(agreement).await,
                    false => Err(GateError::Message {
                        reason: "a channel that was not named",
                    }),
                }
            }
            ChannelMessage::Paid { agreement, bytes } => {
                let mut books = self.books();
                let deal = books.deals.get_mut(&agreement);
                let deal = deal.filter(|deal| Some(&deal.key) == key(purchase).as_ref());
                if let Some(deal) = deal {
                    deal.confirmed = deal.confirmed.max(bytes);
                }
                Ok(None)
            }
            ChannelMessage::Left(close, signature) => {
                let left = self.channels()?.left(close, signature).await;
                left.map_err(failed).map(|()| None)
            }
            _ => Err(GateError::Message {
                reason: "not a message for an agent",
            }),
        }
    }

    /// Asks a seeder to end the channel that pays it, at once and without a challenge. The
    /// message is for its gate; the answer goes to [`respond`](chiral_core::PaymentAgent::respond).
    /// `None` if there is no channel, or nothing was agreed on with the seeder here.
    ///
    /// # Errors
    /// The wallet does not sign.
    pub async fn leave(&self, purchase: &Purchase) -> Result<Option<Bytes>, GateError> {
        let Some(key) = key(purchase) else {
            return Ok(None);
        };
        let found = {
            let mut books = self.books();
            let deal = books.latest(&key);
            deal.map(|(agreement, deal)| (agreement, Arc::clone(&deal.session)))
        };
        let Some((agreement, session)) = found else {
            return Ok(None);
        };
        let Some(channel) = self.channels()?.of(agreement) else {
            return Ok(None);
        };
        let leave = self.sign(Leave { agreement, channel }, &session).await?;
        Ok(Some(
            Message::Channel(ChannelMessage::Leave(leave)).encode(),
        ))
    }

    /// Bytes that one request to this seeder may ask for now.
    pub(super) fn most_at_once_of(&self, purchase: &Purchase) -> u64 {
        if purchase.offer.price.is_free() {
            return u64::MAX;
        }
        let Some(key) = key(purchase) else {
            return u64::MAX;
        };
        let now = self.now();
        let mut books = self.books();
        let Some((_, deal)) = books.usable(&key, now) else {
            // Terms come first; they may have a window of one chunk.
            return chiral_core::CHUNK_SIZE;
        };
        let Some(mut window) = deal.channel.window(deal.policy) else {
            return u64::MAX;
        };
        // What is promised may still be on its way: what is asked for before it is there, of a
        // window that it is to widen, would be refused.
        window.paid(deal.confirmed.min(deal.in_band));
        match deal.policy {
            Policy::LockedVoucher => window.bytes().min(MAX_SEALED),
            _ => window.bytes(),
        }
    }
}
