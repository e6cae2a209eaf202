//! A protocol of one's own, beside HTTP in one download, paid like every other, without a
//! change in any crate.
//!
//! ```text
//! cargo run --release --example custom_protocol
//! ```
//!
//! The protocol, `example-tcp`, is as small as one can be: a client names a cid and a range
//! over TCP, the server answers with so many bytes. No manifests, no discovery: those come
//! from the other seeder, over HTTP, and from the directory. It is enough to implement
//! `ContentProtocol` and `ChunkSource`; scheduling, verification, accounting and resuming
//! come with the node.
//!
//! Neither does it know what money is. It carries the messages of the payment side without
//! reading them (`agree` leads the conversation), shows what the agent gives, and tells gate
//! and agent what was sent and what was verified. The ordinary settler does the rest.
//!
//! Prints what each of the two delivered and was paid:
//!
//! ```text
//! http           17301504 bytes  0.0165 CHI  0x9d3c…
//! example-tcp    16252928 bytes  0.031 CHI   0x9d3c…
//! ```

#![allow(clippy::print_stdout)]

mod protocol;
mod source;
mod wire;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use chiral::core::SettlementStatus;
use chiral::core::money::format_chi;
use chiral::protocols::http::HttpConfig;
use chiral::{Loopback, Node, Price, Protocol};

use protocol::ExampleTcp;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let network = Loopback::start().await?;
    let mut nodes = Vec::new();
    let result = run(&network, &mut nodes).await;
    for node in nodes.iter().rev() {
        node.shutdown().await?;
    }
    network.shutdown().await;
    result
}

async fn run(network: &Loopback, nodes: &mut Vec<Node>) -> Result<(), Failure> {
    let cheap: Price = "0.001".parse()?;
    let dear: Price = "0.002".parse()?;
    let selling = |account, price| network.payments(account).with_price(price);

    let over_http = network.node(0).payments(selling(0, cheap)).start().await?;
    nodes.push(over_http.clone());

    // Over HTTP it only fetches.
    let over_tcp = network.node(1).http(HttpConfig::default());
    let over_tcp = over_tcp.payments(selling(1, dear)).start().await?;
    nodes.push(over_tcp.clone());
    let server = example_tcp(&over_tcp)
        .listening(over_tcp.store().clone(), over_tcp.gate().clone())
        .await?;
    over_tcp.manager().register(Arc::new(server));

    // Speaks both.
    let buying = network.payments(2).with_max_price(dear);
    let downloader = network.node(2).payments(buying).start().await?;
    nodes.push(downloader.clone());
    downloader
        .manager()
        .register(Arc::new(example_tcp(&downloader)));

    let bytes: Vec<u8> = (0..32u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let bytes = Bytes::from(bytes);
    let shared = over_http.share(bytes.clone()).await?;
    over_tcp.share(bytes.clone()).await?;
    let got = downloader.get(&shared.link).to_bytes().await?;
    if got.bytes != Some(bytes) {
        return Err("the bytes are not those that were shared".into());
    }

    let bills = got.settled.iter().map(|(bill, _)| bill.id);
    let states = downloader.wait_settled(bills).await?;
    for ((bill, _), state) in got.settled.iter().zip(states) {
        let SettlementStatus::Settled { transaction } = state else {
            return Err(format!("{} is not paid", bill.protocol).into());
        };
        println!(
            "{:<12} {:>10} bytes  {} CHI  {transaction}",
            bill.protocol,
            bill.bytes,
            format_chi(bill.amount),
        );
    }
    let paid = |protocol: &Protocol| {
        got.settled
            .iter()
            .any(|(bill, _)| bill.protocol == *protocol)
    };
    match [Protocol::Http, protocol::name()]
        .iter()
        .find(|it| !paid(it))
    {
        Some(idle) => Err(format!("{idle} delivered nothing").into()),
        None => Ok(()),
    }
}

fn example_tcp(node: &Node) -> ExampleTcp {
    ExampleTcp::client(node.registry().clone(), node.agent().clone())
}
