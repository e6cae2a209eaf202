//! What a node keeps on disk: its identity key, and peers that it has seen. The numbers of its
//! announcements are in a file of the same kind.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::error::Libp2pError;

/// Limit on the peers that are remembered.
pub const MAX_REMEMBERED_PEERS: usize = 256;

/// Limit on the addresses that are remembered for one peer.
const MAX_ADDRESSES_PER_PEER: usize = 4;

/// Limit on an address in a file or from a peer, in bytes of text.
const MAX_ADDRESS_TEXT: usize = 256;

/// Limits on the files, in bytes.
const MAX_PEERS_FILE: u64 =
    (MAX_REMEMBERED_PEERS * MAX_ADDRESSES_PER_PEER * (MAX_ADDRESS_TEXT + 80)) as u64;
const MAX_KEY_FILE: u64 = 1024;

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Libp2pError {
    move |source| Libp2pError::File {
        path: path.to_owned(),
        source,
    }
}

/// The file up to a limit, or nothing if there is none.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Libp2pError> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(file_error(path))?;
    Ok(Some(bytes))
}

/// Writes a file under another name and renames it, so that it is there whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Libp2pError> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(file_error(path))
}

/// The identity of a node with this data directory, which is made if there is none: the key
/// given, or the one kept there, or a new one, kept from then on.
pub(super) fn identity(directory: &Path, given: Option<Keypair>) -> Result<Keypair, Libp2pError> {
    fs::create_dir_all(directory).map_err(file_error(directory))?;
    if let Some(key) = given {
        return Ok(key);
    }
    let path = directory.join("identity.key");
    let Some(bytes) = read(&path, MAX_KEY_FILE)? else {
        let key = Keypair::generate_ed25519();
        let bytes = key
            .to_protobuf_encoding()
            .map_err(|_| Libp2pError::Randomness)?;
        replace(&path, &bytes)?;
        return Ok(key);
    };
    Keypair::from_protobuf_encoding(&bytes)
        .ok()
        .filter(|key| key.clone().try_into_ed25519().is_ok())
        .ok_or(Libp2pError::Key { path })
}

/// Peers that answered, with their addresses; the last seen are first. A line of the file is
/// a multiaddr that ends with `/p2p/…`; lines that are none are left out.
#[derive(Debug, Default)]
pub(super) struct PeerStore {
    path: Option<PathBuf>,
    peers: VecDeque<(PeerId, Vec<Multiaddr>)>,
    changed: bool,
}

impl PeerStore {
    /// The peers of a data directory; without one, nothing is kept.
    pub(super) fn open(directory: Option<&Path>) -> Result<Self, Libp2pError> {
        let Some(directory) = directory else {
            return Ok(Self::default());
        };
        let path = directory.join("peers");
        let bytes = read(&path, MAX_PEERS_FILE)?.unwrap_or_default();
        let mut store = Self {
            path: Some(path),
            ..Self::default()
        };
        for line in String::from_utf8_lossy(&bytes).lines().rev() {
            if let Some((peer, address)) = parse(line) {
                store.add(peer, address);
            }
        }
        store.changed = false;
        Ok(store)
    }

    /// A peer has been seen at these addresses.
    pub(super) fn seen(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let mut addresses: Vec<_> = addresses
            .into_iter()
            .filter(|address| address.to_string().len() <= MAX_ADDRESS_TEXT)
            .collect();
        addresses.truncate(MAX_ADDRESSES_PER_PEER);
        let known = self.peers.iter().position(|(known, _)| *known == peer);
        if let Some(place) = known {
            self.changed |= self.peers[place].1 != addresses;
            self.peers.remove(place);
        } else {
            self.changed = true;
        }
        if !addresses.is_empty() {
            self.peers.push_front((peer, addresses));
            self.peers.truncate(MAX_REMEMBERED_PEERS);
        }
    }

    fn add(&mut self, peer: PeerId, address: Multiaddr) {
        let mut addresses = vec![address];
        if let Some((_, others)) = self.peers.iter().find(|(known, _)| *known == peer) {
            addresses.extend(others.iter().cloned());
        }
        self.seen(peer, addresses);
    }

    /// The peers, last seen first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(PeerId, Vec<Multiaddr>)> {
        self.peers.iter()
    }

    /// The addresses of a peer.
    pub(super) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let found = self.peers.iter().find(|(known, _)| known == peer);
        found
            .map(|(_, addresses)| addresses.clone())
            .unwrap_or_default()
    }

    /// What is to be written where, if anything changed. Writing is the caller's, since it
    /// blocks.
    pub(super) fn unsaved(&mut self) -> Option<Unsaved> {
        let path = self.path.clone()?;
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let lines = self.peers.iter().flat_map(|(peer, addresses)| {
            addresses
                .iter()
                .filter_map(|address| address.clone().with_p2p(*peer).ok())
                .map(|address| format!("{address}\n"))
        });
        Some(Unsaved {
            path,
            text: lines.collect(),
        })
    }
}

/// A file to write.
#[derive(Debug)]
pub(super) struct Unsaved {
    path: PathBuf,
    text: String,
}

impl Unsaved {
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    /// Writes it; blocks.
    pub(super) fn save(self) -> Result<(), Libp2pError> {
        replace(&self.path, self.text.as_bytes())
    }
}

fn parse(line: &str) -> Option<(PeerId, Multiaddr)> {
    let mut address: Multiaddr = line.trim().parse().ok()?;
    match address.pop() {
        Some(Protocol::P2p(peer)) if !address.is_empty() => Some((peer, address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        let first = identity(&inner, None).unwrap().public();
        assert_eq!(identity(&inner, None).unwrap().public(), first);
        let path = inner.join("identity.key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        for bytes in [&b""[..], b"not a key"] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(
                identity(&inner, None),
                Err(Libp2pError::Key { .. })
            ));
        }
    }

    #[test]
    fn peers_come_back_in_their_order_and_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = PeerStore::open(Some(dir.path())).unwrap();
        let peers: Vec<_> = (0..MAX_REMEMBERED_PEERS + 3)
            .map(|_| PeerId::random())
            .collect();
        for (port, peer) in peers.iter().enumerate() {
            let addresses = (0..6)
                .map(|i| address(port * 10 % 60_000 + i + 1))
                .collect();
            store.seen(*peer, addresses);
        }
        let expected: Vec<_> = store.iter().cloned().collect();
        assert_eq!(expected.len(), MAX_REMEMBERED_PEERS);
        assert_eq!(expected[0].0, peers[peers.len() - 1]);
        assert_eq!(expected[0].1.len(), MAX_ADDRESSES_PER_PEER);
        store.unsaved().unwrap().save().unwrap();
        assert!(store.unsaved().is_none(), "nothing changed since");
        let again = PeerStore::open(Some(dir.path())).unwrap();
        let found: Vec<_> = again.iter().cloned().collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_of_anything_is_read_for_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let peer = PeerId::random();
        let text =
            format!("\u{fffd}\n/ip4/1.2.3.4/tcp/1\n/p2p/{peer}\n/ip4/1.2.3.4/tcp/1/p2p/{peer}\nx");
        fs::write(dir.path().join("peers"), text).unwrap();
        let store = PeerStore::open(Some(dir.path())).unwrap();
        let found: Vec<_> = store.iter().cloned().collect();
        assert_eq!(found, [(peer, vec!["/ip4/1.2.3.4/tcp/1".parse().unwrap()])]);
    }
}
