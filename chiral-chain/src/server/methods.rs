//! The methods.

mod logs;

use std::sync::Arc;

use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::TransactionRequest;
use revm::DatabaseRef;
use serde_json::{Value, json};

use super::convert::{self, quantity};
use super::error::{METHOD_NOT_FOUND, RpcError};
use super::params::Params;
use super::{Api, fees};
use crate::client::{BlockId, CallRequest};
use crate::embedded::{Engine, Found, StoredBlock, unavailable};

/// What `web3_clientVersion` says.
const CLIENT_VERSION: &str = concat!("chiral/", env!("CARGO_PKG_VERSION"));

impl Api {
    /// Answers one call.
    pub(super) async fn call(&self, method: &str, mut params: Params) -> Result<Value, RpcError> {
        match method {
            "web3_clientVersion" => Ok(json!(CLIENT_VERSION)),
            "web3_sha3" => Ok(json!(keccak256(params.required::<Bytes>(0)?))),
            "net_version" => Ok(json!(self.engine()?.spec.network_id.to_string())),
            "net_listening" => Ok(json!(true)),
            "net_peerCount" | "eth_hashrate" => Ok(quantity(0)),
            "eth_syncing" | "eth_mining" => Ok(json!(false)),
            "eth_accounts" => Ok(json!([])),
            "eth_coinbase" => Ok(json!(self.engine()?.config.coinbase)),
            "eth_chainId" => Ok(quantity(self.engine()?.spec.chain_id)),
            "eth_blockNumber" => Ok(quantity(self.engine()?.head().header.number)),
            "eth_gasPrice" | "eth_maxPriorityFeePerGas" => {
                let engine = self.engine()?;
                let quote = engine.fees(&engine.head().header);
                let price = match method {
                    "eth_gasPrice" => quote.gas_price,
                    _ => quote.priority_fee,
                };
                Ok(quantity(price))
            }
            "eth_feeHistory" => self.fee_history(params).await,
            "eth_getBalance" | "eth_getCode" | "eth_getStorageAt" => {
                self.account(method, params).await
            }
            "eth_getTransactionCount" => {
                let (wallet, at) = (params.required::<Address>(0)?, params.block(1)?);
                self.work(move |engine| Ok(quantity(engine.nonce(wallet, at)?)))
                    .await
            }
            "eth_call" | "eth_estimateGas" => self.execute(method, params).await,
            "eth_sendRawTransaction" => {
                let raw: Bytes = params.required(0)?;
                self.work(move |engine| Ok(json!(engine.send(&raw)?))).await
            }
            "eth_getTransactionByHash" => {
                let hash: B256 = params.required(0)?;
                self.work(move |engine| match engine.find_transaction(hash)? {
                    None => Ok(Value::Null),
                    Some(found) => convert::transaction(&found),
                })
                .await
            }
            "eth_getTransactionReceipt" => {
                let hash: B256 = params.required(0)?;
                self.work(move |engine| match engine.find_transaction(hash)? {
                    Some(Found::Mined(block, index)) => convert::receipt(&block, index),
                    Some(Found::Waiting(_)) | None => Ok(Value::Null),
                })
                .await
            }
            "debug_getRawTransaction" | "eth_getRawTransactionByHash" => {
                let hash: B256 = params.required(0)?;
                self.work(move |engine| {
                    Ok(json!(engine.find_transaction(hash)?.map(|found| {
                        Bytes::from(match found {
                            Found::Waiting(pooled) => pooled.checked.transaction.encoded_2718(),
                            Found::Mined(block, index) => block.transactions[index].encoded_2718(),
                        })
                    })))
                })
                .await
            }
            "txpool_status" => {
                self.work(|engine| {
                    let (pending, queued) = engine.pool_counts();
                    Ok(json!({ "pending": quantity(pending), "queued": quantity(queued) }))
                })
                .await
            }
            "eth_getLogs"
            | "eth_newFilter"
            | "eth_newBlockFilter"
            | "eth_newPendingTransactionFilter"
            | "eth_getFilterChanges"
            | "eth_getFilterLogs"
            | "eth_uninstallFilter" => self.logs_or_filter(method, params).await,
            _ => match block_method(method) {
                Some(show) => {
                    let by_hash = method.contains("ByHash") || method.contains("BlockHash");
                    self.block(by_hash, params, show).await
                }
                None => Err(RpcError::new(
                    METHOD_NOT_FOUND,
                    format!("the method {method} does not exist/is not available"),
                )),
            },
        }
    }

    fn engine(&self) -> Result<Arc<Engine>, RpcError> {
        Ok(self.chain.engine()?)
    }

    /// Does what may take a while.
    async fn work(
        &self,
        work: impl FnOnce(&Engine) -> Result<Value, RpcError> + Send + 'static,
    ) -> Result<Value, RpcError> {
        self.chain.run(move |engine| Ok(work(engine))).await?
    }

    async fn fee_history(&self, mut params: Params) -> Result<Value, RpcError> {
        let (count, newest) = (params.number(0)?, params.block(1)?);
        let percentiles: Vec<f64> = params.optional(2)?.unwrap_or_default();
        fees::check(&percentiles)?;
        self.work(move |engine| convert::json(fees::history(engine, count, newest, &percentiles)?))
            .await
    }

    async fn account(&self, method: &str, mut params: Params) -> Result<Value, RpcError> {
        let wallet: Address = params.required(0)?;
        let slot = match method {
            "eth_getStorageAt" => Some(params.required::<U256>(1)?),
            _ => None,
        };
        let at = params.block(if slot.is_some() { 2 } else { 1 })?;
        let balance = method == "eth_getBalance";
        self.work(move |engine| {
            let view = engine.view(engine.state_number(at)?);
            let shown = match slot {
                Some(slot) => view
                    .storage_ref(wallet, slot)
                    .map(|value| json!(B256::from(value))),
                None if balance => view.basic(wallet).map(|basic| quantity(basic.balance)),
                None => view.code(wallet).map(|code| json!(code)),
            };
            Ok(shown.map_err(unavailable)?)
        })
        .await
    }

    async fn execute(&self, method: &str, mut params: Params) -> Result<Value, RpcError> {
        let request: TransactionRequest = params.required(0)?;
        let at = params.block(1)?;
        if params
            .optional::<Value>(2)?
            .is_some_and(|overrides| overrides != json!({}))
        {
            return Err(RpcError::params("state overrides are not supported"));
        }
        let call = CallRequest {
            from: request.from.unwrap_or_default(),
            to: request.to.and_then(|to| to.to().copied()),
            value: request.value.unwrap_or_default(),
            input: request
                .input
                .try_into_unique_input()
                .map_err(|error| RpcError::params(error.to_string()))?
                .unwrap_or_default()
                .0,
            gas: request.gas,
        };
        let estimate = method == "eth_estimateGas";
        self.work(move |engine| {
            let header = match engine.find_block(at)? {
                Some(block) => block.header.clone(),
                None => {
                    return Err(RpcError::new(
                        super::error::SERVER_ERROR,
                        "header not found",
                    ));
                }
            };
            Ok(if estimate {
                quantity(engine.estimate(&call, &header)?)
            } else {
                json!(Bytes::from(engine.call(&call, &header)?))
            })
        })
        .await
    }

    /// Shows something of a block; null if there is none.
    async fn block(
        &self,
        by_hash: bool,
        mut params: Params,
        show: ShowBlock,
    ) -> Result<Value, RpcError> {
        let id = if by_hash {
            BlockId::Hash(params.required(0)?)
        } else {
            // Without a block there is no answer: the newest is not meant by nothing.
            params.required_block(0)?
        };
        self.work(move |engine| match engine.find_block(id)? {
            None => Ok(Value::Null),
            Some(block) => show(&block, params),
        })
        .await
    }
}

type ShowBlock = fn(&Arc<StoredBlock>, Params) -> Result<Value, RpcError>;

/// What a method shows of a block.
fn block_method(method: &str) -> Option<ShowBlock> {
    Some(match method {
        "eth_getBlockByNumber" | "eth_getBlockByHash" => {
            |block, mut params| convert::block(block, params.optional(1)?.unwrap_or_default())
        }
        "eth_getBlockReceipts" => |block, _| convert::receipts(block),
        "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
            |block, _| Ok(quantity(block.transactions.len()))
        }
        "eth_getUncleCountByBlockNumber" | "eth_getUncleCountByBlockHash" => |_, _| Ok(quantity(0)),
        "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" => {
            |block, mut params| {
                let index = usize::try_from(params.number(1)?).unwrap_or(usize::MAX);
                if index >= block.transactions.len() {
                    return Ok(Value::Null);
                }
                convert::json(convert::mined(block, index))
            }
        }
        "debug_getRawBlock" => |block, _| Ok(json!(Bytes::from(block.rlp()))),
        "debug_getRawHeader" => |block, _| {
            let mut header = Vec::new();
            block.header.encode(&mut header);
            Ok(json!(Bytes::from(header)))
        },
        "debug_getRawReceipts" => |block, _| {
            let receipts = block
                .receipts
                .iter()
                .map(|receipt| receipt.encoded_2718().into());
            Ok(json!(receipts.collect::<Vec<Bytes>>()))
        },
        _ => return None,
    })
}
