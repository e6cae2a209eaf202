//! In which order transactions go into a block.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::vec::IntoIter;

use alloy_primitives::Address;

use super::{Pool, Pooled};

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) enum Work {
    /// Nothing can be mined, at no base fee.
    None,
    /// Something could be if the base fee were lower.
    PricedOut,
    /// Something can be mined now.
    Ready,
}

/// The transactions that can go into the next block: of each sender in the order of nonces,
/// among senders the highest tip first, and of equal tips whichever came first.
#[derive(Debug)]
pub(in crate::embedded) struct Candidates {
    base_fee: u64,
    queues: HashMap<Address, IntoIter<Arc<Pooled>>>,
    heap: BinaryHeap<(u128, Reverse<u64>, Address)>,
    next: HashMap<Address, Arc<Pooled>>,
}

impl Pool {
    /// What can go into a block with this base fee, at most `count` of each sender.
    pub(in crate::embedded) fn candidates(
        &self,
        base_fee: u64,
        count: usize,
        mut nonce_of: impl FnMut(Address) -> u64,
    ) -> Candidates {
        let mut candidates = Candidates {
            base_fee,
            queues: HashMap::new(),
            heap: BinaryHeap::new(),
            next: HashMap::new(),
        };
        for (sender, queue) in &self.senders {
            let from = nonce_of(*sender);
            let run: Vec<_> = (from..)
                .zip(queue.range(from..))
                .take_while(|(expected, (nonce, _))| expected == *nonce)
                .map(|(_, (_, pooled))| pooled.clone())
                .take(count)
                .collect();
            candidates.queues.insert(*sender, run.into_iter());
            candidates.accepted(*sender);
        }
        candidates
    }

    /// What there is to do at this base fee.
    pub(in crate::embedded) fn work(
        &self,
        base_fee: u64,
        mut nonce_of: impl FnMut(Address) -> u64,
    ) -> Work {
        let mut work = Work::None;
        for (sender, queue) in &self.senders {
            match queue.get(&nonce_of(*sender)) {
                Some(first) if first.tip_at(base_fee).is_some() => return Work::Ready,
                Some(_) => work = Work::PricedOut,
                None => {}
            }
        }
        work
    }
}

impl Candidates {
    /// The best one; the sender's others come after [`Candidates::accepted`] only.
    pub(in crate::embedded) fn pop(&mut self) -> Option<Arc<Pooled>> {
        let (_, _, sender) = self.heap.pop()?;
        self.next.remove(&sender)
    }

    /// The sender's last one went into the block: the next one may follow.
    pub(in crate::embedded) fn accepted(&mut self, sender: Address) {
        let Some(pooled) = self.queues.get_mut(&sender).and_then(Iterator::next) else {
            return;
        };
        if let Some(tip) = pooled.tip_at(self.base_fee) {
            self.heap.push((tip, Reverse(pooled.arrival), sender));
            self.next.insert(sender, pooled);
        }
    }
}
