//! What a node does with channels that it pays out of.

use alloy_primitives::{Address, B256, U256, keccak256};
use chiral_core::{ByteRange, SettlementStatus, WalletSignature};
use redb::WriteTransaction;
use tokio::time::Instant;

use super::{Channels, ChannelsError};
use crate::JournalError;
use crate::channel::book::Side;
use crate::channel::messages::{Pay, PayLocked};
use crate::channel::on_chain::{FIRST_LOOK, LOOK_AGAIN};
use crate::channel::past::{About, Past};
use crate::channel::payer::{Expiry, PayFault, PayerChannel, Phase};
use crate::channel::voucher::{Close, LockedVoucher, Proven, Share, Voucher};
use crate::contracts::{ChannelState, channels};

/// Number of a call that is made once for a channel.
pub(crate) fn call_id(channel: B256, what: &str, number: u128) -> B256 {
    let mut bytes = channel.to_vec();
    bytes.extend_from_slice(what.as_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    keccak256(bytes)
}

/// A lock that is to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextLock {
    /// What it brings its agreement to.
    pub(crate) share: Share,
    /// The counter of the request whose answer is sealed.
    pub(crate) counter: u64,
    pub(crate) key_hash: B256,
    /// What the key opens.
    pub(crate) range: ByteRange,
}

impl Channels {
    /// Opens a channel: written down, handed over for execution, not yet to be paid from.
    /// Answers its id.
    ///
    /// # Errors
    /// [`ChannelsError::NoContract`], and those of journal, chain and settler.
    ///
    /// # Cancel safety
    /// A channel that is written down is opened all the same.
    pub async fn open(
        &self,
        payee: Address,
        challenge: u32,
        deposit: u128,
    ) -> Result<B256, ChannelsError> {
        if !self.inner.contract.is_known().await? {
            return Err(ChannelsError::NoContract);
        }
        let mut salt = B256::ZERO;
        getrandom::fill(&mut salt.0)
            .map_err(|error| crate::JournalError::Store(error.to_string().into()))?;
        let domain = self.domain();
        let (chain_id, contract) = (domain.chain_id(), domain.contract());
        let id = channels::id_of(chain_id, contract, self.inner.me, payee, challenge, salt);
        let change = {
            let mut book = self.book();
            book.restore_payer(PayerChannel::new(id, payee, challenge, salt, deposit));
            book.touch_payer(id)
        };
        self.durable(change, "channel-open").await?;
        self.send_open(id).await?;
        Ok(id)
    }

    pub(in crate::channel) async fn send_open(&self, id: B256) -> Result<(), ChannelsError> {
        let (payee, challenge, salt, deposit) = {
            let book = self.book();
            let channel = book.payers.get(&id).ok_or(ChannelsError::Unknown)?;
            let (payee, deposit) = (channel.payee, channel.deposit);
            (payee, channel.challenge, channel.salt, deposit)
        };
        let input = channels::open(payee, challenge, salt);
        let (to, value) = (self.domain().contract(), U256::from(deposit));
        let sender = &self.inner.sender;
        let call = call_id(id, "open", 0);
        sender.send(call, to, value, input).await?;
        Ok(())
    }

    /// Waits until a channel of ours can be paid from.
    ///
    /// # Errors
    /// [`ChannelsError::NotYet`] if that takes longer than
    /// [`ChannelsConfig::patience`](super::ChannelsConfig::patience).
    ///
    /// # Cancel safety
    /// Only looks.
    pub async fn ready(&self, id: B256) -> Result<(), ChannelsError> {
        let until = Instant::now() + self.inner.config.patience;
        let mut pause = FIRST_LOOK;
        loop {
            let phase = self.phase_of(id)?;
            match phase {
                Phase::Open => return Ok(()),
                Phase::Opening => {}
                Phase::Closing | Phase::Closed => return Err(PayFault::NotOpen.into()),
            }
            if let Err(error) = self.refresh(id).await {
                tracing::debug!(%error, "a channel cannot be looked at");
            }
            if self.phase_of(id)? != Phase::Opening {
                continue;
            }
            if Instant::now() >= until {
                return Err(ChannelsError::NotYet);
            }
            tokio::time::sleep(pause).await;
            pause = LOOK_AGAIN.min(2 * pause);
        }
    }

    fn phase_of(&self, id: B256) -> Result<Phase, ChannelsError> {
        let book = self.book();
        let channel = book.payers.get(&id).ok_or(ChannelsError::Unknown)?;
        Ok(channel.phase())
    }

    /// Looks at a channel of ours on the chain, and takes note.
    pub(in crate::channel) async fn refresh(&self, id: B256) -> Result<(), ChannelsError> {
        let sight = self.inner.contract.look(id).await?;
        let opening = call_id(id, "open", 0);
        let phase = self.phase_of(id)?;
        // A deposit counts here once the settler is sure of it.
        let sure = match phase {
            Phase::Opening => {
                let status = self.inner.sender.status(opening).await?;
                matches!(status, Some(SettlementStatus::Settled { .. }))
            }
            _ => true,
        };
        let state = sight.state;
        let change = {
            let mut book = self.book();
            let Some(channel) = book.payers.get_mut(&id) else {
                return Ok(());
            };
            let before = channel.clone();
            if state.is_over() {
                channel.closed();
            } else if !state.payer.is_zero() && sure {
                channel.opened(state.deposit);
                if state.is_closing() {
                    channel.close();
                }
                match channel.expire(sight.time, state.claimed) {
                    Expiry::Waiting => {}
                    Expiry::Released => tracing::info!(channel = %id, "a lock expired unclaimed"),
                    Expiry::Taken => tracing::info!(channel = %id, "a lock was claimed"),
                }
            }
            match *channel == before {
                true => return Ok(()),
                false => book.touch_payer(id),
            }
        };
        self.durable(change, "channel-seen").await?;
        Ok(())
    }

    /// Promises what brings an agreement to `share`, and signs it.
    ///
    /// # Errors
    /// [`ChannelsError::Pay`] if it cannot be promised; journal and wallet.
    ///
    /// # Cancel safety
    /// What was promised stays so, and is answered again for the same share.
    pub async fn pay(&self, id: B256, share: Share) -> Result<Pay, ChannelsError> {
        let (voucher, change) = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let voucher = channel.pay(share)?;
            (voucher, book.touch_payer(id))
        };
        self.durable(change, "channel-voucher").await?;
        self.say(voucher, share).await
    }

    /// The same, in one step with what `beside` writes: neither is ever on disk without the
    /// other. If nothing can be promised, nothing is written.
    pub(crate) async fn pay_with<T: Send + 'static>(
        &self,
        id: B256,
        share: Share,
        point: &'static str,
        beside: impl FnOnce(&WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<(Pay, T), ChannelsError> {
        // Before anything is promised: nobody else writes the promise alone.
        let turn = self.inner.turn.lock().await;
        let voucher = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let voucher = channel.pay(share)?;
            book.touch_payer(id);
            voucher
        };
        let value = self.write(&turn, point, beside).await?;
        drop(turn);
        Ok((self.say(voucher, share).await?, value))
    }

    /// What the key of the open lock opened is right, and another lock comes behind it: promises
    /// the voucher that takes its place and the next lock, in one step with what `beside`
    /// writes. If one of them cannot be promised, neither is, and nothing is written.
    ///
    /// # Errors
    /// As [`Channels::redeem`] and [`Channels::lock_up`].
    pub(crate) async fn redeem_and_lock_with<T: Send + 'static>(
        &self,
        id: B256,
        next: NextLock,
        beside: impl FnOnce(&WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<(Pay, PayLocked, T), ChannelsError> {
        let expiry = self.expiry();
        let turn = self.inner.turn.lock().await;
        let (voucher, paid, locked) = {
            let mut book = self.book();
            let held = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let mut channel = held.clone();
            let paid = channel.lock().ok_or(PayFault::NotUnlocked)?.share;
            let voucher = channel.redeem()?;
            let locked = channel.lock_up(next.share, next.key_hash, expiry)?;
            channel.locked_for(next.range);
            *held = channel;
            book.touch_payer(id);
            (voucher, paid, locked)
        };
        // They are signed while they are written: nobody has them before both are done, and
        // nobody at all if they cannot be written.
        let signed = async {
            let pay = self.say(voucher, paid).await?;
            let lock = self.say_locked(locked, next.share, next.counter).await?;
            Ok::<_, ChannelsError>((pay, lock))
        };
        let written = async {
            let value = self.write(&turn, "channel-pay-and-lock", beside).await;
            drop(turn);
            value
        };
        let (value, signed) = futures_util::future::join(written, signed).await;
        let (value, (pay, lock)) = (value?, signed?);
        Ok((pay, lock, value))
    }

    fn expiry(&self) -> u64 {
        let lifetime = self.inner.config.lock_lifetime.as_secs();
        self.now().saturating_add(lifetime)
    }

    async fn say_locked(
        &self,
        voucher: LockedVoucher,
        share: Share,
        counter: u64,
    ) -> Result<PayLocked, ChannelsError> {
        Ok(PayLocked {
            agreement: share.agreement,
            counter,
            bytes: share.bytes,
            channel: voucher.channel,
            cumulative: voucher.cumulative,
            key_hash: voucher.key_hash,
            expiry: voucher.expiry,
            signature: self.sign(&voucher).await?,
        })
    }

    async fn say(&self, voucher: Voucher, share: Share) -> Result<Pay, ChannelsError> {
        Ok(Pay {
            agreement: share.agreement,
            bytes: share.bytes,
            channel: voucher.channel,
            cumulative: voucher.cumulative,
            signature: self.sign(&voucher).await?,
        })
    }

    /// Promises it under the hash of a key, which opens `range`.
    ///
    /// # Errors
    /// As [`Channels::pay`].
    pub async fn lock_up(
        &self,
        id: B256,
        share: Share,
        counter: u64,
        key_hash: B256,
        range: ByteRange,
    ) -> Result<PayLocked, ChannelsError> {
        let expiry = self.expiry();
        let (voucher, change) = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let voucher = channel.lock_up(share, key_hash, expiry)?;
            channel.locked_for(range);
            (voucher, book.touch_payer(id))
        };
        self.durable(change, "channel-lock").await?;
        self.say_locked(voucher, share, counter).await
    }

    /// The payee has shown the key of the open lock. It is on disk with whatever is written next,
    /// as what it opens is: whoever is killed before that asks for it again, with the same lock.
    ///
    /// # Errors
    /// [`PayFault::Key`] if it is another.
    pub fn unlock(&self, id: B256, key: B256) -> Result<(), ChannelsError> {
        let mut book = self.book();
        let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
        channel.unlock(key)?;
        book.touch_payer(id);
        Ok(())
    }

    /// The key of a lock that was claimed on the chain, where whoever claims has to show it.
    /// `None` if it was not claimed.
    ///
    /// # Errors
    /// The chain cannot be asked.
    ///
    /// # Cancel safety
    /// Only looks.
    pub async fn key_shown(&self, id: B256, hash: B256) -> Result<Option<B256>, ChannelsError> {
        let locked = self.payer(id).and_then(|channel| channel.lock().copied());
        let locked = locked.filter(|lock| lock.voucher.key_hash == hash);
        let sight = self.inner.contract.look(id).await?;
        if locked.is_some_and(|lock| sight.state.claimed < lock.voucher.cumulative) {
            return Ok(None);
        }
        Ok(self.inner.contract.key(id, hash, sight.head).await?)
    }

    /// What the key opened is right: the voucher that takes the lock's place.
    ///
    /// # Errors
    /// [`PayFault::NotUnlocked`]; journal and wallet.
    pub async fn redeem(&self, id: B256) -> Result<Pay, ChannelsError> {
        let (voucher, share, change) = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let lock = channel.lock().copied().ok_or(PayFault::NotUnlocked)?;
            let voucher = channel.redeem()?;
            (voucher, lock.share, book.touch_payer(id))
        };
        self.durable(change, "channel-voucher").await?;
        self.say(voucher, share).await
    }

    /// Adds to the deposit; it can be promised once the chain shows it.
    ///
    /// # Errors
    /// [`PayFault::NotOpen`]; journal and settler.
    pub async fn top_up(&self, id: B256, amount: u128) -> Result<(), ChannelsError> {
        let (number, change) = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            if channel.phase() != Phase::Open {
                return Err(PayFault::NotOpen.into());
            }
            channel.calls = channel.calls.saturating_add(1);
            (channel.calls, book.touch_payer(id))
        };
        self.durable(change, "channel-top-up").await?;
        let call = call_id(id, "top up", number.into());
        let (to, value) = (self.domain().contract(), U256::from(amount));
        let input = channels::top_up(id);
        self.inner.sender.send(call, to, value, input).await?;
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Begins to end a channel without the payee: nothing more is promised, and what is not
    /// claimed comes back after the challenge period.
    ///
    /// # Errors
    /// [`ChannelsError`] of journal and settler.
    pub async fn close(&self, id: B256) -> Result<(), ChannelsError> {
        let change = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            channel.close();
            book.touch_payer(id)
        };
        self.durable(change, "channel-close").await?;
        self.call(id, "close", 0, channels::start_close(id)).await
    }

    /// The payee agreed to end a channel now: taken if it asks for no more than was promised.
    ///
    /// # Errors
    /// [`ChannelsError::Signature`], [`ChannelsError::Terms`]; journal and settler.
    pub async fn left(
        &self,
        close: Close,
        signature: WalletSignature,
    ) -> Result<(), ChannelsError> {
        let id = close.channel;
        let payee = {
            let book = self.book();
            let channel = book.payers.get(&id).ok_or(ChannelsError::Unknown)?;
            channel.payee()
        };
        let Some(_) = Proven::learn(close, signature, payee, self.domain()) else {
            return Err(ChannelsError::Signature);
        };
        let change = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            if close.paid > channel.promised() {
                return Err(ChannelsError::Terms {
                    reason: "the payee wants more than was paid",
                });
            }
            channel.close();
            channel.leave = Some((close.paid, signature));
            book.touch_payer(id)
        };
        self.durable(change, "channel-left").await?;
        let input = channels::cooperative_close(id, close.paid, &signature);
        self.call(id, "leave", close.paid, input).await
    }

    /// Has a call without value executed once.
    pub(in crate::channel) async fn call(
        &self,
        id: B256,
        what: &str,
        number: u128,
        input: bytes::Bytes,
    ) -> Result<(), ChannelsError> {
        let (call, to) = (call_id(id, what, number), self.domain().contract());
        let sender = &self.inner.sender;
        sender.send(call, to, U256::ZERO, input).await?;
        Ok(())
    }

    /// From now on an agreement is paid out of this channel, and no other.
    ///
    /// # Errors
    /// [`PayFault::Full`]; the journal.
    pub async fn adopt(&self, id: B256, agreement: B256) -> Result<(), ChannelsError> {
        let change = {
            let mut book = self.book();
            let channel = book.payers.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            channel.adopt(agreement)?;
            book.touch_payer(id)
        };
        self.durable(change, "channel-adopted").await?;
        Ok(())
    }

    /// An agreement is over; what was paid under it is kept for the statement.
    pub(crate) fn forget(&self, agreement: B256, about: About) {
        let mut book = self.book();
        let its = |channel: &&mut PayerChannel| channel.shares.contains_key(&agreement);
        let Some(channel) = book.payers.values_mut().find(its) else {
            return;
        };
        let (id, partner) = (channel.id(), channel.payee());
        if let Some(share) = channel.forget(agreement) {
            book.over(Past {
                side: Side::Payer,
                channel: id,
                partner,
                share,
                about,
            });
            book.touch_payer(id);
        }
    }

    /// How a channel stands on the chain now.
    ///
    /// # Errors
    /// The chain cannot be asked.
    pub async fn on_chain(&self, id: B256) -> Result<ChannelState, ChannelsError> {
        Ok(self.inner.contract.look(id).await?.state)
    }

    /// Out of which channel an agreement is paid.
    pub fn of(&self, agreement: B256) -> Option<B256> {
        let book = self.book();
        let its = |channel: &&PayerChannel| channel.shares.contains_key(&agreement);
        book.payers.values().find(its).map(PayerChannel::id)
    }

    /// Waits until the chain shows so much of a deposit.
    ///
    /// # Errors
    /// [`ChannelsError::NotYet`] if that takes too long.
    ///
    /// # Cancel safety
    /// Only looks.
    pub async fn deposited(&self, id: B256, wanted: u128) -> Result<(), ChannelsError> {
        let until = Instant::now() + self.inner.config.patience;
        let mut pause = FIRST_LOOK;
        loop {
            if let Err(error) = self.refresh(id).await {
                tracing::debug!(%error, "a channel cannot be looked at");
            }
            if self
                .payer(id)
                .is_some_and(|channel| channel.deposit() >= wanted)
            {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(ChannelsError::NotYet);
            }
            tokio::time::sleep(pause).await;
            pause = LOOK_AGAIN.min(2 * pause);
        }
    }

    /// Under which agreements a lock is open to a wallet whose key has come.
    pub(crate) fn opened_to(&self, payee: Address) -> Vec<B256> {
        let book = self.book();
        let its = book.payers.values();
        let its = its.filter(|channel| channel.payee() == payee);
        let locks = its.filter_map(|channel| channel.lock());
        let opened = locks.filter(|lock| lock.key.is_some());
        opened.map(|lock| lock.share.agreement).collect()
    }

    /// The channel to pay a wallet out of, if there is one.
    pub fn to(&self, payee: Address) -> Option<PayerChannel> {
        self.book().to(payee).cloned()
    }

    /// A channel of ours.
    pub fn payer(&self, id: B256) -> Option<PayerChannel> {
        self.book().payers.get(&id).cloned()
    }
}
