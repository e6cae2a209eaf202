//! What was paid in channels, agreement by agreement.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, U256};
use chiral_core::{BillId, Cid, Protocol, SettlementStatus};
use redb::ReadTransaction;

use super::{Direction, Entry, Status};
use crate::JournalError;
use crate::agent::store as deals;
use crate::channel::past::{self, About, Past};
use crate::channel::payer::Phase;
use crate::channel::voucher::Share;
use crate::channel::{PayeeChannel, PayerChannel, Side, call_id, store};
use crate::gate::store as accounts;
use crate::settler;

/// A channel while its entries are made.
struct Paid {
    direction: Direction,
    channel: B256,
    partner: Address,
    /// Wei that are beyond doubt: on the ledger.
    firm: u128,
    shares: Vec<(Share, About)>,
}

impl Paid {
    /// What is firm is of the oldest agreements: vouchers are for all of them together.
    fn entries(mut self, entries: &mut Vec<Entry>) {
        self.shares
            .sort_by_key(|(share, about)| (about.time, share.agreement));
        let mut firm = self.firm;
        for (share, about) in self.shares {
            let settled = share.amount.min(firm);
            firm -= settled;
            // Bytes in the proportion of the money; the rest is with the rest of it.
            let of_settled = match share.amount {
                0 => U256::ZERO,
                amount => U256::from(share.bytes) * U256::from(settled) / U256::from(amount),
            };
            let of_settled = of_settled.to::<u64>();
            let parts = [
                (Status::Settled, of_settled, settled),
                (
                    Status::Pending,
                    share.bytes - of_settled,
                    share.amount - settled,
                ),
            ];
            for (status, bytes, amount) in parts.into_iter().filter(|part| part.2 > 0) {
                entries.push(Entry {
                    direction: self.direction,
                    bill: None,
                    channel: Some(self.channel),
                    cid: about.cid,
                    wallet: Some(self.partner),
                    peer: about.peer.clone(),
                    protocol: about.protocol.clone(),
                    bytes,
                    amount: U256::from(amount),
                    status,
                    transaction: None,
                    time: about.time,
                    receipt: false,
                });
            }
        }
    }
}

/// Of agreements that the books do not know any more; a kill at the wrong moment.
fn unknown() -> About {
    About {
        cid: Cid::from_bytes([0; 32]),
        peer: None,
        protocol: Protocol::Http,
        time: 0,
    }
}

/// Everything.
pub(super) fn entries(step: &ReadTransaction) -> Result<Vec<Entry>, JournalError> {
    let mut entries = Vec::new();
    let book = store::read(step)?;
    if book.payers.is_empty() && book.payees.is_empty() {
        return Ok(entries);
    }
    let mut gone: HashMap<(Side, B256), Vec<(Share, About)>> = HashMap::new();
    for past in past::all(step)? {
        let Past {
            side,
            channel,
            share,
            about,
            ..
        } = past;
        gone.entry((side, channel))
            .or_default()
            .push((share, about));
    }
    let mut list = |side: Side, id: B256, now: Vec<(Share, About)>| {
        let mut all = gone.remove(&(side, id)).unwrap_or_default();
        all.extend(now);
        all
    };
    for channel in book.payers.values() {
        let now = channel.shares().map(|share| {
            let about = deals::about(step, share.agreement)?;
            Ok((*share, about.unwrap_or_else(unknown)))
        });
        let now = now.collect::<Result<_, JournalError>>()?;
        let paid = Paid {
            direction: Direction::Spent,
            channel: channel.id(),
            partner: channel.payee(),
            firm: spent(channel),
            shares: list(Side::Payer, channel.id(), now),
        };
        paid.entries(&mut entries);
    }
    for held in book.payees.values() {
        let channel = &held.channel;
        let now = channel.shares().map(|share| {
            let about = accounts::about(step, share.agreement)?;
            Ok((*share, about.unwrap_or_else(unknown)))
        });
        let now = now.collect::<Result<_, JournalError>>()?;
        let paid = Paid {
            direction: Direction::Earned,
            channel: channel.id(),
            partner: channel.payer(),
            firm: earned(step, channel)?,
            shares: list(Side::Payee, channel.id(), now),
        };
        paid.entries(&mut entries);
    }
    Ok(entries)
}

/// What cannot come back to the payer.
fn spent(channel: &PayerChannel) -> u128 {
    match channel.phase() {
        Phase::Closed => channel.left_with().unwrap_or(channel.promised()),
        _ => 0,
    }
}

/// What the payee has got on the chain.
fn earned(step: &ReadTransaction, channel: &PayeeChannel) -> Result<u128, JournalError> {
    if !channel.is_over() {
        return Ok(channel.claimed());
    }
    if let Some(paid) = channel.left_with() {
        return Ok(paid);
    }
    // The end itself may have paid more than was seen before it.
    let best = channel.paid();
    for what in ["claim and close", "claim"] {
        let call = BillId(call_id(channel.id(), what, best));
        let status = settler::status_of(step, call)?;
        if matches!(status, Some(SettlementStatus::Settled { .. })) {
            return Ok(best.min(channel.deposit()));
        }
    }
    Ok(channel.claimed())
}
