//! RC4 as the standard uses it, and the hashes that its keys come from.

use std::fmt;

use rc4::consts::U20;
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};

use super::dh::DH_LEN;

/// Bytes of the keystream that nobody uses.
const DISCARDED: usize = 1024;

/// One direction of a stream.
pub struct Cipher(Rc4<U20>);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    fn new(name: &[u8], shared: &[u8; DH_LEN], info_hash: &[u8; 20]) -> Self {
        let key = hash(&[name, shared, info_hash]);
        let mut cipher = Rc4::new((&key).into());
        cipher.apply_keystream(&mut [0; DISCARDED]);
        Self(cipher)
    }

    /// Enciphers or deciphers the next bytes of the stream.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }

    pub(super) fn applied(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        self.apply(&mut bytes);
        bytes
    }
}

/// Both directions of a stream.
#[derive(Debug)]
pub struct Ciphers {
    /// For what comes in.
    pub incoming: Cipher,
    /// For what goes out.
    pub outgoing: Cipher,
}

impl Ciphers {
    /// Of who began.
    pub(super) fn of_initiator(shared: &[u8; DH_LEN], info_hash: &[u8; 20]) -> Self {
        Self {
            incoming: Cipher::new(b"keyB", shared, info_hash),
            outgoing: Cipher::new(b"keyA", shared, info_hash),
        }
    }

    /// Of who answered.
    pub(super) fn of_responder(shared: &[u8; DH_LEN], info_hash: &[u8; 20]) -> Self {
        let Self { incoming, outgoing } = Self::of_initiator(shared, info_hash);
        Self {
            incoming: outgoing,
            outgoing: incoming,
        }
    }
}

pub(super) fn hash(parts: &[&[u8]]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What names the torrent without showing it.
pub(super) fn torrent_mark(shared: &[u8; DH_LEN], info_hash: &[u8; 20]) -> [u8; 20] {
    let (mut mark, other) = (hash(&[b"req2", info_hash]), hash(&[b"req3", shared]));
    for (byte, other) in mark.iter_mut().zip(other) {
        *byte ^= other;
    }
    mark
}

/// Where a pattern begins in bytes that hold it within a limit: `None` if it may still come,
/// an error if it cannot.
pub(super) fn find(
    bytes: &[u8],
    pattern: &[u8],
    most: usize,
) -> Result<Option<usize>, super::MseError> {
    let end = bytes.len().min(most + pattern.len());
    let at = bytes[..end]
        .windows(pattern.len())
        .position(|window| window == pattern);
    match at {
        Some(at) => Ok(Some(at)),
        None if bytes.len() >= most + pattern.len() => Err(super::MseError::Sync),
        None => Ok(None),
    }
}
