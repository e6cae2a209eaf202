//! From what was delivered to bills, and from bills to the settler.

use chiral_core::{Bill, BillId, Cid, SettleError, SettlementStatus, TransferId};
use chiral_protocols::Delivered;

use crate::{Node, NodeError};

/// One bill for each source that delivered something.
fn bills(
    transfer: TransferId,
    cid: Cid,
    delivered: &[Delivered],
) -> Result<Vec<Bill>, SettleError> {
    (0..)
        .zip(delivered)
        .map(|(position, part)| {
            let id = BillId::derive(transfer, position);
            let offer = &part.offer;
            // An amount past 2^256 wei is more than anybody has.
            Bill::new(
                id,
                cid,
                part.ranges.clone(),
                offer.price,
                offer.protocol.clone(),
            )
            .map(|bill| bill.owed_to(offer.peer.clone(), offer.wallet))
            .map_err(|_| SettleError::Funds)
        })
        .collect()
}

/// Hands the bills for what was verified to the settler.
pub(crate) async fn settle(
    node: &Node,
    transfer: TransferId,
    cid: Cid,
    delivered: &[Delivered],
) -> Result<Vec<(Bill, SettlementStatus)>, NodeError> {
    let bills = bills(transfer, cid, delivered)?;
    if bills.is_empty() {
        return Ok(Vec::new());
    }
    let states = node.inner().settler.settle(bills.clone()).await?;
    Ok(bills.into_iter().zip(states).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::chain::EMPTY_CID;
    use chiral_core::{ByteRange, Endpoint, PeerOffer, Price, Protocol};

    #[test]
    fn each_seeder_gets_its_own_bill_at_its_own_price() {
        let part = |url: &str, price: Price, end: u64| {
            let mut offer = PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap());
            offer.price = price;
            Delivered::new(offer, ByteRange::new(0, end).into())
        };
        let id = TransferId::from_bytes([1; 16]);
        let parts = [
            part("http://a/", "0.001".parse().unwrap(), 1 << 20),
            part("http://b/", Price::FREE, 5),
        ];
        let bills = bills(id, EMPTY_CID, &parts).unwrap();
        assert_eq!(bills[0].amount.to_string(), "1000000000000000");
        assert!(bills[1].is_free());
        assert_ne!(bills[0].id, bills[1].id);
    }
}
