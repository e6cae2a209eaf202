//! `chiral chain`: a chain on this machine, to try payments on.

use chiral::chain::{
    ChainClient, ChainSpec, DEV_ACCOUNT_CHI, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig,
    JsonRpcServer, ServerConfig,
};
use serde_json::json;

use super::arguments::Chain;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::signals::Signals;

pub(crate) async fn run(command: Chain, output: &Output) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut config = EmbeddedConfig::default();
    if let Some(directory) = &command.data_dir {
        config = config.with_data_dir(directory);
    }
    let chain = EmbeddedChain::open(ChainSpec::devnet(), config).await?;
    let server = JsonRpcServer::bind(command.rpc, chain.clone(), ServerConfig::default()).await;
    let result = match &server {
        Ok(server) => {
            let told = tell(output, &chain, &server.url()).await;
            if told.is_ok() {
                signals.next().await;
            }
            server.shutdown().await;
            told
        }
        Err(error) => Err(Failure::of(Exit::Failed, error)
            .next("name another address with --rpc ADDR; port 0 takes any free one")),
    };
    signals.then_at_once();
    let ended = chain.shutdown().await;
    result?;
    Ok(ended?)
}

async fn tell(output: &Output, chain: &EmbeddedChain, url: &str) -> Result<(), Failure> {
    let (id, head) = (chain.chain_id().await?, chain.head().await?);
    let genesis = chain.genesis_hash().await?;
    output.text(format!(
        "chain   {id}, to try things on: its money is worth nothing"
    ))?;
    output.text(format!("rpc     {url}"))?;
    output.text(format!("genesis {genesis}"))?;
    output.text(format!("head    {}", head.number))?;
    output.text(format!(
        "\naccounts, {DEV_ACCOUNT_CHI} CHI each at the start; everybody knows their keys:"
    ))?;
    for account in DEV_ACCOUNTS {
        output.text(format!("  {}  {}", account.address, account.private_key))?;
    }
    output.event(&json!({
        "event": "chain",
        "chain_id": id,
        "rpc": url,
        "genesis": genesis,
        "head": head.number,
        "accounts": DEV_ACCOUNTS.map(|account| json!({
            "address": account.address.to_string(),
            "private_key": account.private_key,
        })),
    }))?;
    output.text("\nserving until Ctrl-C")?;
    Ok(())
}
