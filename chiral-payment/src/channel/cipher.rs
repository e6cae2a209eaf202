//! How chunks are sealed: ChaCha20 (RFC 8439) under a key of their own, which is used for
//! nothing else, with a nonce of zeros. Not authenticated: what comes out is checked against
//! the file's own hashes, which are all that counts.

use alloy_primitives::{B256, keccak256};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chiral_core::ByteRange;

/// Most bytes under one key: what ChaCha20's block counter is good for is far more.
pub const MAX_SEALED: u64 = 8 << 20;

/// Turns bytes into sealed ones, and sealed ones into what they were.
pub fn apply(key: &B256, data: &mut [u8]) {
    ChaCha20::new(&key.0.into(), &[0; 12].into()).apply_keystream(data);
}

/// What a locked voucher names a key by, as the contract computes it.
pub fn key_hash(key: &B256) -> B256 {
    keccak256(key)
}

/// The key of one request under an agreement: `secret` is random, and never leaves its owner.
/// So nothing has to be remembered of keys that were never asked for. Of its range, too: a
/// counter that a crash made its owner forget seals nothing else under the same key, of which
/// one payment would open both.
pub fn key_of(secret: &B256, agreement: &B256, counter: u64, range: ByteRange) -> B256 {
    let mut bytes = [0; 88];
    bytes[..32].copy_from_slice(&secret.0);
    bytes[32..64].copy_from_slice(&agreement.0);
    let numbers = [counter, range.start, range.end];
    for (at, number) in bytes[64..].chunks_exact_mut(8).zip(numbers) {
        at.copy_from_slice(&number.to_be_bytes());
    }
    keccak256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn it_is_the_cipher_of_the_standard() {
        // RFC 8439, appendix A.1, test vector 1: key and nonce of zeros, block 0.
        let mut block = [0; 64];
        apply(&B256::ZERO, &mut block);
        let expected = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
                        da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586";
        assert_eq!(hex::encode(block), expected);
    }

    #[test]
    fn what_is_sealed_twice_is_open_and_another_key_does_not_open_it() {
        let (secret, agreement) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let range = ByteRange::new(3, 100_003);
        let key = key_of(&secret, &agreement, 7, range);
        let plain: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut data = plain.clone();
        apply(&key, &mut data);
        assert_ne!(data, plain);
        for other in [
            key_of(&secret, &agreement, 8, range),
            key_of(&secret, &secret, 7, range),
            key_of(&agreement, &agreement, 7, range),
            key_of(&secret, &agreement, 7, ByteRange::new(4, 100_003)),
            key_of(&secret, &agreement, 7, ByteRange::new(3, 100_002)),
        ] {
            assert_ne!(other, key);
            assert_ne!(key_hash(&other), key_hash(&key));
        }
        apply(&key, &mut data);
        assert_eq!(data, plain);
    }
}
