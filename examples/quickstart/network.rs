//! The nodes: three seeders with three prices, a downloader, and one that only routes. They
//! find each other through their own DHT and pay on a chain of their own.

use std::path::Path;
use std::sync::Arc;

use chiral::core::money::WEI_PER_CHI;
use chiral::core::{Address, CHUNK_SIZE, U256};
use chiral::protocols::EngineConfig;
use chiral::{ByteRange, Loopback, Node, Price, Share, Shared};

use super::Failure;
use super::uplink::Uplink;

/// What the seeders ask, in CHI per MiB.
const SEEDERS: [(&str, &str); 3] = [
    ("whole 1", "0.001"),
    ("whole 2", "0.0012"),
    ("first half", "0.0008"),
];

/// The most that anybody here pays, in CHI per MiB.
const MAX_PRICE: &str = "0.002";

/// What each seeder lends each of the others, in CHI.
const LINE_CHI: u64 = 1000;

/// A node with a name to show.
pub(crate) struct Seeder {
    /// What the table calls it.
    pub(crate) name: &'static str,
    pub(crate) price: Price,
    pub(crate) node: Node,
}

impl Seeder {
    /// Where it is paid.
    pub(crate) fn wallet(&self) -> Result<Address, Failure> {
        let payments = self.node.payments().ok_or("a seeder without a wallet")?;
        Ok(payments.wallet().address())
    }
}

pub(crate) struct Network {
    pub(crate) loopback: Loopback,
    pub(crate) seeders: Vec<Seeder>,
    pub(crate) downloader: Node,
}

impl Network {
    /// Starts chain, router and nodes, each node with a store of its own below `directory`
    /// and, for those that seed, an HTTP server that sends at most so many bytes per second;
    /// 0 for no limit.
    pub(crate) async fn start(directory: &Path, uplink: u64) -> Result<Self, Failure> {
        let loopback = Loopback::start().await?;
        let downloader = match start(&loopback, directory, "downloader", 0, None, 0).await {
            Ok(node) => node,
            Err(error) => {
                loopback.shutdown().await;
                return Err(error);
            }
        };
        let mut network = Self {
            loopback,
            seeders: Vec::new(),
            downloader,
        };
        for (account, (name, price)) in (1..).zip(SEEDERS) {
            let price = price.parse()?;
            let asked = Some(price);
            match start(&network.loopback, directory, name, account, asked, uplink).await {
                Ok(node) => network.seeders.push(Seeder { name, price, node }),
                Err(error) => {
                    // The first error is the one to tell.
                    network.shutdown().await.unwrap_or_default();
                    return Err(error);
                }
            }
        }
        Ok(network)
    }

    /// Shares a file: from where it is by the first two, and half of it by the third, once
    /// that has bought it from them.
    pub(crate) async fn share(&self, file: &Path) -> Result<Shared, Failure> {
        let [whole, again, half] = &self.seeders[..] else {
            return Err("there are to be three seeders".into());
        };
        let shared = whole.node.share(file).await?;
        again.node.share(file).await?;
        let size = shared.link.size.unwrap_or(0);
        // A file of one chunk has no half that could be verified.
        if size > CHUNK_SIZE {
            let part = ByteRange::new(0, size / 2);
            let got = half.node.get(&shared.link).only(part).await?;
            let bills = got.settled.iter().map(|(bill, _)| bill.id);
            half.node.wait_settled(bills).await?;
            half.node.share(Share::stored(shared.cid())).await?;
        }
        Ok(shared)
    }

    /// What each seeder has now, in wei.
    pub(crate) async fn balances(&self) -> Result<Vec<U256>, Failure> {
        let mut balances = Vec::new();
        for seeder in &self.seeders {
            balances.push(seeder.node.balance().await?);
        }
        Ok(balances)
    }

    /// Which seeder serves at this place.
    pub(crate) fn name_of(&self, source: &str) -> &'static str {
        let serves = |seeder: &&Seeder| {
            let protocols = seeder.node.manager().protocols();
            let mut endpoints = protocols.iter().flat_map(|protocol| protocol.endpoints());
            endpoints.any(|endpoint| endpoint.as_str() == source)
        };
        self.seeders
            .iter()
            .find(serves)
            .map_or("somebody", |seeder| seeder.name)
    }

    /// Ends everything; the first failure is answered after all have been ended.
    pub(crate) async fn shutdown(&self) -> Result<(), Failure> {
        let mut result = self.downloader.shutdown().await;
        for seeder in &self.seeders {
            result = result.and(seeder.node.shutdown().await);
        }
        self.loopback.shutdown().await;
        Ok(result?)
    }
}

async fn start(
    loopback: &Loopback,
    directory: &Path,
    name: &str,
    account: usize,
    price: Option<Price>,
    uplink: u64,
) -> Result<Node, Failure> {
    // Short requests share a small file out more evenly.
    let mut engine = EngineConfig::default();
    engine.scheduler = engine.scheduler.with_request_bytes(64 << 10, 1 << 20);
    let mut payments = loopback
        .payments(account)
        .with_max_price(MAX_PRICE.parse()?);
    if let Some(price) = price {
        payments = payments.with_price(price);
        // They know each other: a file of any size is paid when it is there, all at once.
        let credit = &mut payments.gate.credit;
        credit.initial = U256::from(LINE_CHI) * U256::from(WEI_PER_CHI);
        (credit.most, credit.strangers) = (credit.initial, credit.initial * U256::from(2));
    }
    let mut builder = loopback
        .node(account)
        .engine(engine)
        .data_dir(directory.join(name))
        .payments(payments);
    if uplink > 0 {
        builder = builder.wrap_gate(move |gate| Arc::new(Uplink::new(gate, uplink)));
    }
    Ok(builder.start().await?)
}
