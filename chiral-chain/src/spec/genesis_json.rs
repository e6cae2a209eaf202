//! A spec as the `genesis.json` with which core-geth begins a chain.

use alloy_primitives::hex;
use serde_json::{Map, Value, json};

use super::genesis::INITIAL_BASE_FEE;
use super::{ChainSpec, GenesisAccount, Rules};

impl ChainSpec {
    /// The file for `geth init`, as core-geth and the go-ethereum of proof of work read it.
    /// Block reward and bootstrap nodes have no place in it: its reward is the standard one.
    pub fn to_genesis_json(&self) -> String {
        let mut genesis = json!({
            "config": self.config(),
            "nonce": format!("{:#018x}", self.nonce),
            "timestamp": format!("{:#x}", self.timestamp),
            "extraData": hex::encode_prefixed(&self.extra_data),
            "gasLimit": format!("{:#x}", self.gas_limit),
            "difficulty": format!("{:#x}", self.difficulty),
            "mixHash": format!("{:#066x}", 0),
            "coinbase": format!("{:#042x}", 0),
            "parentHash": format!("{:#066x}", 0),
            "number": "0x0",
            "gasUsed": "0x0",
            "alloc": self.alloc.iter().map(|(address, account)| {
                (hex::encode_prefixed(address), account.to_json())
            }).collect::<Map<_, _>>(),
        });
        if self.rules >= Rules::London {
            genesis["baseFeePerGas"] = json!(format!("{INITIAL_BASE_FEE:#x}"));
        }
        format!("{genesis:#}\n")
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "chainId": self.chain_id,
            "networkId": self.network_id,
            "homesteadBlock": 0,
            "eip150Block": 0,
            "eip155Block": 0,
            "eip158Block": 0,
            "byzantiumBlock": 0,
            "constantinopleBlock": 0,
            "petersburgBlock": 0,
            "istanbulBlock": 0,
            "ethash": {},
        });
        if self.rules >= Rules::London {
            config["berlinBlock"] = json!(0);
            config["londonBlock"] = json!(0);
        }
        config
    }
}

impl GenesisAccount {
    fn to_json(&self) -> Value {
        let mut account = json!({ "balance": format!("{:#x}", self.balance) });
        if self.nonce != 0 {
            account["nonce"] = json!(format!("{:#x}", self.nonce));
        }
        if !self.code.is_empty() {
            account["code"] = json!(hex::encode_prefixed(&self.code));
        }
        if !self.storage.is_empty() {
            let slots = self.storage.iter();
            account["storage"] = slots
                .map(|(slot, value)| (slot.to_string(), json!(value.to_string())))
                .collect::<Map<_, _>>()
                .into();
        }
        account
    }
}
