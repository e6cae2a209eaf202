//! What the gate does with channels: binds agreements to them, takes vouchers, sells keys.

use alloy_primitives::{B256, U256};
use bytes::Bytes;
use chiral_core::{Admission, GateError, Sealed, ServeRequest};

use super::{ChainGate, books_failed, denied, not_yet, refused};
use crate::channel::cipher::{self, MAX_SEALED};
use crate::channel::messages::{Bind, ChannelMessage, Leave, Pay, PayLocked, Reopen, Seal, wei};
use crate::channel::payee::TakeFault;
use crate::channel::{Channels, ChannelsError};
use crate::messages::{Message, Policy, Request, Signed};

/// Sealed answers of one agreement that are remembered, at most: several windows of them. The
/// oldest make room, since what was paid says nothing of which keys are still to be bought: a
/// seeder that was killed may have forgotten that it served them.
const MAX_SEALS: usize = 4096;

type Answer = Result<Message, GateError>;

impl ChainGate {
    /// The answer to a request under an agreement whose channel is not known, or that wants
    /// plain bytes where sealed ones are sold; `None` if neither is so.
    pub(super) fn without_channel(
        &self,
        agreement: B256,
        request: &ServeRequest,
    ) -> Option<Admission> {
        let policy = {
            let books = self.books();
            books.accounts.get(&agreement)?.terms.policy
        };
        if policy == Policy::LockedVoucher && !request.sealed {
            return Some(denied("this is sold sealed, and not over this protocol"));
        }
        if !policy.needs_channel() {
            return None;
        }
        let channels = self.inner.channels.as_ref();
        let bound = channels.and_then(|channels| channels.payee(channels.bound(agreement)?));
        let due = Message::Due {
            agreement,
            amount: U256::ZERO,
            prepay_bytes: 0,
        };
        match bound {
            Some(channel) if channel.is_open() => None,
            _ => Some(Admission::PaymentRequired(due.encode())),
        }
    }

    /// A message about a channel has come.
    pub(super) async fn about_channel(
        &self,
        message: ChannelMessage,
    ) -> Result<Message, GateError> {
        let Some(channels) = &self.inner.channels else {
            return Err(GateError::Unsupported {
                what: "payment in channels",
            });
        };
        match message {
            ChannelMessage::Bind(bind) => self.bind(channels, bind).await,
            ChannelMessage::Pay(pay) => self.take(channels, pay).await,
            ChannelMessage::Lock(lock) => self.sell_key(channels, lock).await,
            ChannelMessage::PayAndLock(pay, lock) => self.take_and_sell(channels, pay, lock).await,
            ChannelMessage::Reopen(reopen) => self.tell_again(channels, reopen).await,
            ChannelMessage::Leave(leave) => self.leave(channels, leave).await,
            _ => Err(GateError::Message {
                reason: "not a message for a gate",
            }),
        }
    }

    async fn bind(&self, channels: &Channels, bind: Signed<Bind>) -> Result<Message, GateError> {
        let Bind { agreement, channel } = bind.body;
        match self.is_of_session(agreement, &bind) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let terms = {
            let books = self.books();
            let account = books.accounts.get(&agreement);
            account.map(|account| (account.terms.payer, account.terms.channel))
        };
        let Some((payer, terms)) = terms else {
            return Ok(Message::Ended { agreement });
        };
        let Ok(_look) = self.inner.looks.try_acquire() else {
            return Ok(not_yet());
        };
        let seen = channels.bind(agreement, payer, channel, terms.challenge);
        Ok(match seen.await {
            Ok(Some(deposit)) => Message::Channel(ChannelMessage::Bound {
                agreement,
                channel,
                deposit,
            }),
            Ok(None) => not_yet(),
            Err(ChannelsError::Chain(error)) => {
                tracing::warn!(%error, "a channel cannot be looked up");
                not_yet()
            }
            Err(error) => taken_or_refused(error)?,
        })
    }

    async fn take(&self, channels: &Channels, pay: Pay) -> Result<Message, GateError> {
        let agreement = pay.agreement;
        let change = match self.note(channels, &pay) {
            Ok(change) => change,
            Err(answer) => return *answer,
        };
        if let Err(error) = channels.taken(change).await {
            return taken_or_refused(error);
        }
        let bytes = self.paid(channels, agreement);
        Ok(Message::Channel(ChannelMessage::Paid { agreement, bytes }))
    }

    /// Takes a voucher, which may not be on disk yet; answers up to which change that is to be.
    /// What it is answered with if it is not taken.
    fn note(&self, channels: &Channels, pay: &Pay) -> Result<u64, Box<Answer>> {
        let agreement = pay.agreement;
        let Some(amount) = self.cost_in(channels, agreement, pay.channel, pay.bytes) else {
            return Err(Box::new(Ok(Message::Ended { agreement })));
        };
        let Some(amount) = wei(amount) else {
            return Err(Box::new(Ok(refused("the amount overflows"))));
        };
        let noted = channels.note(pay, amount);
        let noted = noted.map_err(|error| Box::new(taken_or_refused(error)));
        noted.map(|(change, _)| change)
    }

    /// What vouchers on disk pay for is served from now on. Answers how much that is.
    fn paid(&self, channels: &Channels, agreement: B256) -> u64 {
        let bytes = channels.paid_under(agreement).bytes;
        let now = self.now();
        let mut books = self.books();
        books.pay_in_band(agreement, bytes, now);
        bytes
    }

    /// A voucher for what was bought before, and a lock behind it: both are on disk in one step
    /// before the key is told. The voucher stays taken whatever becomes of the lock.
    async fn take_and_sell(
        &self,
        channels: &Channels,
        pay: Pay,
        lock: PayLocked,
    ) -> Result<Message, GateError> {
        if (pay.agreement, pay.channel) != (lock.agreement, lock.channel) {
            return Ok(refused("a payment and a lock of different channels"));
        }
        let change = match self.note(channels, &pay) {
            Ok(change) => change,
            Err(answer) => return *answer,
        };
        let answer = self.sell_key(channels, lock).await;
        if let Err(error) = channels.taken(change).await {
            return taken_or_refused(error);
        }
        self.paid(channels, pay.agreement);
        answer
    }

    /// What so many bytes cost under an agreement that is paid out of this channel.
    fn cost_in(
        &self,
        channels: &Channels,
        agreement: B256,
        channel: B256,
        bytes: u64,
    ) -> Option<U256> {
        let payer = channels.payee(channel)?.payer();
        let books = self.books();
        let account = books.accounts.get(&agreement)?;
        let bound = channels.bound(agreement);
        let its = account.terms.payer == payer && bound.is_none_or(|bound| bound == channel);
        its.then(|| account.total_cost(bytes))
    }

    async fn sell_key(&self, channels: &Channels, lock: PayLocked) -> Result<Message, GateError> {
        let agreement = lock.agreement;
        let Some(amount) = self.cost_in(channels, agreement, lock.channel, lock.bytes) else {
            return Ok(Message::Ended { agreement });
        };
        let before = channels.paid_under(agreement).bytes;
        let sealed = {
            let books = self.books();
            let account = books.accounts.get(&agreement);
            account.and_then(|account| account.sealed.get(&lock.counter).copied())
        };
        let found = match sealed {
            Some(range) => Some((channels.key(agreement, range), range.len())),
            // A lock that was taken before a restart is told its key again.
            None => channels.payee(lock.channel).and_then(|channel| {
                let held = *channel.lock()?;
                let same = held.share.agreement == agreement
                    && held.voucher.body().key_hash == lock.key_hash
                    && held.share.bytes == lock.bytes;
                same.then(|| (held.key, lock.bytes.saturating_sub(before)))
            }),
        };
        let Some((key, length)) = found else {
            return Ok(refused("nothing was sealed for that request"));
        };
        // The whole of what was sealed, on top of what was paid before: nothing else.
        let (true, Some(amount)) = (before.checked_add(length) == Some(lock.bytes), wei(amount))
        else {
            return Ok(refused("pays for something else than was sealed"));
        };
        let mut taken = channels.take_lock(&lock, amount, key).await;
        if let Err(ChannelsError::Take(TakeFault::OverDeposit)) = taken {
            // There may be more in it since it was looked at.
            match self.look_again(channels, agreement, lock.channel).await {
                true => taken = channels.take_lock(&lock, amount, key).await,
                false => return Ok(not_yet()),
            }
        }
        match taken {
            Ok(()) => {
                let mut books = self.books();
                if let Some(range) = sealed {
                    books.opened(agreement, range);
                }
                Ok(Message::Channel(ChannelMessage::Key { agreement, key }))
            }
            // What pays for the lock of another agreement may come over another connection, and
            // later than this.
            Err(ChannelsError::Take(TakeFault::Locked))
                if channels.payee(lock.channel).is_some_and(|channel| {
                    let held = channel.lock();
                    held.is_none_or(|held| held.share.agreement != agreement)
                }) =>
            {
                Ok(not_yet())
            }
            Err(error) => taken_or_refused(error),
        }
    }

    /// The key of what was bought before, once more and for nothing: the buyer has it, or had
    /// it, and what it opened was lost.
    async fn tell_again(
        &self,
        channels: &Channels,
        reopen: Signed<Reopen>,
    ) -> Result<Message, GateError> {
        let Reopen { agreement, counter } = reopen.body;
        match self.is_of_session(agreement, &reopen) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        let range = {
            let books = self.books();
            let account = books.accounts.get(&agreement);
            account.and_then(|account| {
                let range = account.sealed.get(&counter).copied()?;
                account.acked.covers(range).then_some(range)
            })
        };
        Ok(match range {
            Some(range) => {
                let key = channels.key(agreement, range);
                Message::Channel(ChannelMessage::Key { agreement, key })
            }
            None => refused("its key was not bought"),
        })
    }

    /// Whether the chain could be asked how much is in a channel.
    async fn look_again(&self, channels: &Channels, agreement: B256, channel: B256) -> bool {
        let terms = {
            let books = self.books();
            let account = books.accounts.get(&agreement);
            account.map(|account| (account.terms.payer, account.terms.channel.challenge))
        };
        let (Some((payer, challenge)), Ok(_look)) = (terms, self.inner.looks.try_acquire()) else {
            return false;
        };
        let seen = channels.bind(agreement, payer, channel, challenge).await;
        !matches!(seen, Err(ChannelsError::Chain(_)))
    }

    async fn leave(&self, channels: &Channels, leave: Signed<Leave>) -> Result<Message, GateError> {
        let Leave { agreement, channel } = leave.body;
        match self.is_of_session(agreement, &leave) {
            None => return Ok(Message::Ended { agreement }),
            Some(false) => return Ok(refused("not signed by the session's key")),
            Some(true) => {}
        }
        if self.cost_in(channels, agreement, channel, 0).is_none() {
            return Ok(refused("not the channel of that agreement"));
        }
        match channels.leave(channel).await {
            Ok((close, signature)) => Ok(Message::Channel(ChannelMessage::Left(close, signature))),
            Err(error) => taken_or_refused(error),
        }
    }

    /// Seals the answer to an admitted request.
    pub(super) async fn seal_answer(
        &self,
        request: &ServeRequest,
        data: Bytes,
    ) -> Result<Sealed, GateError> {
        let Some(channels) = &self.inner.channels else {
            return Err(GateError::Unsupported { what: "sealing" });
        };
        let shown = request.credential.as_deref().map(Message::decode);
        let Some(Ok(Message::Request(shown))) = shown else {
            return Err(GateError::Message {
                reason: "a request without a credential is not sealed",
            });
        };
        let Request {
            agreement, counter, ..
        } = shown.body;
        let length = data.len() as u64;
        if length == 0 || length > MAX_SEALED || length != request.range.len() {
            return Err(GateError::Message {
                reason: "not the bytes of the request",
            });
        }
        {
            let mut books = self.books();
            let account = books.accounts.get_mut(&agreement);
            let account = account.filter(|account| {
                account.terms.policy == Policy::LockedVoucher && account.is_in_flight(counter)
            });
            let Some(account) = account else {
                return Err(GateError::Message {
                    reason: "a request that was not admitted is not sealed",
                });
            };
            while account.sealed.len() >= MAX_SEALS {
                account.sealed.pop_first();
            }
            account.sealed.insert(counter, request.range);
        }
        let key = channels.key(agreement, request.range);
        let data = cipher::applied(&key, &data, &self.inner.buffers);
        let seal = Seal {
            agreement,
            counter,
            range: request.range,
            key_hash: cipher::key_hash(&key),
            data: cipher::data_hash(&data),
        };
        let seal = self.sign(seal).await?;
        let header = Message::Channel(ChannelMessage::Seal(seal)).encode();
        Ok(Sealed::new(header, data))
    }

    /// Tells the channels which agreements are over, before they are gone from disk here.
    pub(super) async fn fold_ended(&self) {
        let ended = self.books().take_ended();
        let Some(channels) = &self.inner.channels else {
            return;
        };
        for (agreement, about) in ended {
            channels.fold(agreement, about);
        }
        if let Err(error) = channels.write_down().await {
            tracing::warn!(%error, "what was paid in channels is not on disk");
        }
    }
}

/// What to say of an error: words for the buyer if it is the buyer's, an error if it is ours.
fn taken_or_refused(error: ChannelsError) -> Result<Message, GateError> {
    match error {
        ChannelsError::Journal(error) => Err(books_failed(error)),
        ChannelsError::Signer(error) => Err(GateError::Wallet(std::sync::Arc::new(error))),
        ChannelsError::Chain(_) | ChannelsError::Settle(_) => Err(GateError::Ledger),
        error => Ok(refused(&error.to_string())),
    }
}
