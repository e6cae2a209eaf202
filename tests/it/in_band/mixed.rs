//! A file bought over the private protocol, HTTP and BitTorrent in one download: what is paid in
//! the stream is on no bill.

use std::time::Duration;

use chiral::chain::DEV_ACCOUNTS;
use chiral::core::{Protocol, RangeSet, U256};
use chiral::payment::messages::Policy;
use chiral::protocols::private::PrivateConfig;
use chiral::{Loopback, Rate, Share};

use super::{CHUNK, agreed, claimed, of, price, seller};
use crate::support::{data, within};

#[tokio::test(flavor = "multi_thread")]
async fn three_protocols_deliver_one_file_and_each_byte_is_paid_once() {
    let network = Loopback::start().await.unwrap();
    let size = 200 * CHUNK + 99;
    let content = data(size as usize);
    let slow = Rate::new(8_000_000).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let private = seller(&network, 3, Policy::Channel).await;
    let http = network.payments(4).with_price(price());
    let http = network.node(4).payments(http).limit_up(slow);
    let http = within(http.start()).await.unwrap();
    let swarm = network.payments(6).with_price(price());
    let swarm = network.node(6).without_http().payments(swarm);
    let swarm = swarm.bittorrent_listen(any).limit_up(slow);
    let swarm = within(swarm.start()).await.unwrap();
    let mut found = None;
    for node in [&private, &http, &swarm] {
        let shared = within(node.share(Share::bytes(content.clone()))).await;
        let shared = shared.unwrap();
        found = Some((shared.cid(), shared.link));
    }
    let (cid, link) = found.unwrap();
    let payments = network.payments(2).with_max_price(price());
    let fetching = PrivateConfig::default().fetch_only();
    let buyer = network.node(2).payments(payments).private(fetching);
    let buyer = within(buyer.bittorrent_listen(any).start()).await.unwrap();
    let announced = async {
        while buyer.seeders(cid).await.unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(announced).await;
    // Slow enough for all to have a part in it.
    let get = buyer.get(&link).to_bytes();
    let get = get.limit_down(Rate::new(16_000_000).unwrap());
    let got = within(get.into_future()).await.unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));

    let protocols = [Protocol::Private, Protocol::Http, Protocol::BitTorrent];
    let [in_band, by_http, by_swarm] = protocols.map(|protocol| of(&got, &protocol));
    assert_eq!(in_band + by_http + by_swarm, size);
    assert!(
        in_band > 0 && by_http > 0 && by_swarm > 0,
        "{:?}",
        got.sources
    );
    let (wei, bytes) = agreed(&buyer, &private).await;
    assert_eq!(bytes, in_band, "what was proven, and no more");
    assert_eq!(U256::from(wei), price().cost(in_band).unwrap());
    let mut billed = RangeSet::new();
    for (bill, _) in &got.settled {
        let (account, delivered) = match bill.protocol {
            Protocol::Http => (4, by_http),
            Protocol::BitTorrent => (6, by_swarm),
            _ => panic!("paid in the stream, and billed: {bill:?}"),
        };
        assert_eq!(bill.payee, Some(DEV_ACCOUNTS[account].address), "{bill:?}");
        assert_eq!(bill.amount, price().cost(bill.bytes).unwrap());
        assert!(bill.bytes <= delivered, "{bill:?}");
        for range in bill.ranges.iter() {
            assert_eq!(billed.insert(range), range.len(), "twice: {bill:?}");
        }
    }
    assert_eq!(billed.len(), by_http + by_swarm);
    assert_eq!(claimed(&network, &private).await, wei);
    for node in [buyer, private, http, swarm] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}
