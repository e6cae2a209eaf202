//! The suite of [`PaymentSettler`]: what holds whether bills cost money or not. Nothing
//! here moves money.

use std::sync::Arc;

use alloy_primitives::{B256, U256};

use crate::{
    Bill, BillId, ByteRange, Cid, PaymentSettler, Price, Protocol, RangeSet, SettleError,
    SettlementStatus,
};

/// Runs everything but [`bills_that_cost_are_not_free`]. `make` makes a fresh settler.
pub async fn run(make: impl AsyncFn() -> Arc<dyn PaymentSettler>) {
    free_bills_are_settled_at_once(&*make().await).await;
    no_bills_are_no_work(&*make().await).await;
    handing_in_again_changes_nothing(&*make().await).await;
    other_contents_under_an_id_conflict(&*make().await).await;
    all_or_none_are_taken(&*make().await).await;
    a_price_without_a_wallet_is_refused(&*make().await).await;
    shutdown_closes(&*make().await).await;
}

/// A bill for the first `bytes` bytes of a file, at no price.
pub fn free_bill(id: u8, bytes: u64) -> Bill {
    bill(id, bytes, Price::FREE)
}

/// A bill for the first `bytes` bytes of a file, owed to nobody.
pub fn bill(id: u8, bytes: u64, price: Price) -> Bill {
    let mut ranges = RangeSet::new();
    ranges.insert(ByteRange::new(0, bytes));
    let id = BillId(B256::repeat_byte(id));
    let cid = Cid::from_bytes([7; 32]);
    Bill::new(id, cid, ranges, price, Protocol::Http).expect("a small amount")
}

/// Nothing is owed, so nothing is pending; bills never handed in are unknown.
pub async fn free_bills_are_settled_at_once(settler: &dyn PaymentSettler) {
    let bills = vec![free_bill(1, 10), free_bill(2, 0), free_bill(3, u64::MAX)];
    let unknown = status(settler, bills[0].id).await;
    assert_eq!(unknown, None, "the bill was not handed in yet");
    let statuses = settle(settler, bills.clone()).await;
    assert_eq!(
        statuses,
        vec![SettlementStatus::Free; 3],
        "a status for each bill"
    );
    for bill in bills {
        assert_eq!(status(settler, bill.id).await, Some(SettlementStatus::Free));
    }
    assert_eq!(
        status(settler, BillId(B256::repeat_byte(9))).await,
        None,
        "never handed in"
    );
}

/// An empty list is answered with one.
pub async fn no_bills_are_no_work(settler: &dyn PaymentSettler) {
    assert_eq!(settle(settler, Vec::new()).await, []);
}

/// The same bill again, alone or twice in one call, has the same status.
pub async fn handing_in_again_changes_nothing(settler: &dyn PaymentSettler) {
    let (one, two) = (free_bill(1, 10), free_bill(2, 10));
    let first = settle(settler, vec![one.clone()]).await;
    let again = settle(settler, vec![two.clone(), one.clone(), two, one.clone()]).await;
    assert_eq!(again[1], first[0], "the bill that was settled before");
    assert_eq!(again[0], again[2], "one bill, twice in a call");
    assert_eq!(again[1], again[3], "one bill, twice in a call");
    assert_eq!(status(settler, one.id).await, Some(first[0].clone()));
}

/// A bill's id stands for its contents: each field that differs makes it another bill.
pub async fn other_contents_under_an_id_conflict(settler: &dyn PaymentSettler) {
    let original = free_bill(1, 10);
    settle(settler, vec![original.clone()]).await;
    let mut other_file = original.clone();
    other_file.cid = Cid::from_bytes([8; 32]);
    let mut other_protocol = original.clone();
    other_protocol.protocol = Protocol::Ed2k;
    let peer = crate::PeerId::from_bytes(b"somebody").expect("eight bytes");
    let other_payee = original.clone().owed_to(Some(peer), None);
    for (what, bill) in [
        ("other ranges", free_bill(1, 11)),
        ("another file", other_file),
        ("another protocol", other_protocol),
        ("another payee", other_payee),
    ] {
        expect_conflict(settler, vec![bill], original.id, what).await;
    }
    expect_conflict(
        settler,
        vec![free_bill(2, 1), free_bill(2, 2)],
        free_bill(2, 1).id,
        "one call",
    )
    .await;
    assert_eq!(
        status(settler, original.id).await,
        Some(SettlementStatus::Free),
        "unharmed"
    );
}

/// If one bill of a call is refused, none is taken.
pub async fn all_or_none_are_taken(settler: &dyn PaymentSettler) {
    settle(settler, vec![free_bill(1, 10)]).await;
    let batch = vec![free_bill(2, 10), free_bill(1, 11), free_bill(3, 10)];
    expect_conflict(
        settler,
        batch,
        free_bill(1, 10).id,
        "in the middle of a call",
    )
    .await;
    for id in [2, 3] {
        let taken = status(settler, free_bill(id, 10).id).await;
        assert_eq!(taken, None, "bill {id} was taken though the call failed");
    }
}

/// Money that is owed to nobody cannot be paid; the bill is not taken.
pub async fn a_price_without_a_wallet_is_refused(settler: &dyn PaymentSettler) {
    let priced = bill(1, 1, Price::from_wei_per_mib(U256::from(1)));
    assert_eq!(priced.amount, U256::from(1), "rounded up");
    let id = priced.id;
    match settler.settle(vec![free_bill(2, 1), priced]).await {
        Err(SettleError::NoPayee { bill } | SettleError::NotFree { bill }) => assert_eq!(bill, id),
        other => panic!("a price, and no wallet to pay it to: {other:?}"),
    }
    assert_eq!(
        status(settler, id).await,
        None,
        "a refused bill is not known"
    );
    assert_eq!(
        status(settler, free_bill(2, 1).id).await,
        None,
        "nor one beside it"
    );
}

/// For settlers that pay nothing: a bill that asks for money is refused, whether its amount
/// says so or only its price.
pub async fn bills_that_cost_are_not_free(settler: &dyn PaymentSettler) {
    let wallet = alloy_primitives::Address::repeat_byte(1);
    let honest = bill(1, 1, Price::from_wei_per_mib(U256::MAX)).owed_to(None, Some(wallet));
    let mut hidden = honest.clone();
    hidden.amount = U256::ZERO;
    let mut unpriced = honest.clone();
    unpriced.price = Price::FREE;
    for bill in [honest, hidden, unpriced] {
        match settler.settle(vec![bill.clone()]).await {
            Err(error @ SettleError::NotFree { .. }) => assert!(!error.is_retryable()),
            other => panic!("{bill:?} is not free: {other:?}"),
        }
        assert_eq!(
            status(settler, bill.id).await,
            None,
            "a refused bill is not known"
        );
    }
    let free = free_bill(1, 1);
    assert_eq!(
        settle(settler, vec![free]).await,
        [SettlementStatus::Free],
        "a refusal binds not"
    );
}

/// Shutdown is idempotent; after it no bill is taken.
pub async fn shutdown_closes(settler: &dyn PaymentSettler) {
    settle(settler, vec![free_bill(1, 1)]).await;
    for time in ["first", "second"] {
        let result = settler.shutdown().await;
        assert!(result.is_ok(), "the {time} shutdown failed: {result:?}");
    }
    let result = settler.settle(vec![free_bill(2, 1)]).await;
    assert!(
        matches!(result, Err(SettleError::Closed)),
        "settle after shutdown: {result:?}"
    );
}

async fn expect_conflict(settler: &dyn PaymentSettler, bills: Vec<Bill>, id: BillId, what: &str) {
    match settler.settle(bills).await {
        Err(error @ SettleError::Conflict { .. }) => {
            assert!(!error.is_retryable(), "a conflict does not pass");
            let SettleError::Conflict { bill } = error else {
                unreachable!()
            };
            assert_eq!(bill, id, "{what}: the bill in conflict");
        }
        other => panic!("{what} under the same id must conflict: {other:?}"),
    }
}

async fn settle(settler: &dyn PaymentSettler, bills: Vec<Bill>) -> Vec<SettlementStatus> {
    let number = bills.len();
    let result = settler.settle(bills).await;
    let statuses = result.unwrap_or_else(|error| panic!("bills were not settled: {error}"));
    assert_eq!(statuses.len(), number, "one status for each bill");
    statuses
}

async fn status(settler: &dyn PaymentSettler, bill: BillId) -> Option<SettlementStatus> {
    let result = settler.status(bill).await;
    result.unwrap_or_else(|error| panic!("no status of bill {bill}: {error}"))
}
