//! Channels in the journal.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use chiral_core::{ByteRange, WalletSignature};
use redb::{ReadTransaction, WriteTransaction};

use super::book::{Book, Dirty};
use super::past;
use super::payee::{HeldLock, PayeeChannel};
use super::payer::{Lock, PayerChannel, Phase};
use super::voucher::{ChannelDomain, LockedVoucher, Proven, Share, Voucher};
use crate::JournalError;
use crate::records::{self, DAMAGED, Table, table};

mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        struct Share {
            bytes32 agreement;
            uint64 size;
            uint128 amount;
        }

        struct Lock {
            uint128 cumulative;
            Share share;
            bytes32 keyHash;
            uint64 expiry;
            bytes32 key;
            bytes signature;
        }

        struct Payer {
            address payee;
            uint32 challenge;
            bytes32 salt;
            uint128 deposit;
            uint128 promised;
            Share[] shares;
            Lock[] lock;
            uint8 phase;
            uint32 calls;
            uint128 leavePaid;
            bytes leave;
        }

        struct Payee {
            address payer;
            uint32 challenge;
            uint128 deposit;
            uint128 claimed;
            uint128 cumulative;
            bytes32 context;
            bytes signature;
            Share[] shares;
            uint128 folded;
            Lock[] lock;
            uint128[] leaving;
            bool closing;
            bool over;
            uint32 calls;
        }

        struct Secret {
            bytes32 secret;
        }

        struct Contract {
            address at;
            uint64 chainId;
        }
    }
}

const PAYER: Table = table("channel-payer");
const PAYEE: Table = table("channel-payee");
const META: Table = table("channel-meta");

/// Key of the one row of [`META`].
const SECRET: [u8; 32] = *b"secret of keys of sealed chunks\0";

/// Key of the row that says of which contract the channels are.
const CONTRACT: [u8; 32] = *b"contract of these channels\0\0\0\0\0\0";

/// Of which contract the channels on disk are, if that was said.
pub(crate) fn domain(step: &ReadTransaction) -> Result<Option<ChannelDomain>, JournalError> {
    let found = records::read::<sol::Contract>(step, META, &CONTRACT)?;
    Ok(found.map(|contract| ChannelDomain::new(contract.chainId, contract.at)))
}

/// They are of this one.
pub(super) fn save_domain(
    step: &WriteTransaction,
    domain: ChannelDomain,
) -> Result<(), JournalError> {
    let contract = sol::Contract {
        at: domain.contract(),
        chainId: domain.chain_id(),
    };
    records::put(step, META, &CONTRACT, &contract)
}

/// All channels of a journal that no node has open.
pub(crate) fn read(step: &ReadTransaction) -> Result<Book, JournalError> {
    let mut book = Book::default();
    if let Some(domain) = domain(step)? {
        load(step, &mut book, &domain)?;
    }
    Ok(book)
}

/// Everything on disk.
pub(super) fn load(
    step: &ReadTransaction,
    book: &mut Book,
    domain: &ChannelDomain,
) -> Result<Option<B256>, JournalError> {
    for (key, record) in records::all::<sol::Payer>(step, PAYER)? {
        let channel = payer(B256::from(key), &record).ok_or(DAMAGED)?;
        book.restore_payer(channel);
    }
    for (key, record) in records::all::<sol::Payee>(step, PAYEE)? {
        let channel = payee(B256::from(key), &record, domain).ok_or(DAMAGED)?;
        book.restore_payee(channel);
    }
    let secret = records::read::<sol::Secret>(step, META, &SECRET)?;
    Ok(secret.map(|secret| secret.secret))
}

/// The secret from which keys of sealed chunks are derived.
pub(super) fn save_secret(step: &WriteTransaction, secret: B256) -> Result<(), JournalError> {
    records::put(step, META, &SECRET, &sol::Secret { secret })
}

/// Writes what has changed.
pub(super) fn save(
    step: &WriteTransaction,
    book: &Book,
    dirty: &Dirty,
) -> Result<(), JournalError> {
    for id in &dirty.payers {
        if let Some(channel) = book.payers.get(id) {
            records::put(step, PAYER, &id.0, &payer_record(channel))?;
        }
    }
    for past in &dirty.past {
        past::save(step, past)?;
    }
    for id in &dirty.payees {
        if let Some(held) = book.payees.get(id) {
            records::put(step, PAYEE, &id.0, &payee_record(&held.channel))?;
        }
    }
    Ok(())
}

fn share_record(share: &Share) -> sol::Share {
    sol::Share {
        agreement: share.agreement,
        size: share.bytes,
        amount: share.amount,
    }
}

fn share(record: &sol::Share) -> Share {
    Share {
        agreement: record.agreement,
        bytes: record.size,
        amount: record.amount,
    }
}

fn shares(records: &[sol::Share]) -> BTreeMap<B256, Share> {
    let shares = records.iter().map(share);
    shares.map(|share| (share.agreement, share)).collect()
}

fn payer_record(channel: &PayerChannel) -> sol::Payer {
    let lock = channel.lock.iter().map(|lock| sol::Lock {
        cumulative: lock.voucher.cumulative,
        share: share_record(&lock.share),
        keyHash: lock.voucher.key_hash,
        expiry: lock.voucher.expiry,
        key: lock.key.unwrap_or_default(),
        signature: note(lock).into(),
    });
    let (paid, signature) = match &channel.leave {
        Some((paid, signature)) => (*paid, signature.as_bytes().to_vec()),
        None => (0, Vec::new()),
    };
    sol::Payer {
        payee: channel.payee,
        challenge: channel.challenge,
        salt: channel.salt,
        deposit: channel.deposit,
        promised: channel.promised,
        shares: channel.shares.values().map(share_record).collect(),
        lock: lock.collect(),
        phase: match channel.phase {
            Phase::Opening => 0,
            Phase::Open => 1,
            Phase::Closing => 2,
            Phase::Closed => 3,
        },
        calls: channel.calls,
        leavePaid: paid,
        leave: signature.into(),
    }
}

fn payer(id: B256, record: &sol::Payer) -> Option<PayerChannel> {
    let (payee, deposit) = (record.payee, record.deposit);
    let mut channel = PayerChannel::new(id, payee, record.challenge, record.salt, deposit);
    channel.promised = record.promised;
    channel.shares = shares(&record.shares);
    channel.phase = match record.phase {
        0 => Phase::Opening,
        1 => Phase::Open,
        2 => Phase::Closing,
        3 => Phase::Closed,
        _ => return None,
    };
    channel.calls = record.calls;
    channel.lock = match record.lock.as_slice() {
        [] => None,
        [lock] => {
            let share = share(&lock.share);
            let (known, range) = noted(&lock.signature)?;
            Some(Lock {
                voucher: locked(id, lock, &share),
                share,
                key: known.then_some(lock.key),
                range,
            })
        }
        _ => return None,
    };
    channel.leave = match record.leave.is_empty() {
        true => None,
        false => Some((record.leavePaid, signature(&record.leave)?)),
    };
    Some(channel)
}

/// Beside a payer's lock, where a payee's has the payer's signature: whether its key is known,
/// and what it opens.
fn note(lock: &Lock) -> Vec<u8> {
    let mut note = vec![u8::from(lock.key.is_some())];
    if let Some(range) = lock.range {
        note.extend_from_slice(&range.start.to_be_bytes());
        note.extend_from_slice(&range.end.to_be_bytes());
    }
    note
}

fn noted(note: &[u8]) -> Option<(bool, Option<ByteRange>)> {
    let (known, rest) = match note.split_first()? {
        (0, rest) => (false, rest),
        (1, rest) => (true, rest),
        _ => return None,
    };
    if rest.is_empty() {
        // As it was written before ranges were.
        return Some((known, None));
    }
    let rest: &[u8; 16] = rest.try_into().ok()?;
    let (start, end) = rest.split_at(8);
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let (start, end) = (number(start)?, number(end)?);
    (start < end).then(|| (known, Some(ByteRange::new(start, end))))
}

fn locked(id: B256, lock: &sol::Lock, share: &Share) -> LockedVoucher {
    LockedVoucher {
        channel: id,
        cumulative: lock.cumulative,
        context: share.context(),
        key_hash: lock.keyHash,
        expiry: lock.expiry,
    }
}

fn signature(bytes: &[u8]) -> Option<WalletSignature> {
    WalletSignature::from_bytes(bytes.try_into().ok()?).ok()
}

fn payee_record(channel: &PayeeChannel) -> sol::Payee {
    let best = channel.best.as_ref();
    let lock = channel.lock.iter().map(|lock| {
        let said = lock.voucher.body();
        sol::Lock {
            cumulative: said.cumulative,
            share: share_record(&lock.share),
            keyHash: said.key_hash,
            expiry: said.expiry,
            key: lock.key,
            signature: lock.voucher.signature().as_bytes().to_vec().into(),
        }
    });
    sol::Payee {
        payer: channel.payer,
        challenge: channel.challenge,
        deposit: channel.deposit,
        claimed: channel.claimed,
        cumulative: best.map_or(0, |best| best.body().cumulative),
        context: best.map_or(B256::ZERO, |best| best.body().context),
        signature: best
            .map_or(Vec::new(), |best| best.signature().as_bytes().to_vec())
            .into(),
        shares: channel.shares.values().map(share_record).collect(),
        folded: channel.folded,
        lock: lock.collect(),
        leaving: channel.leaving.into_iter().collect(),
        closing: channel.closing,
        over: channel.over,
        calls: channel.calls,
    }
}

/// What was taken is checked again: a damaged voucher is found here, and not on the chain.
fn payee(id: B256, record: &sol::Payee, domain: &ChannelDomain) -> Option<PayeeChannel> {
    let payer: Address = record.payer;
    let mut channel = PayeeChannel::new(id, &Default::default());
    channel.payer = payer;
    channel.challenge = record.challenge;
    channel.deposit = record.deposit;
    channel.claimed = record.claimed;
    if !record.signature.is_empty() {
        let voucher = Voucher {
            channel: id,
            cumulative: record.cumulative,
            context: record.context,
        };
        let signature = signature(&record.signature)?;
        channel.best = Some(Proven::learn(voucher, signature, payer, domain)?.0);
    }
    channel.shares = shares(&record.shares);
    channel.folded = record.folded;
    channel.lock = match record.lock.as_slice() {
        [] => None,
        [lock] => {
            let share = share(&lock.share);
            let voucher = locked(id, lock, &share);
            let signature = signature(&lock.signature)?;
            let (voucher, _) = Proven::learn(voucher, signature, payer, domain)?;
            Some(HeldLock {
                voucher,
                share,
                key: lock.key,
            })
        }
        _ => return None,
    };
    channel.leaving = record.leaving.first().copied();
    channel.closing = record.closing;
    channel.over = record.over;
    channel.calls = record.calls;
    Some(channel)
}

/// A channel as it is after a restart.
#[cfg(test)]
pub(super) fn restarted_payer(channel: &PayerChannel) -> PayerChannel {
    payer(channel.id, &payer_record(channel)).expect("what was written can be read")
}

/// The same, of the other side.
#[cfg(test)]
pub(super) fn restarted_payee(channel: &PayeeChannel, domain: &ChannelDomain) -> PayeeChannel {
    payee(channel.id, &payee_record(channel), domain).expect("what was written can be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_sol_types::SolValue;
    use chiral_core::WalletSigner;
    use chiral_core::conformance::wallet::FixedKeySigner;

    #[tokio::test]
    async fn channels_come_back_as_they_were() {
        let domain = ChannelDomain::new(98_765, Address::repeat_byte(0xc4));
        let id = B256::repeat_byte(1);
        let share = |n: u64| Share {
            agreement: B256::repeat_byte(n as u8),
            bytes: n,
            amount: u128::from(n),
        };
        let mut ours = PayerChannel::new(id, Address::repeat_byte(2), 60, id, 1000);
        ours.opened(1000);
        ours.pay(share(5)).unwrap();
        let key = B256::repeat_byte(9);
        let hash = super::super::cipher::key_hash(&key);
        let locked = ours.lock_up(share(6), hash, 77).unwrap();
        for (key, range) in [(None, None), (Some(key), Some(ByteRange::new(3, 9)))] {
            if let Some(key) = key {
                ours.unlock(key).unwrap();
            }
            if let Some(range) = range {
                ours.locked_for(range);
            }
            let record = sol::Payer::abi_decode(&payer_record(&ours).abi_encode()).unwrap();
            assert_eq!(payer(id, &record), Some(ours.clone()));
        }

        let wallet = FixedKeySigner::numbered(3);
        let state = crate::contracts::ChannelState {
            payer: wallet.address(),
            deposit: 1000,
            ..Default::default()
        };
        let mut theirs = PayeeChannel::new(id, &state);
        let voucher = Voucher {
            channel: id,
            cumulative: 5,
            context: share(5).context(),
        };
        let signature = wallet.sign(voucher.digest(&domain)).await.unwrap();
        let (voucher, key_of_wallet) =
            Proven::learn(voucher, signature, wallet.address(), &domain).unwrap();
        theirs.take(share(5), voucher).unwrap();
        let signature = wallet.sign(locked.digest(&domain)).await.unwrap();
        let locked = Proven::check(locked, signature, &key_of_wallet, &domain).unwrap();
        theirs.take_lock(share(6), locked, key, 70).unwrap();
        let record = sol::Payee::abi_decode(&payee_record(&theirs).abi_encode()).unwrap();
        assert_eq!(payee(id, &record, &domain), Some(theirs.clone()));
        let mut damaged = record;
        damaged.cumulative += 1;
        assert_eq!(
            payee(id, &damaged, &domain),
            None,
            "a voucher nobody signed"
        );
    }
}
