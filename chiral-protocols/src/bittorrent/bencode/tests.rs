use proptest::prelude::*;

use super::*;

fn parse(bytes: &[u8]) -> Result<(), BencodeError> {
    Decoded::parse(bytes, Limits::METAINFO).map(drop)
}

#[test]
fn what_the_standard_allows_is_read() {
    for good in [
        "i0e",
        "i-1e",
        "i9223372036854775807e",
        "i-9223372036854775808e",
        "0:",
        "3:abc",
        "le",
        "de",
        "d1:ai1e1:bi2ee",
        "d0:i1ee",
        "lli1eed1:ali2eeee",
    ] {
        assert_eq!(parse(good.as_bytes()), Ok(()), "{good}");
    }
}

#[test]
fn what_it_forbids_is_refused_by_name() {
    use BencodeError::*;
    for (bad, expected) in [
        ("", Ended),
        ("i", Ended),
        ("i5", Ended),
        ("ie", Integer { offset: 0 }),
        ("i-e", Integer { offset: 0 }),
        ("i-0e", Integer { offset: 0 }),
        ("i03e", Integer { offset: 0 }),
        ("i-03e", Integer { offset: 0 }),
        ("i+5e", Integer { offset: 0 }),
        ("i 5e", Integer { offset: 0 }),
        ("i9223372036854775808e", Integer { offset: 0 }),
        ("i18446744073709551615e", Integer { offset: 0 }),
        ("i99999999999999999999999999999e", Integer { offset: 0 }),
        ("999999999999:", Length { offset: 0 }),
        ("9999999999:", Length { offset: 0 }),
        ("4:abc", Length { offset: 0 }),
        ("03:abc", Length { offset: 0 }),
        ("3", Ended),
        ("3abc", Length { offset: 0 }),
        ("-3:abc", Unexpected { offset: 0 }),
        ("l", Ended),
        ("li1e", Ended),
        ("d1:a", Ended),
        ("d1:ae", Unexpected { offset: 4 }),
        ("di1ei2ee", Length { offset: 1 }),
        ("d+1:ai1ee", Length { offset: 1 }),
        ("d-1:ai1ee", Length { offset: 1 }),
        ("d1:bi1e1:ai1ee", KeyOrder { offset: 7 }),
        ("d1:ai1e1:ai1ee", DuplicateKey { offset: 7 }),
        ("e", Unexpected { offset: 0 }),
        ("x", Unexpected { offset: 0 }),
        ("i1ei2e", Trailing { offset: 3 }),
        ("de\n", Trailing { offset: 2 }),
    ] {
        assert_eq!(parse(bad.as_bytes()), Err(expected), "{bad}");
    }
}

#[test]
fn a_million_lists_inside_each_other_are_refused_at_the_limit() {
    for bytes in [vec![b'l'; 1_000_000], b"d1:a".repeat(250_000)] {
        let error = parse(&bytes).unwrap_err();
        assert!(
            matches!(error, BencodeError::TooDeep { limit: 48, .. }),
            "{error}"
        );
    }
    let deepest = [vec![b'l'; 48], vec![b'e'; 48]].concat();
    assert_eq!(parse(&deepest), Ok(()));
}

#[test]
fn values_and_bytes_are_counted() {
    let many = [b"l".to_vec(), b"0:".repeat(1_000_000), b"e".to_vec()].concat();
    assert_eq!(
        parse(&many),
        Err(BencodeError::TooMany { limit: 1_000_000 })
    );
    let limits = Limits {
        max_len: 8,
        ..Limits::MESSAGE
    };
    let long = BencodeError::TooLong { len: 9, limit: 8 };
    assert_eq!(Decoded::parse(b"7:abcdefg", limits).map(drop), Err(long));
    assert!(Decoded::parse(b"6:abcdef", limits).is_ok());
}

#[test]
fn keys_in_any_order_where_that_is_allowed_but_none_twice() {
    let limits = Limits::MESSAGE.unsorted();
    let decoded = Decoded::parse(b"d1:bi1e1:ai2ee", limits).unwrap();
    assert_eq!(decoded.root().get("a").and_then(|a| a.int()), Some(2));
    let twice = Decoded::parse(b"d1:bi1e1:ai2e1:bi3ee", limits).map(drop);
    assert!(
        matches!(twice, Err(BencodeError::DuplicateKey { .. })),
        "{twice:?}"
    );
}

#[test]
fn a_value_knows_its_bytes_and_what_follows() {
    let bytes = b"d4:infod1:xi1ee3:msg3:abcetail";
    let (decoded, rest) = Decoded::parse_prefix(bytes, Limits::MESSAGE).unwrap();
    assert_eq!(rest, b"tail");
    let root = decoded.root();
    assert_eq!(root.get("info").unwrap().raw(), b"d1:xi1ee");
    assert_eq!(root.get("msg").unwrap().text(), Some("abc"));
    assert!(root.get("info").unwrap().is_dict() && !root.get("msg").unwrap().is_dict());
    let keys: Vec<_> = root.dict().unwrap().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"info".as_slice(), b"msg"]);
}

fn item() -> impl Strategy<Value = Item> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Item::Int),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Item::Bytes),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let key = prop::collection::vec(any::<u8>(), 0..4);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Item::List),
            prop::collection::btree_map(key, inner, 0..6).prop_map(Item::Dict),
        ]
    })
}

fn read(value: Value<'_, '_>) -> Item {
    if let Some(int) = value.int() {
        return Item::Int(int);
    }
    if let Some(bytes) = value.bytes() {
        return Item::Bytes(bytes.to_vec());
    }
    if let Some(list) = value.list() {
        return Item::List(list.map(read).collect());
    }
    Item::dict(value.dict().unwrap().map(|(key, value)| (key, read(value))))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(item in item()) {
        let bytes = item.encode();
        let decoded = Decoded::parse(&bytes, Limits::METAINFO).unwrap();
        prop_assert_eq!(read(decoded.root()), item);
        prop_assert_eq!(decoded.root().raw(), bytes.as_slice());
    }

    /// What is accepted has one form only: it is written as it was read.
    #[test]
    fn what_is_read_is_canonical(bytes in prop::collection::vec(
        prop::sample::select(b"ilde0123456789:-+ab".to_vec()), 0..40)
    ) {
        if let Ok(decoded) = Decoded::parse(&bytes, Limits::METAINFO) {
            prop_assert_eq!(read(decoded.root()).encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Decoded::parse(&bytes, Limits::METAINFO);
        let _ = Decoded::parse_prefix(&bytes, Limits::MESSAGE.unsorted());
    }
}

#[test]
fn a_dictionary_written_key_by_key_is_read() {
    let inner = DictWriter::new().int("n", -5);
    let out = DictWriter::new()
        .list("c", [&b"x"[..], b""].into_iter())
        .dict("b", inner)
        .bytes("a", b"\x00\xff")
        .finish();
    assert_eq!(out, b"d1:a2:\x00\xff1:bd1:ni-5ee1:cl1:x0:ee");
    let decoded = Decoded::parse(&out, Limits::MESSAGE).unwrap();
    let root = decoded.root();
    assert_eq!(root.bytes_of("a"), Some(&b"\x00\xff"[..]));
    assert_eq!(root.get("b").unwrap().int_of("n"), Some(-5));
    assert_eq!(root.get("c").unwrap().items().count(), 2);
    assert_eq!(
        (root.int_of("a"), root.get("a").unwrap().items().count()),
        (None, 0)
    );
}
