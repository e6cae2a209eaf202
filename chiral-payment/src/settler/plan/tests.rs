use chiral_core::{Bill, Cid, Price, Protocol, RangeSet};
use proptest::prelude::*;

use super::*;
use crate::contracts::batch_pay;

fn waiting(n: u8, amount: u64) -> Waiting {
    let id = BillId([n; 32].into());
    let cid = Cid::from_bytes([n; 32]);
    let bill = Bill::new(id, cid, RangeSet::new(), Price::FREE, Protocol::Http);
    let mut bill = bill.unwrap().owed_to(None, Some([n; 20].into()));
    bill.amount = U256::from(amount);
    (id, BillRecord::new(&bill, u64::from(n), 5, 0))
}

#[test]
fn several_go_together_and_one_goes_alone() {
    let plenty = U256::MAX;
    let one = plan(vec![waiting(1, 1)], true, plenty, 1);
    assert_eq!((one.groups.len(), one.groups[0].batch), (1, false));
    assert_eq!(one.groups[0].input(), waiting(1, 1).1.meta);

    let two = plan(vec![waiting(1, 1), waiting(2, 2)], true, plenty, 1);
    assert_eq!((two.groups.len(), two.groups[0].batch), (1, true));
    assert_eq!(two.groups[0].value(), U256::from(3));
    let legs = batch_pay::legs(&two.groups[0].input()).unwrap();
    assert_eq!(legs[1].nonce, (U256::from(5) << 64) | U256::from(2));
    assert_eq!((legs[1].bill, legs[1].amount), (waiting(2, 2).0.0, 2));

    let apart = plan(vec![waiting(1, 1), waiting(2, 2)], false, plenty, 1);
    assert_eq!(apart.groups.len(), 2);
    assert!(apart.groups.iter().all(|group| !group.batch));

    let mut failed = waiting(1, 1);
    failed.1.failures = 1;
    assert!(plan(vec![failed], true, plenty, 1).groups[0].batch);

    let mut huge = waiting(1, 1);
    huge.1.amount = U256::from(u128::MAX) + U256::from(1);
    let apart = plan(vec![huge, waiting(2, 1)], true, plenty, 1);
    assert_eq!(apart.groups.len(), 2, "what no leg can hold goes alone");

    let many = (0..=MAX_LEGS as u8).map(|n| waiting(n, 1)).collect();
    let sizes: Vec<_> = plan(many, true, plenty, 1)
        .groups
        .iter()
        .map(|g| g.bills.len())
        .collect();
    assert_eq!(sizes, [MAX_LEGS, 1]);
}

proptest! {
    #[test]
    fn no_bill_is_lost_or_doubled_and_the_money_suffices(
        amounts in proptest::collection::vec(0u64..1_000_000, 0..60),
        available in 0u64..10_000_000,
        has_contract: bool,
    ) {
        let bills: Vec<_> = (0u8..).zip(&amounts).map(|(n, amount)| waiting(n, *amount)).collect();
        let plan = plan(bills.clone(), has_contract, U256::from(available), 1);
        let mut seen: Vec<_> = plan.groups.iter().flat_map(|g| g.bills.iter().map(|b| b.0)).collect();
        let value: U256 = plan.groups.iter().map(Group::value).sum();
        prop_assert!(value <= U256::from(available));
        seen.extend(&plan.short);
        seen.sort_unstable();
        prop_assert_eq!(seen, bills.iter().map(|b| b.0).collect::<Vec<_>>());
    }
}
