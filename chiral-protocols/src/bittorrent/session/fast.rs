//! Pieces that a peer may ask for though it is choked (BEP 6).

use std::net::Ipv4Addr;

use sha1::{Digest, Sha1};

/// The pieces that a peer at an address is allowed, `k` of them or all if there are fewer.
/// Everybody computes the same, so that changing clients brings nobody more.
pub fn allowed_fast(ip: Ipv4Addr, info_hash: [u8; 20], pieces: u32, k: usize) -> Vec<u32> {
    let [a, b, c, _] = ip.octets();
    let mut x = [&[a, b, c, 0][..], &info_hash].concat();
    let mut allowed = Vec::new();
    let k = k.min(pieces as usize);
    while allowed.len() < k {
        x = Sha1::digest(&x).to_vec();
        for word in x.chunks_exact(4) {
            let index = u32::from_be_bytes([word[0], word[1], word[2], word[3]]) % pieces;
            if allowed.len() < k && !allowed.contains(&index) {
                allowed.push(index);
            }
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_of_the_standard_come_out() {
        let of = |k| allowed_fast(Ipv4Addr::new(80, 4, 4, 200), [0xaa; 20], 1313, k);
        assert_eq!(of(7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(of(9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
        let mut all = allowed_fast(Ipv4Addr::LOCALHOST, [1; 20], 3, 10);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }
}
