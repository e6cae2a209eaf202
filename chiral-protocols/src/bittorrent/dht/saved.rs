//! [`Saved`]: what a node keeps from one run to the next.
//!
//! A bencoded dictionary: `id` and `id6`, the ids, of 20 bytes each; `nodes` and `nodes6`, nodes
//! as KRPC has them, 26 and 38 bytes each.

use super::krpc::{Contact, contact};
use super::node_id::NodeId;
use crate::bittorrent::bencode::{Decoded, DictWriter, Limits};
use crate::bittorrent::compact;

/// Most nodes that are kept, for each address family: the closest.
const MAX_SAVED: usize = 400;
/// Longest text that is read.
const MAX_BYTES: usize = 64 << 10;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// IPv4, IPv6.
    pub(super) families: [(Option<NodeId>, Vec<Contact>); 2],
}

impl Saved {
    pub(super) fn encode(&self) -> Vec<u8> {
        let [four, six] = &self.families;
        let mut out = DictWriter::new();
        for (key, (id, _)) in [("id", four), ("id6", six)] {
            if let Some(id) = id {
                out = out.bytes(key, &id.0);
            }
        }
        for (key, (_, nodes)) in [("nodes", four), ("nodes6", six)] {
            let nodes = nodes.iter().take(MAX_SAVED);
            let bytes = nodes.flat_map(|n| [n.id.0.to_vec(), compact::write(n.address)].concat());
            out = out.bytes(key, &bytes.collect::<Vec<u8>>());
        }
        out.finish()
    }

    /// `None` if it is not what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let limits = Limits {
            max_len: MAX_BYTES,
            ..Limits::MESSAGE
        };
        let decoded = Decoded::parse(bytes, limits).ok()?;
        let value = decoded.root();
        let keys = [("id", "nodes", compact::V4), ("id6", "nodes6", compact::V6)];
        let families = keys.map(|(id, nodes, size)| {
            let id = value.bytes_of(id).and_then(|id| id.try_into().ok());
            let nodes = value.bytes_of(nodes).unwrap_or_default();
            let nodes = nodes.chunks_exact(20 + size).filter_map(contact);
            (id.map(NodeId), nodes.take(MAX_SAVED).collect())
        });
        Some(Self { families })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read() {
        let contact = |n: u8, address: &str| Contact {
            id: NodeId([n; 20]),
            address: address.parse().unwrap(),
        };
        let saved = Saved {
            families: [
                (
                    Some(NodeId([1; 20])),
                    vec![contact(3, "1.2.3.4:5"), contact(4, "5.6.7.8:9")],
                ),
                (Some(NodeId([2; 20])), vec![contact(5, "[2001:db8::1]:5")]),
            ],
        };
        assert_eq!(Saved::decode(&saved.encode()), Some(saved));
        assert_eq!(Saved::decode(b"nonsense"), None);
        assert_eq!(Saved::decode(b"de"), Some(Saved::default()));
        assert_eq!(Saved::decode(&vec![b'l'; MAX_BYTES + 1]), None);
    }
}
