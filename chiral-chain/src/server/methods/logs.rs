//! Logs, and filters for what is new.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use alloy_primitives::B256;
use alloy_rpc_types_eth::{Filter as WireFilter, FilterBlockOption};
use serde_json::{Value, json};

use super::super::convert::{self, quantity};
use super::super::error::{METHOD_NOT_FOUND, RpcError};
use super::super::filters::{self, Filters, Watched};
use super::super::params::Params;
use super::Api;
use crate::embedded::{Engine, MAX_LOG_BLOCKS};

/// Hashes of blocks that are answered at once; the rest comes when asked again.
const MAX_HASHES: u64 = 1_024;

impl Api {
    pub(super) async fn logs_or_filter(
        &self,
        method: &str,
        mut params: Params,
    ) -> Result<Value, RpcError> {
        match method {
            "eth_getLogs" => {
                let filter: WireFilter = params.required(0)?;
                filters::check(&filter)?;
                self.work(move |engine| logs(engine, &filter)).await
            }
            "eth_newFilter" => {
                let filter: WireFilter = params.required(0)?;
                filters::check(&filter)?;
                let next = self.engine()?.head().header.number + 1;
                // A filter that begins in the past is told of that first.
                let from = match filter.block_option {
                    FilterBlockOption::Range {
                        from_block: Some(tag),
                        ..
                    } => tag.as_number().unwrap_or(next),
                    _ => next,
                };
                self.add(Watched::Logs(Box::new(filter), from))
            }
            "eth_newBlockFilter" => {
                self.add(Watched::Blocks(self.engine()?.head().header.number + 1))
            }
            "eth_newPendingTransactionFilter" => {
                let (_, next) = self.engine()?.pool().arrived(u64::MAX);
                self.add(Watched::Transactions(next))
            }
            "eth_uninstallFilter" => Ok(json!(self.filters().remove(params.number(0)?))),
            "eth_getFilterLogs" => {
                let id = params.number(0)?;
                let Watched::Logs(filter, _) = self.filters().get(id, Instant::now())? else {
                    return Err(filters::not_found());
                };
                self.work(move |engine| logs(engine, &filter)).await
            }
            "eth_getFilterChanges" => {
                let id = params.number(0)?;
                let watched = self.filters().get(id, Instant::now())?;
                let changes = self
                    .chain
                    .run(move |engine| Ok(changes(engine, watched)))
                    .await?;
                let (changes, next) = changes?;
                self.filters().told(id, next);
                Ok(changes)
            }
            _ => Err(RpcError::new(METHOD_NOT_FOUND, method)),
        }
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, watched: Watched) -> Result<Value, RpcError> {
        self.filters().add(watched, Instant::now()).map(quantity)
    }
}

fn logs(engine: &Engine, filter: &WireFilter) -> Result<Value, RpcError> {
    let query = filters::query(engine, filter)?;
    convert::logs(engine.logs(&query)?)
}

/// What is new, and from where on the next question goes.
fn changes(engine: &Engine, watched: Watched) -> Result<(Value, u64), RpcError> {
    let head = engine.head().header.number;
    match watched {
        Watched::Blocks(from) => {
            let to = head.min(from.saturating_add(MAX_HASHES - 1));
            let mut hashes: Vec<B256> = Vec::new();
            for number in from..=to {
                hashes.extend(engine.block_at(number)?.map(|block| block.hash));
            }
            Ok((json!(hashes), (to + 1).max(from)))
        }
        Watched::Transactions(from) => {
            let (hashes, next) = engine.pool().arrived(from);
            Ok((json!(hashes), next))
        }
        Watched::Logs(filter, from) => {
            let to = head.min(from.saturating_add(MAX_LOG_BLOCKS - 1));
            if from > to {
                return Ok((json!([]), from));
            }
            let last = filter
                .block_option
                .as_range()
                .1
                .and_then(|tag| tag.as_number());
            let mut unranged = *filter;
            unranged.block_option = FilterBlockOption::default();
            let mut query = filters::query(engine, &unranged)?;
            (query.from, query.to) = (from, to.min(last.unwrap_or(to)));
            let found = if query.from > query.to {
                Vec::new()
            } else {
                engine.logs(&query)?
            };
            Ok((convert::logs(found)?, to + 1))
        }
    }
}
