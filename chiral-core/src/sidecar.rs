//! Sidecars: what other networks' hashes say of a file, kept beside it by the store.
//!
//! A file is read once. Whoever needs more of that pass than cid and root gives the import a
//! [`SidecarHasher`]: it is fed all bytes in order, on a thread of its own, and what it makes
//! of them is kept under its name for as long as the content is. To the store it is opaque.
//! It must follow from the bytes alone, for content has many names and one sidecar.

use std::fmt;

use bytes::Bytes;

/// Limit on the sidecars of one import, and of one object.
pub const MAX_SIDECARS: usize = 8;

/// Limit on the bytes of a sidecar. Three hundred GiB need less for a torrent of both versions.
pub const MAX_SIDECAR_LEN: usize = 64 << 20;

/// Limit on the bytes of a sidecar's name.
pub const MAX_SIDECAR_NAME_LEN: usize = 32;

/// Hashes one file.
pub trait FileHasher: Send + 'static {
    /// Takes the next bytes, any number of them.
    fn update(&mut self, bytes: &[u8]);

    /// Ends the file: the sidecar, or nothing if this file can have none.
    fn finish(self: Box<Self>) -> Option<Bytes>;
}

/// Begins a [`FileHasher`] for each file.
pub trait SidecarHasher: Send + Sync + fmt::Debug + 'static {
    /// The name of what it makes: 1 to [`MAX_SIDECAR_NAME_LEN`] lower-case letters, digits and
    /// hyphens. What is kept under a name never changes its format; a new format has another
    /// name.
    fn name(&self) -> &str;

    /// Whether a file of so many bytes can have one. Of one that cannot, none is begun, and
    /// none is missing.
    fn suits(&self, size: u64) -> bool {
        let _ = size;
        true
    }

    /// For a new file.
    fn start(&self) -> Box<dyn FileHasher>;
}

/// Whether a sidecar may be called so.
pub fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_SIDECAR_NAME_LEN).contains(&name.len()) && name.bytes().all(letter)
}
