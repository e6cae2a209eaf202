//! [`Book`]: all channels of a node, and which of them changed.

use std::collections::{HashMap, HashSet};

use alloy_primitives::{Address, B256};
use chiral_core::WalletKey;

use super::past::Past;
use super::payee::PayeeChannel;
use super::payer::{PayerChannel, Phase};

/// Channels that are held as payee, at most. Each has a deposit on the chain behind it.
pub(super) const MAX_CHANNELS: usize = 65_536;

/// On which side of a channel a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It pays.
    Payer,
    /// It is paid.
    Payee,
}

/// A channel, for whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelView {
    /// Its id.
    pub id: B256,
    /// Whose view it is.
    pub side: Side,
    /// The other party.
    pub partner: Address,
    /// How far it is.
    pub phase: Phase,
    /// Wei deposited.
    pub deposit: u128,
    /// Wei paid in all, a lock not included.
    pub paid: u128,
    /// Wei that the payee could claim now beyond what it has claimed; 0 for the payer.
    pub claimable: u128,
    /// Whether a lock is open.
    pub locked: bool,
}

/// A payee's channel, and its payer's key once a signature has shown it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) channel: PayeeChannel,
    pub(super) key: Option<WalletKey>,
    /// A deposit that the chain shows, and at which head it was first seen.
    pub(super) fresh: Option<(u128, u64)>,
}

/// What has to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    pub(super) payers: HashSet<B256>,
    pub(super) payees: HashSet<B256>,
    /// Agreements that are over.
    pub(super) past: Vec<Past>,
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.payers.is_empty() && self.payees.is_empty() && self.past.is_empty()
    }
}

/// All channels of a node.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) payers: HashMap<B256, PayerChannel>,
    pub(crate) payees: HashMap<B256, Held>,
    /// Out of which channel an agreement is paid.
    pub(super) bound: HashMap<B256, B256>,
    dirty: Dirty,
    /// How often anything changed, and how often it had when a step began that is on disk.
    changes: u64,
}

impl Book {
    pub(super) fn restore_payer(&mut self, channel: PayerChannel) {
        self.payers.insert(channel.id(), channel);
    }

    pub(super) fn restore_payee(&mut self, channel: PayeeChannel) {
        for agreement in channel.shares.keys() {
            self.bound.insert(*agreement, channel.id());
        }
        let held = Held {
            channel,
            key: None,
            fresh: None,
        };
        self.payees.insert(held.channel.id(), held);
    }

    /// A channel of ours has changed; answers the change's number.
    pub(super) fn touch_payer(&mut self, id: B256) -> u64 {
        self.dirty.payers.insert(id);
        self.changes += 1;
        self.changes
    }

    /// A channel to us has changed; answers the change's number.
    pub(super) fn touch_payee(&mut self, id: B256) -> u64 {
        self.dirty.payees.insert(id);
        self.changes += 1;
        self.changes
    }

    /// The number of the last change, written or not.
    pub(super) fn last_change(&self) -> u64 {
        self.changes
    }

    /// What was paid under an agreement that is over is not looked at again, but kept.
    pub(super) fn over(&mut self, past: Past) {
        if past.share.amount > 0 {
            self.dirty.past.push(past);
        }
    }

    /// What has to be written, and the number of the last change in it.
    pub(super) fn take_dirty(&mut self) -> (Dirty, u64) {
        (std::mem::take(&mut self.dirty), self.changes)
    }

    /// It was not written after all.
    pub(super) fn put_back(&mut self, dirty: Dirty) {
        self.dirty.payers.extend(dirty.payers);
        self.dirty.payees.extend(dirty.payees);
        self.dirty.past.extend(dirty.past);
    }

    /// The number of the last change, if any waits.
    pub(super) fn unwritten(&self) -> Option<u64> {
        (!self.dirty.is_empty()).then_some(self.changes)
    }

    /// The open channel to a payee that has most left, or one that is being opened.
    pub(super) fn to(&self, payee: Address) -> Option<&PayerChannel> {
        let usable = |channel: &&PayerChannel| {
            channel.payee() == payee
                && channel.has_room()
                && matches!(channel.phase(), Phase::Open | Phase::Opening)
        };
        let open = self.payers.values().filter(usable);
        open.max_by_key(|channel| (channel.phase() == Phase::Open, channel.free()))
    }

    /// All of them.
    pub(super) fn views(&self) -> Vec<ChannelView> {
        let ours = self.payers.values().map(|channel| ChannelView {
            id: channel.id(),
            side: Side::Payer,
            partner: channel.payee(),
            phase: channel.phase(),
            deposit: channel.deposit(),
            paid: channel.promised(),
            claimable: 0,
            locked: channel.lock().is_some(),
        });
        let theirs = self.payees.values().map(|held| {
            let channel = &held.channel;
            ChannelView {
                id: channel.id(),
                side: Side::Payee,
                partner: channel.payer(),
                phase: match (channel.is_over(), channel.is_open()) {
                    (true, _) => Phase::Closed,
                    (false, true) => Phase::Open,
                    (false, false) => Phase::Closing,
                },
                deposit: channel.deposit(),
                paid: channel.paid(),
                claimable: channel.claimable(),
                locked: channel.lock().is_some(),
            }
        });
        ours.chain(theirs).collect()
    }
}
