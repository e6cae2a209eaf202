//! [`Past`]: what was paid in channels under agreements that are over, kept for the statement.

use alloy_primitives::{Address, B256};
use chiral_core::{Cid, PeerId, Protocol};
use redb::{ReadTransaction, WriteTransaction};

use super::book::Side;
use super::voucher::Share;
use crate::JournalError;
use crate::records::{self, DAMAGED, Table, table};

mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        struct Past {
            bool paid;
            bytes32 channel;
            address partner;
            bytes32 cid;
            bytes peer;
            string protocol;
            uint64 size;
            uint128 amount;
            uint64 time;
        }
    }
}

/// By agreement; kept for ever.
const PAST: Table = table("channel-past");

/// For what an agreement was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) cid: Cid,
    pub(crate) peer: Option<PeerId>,
    pub(crate) protocol: Protocol,
    /// When something happened under it last: seconds since 1970.
    pub(crate) time: u64,
}

/// An agreement that is over, and what was paid under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) side: Side,
    pub(crate) channel: B256,
    pub(crate) partner: Address,
    pub(crate) share: Share,
    pub(crate) about: About,
}

pub(super) fn save(step: &WriteTransaction, past: &Past) -> Result<(), JournalError> {
    let about = &past.about;
    let peer = about.peer.as_ref();
    let record = sol::Past {
        paid: past.side == Side::Payer,
        channel: past.channel,
        partner: past.partner,
        cid: B256::from(*about.cid.as_bytes()),
        peer: peer
            .map_or(Vec::new(), |peer| peer.as_bytes().to_vec())
            .into(),
        protocol: about.protocol.to_string(),
        size: past.share.bytes,
        amount: past.share.amount,
        time: about.time,
    };
    records::put(step, PAST, &past.share.agreement.0, &record)
}

/// All of them.
pub(crate) fn all(step: &ReadTransaction) -> Result<Vec<Past>, JournalError> {
    let all = records::all::<sol::Past>(step, PAST)?;
    all.into_iter()
        .map(|(key, record)| parse(B256::from(key), record).ok_or(DAMAGED))
        .collect()
}

fn parse(agreement: B256, record: sol::Past) -> Option<Past> {
    let peer = match record.peer.is_empty() {
        true => None,
        false => Some(PeerId::from_bytes(&record.peer).ok()?),
    };
    Some(Past {
        side: match record.paid {
            true => Side::Payer,
            false => Side::Payee,
        },
        channel: record.channel,
        partner: record.partner,
        share: Share {
            agreement,
            bytes: record.size,
            amount: record.amount,
        },
        about: About {
            cid: Cid::from_bytes(record.cid.0),
            peer,
            protocol: record.protocol.parse().ok()?,
            time: record.time,
        },
    })
}
