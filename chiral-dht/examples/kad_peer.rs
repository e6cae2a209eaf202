//! A node of the directory that is driven by lines, for other libp2p implementations to meet.
//!
//! ```text
//! kad_peer [BOOTSTRAP_MULTIADDR]...
//! ```
//!
//! It listens on TCP on a free loopback port, prints `listening MULTIADDR`, and then answers
//! each line of its input with one line:
//!
//! | line | answer |
//! | --- | --- |
//! | `announce TEXT` | `announced CID`, of the file that consists of the text |
//! | `offers CID` | `offers`, and who offers the file by a signed announcement |
//! | `providers CID` | `providers`, and who has a provider record for it |
//! | `known` | `known`, and the number of nodes in the routing table |
//!
//! The end of the input ends it.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use chiral_core::{
    Announcement, Cid, ContentIdentity, Endpoint, ManifestHeader, PeerId, PeerOffer, Protocol,
    ProviderQuery,
};
use chiral_dht::{Libp2pConfig, Libp2pNode};

type Fallible<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let mut config = Libp2pConfig::new()
        .allowing_loopback()
        .with_listen("/ip4/127.0.0.1/tcp/0".parse()?);
    for address in std::env::args().skip(1) {
        config = config.with_bootstrap(address.parse()?);
    }
    let node = Libp2pNode::start(config).await?;
    writeln!(stdout(), "listening {}", node.listen_addresses()[0])?;
    loop {
        // Waiting for a line blocks, and the node goes on.
        let line = tokio::task::spawn_blocking(|| stdin().lock().lines().next()).await?;
        let Some(line) = line.transpose()? else {
            break;
        };
        let answer = match answer(&node, &line).await {
            Ok(answer) => answer,
            Err(error) => format!("error {error}"),
        };
        writeln!(stdout(), "{answer}")?;
        stdout().flush()?;
    }
    node.shutdown().await;
    Ok(())
}

async fn answer(node: &Libp2pNode, line: &str) -> Fallible<String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    match command {
        "announce" => {
            let file = ContentIdentity::of(rest.as_bytes())?;
            let header = ManifestHeader {
                size: file.size,
                cid: file.cid,
                root: file.root,
                name: None,
                mime: None,
                created_at: 0,
                aliases: Vec::new(),
            };
            let offer = PeerOffer::new(Protocol::Http, Endpoint::new("http://127.0.0.1:1/")?);
            let announcement = Announcement::new(header, vec![offer]);
            node.directory().announce(announcement).await?;
            Ok(format!("announced {}", file.cid))
        }
        "offers" => {
            let query = ProviderQuery::new(rest.parse::<Cid>()?.into());
            let offers = node.directory().providers(query).await?;
            Ok(list("offers", offers.into_iter().filter_map(|o| o.peer)))
        }
        "providers" => {
            let peers = node.provider_peers(rest.parse()?).await?;
            Ok(list("providers", peers.into_iter()))
        }
        "known" => Ok(format!("known {}", node.known_nodes())),
        _ => Err("no such command".into()),
    }
}

fn list(what: &str, peers: impl Iterator<Item = PeerId>) -> String {
    peers.fold(what.to_owned(), |line, peer| format!("{line} {peer}"))
}
