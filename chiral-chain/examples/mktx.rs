//! Signs a transaction without any node and prints it, as `cast mktx` does.
//!
//! ```text
//! $ cargo run -p chiral-chain --example mktx -- private-key=0xac09… nonce=0 gas-limit=21000 \
//!       gas-price=20000000000 to=0x7099… value=1000
//! 0xf86e…
//! ```
//!
//! `priority-gas-price` makes it one with dynamic fees (EIP-1559), `input` gives calldata, and
//! without `to` it makes a contract. `chain` is 98765 if it is not given.

#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::error::Error;
use std::str::FromStr;

use alloy_primitives::{U256, hex};
use chiral_chain::{CHIRAL_CHAIN_ID, Fees, PrivateKey, Transaction};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let fields = Fields::from_arguments()?;
    let wallet: PrivateKey = fields.required("private-key")?;
    let gas_price = fields.required("gas-price")?;
    let fees = match fields.optional("priority-gas-price")? {
        None => Fees::Legacy { gas_price },
        Some(max_priority_fee_per_gas) => Fees::Dynamic {
            max_fee_per_gas: gas_price,
            max_priority_fee_per_gas,
        },
    };
    let input = fields.optional::<String>("input")?.unwrap_or_default();
    let transaction = Transaction {
        chain_id: fields.optional("chain")?.unwrap_or(CHIRAL_CHAIN_ID),
        nonce: fields.required("nonce")?,
        gas_limit: fields.required("gas-limit")?,
        fees,
        to: fields.optional("to")?,
        value: fields.optional("value")?.unwrap_or(U256::ZERO),
        input: hex::decode(input)?.into(),
    };
    let signed = transaction.sign(&wallet).await?;
    println!("{}", hex::encode_prefixed(&signed.raw));
    Ok(())
}

/// Arguments of the form `name=value`.
struct Fields(HashMap<String, String>);

impl Fields {
    fn from_arguments() -> Result<Self, Box<dyn Error>> {
        let mut fields = HashMap::new();
        for argument in std::env::args().skip(1) {
            let (name, value) = argument.split_once('=').ok_or("fields are name=value")?;
            fields.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self(fields))
    }

    fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Box<dyn Error>>
    where
        T::Err: Error + 'static,
    {
        let value = self.0.get(name).map(|value| value.parse());
        Ok(value.transpose()?)
    }

    fn required<T: FromStr>(&self, name: &str) -> Result<T, Box<dyn Error>>
    where
        T::Err: Error + 'static,
    {
        let missing = || format!("{name}=… is missing");
        Ok(self.optional(name)?.ok_or_else(missing)?)
    }
}
