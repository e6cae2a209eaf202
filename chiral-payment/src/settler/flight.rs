//! What to do next about a transaction, from what the chain shows of it. No clock, no socket.

use alloy_primitives::B256;
use chiral_chain::BlockRef;

use super::record::{Flight, FlightState};

/// What the chain shows of a transaction's nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// One of the variants is in a block of the best chain.
    Mined {
        /// Which.
        variant: usize,
        /// Where.
        block: BlockRef,
        /// Whether it was executed without a revert.
        succeeded: bool,
        /// Blocks from that one to the best, both counted.
        depth: u64,
    },
    /// The nonce is unused: it waits, or the node has never heard of it.
    Absent {
        /// The wallet's next nonce.
        next: u64,
    },
    /// Another transaction has the nonce, as deep as is asked for: shown by that transaction
    /// itself, not by counting alone.
    Taken {
        /// Its hash.
        by: B256,
    },
    /// The nonce is used, and by what is not shown, or not deep enough.
    Unclear,
}

/// How deep is deep enough, in blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depths {
    /// For a payment to count as settled.
    pub(super) confirmations: u64,
    /// For one that reverted to be made anew; not less.
    pub(super) failed: u64,
    /// For nobody to look any more; not less.
    pub(super) watched: u64,
}

/// The next durable step, or what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to do before something changes.
    Wait,
    /// Send the same bytes (again), if it is time.
    Send,
    /// It is in this block.
    Include {
        variant: usize,
        block: BlockRef,
        succeeded: bool,
    },
    /// It is deep enough, and paid.
    Settle,
    /// It is deep enough, and reverted: its bills wait for another.
    Revert,
    /// A reorganisation took it out of its block: its bills are in flight again.
    Reorganise,
    /// Another transaction took the nonce, deep enough: its bills wait for another.
    Lose { by: B256 },
    /// It is so deep that nobody looks any more.
    Close,
}

/// What follows for `flight` from what the chain shows.
pub(super) fn next(flight: &Flight, sighting: Sighting, depths: Depths) -> Step {
    use FlightState::{Broadcast, Closed, Final, Included, Lost, Reverted, Signed};
    match (flight.state, sighting) {
        (Closed | Lost | Reverted, _) | (_, Sighting::Unclear) => Step::Wait,
        (Signed | Broadcast, Sighting::Absent { .. }) => Step::Send,
        (Signed | Broadcast, Sighting::Taken { by }) => Step::Lose { by },
        (Included | Final, Sighting::Absent { .. } | Sighting::Taken { .. }) => Step::Reorganise,
        (
            state,
            Sighting::Mined {
                variant,
                block,
                succeeded,
                depth,
            },
        ) => {
            let known = matches!(state, Included | Final);
            let same = (flight.variant, flight.block, flight.succeeded);
            if !known || same != (variant, block, succeeded) {
                let step = Step::Include {
                    variant,
                    block,
                    succeeded,
                };
                return step;
            }
            match state {
                Included if !succeeded && depth < depths.failed => Step::Wait,
                Included if depth < depths.confirmations => Step::Wait,
                Included if succeeded => Step::Settle,
                Included => Step::Revert,
                _ if depth >= depths.watched => Step::Close,
                _ => Step::Wait,
            }
        }
    }
}

#[cfg(test)]
mod tests;
