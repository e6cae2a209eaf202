//! A development chain with JSON-RPC, until Ctrl-C.
//!
//! ```text
//! cargo run -p chiral-chain --all-features --example devnet -- 127.0.0.1:8545 [DIRECTORY]
//! cast chain-id --rpc-url http://127.0.0.1:8545
//! ```
//!
//! Prints the URL when it listens. Port 0 is a free one. Without a directory the chain is in
//! memory. With `DEVNET_CLOCK_LEAD` set to a number of seconds, blocks may be dated that far
//! ahead of the clock instead of 15 seconds; only measurements want that.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use chiral_chain::{
    ChainClient, ChainSpec, EmbeddedChain, EmbeddedConfig, JsonRpcServer, ServerConfig,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = match arguments.next() {
        Some(address) => address.parse()?,
        None => SocketAddr::from(([127, 0, 0, 1], 8545)),
    };
    let mut config = EmbeddedConfig::default();
    if let Some(dir) = arguments.next() {
        config = config.with_data_dir(dir);
    }
    if let Ok(seconds) = std::env::var("DEVNET_CLOCK_LEAD") {
        config = config.with_max_clock_lead(Duration::from_secs(seconds.parse()?));
    }
    let chain = EmbeddedChain::open(ChainSpec::devnet(), config).await?;
    let server = JsonRpcServer::bind(address, chain.clone(), ServerConfig::default()).await?;
    println!("listening on {}", server.url());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    chain.shutdown().await?;
    Ok(())
}
