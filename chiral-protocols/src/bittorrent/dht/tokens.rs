//! [`Tokens`]: what a node must have asked us for before it may announce a peer, so that
//! nobody announces others than itself (BEP 5).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use crate::bittorrent::random::Random;

/// After so long there is a new secret; a token holds under the last two.
const ROTATION: Duration = Duration::from_secs(5 * 60);

/// Bytes of a token.
const LENGTH: usize = 8;

#[derive(Debug)]
pub(super) struct Tokens {
    secrets: [[u8; 20]; 2],
    since: Instant,
}

impl Tokens {
    pub(super) fn new(now: Instant, random: &mut Random) -> Self {
        Self {
            secrets: [random.bytes(), random.bytes()],
            since: now,
        }
    }

    /// Makes a new secret when it is time.
    pub(super) fn rotate(&mut self, now: Instant, random: &mut Random) {
        let age = now.saturating_duration_since(self.since);
        if age >= ROTATION {
            // After a long sleep neither holds.
            self.secrets[1] = match age >= 2 * ROTATION {
                true => random.bytes(),
                false => self.secrets[0],
            };
            self.secrets[0] = random.bytes();
            self.since = now;
        }
    }

    pub(super) fn give(&self, ip: IpAddr, info_hash: &[u8; 20]) -> Vec<u8> {
        token(&self.secrets[0], ip, info_hash)
    }

    pub(super) fn holds(&self, given: &[u8], ip: IpAddr, info_hash: &[u8; 20]) -> bool {
        let same = |secret| token(secret, ip, info_hash) == given;
        self.secrets.iter().any(same)
    }
}

fn token(secret: &[u8; 20], ip: IpAddr, info_hash: &[u8; 20]) -> Vec<u8> {
    let mut hash = Sha1::new();
    hash.update(secret);
    match ip {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    hash.update(info_hash);
    hash.finalize()[..LENGTH].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_address_and_torrent_and_ten_minutes() {
        let (start, mut random) = (Instant::now(), Random::from_seed([1; 32]));
        let mut tokens = Tokens::new(start, &mut random);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let given = tokens.give(ip("1.2.3.4"), &[1; 20]);
        assert!(tokens.holds(&given, ip("1.2.3.4"), &[1; 20]));
        assert!(!tokens.holds(&given, ip("1.2.3.5"), &[1; 20]));
        assert!(!tokens.holds(&given, ip("1.2.3.4"), &[2; 20]));
        assert!(!tokens.holds(&given[1..], ip("1.2.3.4"), &[1; 20]));
        assert!(!tokens.holds(&[], ip("1.2.3.4"), &[1; 20]));
        tokens.rotate(start + ROTATION, &mut random);
        assert!(tokens.holds(&given, ip("1.2.3.4"), &[1; 20]));
        tokens.rotate(start + 2 * ROTATION, &mut random);
        assert!(!tokens.holds(&given, ip("1.2.3.4"), &[1; 20]));
        let given = tokens.give(ip("1.2.3.4"), &[1; 20]);
        tokens.rotate(start + 9 * ROTATION, &mut random);
        assert!(!tokens.holds(&given, ip("1.2.3.4"), &[1; 20]));
    }
}
