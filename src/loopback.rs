//! [`Loopback`]: everything on this machine, for trying things out and for tests.

use std::net::Ipv4Addr;
use std::sync::Arc;

use chiral_chain::{
    ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig, JsonRpcServer,
    ServerConfig,
};
use chiral_dht::{Libp2pConfig, Libp2pNode, Multiaddr};
use chiral_payment::PaymentsConfig;

use crate::{BuildError, Node, NodeBuilder};

/// A network on this machine alone: a chain with rich accounts and its JSON-RPC server, and
/// a node that only routes, through which the others find each other. Nodes that join it are
/// made by [`Loopback::node`].
///
/// The chain's keys are known to everybody, and it is gone at the end.
#[derive(Debug)]
pub struct Loopback {
    chain: EmbeddedChain,
    rpc: JsonRpcServer,
    router: Libp2pNode,
    bootstrap: Multiaddr,
}

impl Loopback {
    /// Starts chain, JSON-RPC server and router, on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// [`BuildError`]; then nothing is left open.
    pub async fn start() -> Result<Self, BuildError> {
        let chain = EmbeddedChain::open(ChainSpec::devnet(), EmbeddedConfig::default()).await?;
        match Self::around(chain.clone()).await {
            Ok(network) => Ok(network),
            Err(error) => {
                close(&chain).await;
                Err(error)
            }
        }
    }

    async fn around(chain: EmbeddedChain) -> Result<Self, BuildError> {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let router = Libp2pNode::start(on_loopback()).await?;
        let rpc = match JsonRpcServer::bind(any, chain.clone(), ServerConfig::default()).await {
            Ok(rpc) => rpc,
            Err(error) => {
                router.shutdown().await;
                return Err(error.into());
            }
        };
        let Some(bootstrap) = router.listen_addresses().into_iter().next() else {
            router.shutdown().await;
            rpc.shutdown().await;
            return Err(BuildError::NoAddress);
        };
        Ok(Self {
            chain,
            rpc,
            router,
            bootstrap,
        })
    }

    /// A builder for a node of this network: it listens on free ports of 127.0.0.1 for peers
    /// and over HTTP, finds the others through the router, and pays and is paid with the
    /// development account of this number, 0 to 9. What it sells is free, and what it buys
    /// too, until [`NodeBuilder::payments`] is given other settings; see
    /// [`Loopback::payments`].
    ///
    /// # Panics
    /// If there is no such account.
    pub fn node(&self, account: usize) -> NodeBuilder {
        let builder = Node::builder()
            .libp2p(on_loopback().with_bootstrap(self.bootstrap.clone()))
            .payments(self.payments(account));
        #[cfg(feature = "http")]
        let builder = builder.http_listen((Ipv4Addr::LOCALHOST, 0).into());
        builder
    }

    /// Settings of payments on this network's chain, with one of the development accounts.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn payments(&self, account: usize) -> PaymentsConfig {
        let wallet = DEV_ACCOUNTS[account].signer();
        PaymentsConfig::new(Arc::new(wallet), self.chain())
    }

    /// The chain.
    pub fn chain(&self) -> Arc<dyn ChainClient> {
        Arc::new(self.chain.clone())
    }

    /// URL of the chain's JSON-RPC server.
    pub fn rpc_url(&self) -> String {
        self.rpc.url()
    }

    /// Address through which nodes enter the network.
    pub fn bootstrap(&self) -> &Multiaddr {
        &self.bootstrap
    }

    /// The node that only routes.
    pub fn router(&self) -> &Libp2pNode {
        &self.router
    }

    /// Ends router, server and chain; the nodes that joined should have been ended before.
    /// Idempotent.
    pub async fn shutdown(&self) {
        self.router.shutdown().await;
        self.rpc.shutdown().await;
        close(&self.chain).await;
    }
}

fn on_loopback() -> Libp2pConfig {
    let any: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr");
    Libp2pConfig::new().allowing_loopback().with_listen(any)
}

async fn close(chain: &EmbeddedChain) {
    if let Err(error) = chain.shutdown().await {
        tracing::error!(%error, "could not close the chain");
    }
}
