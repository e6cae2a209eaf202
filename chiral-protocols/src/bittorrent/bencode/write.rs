//! The one way in which bencode may be written.

use std::collections::BTreeMap;

/// A value to be written. Keys come out in order, whatever they went in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An integer.
    Int(i64),
    /// A string of bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Item>),
    /// A dictionary.
    Dict(BTreeMap<Vec<u8>, Item>),
    /// Bencode that is written as it is: an `info` dictionary, as it came.
    Raw(Vec<u8>),
}

impl Item {
    /// A dictionary of these keys and values; of a key that is given twice, the last.
    pub fn dict<K: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (K, Item)>) -> Self {
        let pairs = pairs.into_iter();
        Self::Dict(
            pairs
                .map(|(key, value)| (key.as_ref().to_vec(), value))
                .collect(),
        )
    }

    /// A list of these values.
    pub fn list(items: impl IntoIterator<Item = Item>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Appends the bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => {
                out.push(b'i');
                out.extend_from_slice(value.to_string().as_bytes());
                out.push(b'e');
            }
            Self::Bytes(bytes) => write_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Self::Dict(pairs) => {
                out.push(b'd');
                for (key, value) in pairs {
                    write_bytes(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

impl From<i64> for Item {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Item {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<&[u8]> for Item {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Item {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A dictionary that is being written, key by key in any order.
#[derive(Debug, Clone, Default)]
pub struct DictWriter(BTreeMap<&'static str, Vec<u8>>);

impl DictWriter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an integer.
    #[must_use]
    pub fn int(self, key: &'static str, value: i64) -> Self {
        self.raw(key, format!("i{value}e").as_bytes())
    }

    /// With a string of bytes.
    #[must_use]
    pub fn bytes(self, key: &'static str, value: &[u8]) -> Self {
        let mut out = Vec::with_capacity(value.len() + 8);
        write_bytes(value, &mut out);
        self.raw(key, &out)
    }

    /// With a dictionary.
    #[must_use]
    pub fn dict(self, key: &'static str, value: Self) -> Self {
        self.raw(key, &value.finish())
    }

    /// With a list of strings.
    #[must_use]
    pub fn list<'b>(self, key: &'static str, values: impl Iterator<Item = &'b [u8]>) -> Self {
        let mut out = vec![b'l'];
        values.for_each(|value| write_bytes(value, &mut out));
        out.push(b'e');
        self.raw(key, &out)
    }

    /// With a value that is written already.
    #[must_use]
    pub fn raw(mut self, key: &'static str, value: &[u8]) -> Self {
        self.0.insert(key, value.to_vec());
        self
    }

    /// The bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = vec![b'd'];
        for (key, value) in &self.0 {
            write_bytes(key.as_bytes(), &mut out);
            out.extend_from_slice(value);
        }
        out.push(b'e');
        out
    }
}
