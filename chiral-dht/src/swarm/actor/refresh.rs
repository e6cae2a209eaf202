//! Which parts of the routing table are worth a look-up.
//!
//! Kademlia looks for itself, and then for something in each bucket that is farther than its
//! nearest neighbour, when it enters the network (twice, as a rule) and every ten minutes. A
//! look-up asks some thirty nodes, and connects to those that it was not connected to. Where
//! nothing can be learned it is left out:
//!
//! - in buckets within the twenty nearest nodes: looking for itself has found all of these;
//! - in buckets that are full of nodes which are connected now.

use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, NodeStatus, QueryId, QueryInfo};

/// A look-up of a refresh ended; its next one is left out if it is worth nothing.
pub(super) fn progressed<S>(kad: &mut kad::Behaviour<S>, id: QueryId)
where
    S: RecordStore + Send + 'static,
{
    let Some(query) = kad.query_mut(&id) else {
        return;
    };
    let QueryInfo::Bootstrap { peer: target, .. } = query.info() else {
        return;
    };
    let target = *target;
    if !is_worth(kad, target)
        && let Some(mut query) = kad.query_mut(&id)
    {
        query.finish();
    }
}

/// Whether nodes are to be found in the bucket of this target that are not in it.
fn is_worth<S>(kad: &mut kad::Behaviour<S>, target: PeerId) -> bool
where
    S: RecordStore + Send + 'static,
{
    let full = kad::K_VALUE.get();
    let Some(bucket) = kad.kbucket(target) else {
        return false;
    };
    let connected = bucket
        .iter()
        .filter(|entry| entry.status == NodeStatus::Connected)
        .count();
    if connected >= full {
        return false;
    }
    let (_, farthest) = bucket.range();
    let (mut nearer, mut all) = (0, 0);
    for bucket in kad.kbuckets() {
        all += bucket.num_entries();
        if bucket.range().1 <= farthest {
            nearer += bucket.num_entries();
        }
    }
    // With few nodes in all it cannot be told whether more are to come.
    nearer > full || all <= full
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::kad::store::MemoryStore;

    #[test]
    fn what_looking_for_oneself_finds_is_not_looked_for_again() {
        let local = PeerId::random();
        let mut kad = kad::Behaviour::new(local, MemoryStore::new(local));
        let target = |kad: &mut kad::Behaviour<MemoryStore>, nearest: bool| {
            let mut found = PeerId::random();
            for _ in 0..1000 {
                let other = PeerId::random();
                let distance = |kad: &mut kad::Behaviour<MemoryStore>, peer| {
                    kad.kbucket(peer).expect("not oneself").range()
                };
                if (distance(kad, other) < distance(kad, found)) == nearest {
                    found = other;
                }
            }
            found
        };
        let (near, far) = (target(&mut kad, true), target(&mut kad, false));
        assert!(is_worth(&mut kad, near), "nobody is known");
        for port in 1..=200 {
            let address = format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap();
            kad.add_address(&PeerId::random(), address);
        }
        assert!(!is_worth(&mut kad, near), "within the nearest");
        assert!(is_worth(&mut kad, far), "full, but nobody is connected");
        assert!(!is_worth(&mut kad, local));
    }
}
