//! A Merkle-Patricia trie that hashes only what changed since its last root.

use alloy_primitives::{B256, keccak256};
use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieMask};

/// A trie under keys of 32 bytes: no key is the beginning of another, so no branch has a value.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Option<Box<Node>>,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// What the parent has for it; none since it, or something beneath it, changed.
    reference: Option<RlpNode>,
}

#[derive(Debug)]
enum Kind {
    Leaf {
        path: Nibbles,
        value: Vec<u8>,
    },
    Extension {
        path: Nibbles,
        child: Box<Node>,
    },
    Branch {
        children: Box<[Option<Box<Node>>; 16]>,
    },
}

impl Trie {
    /// Sets a value, which is RLP; an empty one removes the key.
    pub(super) fn set(&mut self, key: B256, value: Vec<u8>) {
        let path = Nibbles::unpack(key);
        let root = self.root.take();
        self.root = if value.is_empty() {
            root.and_then(|root| remove(root, path))
        } else {
            Some(match root {
                None => leaf(path, value),
                Some(root) => insert(root, path, value),
            })
        };
    }

    /// The root hash.
    pub(super) fn root(&mut self) -> B256 {
        let Some(root) = &mut self.root else {
            return EMPTY_ROOT_HASH;
        };
        let mut buffer = Vec::with_capacity(544);
        let reference = reference(root, &mut buffer);
        reference
            .as_hash()
            .unwrap_or_else(|| keccak256(&*reference))
    }
}

fn node(kind: Kind) -> Box<Node> {
    Box::new(Node {
        kind,
        reference: None,
    })
}

fn leaf(path: Nibbles, value: Vec<u8>) -> Box<Node> {
    node(Kind::Leaf { path, value })
}

/// The node itself, or behind an extension if there is a path to it.
fn behind(path: Nibbles, child: Box<Node>) -> Box<Node> {
    if path.is_empty() {
        child
    } else {
        node(Kind::Extension { path, child })
    }
}

/// The first nibble, which every path has where a branch is, and the rest.
fn split(path: &Nibbles) -> (usize, Nibbles) {
    (usize::from(path.get(0).unwrap_or(0)), path.slice(1..))
}

fn insert(mut at: Box<Node>, path: Nibbles, value: Vec<u8>) -> Box<Node> {
    at.reference = None;
    match at.kind {
        Kind::Leaf {
            path: here,
            value: old,
        } => {
            let common = here.common_prefix_length(&path);
            if common == here.len() {
                return leaf(path, value);
            }
            let mut children: Box<[Option<Box<Node>>; 16]> = Box::default();
            let (index, rest) = split(&here.slice(common..));
            children[index] = Some(leaf(rest, old));
            let (index, rest) = split(&path.slice(common..));
            children[index] = Some(leaf(rest, value));
            behind(path.slice(..common), node(Kind::Branch { children }))
        }
        Kind::Extension { path: here, child } => {
            let common = here.common_prefix_length(&path);
            if common == here.len() {
                let child = insert(child, path.slice(common..), value);
                return node(Kind::Extension { path: here, child });
            }
            let mut children: Box<[Option<Box<Node>>; 16]> = Box::default();
            let (index, rest) = split(&here.slice(common..));
            children[index] = Some(behind(rest, child));
            let (index, rest) = split(&path.slice(common..));
            children[index] = Some(leaf(rest, value));
            behind(path.slice(..common), node(Kind::Branch { children }))
        }
        Kind::Branch { ref mut children } => {
            let (index, rest) = split(&path);
            children[index] = Some(match children[index].take() {
                None => leaf(rest, value),
                Some(child) => insert(child, rest, value),
            });
            at
        }
    }
}

fn remove(mut at: Box<Node>, path: Nibbles) -> Option<Box<Node>> {
    match at.kind {
        Kind::Leaf { path: ref here, .. } => (*here != path).then_some(at),
        Kind::Extension { path: here, child } => {
            if !path.starts_with(&here) {
                return Some(node(Kind::Extension { path: here, child }));
            }
            let child = remove(child, path.slice(here.len()..))?;
            Some(joined(here, child))
        }
        Kind::Branch { ref mut children } => {
            let (index, rest) = split(&path);
            let Some(child) = children[index].take() else {
                return Some(at);
            };
            children[index] = remove(child, rest);
            at.reference = None;
            let mut present = (0..16u8).filter(|i| children[usize::from(*i)].is_some());
            match (present.next(), present.next()) {
                // A branch of one is no branch.
                (Some(only), None) => {
                    let child = children[usize::from(only)].take()?;
                    Some(joined(Nibbles::from_nibbles([only]), child))
                }
                (None, _) => None,
                _ => Some(at),
            }
        }
    }
}

/// A path and what is at its end, in as few nodes as can be.
fn joined(path: Nibbles, child: Box<Node>) -> Box<Node> {
    match child.kind {
        Kind::Leaf { path: rest, value } => leaf(path.join(&rest), value),
        Kind::Extension { path: rest, child } => node(Kind::Extension {
            path: path.join(&rest),
            child,
        }),
        Kind::Branch { .. } => behind(path, child),
    }
}

fn reference(at: &mut Node, buffer: &mut Vec<u8>) -> RlpNode {
    if let Some(known) = &at.reference {
        return known.clone();
    }
    let made = match &mut at.kind {
        Kind::Leaf { path, value } => {
            buffer.clear();
            LeafNodeRef::new(path, value).rlp(buffer)
        }
        Kind::Extension { path, child } => {
            let child = reference(child, buffer);
            buffer.clear();
            ExtensionNodeRef::new(path, &child).rlp(buffer)
        }
        Kind::Branch { children } => {
            let mut stack = Vec::with_capacity(16);
            let mut mask = 0u16;
            for (index, child) in children.iter_mut().enumerate() {
                if let Some(child) = child {
                    stack.push(reference(child, buffer));
                    mask |= 1 << index;
                }
            }
            buffer.clear();
            BranchNodeRef::new(&stack, TrieMask::new(mask)).rlp(buffer)
        }
    };
    at.reference = Some(made.clone());
    made
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alloy_primitives::U256;
    use alloy_trie::HashBuilder;
    use proptest::prelude::*;

    use super::*;

    /// What alloy's builder, which has no state between roots, says.
    fn judge(content: &BTreeMap<B256, Vec<u8>>) -> B256 {
        let mut builder = HashBuilder::default();
        for (key, value) in content {
            builder.add_leaf(Nibbles::unpack(key), value);
        }
        builder.root()
    }

    /// Keys that share long prefixes, so that extensions appear, split and join.
    fn key(seed: u16) -> B256 {
        let mut key = [0u8; 32];
        key[0] = (seed & 0x3) as u8 * 0x11;
        key[20] = ((seed >> 2) & 0x7) as u8;
        key[31] = (seed >> 5) as u8;
        B256::from(key)
    }

    proptest! {
        #[test]
        fn every_order_of_changes_has_the_root_of_its_content(
            steps in prop::collection::vec((0u16..512, 0u64..4), 1..120),
        ) {
            let mut trie = Trie::default();
            let mut content = BTreeMap::new();
            for (seed, value) in steps {
                let key = key(seed);
                if value == 0 {
                    content.remove(&key);
                    trie.set(key, Vec::new());
                } else {
                    let rlp = alloy_rlp::encode(U256::from(value) << (value as usize * 60));
                    content.insert(key, rlp.clone());
                    trie.set(key, rlp);
                }
                prop_assert_eq!(trie.root(), judge(&content));
            }
        }
    }

    #[test]
    fn a_removed_key_that_was_never_there_changes_nothing() {
        let mut trie = Trie::default();
        trie.set(key(1), Vec::new());
        assert_eq!(trie.root(), EMPTY_ROOT_HASH);
        trie.set(key(1), vec![1]);
        trie.set(key(65), vec![2]);
        let root = trie.root();
        trie.set(key(2), Vec::new());
        trie.set(key(129), Vec::new());
        assert_eq!(trie.root(), root);
    }
}
