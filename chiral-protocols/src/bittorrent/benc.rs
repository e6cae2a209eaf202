//! Bencoded messages of the network, as far as they are read and written here.
//!
//! Unsorted keys are taken, as trackers and DHT nodes in the wild send them; what is written
//! is sorted. Recursion, lengths and trailing bytes are checked by the decoder.

use bip_bencode::{BDecodeOpt, BRefAccess, BencodeRef};

pub(super) use bip_bencode::ext::BRefAccessExt;

/// Deepest nesting that any message has use for.
const MAX_DEPTH: usize = 10;

pub(super) type Value<'a> = BencodeRef<'a>;

/// Decodes a whole message; `None` if it is not one.
pub(super) fn decode(bytes: &[u8]) -> Option<Value<'_>> {
    BencodeRef::decode(bytes, BDecodeOpt::new(MAX_DEPTH, false, true)).ok()
}

/// What a dictionary has under a key.
pub(super) fn get<'v, 'a>(value: &'v Value<'a>, key: &str) -> Option<&'v Value<'a>> {
    value.dict()?.lookup(key.as_bytes())
}

pub(super) fn bytes<'a>(value: &Value<'a>, key: &str) -> Option<&'a [u8]> {
    get(value, key)?.bytes_ext()
}

pub(super) fn int(value: &Value<'_>, key: &str) -> Option<i64> {
    get(value, key)?.int()
}

/// What a list holds; nothing if it is none.
pub(super) fn items<'v, 'a>(value: &'v Value<'a>) -> impl Iterator<Item = &'v Value<'a>> {
    value.list().into_iter().flatten()
}

/// A dictionary that is being written, key by key in their order.
#[derive(Debug)]
pub(super) struct DictWriter {
    out: Vec<u8>,
    last: Option<&'static str>,
}

impl DictWriter {
    pub(super) fn new() -> Self {
        Self {
            out: vec![b'd'],
            last: None,
        }
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(self.last < Some(key), "{key} after {:?}", self.last);
        self.last = Some(key);
        write_bytes(&mut self.out, key.as_bytes());
    }

    pub(super) fn bytes(mut self, key: &'static str, value: &[u8]) -> Self {
        self.key(key);
        write_bytes(&mut self.out, value);
        self
    }

    pub(super) fn int(mut self, key: &'static str, value: i64) -> Self {
        self.key(key);
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// A value that is written already.
    pub(super) fn raw(mut self, key: &'static str, value: &[u8]) -> Self {
        self.key(key);
        self.out.extend_from_slice(value);
        self
    }

    pub(super) fn list<'b>(
        mut self,
        key: &'static str,
        values: impl Iterator<Item = &'b [u8]>,
    ) -> Self {
        self.key(key);
        self.out.push(b'l');
        for value in values {
            write_bytes(&mut self.out, value);
        }
        self.out.push(b'e');
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.push(b'e');
        self.out
    }
}

fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(format!("{}:", value.len()).as_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = DictWriter::new().int("n", -5).finish();
        let out = DictWriter::new()
            .bytes("a", b"\x00\xff")
            .raw("b", &inner)
            .list("c", [&b"x"[..], b""].into_iter())
            .finish();
        assert_eq!(out, b"d1:a2:\x00\xff1:bd1:ni-5ee1:cl1:x0:ee");
        let value = decode(&out).unwrap();
        assert_eq!(bytes(&value, "a"), Some(&b"\x00\xff"[..]));
        assert_eq!(int(get(&value, "b").unwrap(), "n"), Some(-5));
        assert_eq!(items(get(&value, "c").unwrap()).count(), 2);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            &b""[..],
            b"d",
            b"i-0e",
            b"i03e",
            b"i99999999999999999999e",
            b"999999999999:",
            b"-1:",
            b"d1:ai1e1:ai1ee",
            b"i1ei1e",
            b"lllllllllllleeeeeeeeeeee",
        ] {
            assert!(decode(text).is_none(), "{text:?}");
        }
        assert!(decode(&vec![b'l'; 1_000_000]).is_none());
        // Order is not our peers' forte.
        assert!(decode(b"d1:bi1e1:ai1ee").is_some());
    }
}
