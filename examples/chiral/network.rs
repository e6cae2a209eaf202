//! The network of peers that a command takes part in.

use chiral::dht::{Libp2pConfig, Multiaddr};

use super::arguments::Network;
use super::failure::{Exit, Failure};

impl Network {
    /// Settings of the node; `None` if nothing was said about the network.
    pub(crate) fn settings(&self) -> Result<Option<Libp2pConfig>, Failure> {
        if self.listen.is_empty() && self.bootstrap.is_empty() {
            return Ok(None);
        }
        let mut config = Libp2pConfig::new();
        for text in &self.listen {
            let address = parse(text)?;
            // Whoever listens on this machine only has a network of his own.
            if text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/") {
                config = config.allowing_loopback();
            }
            config = config.with_listen(address);
        }
        for text in &self.bootstrap {
            config = config.with_bootstrap(parse(text)?);
        }
        // Nobody could reach it to ask it anything.
        if self.listen.is_empty() {
            config = config.as_client();
        }
        Ok(Some(config))
    }
}

fn parse(text: &str) -> Result<Multiaddr, Failure> {
    text.parse().map_err(|error| {
        Failure::new(Exit::Usage, format!("{text} is no multiaddr: {error}"))
            .next("such as /ip4/192.0.2.1/tcp/4001, with /p2p/ and a peer id behind it or not")
    })
}
