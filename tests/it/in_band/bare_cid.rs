//! Paid in vouchers with nothing known but the cid: what is proven from the end of the file is
//! paid, and nothing is asked for that could not be.

use chiral::core::{Protocol, U256};
use chiral::payment::messages::Policy;
use chiral::{Loopback, NodeError, Share, TransferError};

use super::{CHUNK, agreed, buyer, claimed, of, paid, price, seller};
use crate::support::{data, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_only_the_cid_is_known_is_bought_from_one_seeder() {
    let network = Loopback::start().await.unwrap();
    let seller = seller(&network, 1, Policy::Channel).await;
    // Longer than what may be unproven at once, and than the window by far.
    let size = 70 * CHUNK + 4321;
    let content = data(size as usize);
    let shared = within(seller.share(Share::bytes(content.clone()))).await;
    let cid = shared.unwrap().cid();
    let buyer = buyer(&network, 2).await;
    let got = within(buyer.get(cid).to_bytes().into_future())
        .await
        .unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert_eq!(of(&got, &Protocol::Private), size);
    assert!(got.settled.is_empty(), "no bill: {:?}", got.settled);
    let cost = price().cost(size).unwrap().to::<u128>();
    assert_eq!(paid(&buyer, &seller), (cost, size));
    let agreements = seller.payments().unwrap().channels().shares();
    assert_eq!(
        agreements.len(),
        1,
        "it was never put out for want of payment"
    );
    assert_eq!(claimed(&network, &seller).await, cost);
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seeders_who_lend_little_prove_it_together() {
    let network = Loopback::start().await.unwrap();
    let size = 90 * CHUNK + 17;
    let content = data(size as usize);
    let a = seller(&network, 1, Policy::Channel).await;
    let b = seller(&network, 3, Policy::Channel).await;
    let mut cid = None;
    for node in [&a, &b] {
        let shared = within(node.share(Share::bytes(content.clone()))).await;
        cid = Some(shared.unwrap().cid());
    }
    let buyer = buyer(&network, 2).await;
    let get = buyer.get(cid.unwrap()).to_bytes();
    let got = within(get.into_future()).await.unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    let all: u64 = got.sources.iter().map(|source| source.bytes).sum();
    assert_eq!(all, size);
    for node in [&a, &b] {
        let peer = node.peer_id().unwrap().to_string();
        let its = got.sources.iter().filter(|s| s.source.contains(&peer));
        let delivered: u64 = its.map(|source| source.bytes).sum();
        let (wei, bytes) = agreed(&buyer, node).await;
        assert_eq!(bytes, delivered, "what was proven, and no more");
        assert_eq!(U256::from(wei), price().cost(delivered).unwrap());
    }
    for node in [buyer, a, b] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}

/// Sealed chunks are paid before they can be looked at: under a root that only the seller says,
/// nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_sealed_is_bought_with_the_cid_alone() {
    let network = Loopback::start().await.unwrap();
    let seller = seller(&network, 1, Policy::LockedVoucher).await;
    let shared = within(seller.share(Share::bytes(data(5 * CHUNK as usize)))).await;
    let cid = shared.unwrap().cid();
    let buyer = buyer(&network, 2).await;
    let refused = within(buyer.get(cid).to_bytes().into_future()).await;
    assert!(
        matches!(
            refused,
            Err(NodeError::Transfer(TransferError::NoSources { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(paid(&buyer, &seller), (0, 0));
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}
