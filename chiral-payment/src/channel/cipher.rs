//! How chunks are sealed: ChaCha20 (RFC 8439) under a key of their own, which is used for
//! nothing else, with a nonce of zeros. Not authenticated: what comes out is checked against
//! the file's own hashes, which are all that counts.

use std::sync::Arc;

use alloy_primitives::{B256, keccak256};
use bytes::{Bytes, BytesMut};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chiral_core::ByteRange;
use chiral_core::buffers::Buffers;

/// Most bytes under one key: what ChaCha20's block counter is good for is far more.
pub const MAX_SEALED: u64 = 8 << 20;

/// Turns bytes into sealed ones, and sealed ones into what they were.
pub fn apply(key: &B256, data: &mut [u8]) {
    ChaCha20::new(&key.0.into(), &[0; 12].into()).apply_keystream(data);
}

/// The same of bytes that stay as they are, in memory that was used before if it is long enough.
pub(crate) fn applied(key: &B256, data: &[u8], buffers: &Arc<Buffers>) -> Bytes {
    if let Some(mut buffer) = buffers.take(data.len()) {
        let mut cipher = ChaCha20::new(&key.0.into(), &[0; 12].into());
        let applied = cipher.try_apply_keystream_b2b(data, buffer.bytes_mut());
        // Both are as long as the other.
        if applied.is_ok() {
            return buffer.into_bytes();
        }
    }
    let mut data = BytesMut::from(data);
    apply(key, &mut data);
    data.freeze()
}

/// What a locked voucher names a key by, as the contract computes it.
pub fn key_hash(key: &B256) -> B256 {
    keccak256(key)
}

/// What a seal names sealed bytes by: BLAKE3.
pub fn data_hash(data: &[u8]) -> B256 {
    B256::from(*blake3::hash(data).as_bytes())
}

/// The key of a range of the file under an agreement: `secret` is random, and never leaves its
/// owner. So nothing has to be remembered of keys that were never asked for, and who asks for
/// the same range again gets the same sealed bytes, which the key that it has bought opens. One
/// key is used for one range of one file only: no two texts are sealed with it.
pub fn key_of(secret: &B256, agreement: &B256, range: ByteRange) -> B256 {
    let mut bytes = [0; 80];
    bytes[..32].copy_from_slice(&secret.0);
    bytes[32..64].copy_from_slice(&agreement.0);
    bytes[64..72].copy_from_slice(&range.start.to_be_bytes());
    bytes[72..].copy_from_slice(&range.end.to_be_bytes());
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
    fn sealed_bytes_are_named_by_blake3() {
        // The first of its published test vectors: of no bytes.
        let expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(hex::encode(data_hash(b"")), expected);
        let data = [0, 1, 2, 3, 4, 5, 6, 7].repeat(40_000);
        let mut hasher = blake3::Hasher::new();
        data.chunks(1000).for_each(|part| {
            hasher.update(part);
        });
        assert_eq!(data_hash(&data).0, *hasher.finalize().as_bytes());
    }

    #[test]
    fn what_is_sealed_twice_is_open_and_another_key_does_not_open_it() {
        let (secret, agreement) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let range = ByteRange::new(7, 9);
        let key = key_of(&secret, &agreement, range);
        let plain: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut data = plain.clone();
        apply(&key, &mut data);
        assert_ne!(data, plain);
        let buffers = Arc::default();
        assert_eq!(applied(&key, &plain, &buffers), data);
        let long = vec![7; chiral_core::buffers::BUFFER_LEN + 1];
        let sealed = applied(&key, &long, &buffers);
        assert_eq!(sealed[..100_000], applied(&key, &long[..100_000], &buffers));
        for other in [
            key_of(&secret, &agreement, ByteRange::new(7, 8)),
            key_of(&secret, &agreement, ByteRange::new(8, 9)),
            key_of(&secret, &secret, range),
            key_of(&agreement, &agreement, range),
        ] {
            assert_ne!(other, key);
            assert_ne!(key_hash(&other), key_hash(&key));
        }
        apply(&key, &mut data);
        assert_eq!(data, plain);
    }
}
