//! [`PayerChannel`]: what the payer has promised. No clock, no key, no disk: whoever holds it
//! writes it down before what it answers is signed and sent.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use chiral_core::ByteRange;

use super::cipher::key_hash;
use super::voucher::{LockedVoucher, Share, Voucher};

/// Agreements of one channel whose shares are kept apart, at most.
pub const MAX_SHARES: usize = 1024;

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its transaction is on the way.
    Opening,
    /// It can be paid from.
    Open,
    /// It is about to end: nothing new is paid.
    Closing,
    /// It is over.
    Closed,
}

/// Why nothing was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayFault {
    /// It is not open yet, or no longer.
    #[error("the channel is not open")]
    NotOpen,
    /// A lock is open; what it pays comes first.
    #[error("the channel has an open lock")]
    Locked,
    /// There is no lock, or its key is not known.
    #[error("the channel has no lock that is opened")]
    NotUnlocked,
    /// More was promised before.
    #[error("more was paid under this agreement before")]
    Backwards,
    /// The deposit is too small.
    #[error("{missing} wei more have to be deposited")]
    Short {
        /// Wei.
        missing: u128,
    },
    /// Too many agreements, or amounts beyond all money.
    #[error("the channel has too many agreements")]
    Full,
    /// The key is another's.
    #[error("not the key of the lock")]
    Key,
}

/// A promise under a key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What is promised.
    pub voucher: LockedVoucher,
    /// What it brings its agreement to.
    pub share: Share,
    /// The key, once the payee has shown it.
    pub key: Option<B256>,
    /// What the key opens, as far as that was said.
    pub range: Option<ByteRange>,
}

/// What became of a lock after its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It is not over, or there is none.
    Waiting,
    /// It was not claimed: the money is free again.
    Released,
    /// It was claimed on the chain: the money is spent, and the key is in the claim.
    Taken,
}

/// A channel as its payer keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayerChannel {
    pub(super) id: B256,
    pub(super) payee: Address,
    pub(super) challenge: u32,
    pub(super) salt: B256,
    pub(super) deposit: u128,
    /// What vouchers say in all; an open lock is not in it.
    pub(super) promised: u128,
    pub(super) shares: BTreeMap<B256, Share>,
    pub(super) lock: Option<Lock>,
    pub(super) phase: Phase,
    /// Deposits and ends that were asked for, so that each has a number of its own.
    pub(super) calls: u32,
    /// What the payee agreed to end with, as it signed it.
    pub(super) leave: Option<(u128, chiral_core::WalletSignature)>,
}

impl PayerChannel {
    /// One whose transaction is about to be sent.
    pub fn new(id: B256, payee: Address, challenge: u32, salt: B256, deposit: u128) -> Self {
        Self {
            id,
            payee,
            challenge,
            salt,
            deposit,
            promised: 0,
            shares: BTreeMap::new(),
            lock: None,
            phase: Phase::Opening,
            calls: 0,
            leave: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> B256 {
        self.id
    }

    /// Who is paid.
    pub fn payee(&self) -> Address {
        self.payee
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Wei deposited.
    pub fn deposit(&self) -> u128 {
        self.deposit
    }

    /// What it pays for, agreement by agreement.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.values()
    }

    /// With what the payee agreed to end it, if it did.
    pub fn left_with(&self) -> Option<u128> {
        self.leave.map(|(paid, _)| paid)
    }

    /// Wei promised for good.
    pub fn promised(&self) -> u128 {
        self.promised
    }

    /// Wei that can still be promised. What is locked is not free.
    pub fn free(&self) -> u128 {
        let locked = self.lock.map_or(0, |lock| lock.voucher.cumulative);
        self.deposit.saturating_sub(self.promised.max(locked))
    }

    /// The open lock.
    pub fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// What is paid under an agreement.
    pub fn share(&self, agreement: B256) -> Share {
        let known = self.shares.get(&agreement).copied();
        known.unwrap_or(Share {
            agreement,
            bytes: 0,
            amount: 0,
        })
    }

    /// Seconds of its challenge period.
    pub fn challenge(&self) -> u32 {
        self.challenge
    }

    /// An agreement is paid out of it from now on.
    ///
    /// # Errors
    /// [`PayFault::Full`].
    pub fn adopt(&mut self, agreement: B256) -> Result<(), PayFault> {
        if self.shares.len() >= MAX_SHARES && !self.shares.contains_key(&agreement) {
            return Err(PayFault::Full);
        }
        let share = self.share(agreement);
        self.shares.insert(agreement, share);
        Ok(())
    }

    /// The chain shows it, with this deposit.
    pub fn opened(&mut self, deposit: u128) {
        if self.phase == Phase::Opening {
            self.phase = Phase::Open;
        }
        self.deposit = deposit;
    }

    /// It is to end: nothing new is promised.
    pub fn close(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closing;
        }
    }

    /// The chain shows that it is over.
    pub fn closed(&mut self) {
        self.phase = Phase::Closed;
        self.lock = None;
    }

    /// Whether one more agreement can be paid out of it.
    pub fn has_room(&self) -> bool {
        self.shares.len() < MAX_SHARES
    }

    /// An agreement is over: what was paid under it stays paid. Answers that.
    pub fn forget(&mut self, agreement: B256) -> Option<Share> {
        let locked = self.lock.map(|lock| lock.share.agreement);
        match locked == Some(agreement) {
            true => None,
            false => self.shares.remove(&agreement),
        }
    }

    /// How much a share adds to what was promised, and what that makes in all.
    fn total(&self, share: &Share) -> Result<u128, PayFault> {
        if self.phase != Phase::Open {
            return Err(PayFault::NotOpen);
        }
        let before = self.share(share.agreement);
        if share.bytes < before.bytes || share.amount < before.amount {
            return Err(PayFault::Backwards);
        }
        if self.shares.len() >= MAX_SHARES && !self.shares.contains_key(&share.agreement) {
            return Err(PayFault::Full);
        }
        let total = self.promised.checked_add(share.amount - before.amount);
        let total = total.ok_or(PayFault::Full)?;
        match total.checked_sub(self.deposit) {
            None | Some(0) => Ok(total),
            Some(missing) => Err(PayFault::Short { missing }),
        }
    }

    /// Promises what brings an agreement to `share`. The same again answers the same voucher.
    ///
    /// # Errors
    /// [`PayFault`]; then nothing is promised.
    pub fn pay(&mut self, share: Share) -> Result<Voucher, PayFault> {
        let total = self.total(&share)?;
        // A higher voucher would be worth more than the lock: the payee could have both, or
        // would lose one of them.
        if self.lock.is_some() && total > self.promised {
            return Err(PayFault::Locked);
        }
        self.promised = total;
        self.shares.insert(share.agreement, share);
        Ok(Voucher {
            channel: self.id,
            cumulative: total,
            context: share.context(),
        })
    }

    /// Promises it under a key's hash. The same again answers the same.
    ///
    /// # Errors
    /// [`PayFault`]; [`PayFault::Locked`] while another lock is open.
    pub fn lock_up(
        &mut self,
        share: Share,
        key_hash: B256,
        expiry: u64,
    ) -> Result<LockedVoucher, PayFault> {
        if let Some(lock) = &self.lock {
            let same = lock.share == share && lock.voucher.key_hash == key_hash;
            return match same && self.phase == Phase::Open {
                true => Ok(lock.voucher),
                false => Err(PayFault::Locked),
            };
        }
        let voucher = LockedVoucher {
            channel: self.id,
            cumulative: self.total(&share)?,
            context: share.context(),
            key_hash,
            expiry,
        };
        self.lock = Some(Lock {
            voucher,
            share,
            key: None,
            range: None,
        });
        Ok(voucher)
    }

    /// What the key of the open lock opens: after a restart it is asked for first.
    pub fn locked_for(&mut self, range: ByteRange) {
        if let Some(lock) = &mut self.lock {
            lock.range = Some(range);
        }
    }

    /// The payee has shown a key.
    ///
    /// # Errors
    /// [`PayFault::Key`] if it is not the lock's.
    pub fn unlock(&mut self, key: B256) -> Result<(), PayFault> {
        let lock = self.lock.as_mut().ok_or(PayFault::NotUnlocked)?;
        if key_hash(&key) != lock.voucher.key_hash {
            return Err(PayFault::Key);
        }
        lock.key = Some(key);
        Ok(())
    }

    /// What the key opened is right: a voucher takes the lock's place.
    ///
    /// # Errors
    /// [`PayFault::NotUnlocked`].
    pub fn redeem(&mut self) -> Result<Voucher, PayFault> {
        let lock = self.lock.filter(|lock| lock.key.is_some());
        let lock = lock.ok_or(PayFault::NotUnlocked)?;
        self.take(&lock);
        Ok(Voucher {
            channel: self.id,
            cumulative: lock.voucher.cumulative,
            context: lock.share.context(),
        })
    }

    fn take(&mut self, lock: &Lock) {
        self.promised = self.promised.max(lock.voucher.cumulative);
        self.shares.insert(lock.share.agreement, lock.share);
        self.lock = None;
    }

    /// What the chain shows once its time is past the lock's: how much was claimed.
    pub fn expire(&mut self, time: u64, claimed: u128) -> Expiry {
        let Some(lock) = self.lock else {
            return Expiry::Waiting;
        };
        if claimed > self.promised {
            self.take(&lock);
            return Expiry::Taken;
        }
        if time < lock.voucher.expiry {
            return Expiry::Waiting;
        }
        self.lock = None;
        Expiry::Released
    }
}
