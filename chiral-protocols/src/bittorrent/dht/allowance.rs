//! `Allowance`: how much is sent to whom because they asked: an asker's address may be
//! forged, and what is sent there is then an attack on somebody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Bytes that may be sent to one IPv4 address, or IPv6 /64, in a second.
pub const BYTES_PER_SECOND: u32 = 4 << 10;
/// Bytes that may be sent there at once.
pub const BURST: u32 = 16 << 10;
/// Bytes that may be sent to all in a second, who may send as much at once.
pub const TOTAL_BYTES_PER_SECOND: u32 = 256 << 10;
/// Most addresses that are remembered. Beyond that all new ones share one allowance.
const MAX_ADDRESSES: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant, rate: u32, burst: u32) {
        let passed = now.saturating_duration_since(self.at);
        let more = passed.as_millis() * u128::from(rate) / 1000;
        if more > 0 {
            let left = u128::from(self.left) + more;
            self.left = u32::try_from(left).unwrap_or(burst).min(burst);
            self.at = now;
        }
    }
}

#[derive(Debug)]
pub(super) struct Allowance {
    each: HashMap<[u8; 8], Bucket>,
    total: Bucket,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        let left = TOTAL_BYTES_PER_SECOND;
        Self {
            each: HashMap::new(),
            total: Bucket { left, at: now },
        }
    }

    /// Whether so many bytes may go there now; they are then counted.
    pub(super) fn take(&mut self, ip: IpAddr, bytes: usize, now: Instant) -> bool {
        let Ok(bytes) = u32::try_from(bytes) else {
            return false;
        };
        let mut key = key(ip);
        if !self.each.contains_key(&key) && self.each.len() >= MAX_ADDRESSES {
            key = [0xff; 8];
        }
        let fresh = Bucket {
            left: BURST,
            at: now,
        };
        let own = self.each.entry(key).or_insert(fresh);
        own.refill(now, BYTES_PER_SECOND, BURST);
        let total = &mut self.total;
        total.refill(now, TOTAL_BYTES_PER_SECOND, TOTAL_BYTES_PER_SECOND);
        if own.left < bytes || total.left < bytes {
            return false;
        }
        own.left -= bytes;
        total.left -= bytes;
        true
    }

    /// Forgets who has its whole allowance again.
    pub(super) fn forget(&mut self, now: Instant) {
        let full = Duration::from_secs((BURST / BYTES_PER_SECOND).into());
        self.each
            .retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
    }
}

fn key(ip: IpAddr) -> [u8; 8] {
    let mut key = [0; 8];
    match ip {
        IpAddr::V4(ip) => key[4..].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => key.copy_from_slice(&ip.octets()[..8]),
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_more_than_its_share() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let victim: IpAddr = "1.2.3.4".parse().unwrap();
        let mut sent = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            if allowance.take(victim, 500, now) {
                sent += 500;
            }
        }
        assert!(sent <= BURST + 10 * BYTES_PER_SECOND, "{sent}");
        assert!(sent >= BURST + 8 * BYTES_PER_SECOND, "{sent}");
        // Neither are all together, or an array of memory.
        let now = start + Duration::from_secs(60);
        let forged =
            (0..1_000_000_u32).filter(|n| allowance.take(IpAddr::from(n.to_be_bytes()), 500, now));
        let sent = forged.count() * 500;
        assert!(sent <= TOTAL_BYTES_PER_SECOND as usize, "{sent}");
        assert!(allowance.each.len() <= MAX_ADDRESSES + 1);
        allowance.forget(now + Duration::from_secs(10));
        assert!(allowance.each.is_empty());
    }
}
