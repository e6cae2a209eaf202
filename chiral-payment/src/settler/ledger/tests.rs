use super::*;

fn quote(base_fee: Option<u128>, gas_price: u128) -> FeeQuote {
    FeeQuote {
        base_fee,
        priority_fee: 2,
        gas_price,
    }
}

fn config(limit: u128) -> SettlerConfig {
    SettlerConfig::new(1, B256::ZERO).with_max_gas_price(limit)
}

#[test]
fn fees_have_room_for_the_base_fee_to_rise_and_a_limit() {
    let legacy = |gas_price| Some(Fees::Legacy { gas_price });
    for (base, price, limit, expected) in [
        (Some(100), 90, 1000, legacy(127)),
        (Some(100), 200, 1000, legacy(200)),
        (Some(100), 200, 110, legacy(110)),
        (Some(100), 200, 99, None),
        (None, 50, 1000, legacy(50)),
        (None, 50, 49, None),
        (Some(u128::MAX), u128::MAX, u128::MAX, legacy(u128::MAX)),
    ] {
        assert_eq!(
            fees(&quote(base, price), &config(limit)),
            expected,
            "{base:?} {price}"
        );
    }
    let dynamic = config(1000).with_dynamic_fees(true);
    let expected = Fees::Dynamic {
        max_fee_per_gas: 127,
        max_priority_fee_per_gas: 2,
    };
    assert_eq!(fees(&quote(Some(100), 90), &dynamic), Some(expected));
}

#[test]
fn a_replacement_pays_an_eighth_more_or_is_not_made() {
    let legacy = |gas_price| Fees::Legacy { gas_price };
    let config = config(1000);
    assert_eq!(
        higher(legacy(100), legacy(100), &config),
        None,
        "nothing gained"
    );
    assert_eq!(higher(legacy(100), legacy(101), &config), Some(legacy(113)));
    assert_eq!(higher(legacy(100), legacy(300), &config), Some(legacy(300)));
    assert_eq!(
        higher(legacy(900), legacy(901), &config),
        None,
        "over the limit"
    );
    let dynamic = |max, tip| Fees::Dynamic {
        max_fee_per_gas: max,
        max_priority_fee_per_gas: tip,
    };
    let raised = higher(dynamic(100, 100), dynamic(101, 1), &config);
    assert_eq!(raised, Some(dynamic(113, 113)));
}
