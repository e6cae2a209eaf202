//! Payment inside the private protocol, through the facade and on a chain: both options, alone
//! and beside protocols that are paid by bills, to the wei.

use std::sync::Arc;
use std::time::Duration;

use chiral::chain::{DEV_ACCOUNTS, PrivateKey};
use chiral::core::transfer::SourceReport;
use chiral::core::{Protocol, U256};
use chiral::payment::PaymentsConfig;
use chiral::payment::channel::Side;
use chiral::payment::contracts::ChannelState;
use chiral::payment::contracts::channels::{CHANNELS, look};
use chiral::payment::messages::Policy;
use chiral::protocols::private::PrivateConfig;
use chiral::{Got, Loopback, Node, Price, Rate, Share};

use crate::support::{data, within};

mod bare_cid;
mod by_claim;
mod literal;
mod mixed;
mod relayed;
mod resumed;
mod strangers;

const CHUNK: u64 = 256 * 1024;

pub(crate) fn price() -> Price {
    "0.001".parse().unwrap()
}

/// What is asked under a policy, with a window of four chunks at most.
pub(crate) fn asking(mut payments: PaymentsConfig, policy: Policy) -> PaymentsConfig {
    payments.gate.policy = policy;
    payments.gate.channel.window_cap = 4;
    payments.gate.channel.batch = 1;
    payments.gate.channel.challenge = 3600;
    payments.channels.poll = Duration::from_millis(100);
    payments.with_price(price())
}

/// A seller over the private protocol alone.
pub(crate) async fn seller(network: &Loopback, account: usize, policy: Policy) -> Node {
    let payments = asking(network.payments(account), policy);
    let builder = network.node(account).without_http().payments(payments);
    let builder = builder.private(PrivateConfig::default());
    within(builder.start()).await.unwrap()
}

pub(crate) async fn buyer(network: &Loopback, account: usize) -> Node {
    let mut payments = network.payments(account).with_max_price(price());
    payments.channels.poll = Duration::from_millis(100);
    let private = PrivateConfig::default().fetch_only();
    let builder = network.node(account).payments(payments).private(private);
    within(builder.start()).await.unwrap()
}

/// Wei that a node has promised in channels to another, and bytes that they are for.
fn paid(from: &Node, to: &Node) -> (u128, u64) {
    let wallet = to.payments().unwrap().wallet().address();
    let channels = from.payments().unwrap().channels();
    let views = channels.views().into_iter();
    let ours = views.filter(|view| view.side == Side::Payer && view.partner == wallet);
    let wei = ours.map(|view| view.paid).sum();
    let shares = to.payments().unwrap().channels().shares().into_iter();
    (wei, shares.map(|share| share.bytes).sum())
}

/// The same, once the seller has taken in the last word of the buyer, which may come after the
/// download.
async fn agreed(from: &Node, to: &Node) -> (u128, u64) {
    let agree = async {
        loop {
            let (wei, bytes) = paid(from, to);
            if U256::from(wei) == price().cost(bytes).unwrap() {
                return (wei, bytes);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(agree).await
}

/// Has the seller take what it is owed, and answers how much that was, as the contract says.
async fn claimed(network: &Loopback, seller: &Node) -> u128 {
    let channels = seller.payments().unwrap().channels();
    let mut sum = 0;
    for view in channels.views() {
        channels.claim(view.id).await.unwrap();
        let taken = async {
            loop {
                let call = chiral::chain::CallRequest {
                    to: Some(CHANNELS),
                    input: look(view.id),
                    ..Default::default()
                };
                let answer = network.chain().call(call).await.unwrap();
                let state = ChannelState::read(&answer).unwrap();
                if state.claimed >= view.paid {
                    return state.claimed;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        sum += within(taken).await;
    }
    sum
}

fn of(got: &Got, protocol: &Protocol) -> u64 {
    let by = |source: &&SourceReport| source.protocol == *protocol;
    got.sources
        .iter()
        .filter(by)
        .map(|source| source.bytes)
        .sum()
}

async fn bought_alone(policy: Policy) {
    let network = Loopback::start().await.unwrap();
    let seller = seller(&network, 1, policy).await;
    // Not a whole number of chunks, and too many for the window.
    let size = 40 * CHUNK + 4321;
    let content = data(size as usize);
    let link = within(seller.share(Share::bytes(content.clone())))
        .await
        .unwrap()
        .link;
    let buyer = buyer(&network, 2).await;
    let before = network.chain();
    let wallet = DEV_ACCOUNTS[1].address;
    let latest = chiral::chain::BlockId::Latest;
    let before = before.balance(wallet, latest).await.unwrap();
    let got = within(buyer.get(&link).to_bytes().into_future())
        .await
        .unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert_eq!(of(&got, &Protocol::Private), size);
    assert!(got.settled.is_empty(), "no bill: {:?}", got.settled);
    let cost = price().cost(size).unwrap().to::<u128>();
    assert_eq!(paid(&buyer, &seller), (cost, size));
    assert_eq!(claimed(&network, &seller).await, cost);
    let after = network.chain().balance(wallet, latest).await.unwrap();
    // The claim's gas is the seller's.
    assert!(after > before && after - before < U256::from(cost));
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_chunks_are_paid_one_by_one_to_the_wei() {
    bought_alone(Policy::LockedVoucher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_paid_in_batches_to_the_wei() {
    bought_alone(Policy::Channel).await;
}

/// Four seeders of one file: a web server, one that sends bills, and one of either option.
#[tokio::test(flavor = "multi_thread")]
async fn all_styles_mix_in_one_download_and_nothing_is_paid_twice() {
    let network = Loopback::start().await.unwrap();
    let size = 240 * CHUNK + 99;
    let content = data(size as usize);
    let share = || Share::bytes(content.clone());
    let a = seller(&network, 1, Policy::LockedVoucher).await;
    let b = seller(&network, 3, Policy::Channel).await;
    let payments = network.payments(4).with_price(price());
    let slow = Rate::new(8_000_000).unwrap();
    let http = network.node(4).payments(payments).limit_up(slow);
    let http = within(http.start()).await.unwrap();
    let free = network.node(5).limit_up(slow);
    let free = within(free.start()).await.unwrap();
    let shared = within(a.share(share())).await.unwrap();
    let (link, cid) = (shared.link.clone(), shared.cid());
    for node in [&b, &http, &free] {
        within(node.share(share())).await.unwrap();
    }
    let buyer = buyer(&network, 2).await;
    let announced = async {
        while buyer.seeders(cid).await.unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(announced).await;
    let url = free.manager().protocol_impl().endpoints()[0].to_string();
    let mirror = format!("{url}/file/{cid}");
    let get = buyer.get(&link).mirror(&mirror).to_bytes();
    let got = within(get.into_future()).await.unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert_eq!(
        got.sources.iter().map(|source| source.bytes).sum::<u64>(),
        size
    );

    let delivered = |node: &Node| {
        let peer = node.peer_id().unwrap().to_string();
        let its = got.sources.iter().filter(|s| s.source.contains(&peer));
        its.map(|source| source.bytes).sum::<u64>()
    };
    let (by_a, by_b) = (delivered(&a), delivered(&b));
    assert!(by_a > 0 && by_b > 0, "{:?}", got.sources);
    let (wei_b, bytes_b) = agreed(&buyer, &b).await;
    assert_eq!(bytes_b, by_b, "what was proven, and no more");
    assert_eq!(U256::from(wei_b), price().cost(by_b).unwrap());
    // A sealed chunk that somebody else delivered first was bought all the same.
    let (wei_a, bytes_a) = agreed(&buyer, &a).await;
    assert!(bytes_a >= by_a && bytes_a - by_a <= 8 * CHUNK, "{bytes_a}");
    assert_eq!(U256::from(wei_a), price().cost(bytes_a).unwrap());
    // Bills are for the one who sends them, and for nothing that was paid in a channel.
    let wallet = DEV_ACCOUNTS[4].address;
    let billed = got
        .settled
        .iter()
        .filter(|(bill, _)| !bill.amount.is_zero());
    let billed: Vec<_> = billed.map(|(bill, _)| (bill.payee, bill.bytes)).collect();
    let all = got.sources.iter().map(|s| (s.source.clone(), s.bytes));
    let all: Vec<_> = all.collect();
    assert!(
        billed.iter().all(|(payee, _)| *payee == Some(wallet)),
        "{billed:?}"
    );
    let billed: u64 = billed.iter().map(|(_, bytes)| bytes).sum();
    assert!(
        billed > 0 && billed + by_a + by_b <= size,
        "{billed} of {all:?}"
    );
    assert_eq!(claimed(&network, &a).await, wei_a);
    assert_eq!(claimed(&network, &b).await, wei_b);
    for node in [buyer, a, b, http, free] {
        within(node.shutdown()).await.unwrap();
    }
    network.shutdown().await;
}

/// What a web server gives to everybody is sold on over the private protocol, and is the same
/// file there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_public_elsewhere_can_be_taken_privately() {
    let network = Loopback::start().await.unwrap();
    let content = data(9 * CHUNK as usize + 7);
    let web = within(network.node(5).start()).await.unwrap();
    let public = within(web.share(Share::bytes(content.clone()))).await;
    let cid = public.unwrap().cid();
    let url = web.manager().protocol_impl().endpoints()[0].to_string();
    let payments = asking(network.payments(1), Policy::Channel);
    let builder = network.node(1).payments(payments);
    let builder = builder.private(PrivateConfig::default());
    let shop = within(builder.start()).await.unwrap();
    let copy = shop.get(cid).mirror(&format!("{url}/file/{cid}"));
    within(copy.into_future()).await.unwrap();
    within(web.shutdown()).await.unwrap();
    let link = within(shop.share(Share::stored(cid))).await.unwrap().link;

    let wallet = PrivateKey::random().unwrap();
    fund(&network, wallet.address()).await;
    let payments = PaymentsConfig::new(Arc::new(wallet), network.chain()).with_max_price(price());
    let builder = network.node(2).without_http().payments(payments);
    let builder = builder.private(PrivateConfig::default().fetch_only());
    let buyer = within(builder.start()).await.unwrap();
    let got = within(buyer.get(&link).to_bytes().into_future())
        .await
        .unwrap();
    assert!(got.bytes.as_deref() == Some(&content[..]));
    assert_eq!(of(&got, &Protocol::Private), content.len() as u64);
    let cost = price().cost(content.len() as u64).unwrap().to::<u128>();
    assert_eq!(paid(&buyer, &shop), (cost, content.len() as u64));
    within(buyer.shutdown()).await.unwrap();
    within(shop.shutdown()).await.unwrap();
    network.shutdown().await;
}

/// Five coins for a wallet that was never seen: a thousand of them are half of what there is.
pub(crate) async fn fund(network: &Loopback, wallet: chiral::core::Address) {
    use chiral::chain::{BlockId, Fees, Transaction};
    // One at a time, or two would have the same nonce.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let (chain, from) = (network.chain(), DEV_ACCOUNTS[9]);
    let transaction = Transaction {
        chain_id: chain.chain_id().await.unwrap(),
        nonce: chain.nonce(from.address, BlockId::Latest).await.unwrap(),
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: chain.fees().await.unwrap().gas_price,
        },
        to: Some(wallet),
        value: U256::from(5u64) * U256::from(10u64).pow(U256::from(18u64)),
        input: Default::default(),
    };
    let signed = transaction.sign(&from.signer()).await.unwrap();
    let hash = chain.send_raw_transaction(signed.raw).await.unwrap();
    let mined = async {
        while chain.receipt(hash).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(mined).await;
}
