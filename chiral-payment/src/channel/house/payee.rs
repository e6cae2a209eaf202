//! What a node does with channels that it is paid out of.

use alloy_primitives::{Address, B256};
use chiral_core::{WalletKey, WalletSignature};

use super::{Channels, ChannelsError};
use crate::channel::book::{Held, MAX_CHANNELS, Side};
use crate::channel::messages::{Pay, PayLocked};
use crate::channel::past::{About, Past};
use crate::channel::payee::{ClaimRules, PayeeChannel, TakeFault};
use crate::channel::voucher::{ChannelDomain, Close, Proven, Share, Word};
use crate::channel::watcher;

/// The step that keeps a voucher.
const TAKEN: &str = "channel-taken";

impl Channels {
    /// Looks for a channel from `payer` to this node, and binds an agreement to it. Answers its
    /// deposit as far as it is deep enough; `None` if it is not seen yet.
    ///
    /// # Errors
    /// [`ChannelsError::Terms`] if it is not what it has to be; chain and journal.
    pub async fn bind(
        &self,
        agreement: B256,
        payer: Address,
        id: B256,
        least_challenge: u32,
    ) -> Result<Option<u128>, ChannelsError> {
        let sight = self.inner.contract.look(id).await?;
        let state = sight.state;
        let differs = |reason| Err(ChannelsError::Terms { reason });
        if state.payer.is_zero() {
            return Ok(None);
        }
        match () {
            () if state.is_over() || state.is_closing() => return differs("it is about to end"),
            () if state.payer != payer => return differs("somebody else's"),
            () if state.payee != self.inner.me => return differs("it pays somebody else"),
            () if state.challenge < least_challenge => return differs("too short a challenge"),
            () => {}
        }
        let confirmations = u64::from(self.inner.config.confirmations.max(1));
        let (deposit, change) = {
            let mut book = self.book();
            if !book.payees.contains_key(&id) && book.payees.len() >= MAX_CHANNELS {
                return differs("there are too many channels");
            }
            let held = book.payees.entry(id).or_insert_with(|| {
                // Nothing of it counts before it is deep enough.
                let unseen = crate::contracts::ChannelState {
                    deposit: 0,
                    claimed: 0,
                    ..state
                };
                Held {
                    channel: PayeeChannel::new(id, &unseen),
                    key: None,
                    fresh: None,
                }
            });
            if !held.channel.is_open() {
                return differs("it is about to end");
            }
            let since = match held.fresh {
                Some((deposit, since)) if deposit == state.deposit && since <= sight.head => since,
                _ => sight.head,
            };
            held.fresh = Some((state.deposit, since));
            if sight.head + 1 - since >= confirmations {
                held.channel.seen(&state);
            }
            let deposit = held.channel.deposit();
            if deposit == 0 {
                return Ok(None);
            }
            book.bound.insert(agreement, id);
            (deposit, book.touch_payee(id))
        };
        self.durable(change, "channel-bound").await?;
        Ok(Some(deposit))
    }

    /// Out of which channel an agreement is paid.
    pub fn bound(&self, agreement: B256) -> Option<B256> {
        self.book().bound.get(&agreement).copied()
    }

    /// A channel to us.
    pub fn payee(&self, id: B256) -> Option<PayeeChannel> {
        self.book().payees.get(&id).map(|held| held.channel.clone())
    }

    /// What is paid under an agreement.
    pub fn paid_under(&self, agreement: B256) -> Share {
        let book = self.book();
        let held = book
            .bound
            .get(&agreement)
            .and_then(|id| book.payees.get(id));
        let none = Share {
            agreement,
            bytes: 0,
            amount: 0,
        };
        held.map_or(none, |held| held.channel.share(agreement))
    }

    /// Every agreement under which anything was paid in a channel.
    pub fn shares(&self) -> Vec<Share> {
        let book = self.book();
        let held = book.payees.values();
        held.flat_map(|held| held.channel.shares.values().copied())
            .collect()
    }

    /// Checks a word of a channel's payer, with its key if that is known.
    fn prove<T: Word>(
        &self,
        id: B256,
        word: T,
        signature: WalletSignature,
    ) -> Result<Proven<T>, ChannelsError> {
        let (payer, key) = {
            let book = self.book();
            let held = book.payees.get(&id).ok_or(ChannelsError::Unknown)?;
            (held.channel.payer(), held.key)
        };
        // Not under the lock: it takes a tenth of a millisecond.
        let (proven, learnt) = check(word, signature, payer, key, self.domain())?;
        if let Some(learnt) = learnt
            && let Some(held) = self.book().payees.get_mut(&id)
        {
            held.key = Some(learnt);
        }
        Ok(proven)
    }

    /// Takes a voucher for bytes that cost `amount` in all under their agreement. Durable when
    /// this answers. True if anything is new.
    ///
    /// # Errors
    /// [`ChannelsError::Take`], [`ChannelsError::Signature`]; the journal.
    ///
    /// # Cancel safety
    /// It may have been taken; the same again changes nothing.
    pub async fn take(&self, pay: &Pay, amount: u128) -> Result<bool, ChannelsError> {
        let (change, new) = self.note(pay, amount)?;
        self.taken(change).await?;
        Ok(new)
    }

    /// The same, but not on disk yet: that is for whoever calls, before anything is served for
    /// it. Answers up to which change, and whether anything is new. If nothing is, it may be
    /// that whoever took it before did not get as far as the disk.
    pub(crate) fn note(&self, pay: &Pay, amount: u128) -> Result<(u64, bool), ChannelsError> {
        let id = pay.channel;
        let voucher = self.prove(id, pay.voucher(), pay.signature)?;
        let share = Share {
            agreement: pay.agreement,
            bytes: pay.bytes,
            amount,
        };
        let mut book = self.book();
        let held = book.payees.get_mut(&id).ok_or(ChannelsError::Unknown)?;
        if !held.channel.take(share, voucher)? {
            return Ok((book.last_change(), false));
        }
        book.bound.insert(share.agreement, id);
        Ok((book.touch_payee(id), true))
    }

    /// Makes durable what was [noted](Self::note), if that was not done in a step with something
    /// else.
    pub(crate) async fn taken(&self, change: u64) -> Result<(), ChannelsError> {
        Ok(self.durable(change, TAKEN).await?)
    }

    /// Takes a locked voucher, after which `key` may be told. Durable when this answers.
    ///
    /// # Errors
    /// As [`Channels::take`]; then the key must not be told.
    pub async fn take_lock(
        &self,
        lock: &PayLocked,
        amount: u128,
        key: B256,
    ) -> Result<(), ChannelsError> {
        let id = lock.channel;
        let voucher = self.prove(id, lock.voucher(), lock.signature)?;
        let earliest = self.now() + self.inner.config.least_lock.as_secs();
        let change = {
            let mut book = self.book();
            let held = book.payees.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let share = lock.share(amount);
            held.channel.take_lock(share, voucher, key, earliest)?;
            book.bound.insert(lock.agreement, id);
            book.touch_payee(id)
        };
        self.durable(change, "channel-locked").await?;
        Ok(())
    }

    /// Agrees to end a channel with what was paid so far; nothing more is taken from it.
    ///
    /// # Errors
    /// [`TakeFault::Locked`] while a lock is open; journal and wallet.
    pub async fn leave(&self, id: B256) -> Result<(Close, WalletSignature), ChannelsError> {
        let (paid, change) = {
            let mut book = self.book();
            let held = book.payees.get_mut(&id).ok_or(ChannelsError::Unknown)?;
            let paid = held.channel.leave().ok_or(TakeFault::Locked)?;
            (paid, book.touch_payee(id))
        };
        self.durable(change, "channel-leave").await?;
        let close = Close { channel: id, paid };
        let signature = self.sign(&close).await?;
        Ok((close, signature))
    }

    /// Claims what a channel to us has paid, and with the key what is locked, now.
    ///
    /// # Errors
    /// Chain, journal and settler.
    pub async fn claim(&self, id: B256) -> Result<(), ChannelsError> {
        let rules = ClaimRules {
            at_least: 1,
            lock_margin: u64::MAX,
        };
        watcher::tend_theirs(self, id, rules).await
    }

    /// An agreement is over; what was paid under it is kept for the statement.
    pub(crate) fn fold(&self, agreement: B256, about: About) {
        let mut book = self.book();
        let Some(id) = book.bound.get(&agreement).copied() else {
            return;
        };
        if let Some(held) = book.payees.get_mut(&id) {
            let (partner, share) = (held.channel.payer(), held.channel.fold(agreement));
            if let Some(share) = share {
                book.over(Past {
                    side: Side::Payee,
                    channel: id,
                    partner,
                    share,
                    about,
                });
            }
            book.touch_payee(id);
        }
        book.bound.remove(&agreement);
    }
}

fn check<T: Word>(
    word: T,
    signature: WalletSignature,
    payer: Address,
    key: Option<WalletKey>,
    domain: &ChannelDomain,
) -> Result<(Proven<T>, Option<WalletKey>), ChannelsError> {
    let checked = match key {
        Some(key) => Proven::check(word, signature, &key, domain).map(|proven| (proven, None)),
        None => {
            Proven::learn(word, signature, payer, domain).map(|(proven, key)| (proven, Some(key)))
        }
    };
    checked.ok_or(ChannelsError::Signature)
}
