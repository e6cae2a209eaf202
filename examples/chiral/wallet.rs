//! `chiral wallet`: make a wallet, look at it, and send money from it.

use std::io::Read;
use std::time::Duration;

use chiral::chain::{
    BlockId, CHIRAL_CHAIN_ID, CallRequest, ChainClient, Fees, KdfCost, PrivateKey, Transaction,
    keystore,
};
use chiral::core::Address;
use chiral::core::money::format_chi;
use serde_json::json;

use super::account::password;
use super::arguments::{Account, Balance, NewWallet, Send, Wallet, WalletCommand};
use super::failure::{Exit, Failure};
use super::output::Output;

/// How long to wait for a transaction to be mined, and between looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A key in hexadecimal, and room for blanks around it.
const MAX_KEY_TEXT: u64 = 256;

pub(crate) async fn run(command: Wallet, output: &Output) -> Result<(), Failure> {
    match command.command {
        WalletCommand::New(new) => create(&new, output),
        WalletCommand::Import(new) => import(&new, output),
        WalletCommand::Show(account) => show(&account, output),
        WalletCommand::Balance(what) => balance(&what, output).await,
        WalletCommand::Send(what) => send(&what, output).await,
    }
}

fn create(new: &NewWallet, output: &Output) -> Result<(), Failure> {
    let password = password(new.password_file.as_deref(), true)?;
    let key = keystore::create(&new.file, &password, KdfCost::default())?;
    tell_kept(new, &key, output)
}

fn import(new: &NewWallet, output: &Output) -> Result<(), Failure> {
    let mut text = String::new();
    let mut input = std::io::stdin().take(MAX_KEY_TEXT);
    input.read_to_string(&mut text)?;
    // Standard input has been read to its end: nothing can be typed any more.
    let password = password(new.password_file.as_deref(), true)?;
    let key = keystore::import_hex(&new.file, text.trim(), &password, KdfCost::default())?;
    tell_kept(new, &key, output)
}

fn tell_kept(new: &NewWallet, key: &PrivateKey, output: &Output) -> Result<(), Failure> {
    let (address, file) = (key.address(), new.file.display());
    output.text(format!("{address}"))?;
    output.note(format!(
        "kept in {file}: whoever loses file or password loses the money"
    ));
    output.event(&json!({
        "event": "wallet",
        "address": address.to_string(),
        "keystore": new.file.to_string_lossy(),
    }))?;
    Ok(())
}

fn show(account: &Account, output: &Output) -> Result<(), Failure> {
    // A keystore names its wallet; without the password nothing proves it.
    let address = match (account.named_wallet()?, &account.password_file) {
        (Some(address), None) => address,
        _ => account.needed_wallet()?.address(),
    };
    output.text(address.to_string())?;
    output.event(&json!({ "event": "wallet", "address": address.to_string() }))?;
    Ok(())
}

async fn balance(what: &Balance, output: &Output) -> Result<(), Failure> {
    let address = match &what.address {
        Some(text) => parse_address(text)?,
        None => what.account.needed_wallet()?.address(),
    };
    let chain = what.account.needed_client()?;
    let wei = chain.balance(address, BlockId::Latest).await?;
    output.text(format!("{} CHI", format_chi(wei)))?;
    output.event(&json!({
        "event": "balance",
        "address": address.to_string(),
        "balance_wei": wei.to_string(),
    }))?;
    Ok(chain.shutdown().await?)
}

async fn send(what: &Send, output: &Output) -> Result<(), Failure> {
    let to = parse_address(&what.to)?;
    let wallet = what.account.needed_wallet()?;
    let chain = what.account.needed_client()?;
    let from = wallet.address();
    let call = CallRequest {
        from,
        to: Some(to),
        value: what.amount,
        ..CallRequest::default()
    };
    let transaction = Transaction {
        chain_id: CHIRAL_CHAIN_ID,
        nonce: chain.nonce(from, BlockId::Pending).await?,
        gas_limit: chain.estimate_gas(call).await?,
        fees: Fees::Legacy {
            gas_price: chain.fees().await?.gas_price,
        },
        to: Some(to),
        value: what.amount,
        input: Default::default(),
    };
    let signed = transaction
        .sign(&wallet)
        .await
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    chain.send_raw_transaction(signed.raw.clone()).await?;
    let block = mined(&*chain, signed.hash).await?;
    let hash = signed.hash;
    output.text(format!("sent {} CHI to {to}", format_chi(what.amount)))?;
    output.text(format!("transaction {hash}, in block {block}"))?;
    output.event(&json!({
        "event": "sent",
        "from": from.to_string(),
        "to": to.to_string(),
        "amount_wei": what.amount.to_string(),
        "transaction": hash,
        "block": block,
    }))?;
    Ok(chain.shutdown().await?)
}

async fn mined(chain: &dyn ChainClient, hash: chiral::core::B256) -> Result<u64, Failure> {
    let wait = async {
        loop {
            if let Some(receipt) = chain.receipt(hash).await? {
                return Ok::<_, Failure>(receipt);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(receipt) => {
            let receipt = receipt?;
            if receipt.succeeded {
                return Ok(receipt.block.number);
            }
            let message = format!("transaction {hash} failed: the receiver refused it");
            Err(Failure::new(Exit::Refused, message))
        }
        Err(_) => {
            let message = format!("transaction {hash} was sent and is in no block yet");
            Err(Failure::new(Exit::Failed, message)
                .next("look for it later; it may still be mined"))
        }
    }
}

fn parse_address(text: &str) -> Result<Address, Failure> {
    // A mixed-case address carries a checksum (EIP-55), which has to be right.
    let digits = text.strip_prefix("0x").unwrap_or_default();
    let lower = digits.chars().all(|c| !c.is_ascii_uppercase());
    let address = if lower {
        text.parse::<Address>().ok()
    } else {
        Address::parse_checksummed(text, None).ok()
    };
    address.filter(|_| text.starts_with("0x")).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{text} is no address"))
            .next("an address is 0x and 40 hexadecimal digits; mixed case is checked (EIP-55)")
    })
}
