//! [`FreeSettler`]: settles bills on which nothing is owed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy_primitives::{B256, U256, keccak256};
use async_trait::async_trait;
use chiral_core::{Bill, BillId, PaymentSettler, SettleError, SettlementStatus};

/// Bills that a [`FreeSettler`] remembers: id and digest of each, about 10 MiB in all.
pub const MAX_REMEMBERED_BILLS: usize = 65_536;

/// Settles free bills and refuses any that asks for money.
///
/// It keeps nothing on disk, and forgets the oldest bill when it holds
/// [`MAX_REMEMBERED_BILLS`]: handed in again, such a bill is simply free again, since there
/// is nothing to pay twice. Only [`SettleError::Conflict`] and
/// [`status`](PaymentSettler::status) know no more of it.
pub struct FreeSettler {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Default)]
struct State {
    /// Digest of the contents, by id.
    settled: HashMap<BillId, B256>,
    /// The ids, oldest first.
    order: VecDeque<BillId>,
    closed: bool,
}

impl FreeSettler {
    /// A settler that has settled nothing.
    pub fn new() -> Self {
        Self::remembering(MAX_REMEMBERED_BILLS)
    }

    fn remembering(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FreeSettler {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FreeSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = self.state().settled.len();
        f.debug_struct("FreeSettler")
            .field("settled", &settled)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PaymentSettler for FreeSettler {
    async fn settle(&self, bills: Vec<Bill>) -> Result<Vec<SettlementStatus>, SettleError> {
        let bills: Vec<_> = bills.iter().map(free).collect::<Result<_, _>>()?;
        let mut state = self.state();
        if state.closed {
            return Err(SettleError::Closed);
        }
        // Nothing is remembered before all bills have been looked at.
        let mut new = HashMap::new();
        for &(bill, digest) in &bills {
            let known = state.settled.get(&bill).or_else(|| new.get(&bill));
            if known.is_some_and(|known| *known != digest) {
                return Err(SettleError::Conflict { bill });
            }
            if known.is_none() {
                new.insert(bill, digest);
            }
        }
        for &(bill, _) in &bills {
            let Some(digest) = new.remove(&bill) else {
                continue;
            };
            if state.order.len() >= self.limit
                && let Some(oldest) = state.order.pop_front()
            {
                state.settled.remove(&oldest);
            }
            state.order.push_back(bill);
            state.settled.insert(bill, digest);
        }
        Ok(vec![SettlementStatus::Free; bills.len()])
    }

    async fn status(&self, bill: BillId) -> Result<Option<SettlementStatus>, SettleError> {
        Ok(self
            .state()
            .settled
            .get(&bill)
            .map(|_| SettlementStatus::Free))
    }

    async fn shutdown(&self) -> Result<(), SettleError> {
        self.state().closed = true;
        Ok(())
    }
}

/// Id and digest of a bill on which nothing is owed. The amount alone is not believed: what
/// price and bytes come to must be nothing too.
fn free(bill: &Bill) -> Result<(BillId, B256), SettleError> {
    let cost = bill.price.cost(bill.ranges.len());
    if !bill.is_free() || cost != Some(U256::ZERO) {
        return Err(SettleError::NotFree { bill: bill.id });
    }
    Ok((bill.id, digest(bill)))
}

/// Digest of all contents, each field of fixed length or preceded by its length.
fn digest(bill: &Bill) -> B256 {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(bill.id.0.as_slice());
    bytes.extend_from_slice(bill.cid.as_bytes());
    let peer = bill.payee_peer.as_ref().map(|peer| peer.as_bytes());
    let payee = bill.payee.as_ref().map(|payee| payee.as_slice());
    for field in [
        peer.unwrap_or(&[]),
        payee.unwrap_or(&[]),
        bill.protocol.as_str().as_bytes(),
    ] {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes.extend_from_slice(&bill.price.wei_per_mib().to_be_bytes::<32>());
    bytes.extend_from_slice(&bill.amount.to_be_bytes::<32>());
    for range in bill.ranges.iter() {
        bytes.extend_from_slice(&range.start.to_be_bytes());
        bytes.extend_from_slice(&range.end.to_be_bytes());
    }
    keccak256(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::conformance::payment_settler::free_bill;
    use chiral_core::{Price, Protocol, RangeSet};
    use futures_util::FutureExt;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_bills_are_forgotten_beyond_the_limit() {
        let settler = FreeSettler::remembering(2);
        for ids in [vec![1], vec![2], vec![1], vec![3], vec![4, 4]] {
            let bills = ids.into_iter().map(|id| free_bill(id, 1)).collect();
            settler.settle(bills).now_or_never().unwrap().unwrap();
        }
        for (id, known) in [(1, false), (2, false), (3, true), (4, true)] {
            let status = settler
                .status(free_bill(id, 1).id)
                .now_or_never()
                .unwrap()
                .unwrap();
            assert_eq!(status.is_some(), known, "bill {id}");
        }
        let state = settler.state();
        assert_eq!((state.settled.len(), state.order.len()), (2, 2));
    }

    #[test]
    fn no_bytes_are_free_at_any_price() {
        let mut bill = free_bill(1, 0);
        bill.price = Price::from_wei_per_mib(U256::MAX);
        assert_eq!(bill.ranges, RangeSet::new());
        let statuses = FreeSettler::new()
            .settle(vec![bill])
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!(statuses, [SettlementStatus::Free]);
    }

    proptest! {
        #[test]
        fn bills_that_differ_have_different_digests(
            names in proptest::collection::vec("[a-c]{1,3}", 2),
            bytes in proptest::collection::vec(0u64..4, 2),
        ) {
            let bill = |i: usize| {
                let mut bill = free_bill(1, bytes[i]);
                bill.protocol = names[i].parse::<Protocol>().unwrap();
                bill
            };
            prop_assert_eq!(bill(0) == bill(1), digest(&bill(0)) == digest(&bill(1)));
        }
    }
}
