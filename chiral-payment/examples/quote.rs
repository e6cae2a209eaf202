//! A signed quote as JSON, for programs that check typed data (EIP-712).
//!
//!     cargo run -p chiral-payment --features chain --example quote

use std::error::Error;
use std::io::Write;

use alloy_primitives::{Address, B256, U256};
use chiral_chain::PrivateKey;
use chiral_core::{Cid, Price};
use chiral_payment::messages::{ChainFacts, Concessions, Discount, Policy, Quote, Signed};
use serde_json::json;

/// Key 0 of the accounts that anvil and hardhat begin with: public.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let wallet: PrivateKey = KEY.parse()?;
    let chain = ChainFacts {
        chain_id: 98_765,
        genesis: B256::repeat_byte(0x1f),
        batch_pay: Address::repeat_byte(0xba),
    };
    let discount = Discount {
        from_bytes: 1 << 30,
        price: Price::from_wei_per_mib(U256::from(900_000_000_000_000u64)),
    };
    let quote = Quote {
        id: B256::repeat_byte(1),
        cid: Cid::from_bytes([7; 32]),
        payer: Address::repeat_byte(2),
        payee: wallet.address(),
        price: "0.001".parse()?,
        concessions: Concessions::new(1 << 20, vec![discount])?,
        answers: B256::ZERO,
        policy: Policy::PayAfter,
        credit_limit: U256::from(50_000_000_000_000_000u64),
        prepay_bytes: 4 << 20,
        confirmations: 1,
        chain,
        channel: Default::default(),
        valid_until: 1_800_000_000,
    };
    let signed = Signed::sign(quote, &chain, &wallet).await?;
    let quote = &signed.body;
    let signature = signed.signature.as_bytes();
    let hex = |bytes: &[u8]| B256::from_slice(bytes).to_string();
    let json = json!({
        "domain": {
            "name": "Chiral",
            "version": "1",
            "chainId": chain.chain_id,
            "verifyingContract": chain.batch_pay.to_string(),
        },
        "message": {
            "id": quote.id.to_string(),
            "cid": format!("0x{}", quote.cid),
            "payer": quote.payer.to_string(),
            "payee": quote.payee.to_string(),
            "pricePerMib": quote.price.wei_per_mib().to_string(),
            "freeBytes": quote.concessions.free_bytes(),
            "discounts": quote.concessions.discounts().iter().map(|discount| json!({
                "fromBytes": discount.from_bytes,
                "pricePerMib": discount.price.wei_per_mib().to_string(),
            })).collect::<Vec<_>>(),
            "answers": quote.answers.to_string(),
            "policy": 0,
            "creditLimit": quote.credit_limit.to_string(),
            "prepayBytes": quote.prepay_bytes,
            "confirmations": quote.confirmations,
            "chainId": chain.chain_id,
            "genesis": chain.genesis.to_string(),
            "batchPay": chain.batch_pay.to_string(),
            "channel": {
                "contractAt": quote.channel.contract.to_string(),
                "challenge": quote.channel.challenge,
                "windowFirst": quote.channel.window_first,
                "windowCap": quote.channel.window_cap,
                "batchChunks": quote.channel.batch,
            },
            "validUntil": quote.valid_until,
        },
        "digest": signed.digest(&chain).to_string(),
        "signature": {
            "r": hex(&signature[..32]),
            "s": hex(&signature[32..64]),
            "yParity": signature[64],
        },
        "signer": wallet.address().to_string(),
    });
    writeln!(std::io::stdout(), "{json:#}")?;
    Ok(())
}
