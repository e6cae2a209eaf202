//! Filters: what is new since somebody asked last. The time is passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use alloy_rpc_types_eth::{Filter as WireFilter, FilterBlockOption};

use super::error::{INTERNAL_ERROR, RpcError, SERVER_ERROR};
use super::params::from_tag;
use crate::client::{BlockId, ChainError};
use crate::embedded::{Engine, LogQuery};

/// Addresses, and topics in one position, that a filter names at most.
const MAX_ALTERNATIVES: usize = 1_000;

/// What a filter is for, and from where on its owner has not been told.
#[derive(Clone, Debug)]
pub(super) enum Watched {
    /// Hashes of blocks, from this number on.
    Blocks(u64),
    /// Hashes of transactions that come to the pool, from this position on.
    Transactions(u64),
    /// Logs, from this block on.
    Logs(Box<WireFilter>, u64),
}

#[derive(Debug)]
struct Filter {
    watched: Watched,
    asked: Instant,
}

/// The filters of all clients.
#[derive(Debug)]
pub(super) struct Filters {
    limit: usize,
    lifetime: Duration,
    all: HashMap<u64, Filter>,
}

impl Filters {
    pub(super) fn new(limit: usize, lifetime: Duration) -> Self {
        Self {
            limit,
            lifetime,
            all: HashMap::new(),
        }
    }

    /// Adds one under an id that cannot be guessed.
    pub(super) fn add(&mut self, watched: Watched, now: Instant) -> Result<u64, RpcError> {
        self.expire(now);
        if self.all.len() >= self.limit {
            return Err(RpcError::new(SERVER_ERROR, "too many filters"));
        }
        let id = getrandom::u64().map_err(|error| {
            RpcError::new(INTERNAL_ERROR, format!("no randomness for an id: {error}"))
        })?;
        self.all.insert(
            id,
            Filter {
                watched,
                asked: now,
            },
        );
        Ok(id)
    }

    /// What a filter watches. That it was asked for keeps it.
    pub(super) fn get(&mut self, id: u64, now: Instant) -> Result<Watched, RpcError> {
        self.expire(now);
        let filter = self.all.get_mut(&id).ok_or_else(not_found)?;
        filter.asked = now;
        Ok(filter.watched.clone())
    }

    /// Where its owner has been told up to; nothing if it is gone meanwhile.
    pub(super) fn told(&mut self, id: u64, next: u64) {
        if let Some(filter) = self.all.get_mut(&id) {
            match &mut filter.watched {
                Watched::Blocks(from) | Watched::Transactions(from) | Watched::Logs(_, from) => {
                    *from = next.max(*from);
                }
            }
        }
    }

    /// Takes one away; whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        self.all.remove(&id).is_some()
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.lifetime;
        self.all
            .retain(|_, filter| now.saturating_duration_since(filter.asked) < lifetime);
    }
}

pub(super) fn not_found() -> RpcError {
    RpcError::new(SERVER_ERROR, "filter not found")
}

/// Checks the lengths of a filter that somebody sent.
pub(super) fn check(filter: &WireFilter) -> Result<(), RpcError> {
    let lists = std::iter::once(filter.address.len()).chain(filter.topics.iter().map(|t| t.len()));
    if lists.max().unwrap_or_default() > MAX_ALTERNATIVES {
        return Err(RpcError::params(format!(
            "more than {MAX_ALTERNATIVES} alternatives"
        )));
    }
    Ok(())
}

/// The question that a filter asks.
pub(super) fn query(engine: &Engine, filter: &WireFilter) -> Result<LogQuery, ChainError> {
    let head = engine.head().header.number;
    let number = |id: BlockId| match id {
        BlockId::Number(number) => number,
        _ => head,
    };
    let (from, to) = match filter.block_option {
        FilterBlockOption::Range {
            from_block,
            to_block,
        } => (
            from_block.map_or(head, |tag| number(from_tag(tag))),
            to_block.map_or(head, |tag| number(from_tag(tag))),
        ),
        FilterBlockOption::AtBlockHash(hash) => {
            let number = engine.state_number(BlockId::Hash(hash))?;
            (number, number)
        }
    };
    if from > to {
        return Err(ChainError::Rpc {
            code: super::error::INVALID_PARAMS,
            message: "invalid block range params".to_owned(),
        });
    }
    Ok(LogQuery {
        from,
        to,
        addresses: filter.address.iter().copied().collect(),
        topics: filter
            .topics
            .iter()
            .map(|topic| topic.iter().copied().collect())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_nobody_asks_expires_and_makes_room() {
        let mut filters = Filters::new(1, Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let id = filters.add(Watched::Blocks(1), at(0)).unwrap();
        assert!(filters.add(Watched::Blocks(1), at(1)).is_err());
        filters.told(id, 5);
        assert!(matches!(filters.get(id, at(59)), Ok(Watched::Blocks(5))));
        assert!(filters.get(id, at(118)).is_ok());
        assert!(filters.get(id, at(178)).is_err());
        let other = filters.add(Watched::Transactions(0), at(178)).unwrap();
        assert!(filters.remove(other));
        assert!(!filters.remove(other));
    }
}
