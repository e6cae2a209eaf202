//! Bencode of strangers: what is read has one form only, unless keys may come in any order.
#![no_main]

use chiral_protocols::bittorrent::bencode::{Decoded, Item, Limits, Value};
use chiral_protocols::bittorrent::create::TorrentHashes;
use libfuzzer_sys::fuzz_target;

fn read(value: Value<'_, '_>) -> Item {
    if let Some(int) = value.int() {
        return Item::Int(int);
    }
    if let Some(bytes) = value.bytes() {
        return Item::Bytes(bytes.to_vec());
    }
    match (value.list(), value.dict()) {
        (Some(list), _) => Item::list(list.map(read)),
        (None, Some(pairs)) => Item::dict(pairs.map(|(key, value)| (key, read(value)))),
        (None, None) => panic!("a value of no kind"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok((decoded, rest)) = Decoded::parse_prefix(bytes, Limits::METAINFO) {
        let value = &bytes[..bytes.len() - rest.len()];
        assert_eq!(decoded.root().raw(), value);
        assert_eq!(read(decoded.root()).encode(), value);
    }
    if let Ok(decoded) = Decoded::parse(bytes, Limits::MESSAGE.unsorted()) {
        let sorted = read(decoded.root()).encode();
        assert_eq!(sorted.len(), bytes.len());
        let again = Decoded::parse(&sorted, Limits::MESSAGE).expect("sorted now");
        assert_eq!(read(again.root()).encode(), sorted);
    }
    if let Ok(hashes) = TorrentHashes::decode(bytes) {
        let again = TorrentHashes::decode(&hashes.encode()).expect("as it was written");
        assert_eq!(again, hashes);
    }
});
