//! The buyer's books in the journal.

use alloy_primitives::{Address, B256};
use chiral_chain::PrivateKey;
use chiral_core::{Bill, BillId, Cid, Endpoint, PeerId, Price, Protocol};
use redb::{ReadTransaction, WriteTransaction};

use super::books::{Books, Dirty, Owed};
use super::deal::{COUNTERS, Deal, Key};
use crate::JournalError;
use crate::channel::past::About;
use crate::messages::{Message, ranges};
use crate::records::{self, DAMAGED, Table, table};

mod sol {
    #![allow(missing_docs, unreachable_pub)]
    alloy_sol_types::sol! {
        struct Deal {
            bytes accept;
            bytes32 session;
            string endpoint;
            bytes peer;
            string protocol;
            bool agreed;
            bool ended;
            bool closed;
            uint64 reserved;
            bytes verified;
            bytes billed;
            bytes acked;
            uint32 ackSequence;
            bytes pendingRanges;
            uint64 pendingTotal;
            uint32 nextBill;
            uint64 prepaid;
            uint64 inBand;
        }

        struct Owed {
            bytes32 agreement;
            uint32 sequence;
            bytes32 cid;
            bytes peer;
            address payee;
            string protocol;
            uint256 price;
            uint256 amount;
            uint64 bytesPaid;
            bytes ranges;
            uint64 made;
            bytes32 settled;
            bytes receipt;
            bytes accept;
        }
    }
}

const DEALS: Table = table("agent-deals");
/// By bill; kept for ever, for the statement.
const BILLS: Table = table("agent-bills");

/// Everything on disk that is not over.
pub(super) fn load(step: &ReadTransaction, books: &mut Books) -> Result<(), JournalError> {
    for (key, record) in records::all::<sol::Deal>(step, DEALS)? {
        let agreement = B256::from(key);
        let deal = deal(agreement, &record).ok_or(DAMAGED)?;
        books.restore(agreement, deal);
    }
    for owed in spendings(step)? {
        if owed.settled.is_none() || owed.receipt.is_none() {
            books.open.insert(owed.bill.id, owed);
        }
    }
    Ok(())
}

/// What an agreement is for, if the books still know it.
pub(crate) fn about(
    step: &ReadTransaction,
    agreement: B256,
) -> Result<Option<About>, JournalError> {
    let found = records::read::<sol::Deal>(step, DEALS, &agreement.0)?;
    found
        .map(|record| Ok(deal(agreement, &record).ok_or(DAMAGED)?.about()))
        .transpose()
}

/// Every bill that was ever made.
pub(crate) fn spendings(step: &ReadTransaction) -> Result<Vec<Owed>, JournalError> {
    let all = records::all::<sol::Owed>(step, BILLS)?;
    all.into_iter()
        .map(|(key, record)| owed(BillId(B256::from(key)), &record).ok_or(DAMAGED))
        .collect()
}

/// One bill that was made.
pub(crate) fn spending(step: &ReadTransaction, bill: BillId) -> Result<Option<Owed>, JournalError> {
    let found = records::read::<sol::Owed>(step, BILLS, &bill.0.0)?;
    found
        .map(|record| owed(bill, &record).ok_or(DAMAGED))
        .transpose()
}

/// Writes what has changed; answers up to where each deal's counters are set aside by it.
pub(super) fn save(
    step: &WriteTransaction,
    books: &Books,
    dirty: &Dirty,
) -> Result<Vec<(B256, u64)>, JournalError> {
    let mut reserved = Vec::new();
    for agreement in &dirty.gone {
        records::remove(step, DEALS, &agreement.0)?;
    }
    for agreement in &dirty.deals {
        if let Some(deal) = books.deals.get(agreement) {
            let until = deal
                .reserved
                .max(deal.next_counter.saturating_add(COUNTERS));
            records::put(step, DEALS, &agreement.0, &deal_record(deal, until))?;
            reserved.push((*agreement, until));
        }
    }
    for bill in &dirty.bills {
        if let Some(owed) = books.open.get(bill) {
            records::put(step, BILLS, &bill.0.0, &owed_record(owed))?;
        }
    }
    Ok(reserved)
}

fn deal_record(deal: &Deal, reserved: u64) -> sol::Deal {
    let pending = deal.pending.as_ref();
    sol::Deal {
        accept: deal.accept.to_vec().into(),
        session: B256::from(*deal.session.to_secret_bytes()),
        endpoint: deal.key.endpoint.as_str().to_owned(),
        peer: peer_bytes(&deal.peer).into(),
        protocol: deal.protocol.to_string(),
        agreed: deal.agreed,
        ended: deal.ended,
        closed: deal.closed,
        reserved,
        verified: ranges::encode(&deal.verified).into(),
        billed: ranges::encode(&deal.billed).into(),
        acked: ranges::encode(&deal.acked).into(),
        ackSequence: deal.ack_sequence,
        pendingRanges: pending
            .map(|ack| ranges::encode(&ack.ranges))
            .unwrap_or_default()
            .into(),
        pendingTotal: pending.map(|ack| ack.total).unwrap_or_default(),
        nextBill: deal.next_bill,
        prepaid: deal.prepaid,
        inBand: deal.in_band,
    }
}

fn deal(agreement: B256, record: &sol::Deal) -> Option<Deal> {
    let accept = bytes::Bytes::from(record.accept.to_vec());
    let session = PrivateKey::from_bytes(&record.session.0).ok()?;
    let mut deal = propose(
        accept,
        session,
        Endpoint::new(record.endpoint.clone()).ok()?,
        peer(&record.peer)?,
        record.protocol.parse().ok()?,
    )?;
    let set = |bytes: &[u8]| ranges::decode(bytes, usize::MAX).ok();
    (deal.agreed, deal.ended, deal.closed) = (record.agreed, record.ended, record.closed);
    (deal.next_counter, deal.reserved) = (record.reserved, record.reserved);
    deal.verified = set(&record.verified)?;
    deal.billed = set(&record.billed)?;
    deal.acked = set(&record.acked)?;
    deal.ack_sequence = record.ackSequence;
    let pending = set(&record.pendingRanges)?;
    deal.pending = (!pending.is_empty()).then_some(crate::messages::Ack {
        agreement,
        sequence: record.ackSequence,
        total: record.pendingTotal,
        ranges: pending,
    });
    (deal.next_bill, deal.prepaid) = (record.nextBill, record.prepaid);
    deal.in_band = record.inBand;
    Some(deal)
}

/// A deal as it is when its acceptance is sent; `None` if the message is none.
pub(super) fn propose(
    accept: bytes::Bytes,
    session: PrivateKey,
    endpoint: Endpoint,
    peer: Option<PeerId>,
    protocol: Protocol,
) -> Option<Deal> {
    let Ok(Message::Accept { quote, .. }) = Message::decode(&accept) else {
        return None;
    };
    let quote = quote.body;
    Some(Deal {
        key: Key {
            cid: quote.cid,
            payee: quote.payee,
            endpoint,
        },
        peer,
        protocol,
        pricing: quote.pricing(),
        policy: quote.policy,
        prepay_bytes: quote.prepay_bytes,
        valid_until: quote.valid_until,
        accept,
        session: session.into(),
        agreed: false,
        ended: false,
        closed: false,
        next_counter: 1,
        reserved: 1,
        requested: Default::default(),
        verified: Default::default(),
        billed: Default::default(),
        acked: Default::default(),
        ack_sequence: 0,
        pending: None,
        next_bill: 0,
        prepaid: 0,
        channel: quote.channel,
        in_band: 0,
        bound: false,
        confirmed: 0,
        repeats: 0,
        unsealed: None,
        unknown: Default::default(),
        again: 0,
    })
}

fn owed_record(owed: &Owed) -> sol::Owed {
    let bill = &owed.bill;
    sol::Owed {
        agreement: owed.agreement,
        sequence: owed.sequence,
        cid: B256::from(*bill.cid.as_bytes()),
        peer: peer_bytes(&bill.payee_peer).into(),
        payee: bill.payee.unwrap_or_default(),
        protocol: bill.protocol.to_string(),
        price: bill.price.wei_per_mib(),
        amount: bill.amount,
        bytesPaid: bill.bytes,
        ranges: ranges::encode(&bill.ranges).into(),
        made: owed.made,
        settled: owed.settled.unwrap_or_default(),
        receipt: owed.receipt.clone().unwrap_or_default().to_vec().into(),
        accept: owed.accept.to_vec().into(),
    }
}

fn owed(id: BillId, record: &sol::Owed) -> Option<Owed> {
    let cid = Cid::from_bytes(record.cid.0);
    let price = Price::from_wei_per_mib(record.price);
    let protocol: Protocol = record.protocol.parse().ok()?;
    let ranges = ranges::decode(&record.ranges, usize::MAX).ok()?;
    let bill = match ranges.is_empty() {
        true => Bill::in_advance(id, cid, record.bytesPaid, price, protocol),
        false => Bill::new(id, cid, ranges, price, protocol),
    };
    let mut bill = bill.ok()?;
    bill.amount = record.amount;
    let payee = (record.payee != Address::ZERO).then_some(record.payee);
    Some(Owed {
        bill: bill.owed_to(peer(&record.peer)?, payee),
        agreement: record.agreement,
        sequence: record.sequence,
        made: record.made,
        settled: (!record.settled.is_zero()).then_some(record.settled),
        receipt: (!record.receipt.is_empty()).then(|| record.receipt.to_vec().into()),
        accept: record.accept.to_vec().into(),
    })
}

fn peer_bytes(peer: &Option<PeerId>) -> Vec<u8> {
    peer.as_ref()
        .map(|peer| peer.as_bytes().to_vec())
        .unwrap_or_default()
}

/// No bytes are no peer; bytes that are none are damage.
fn peer(bytes: &[u8]) -> Option<Option<PeerId>> {
    match bytes.is_empty() {
        true => Some(None),
        false => PeerId::from_bytes(bytes).ok().map(Some),
    }
}
