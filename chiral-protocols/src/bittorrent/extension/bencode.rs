//! Dictionaries of extension messages: a few keys, read and written.

use std::collections::BTreeMap;

use bip_bencode::{BDecodeOpt, BDictAccess, BRefAccess, BencodeRef};

/// Deepest nesting that an extension message has.
const MAX_DEPTH: usize = 6;

/// Reads a dictionary at the start of `bytes`; hands it on together with what follows it.
pub(super) fn read<T>(bytes: &[u8], take: impl FnOnce(&dyn Dict, &[u8]) -> Option<T>) -> Option<T> {
    if bytes.first() != Some(&b'd') {
        return None;
    }
    let options = BDecodeOpt::new(MAX_DEPTH, false, false);
    let value = BencodeRef::decode(bytes, options).ok()?;
    let rest = bytes.get(value.buffer().len()..)?;
    take(&Node(value.dict()?), rest)
}

/// What can be asked of a dictionary.
pub(super) trait Dict {
    fn int(&self, key: &str) -> Option<i64>;
    fn bytes(&self, key: &str) -> Option<&[u8]>;
    /// Calls with the dictionary under a key, if there is one.
    fn dict(&self, key: &str, take: &mut dyn FnMut(&dyn Dict));
}

struct Node<'a, 'b>(&'b dyn BDictAccess<&'a [u8], BencodeRef<'a>>);

impl Dict for Node<'_, '_> {
    fn int(&self, key: &str) -> Option<i64> {
        self.0.lookup(key.as_bytes())?.int()
    }

    fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.lookup(key.as_bytes())?.bytes()
    }

    fn dict(&self, key: &str, take: &mut dyn FnMut(&dyn Dict)) {
        if let Some(dict) = self.0.lookup(key.as_bytes()).and_then(BRefAccess::dict) {
            take(&Node(dict));
        }
    }
}

/// Writes a dictionary, its keys in order.
#[derive(Debug, Default)]
pub(super) struct Writer(BTreeMap<&'static str, Vec<u8>>);

impl Writer {
    pub(super) fn int(mut self, key: &'static str, value: i64) -> Self {
        self.0.insert(key, format!("i{value}e").into_bytes());
        self
    }

    pub(super) fn bytes(mut self, key: &'static str, value: &[u8]) -> Self {
        let mut text = format!("{}:", value.len()).into_bytes();
        text.extend_from_slice(value);
        self.0.insert(key, text);
        self
    }

    pub(super) fn dict(mut self, key: &'static str, value: Writer) -> Self {
        self.0.insert(key, value.finish());
        self
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = vec![b'd'];
        for (key, value) in self.0 {
            out.extend_from_slice(format!("{}:{key}", key.len()).as_bytes());
            out.extend_from_slice(&value);
        }
        out.push(b'e');
        out
    }
}
