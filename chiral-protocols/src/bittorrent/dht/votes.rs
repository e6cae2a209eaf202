//! [`Votes`]: what others say is our address (BEP 42).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::table::same_host;
use crate::bittorrent::compact::is_local;

/// How many are heard.
const VOTERS: usize = 12;
/// How many must agree.
const QUORUM: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Votes {
    recent: VecDeque<(SocketAddr, IpAddr)>,
    elected: Option<IpAddr>,
}

impl Votes {
    /// Counts a vote, the last of each voter.
    pub(super) fn count(&mut self, voter: SocketAddr, seen: IpAddr) {
        if is_local(seen) || voter.is_ipv4() != seen.is_ipv4() {
            return;
        }
        self.recent.retain(|(other, _)| !same_host(*other, voter));
        if self.recent.len() >= VOTERS {
            self.recent.pop_front();
        }
        self.recent.push_back((voter, seen));
    }

    /// An address that was not elected before, and on which enough agree.
    pub(super) fn elected(&mut self) -> Option<IpAddr> {
        let seen = self.recent.back()?.1;
        let votes = self.recent.iter().filter(|(_, vote)| *vote == seen).count();
        if votes < QUORUM || votes * 2 <= self.recent.len() || self.elected == Some(seen) {
            return None;
        }
        self.elected = Some(seen);
        self.elected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_voter_is_one_vote_and_most_must_agree() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let voter = |n: u8| SocketAddr::from(([9, 9, n, 1], 1));
        let mut votes = Votes::default();
        for port in 1..100 {
            votes.count(SocketAddr::from(([9, 9, 9, 9], port)), ip("6.6.6.6"));
        }
        assert_eq!(votes.elected(), None);
        for n in 0..4 {
            votes.count(voter(n), ip("8.8.8.8"));
            assert_eq!(votes.elected(), None);
        }
        votes.count(voter(4), ip("8.8.8.8"));
        assert_eq!(votes.elected(), Some(ip("8.8.8.8")));
        assert_eq!(votes.elected(), None, "once is enough");
        // An address of a network of one's own says nothing.
        for n in 0..20 {
            votes.count(voter(n), ip("10.0.0.1"));
        }
        assert_eq!(votes.elected(), None);
        // We have moved.
        for n in 0..10 {
            votes.count(voter(n), ip("8.8.4.4"));
        }
        assert_eq!(votes.elected(), Some(ip("8.8.4.4")));
    }
}
