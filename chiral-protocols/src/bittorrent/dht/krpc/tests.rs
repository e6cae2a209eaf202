use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Body {
    Message::decode(bytes).unwrap().body
}

/// The examples in the text of BEP 5.
#[test]
fn the_examples_of_bep_5_are_read() {
    let abc = NodeId(*b"abcdefghij0123456789");
    let mno = *b"mnopqrstuvwxyz123456";
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    let query = |method| {
        Body::Query(Query {
            id: abc,
            method,
            want: Want::default(),
            read_only: false,
        })
    };
    assert_eq!(read(ping), query(Method::Ping));
    assert_eq!(
        read(b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe"),
        query(Method::FindNode { target: NodeId(mno) })
    );
    assert_eq!(
        read(b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe"),
        query(Method::GetPeers { info_hash: mno })
    );
    assert_eq!(
        read(b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe"),
        query(Method::AnnouncePeer {
            info_hash: mno,
            port: 6881,
            implied_port: true,
            token: b"aoeusnth".to_vec(),
        })
    );
    let answer = read(b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re");
    let Body::Answer(answer) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(answer.token.as_deref(), Some(&b"aoeusnth"[..]));
    assert_eq!(
        answer.values,
        [
            "97.120.106.101:11893".parse().unwrap(),
            "105.100.104.116:28269".parse().unwrap()
        ]
    );
    assert_eq!(
        read(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee"),
        Body::Error(201)
    );
}

#[test]
fn what_is_malformed_is_refused_by_name() {
    for (bytes, field) in [
        (&b"d1:q4:ping1:t2:aa1:y1:qe"[..], "a"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe", "q"),
        (b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe", "id"),
        (b"d1:ade1:q4:ping1:t2:aa1:y1:qe", "id"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:qe", "t"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe", "target"),
        (b"d1:t2:aa1:y1:re", "r"),
        (b"d1:rd2:idi5ee1:t2:aa1:y1:re", "id"),
        (b"d1:t2:aa1:y1:xe", "y"),
        (b"i5e", "t"),
        (b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti65536e5:token1:ae1:q13:announce_peer1:t2:aa1:y1:qe", "port"),
    ] {
        assert_eq!(Message::decode(bytes), Err(KrpcError::Field(field)), "{}", bytes.escape_ascii());
    }
    assert_eq!(Message::decode(b"x"), Err(KrpcError::Encoding));
    assert_eq!(
        Message::decode(&[b'd'; MAX_MESSAGE + 1]),
        Err(KrpcError::TooLong)
    );
    let long = [&b"d1:t33:"[..], &[b'a'; 33], b"1:y1:qe"].concat();
    assert_eq!(Message::decode(&long), Err(KrpcError::Field("t")));
}

#[test]
fn a_long_answer_is_cut() {
    let nodes = [1; 26 * (MAX_NODES + 5)];
    let bytes = [
        format!("d1:rd2:id20:abcdefghij01234567895:nodes{}:", nodes.len()).as_bytes(),
        &nodes,
        b"e1:t2:aa1:y1:re",
    ]
    .concat();
    let Body::Answer(answer) = read(&bytes) else {
        panic!()
    };
    assert_eq!(answer.nodes.len(), MAX_NODES);
}

fn ids() -> impl Strategy<Value = [u8; 20]> {
    any::<[u8; 20]>()
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ]
}

fn methods() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Ping),
        ids().prop_map(|id| Method::FindNode { target: NodeId(id) }),
        ids().prop_map(|info_hash| Method::GetPeers { info_hash }),
        (
            ids(),
            any::<u16>(),
            any::<bool>(),
            proptest::collection::vec(any::<u8>(), 0..MAX_TOKEN)
        )
            .prop_map(
                |(info_hash, port, implied_port, token)| Method::AnnouncePeer {
                    info_hash,
                    port,
                    implied_port,
                    token
                }
            ),
    ]
}

fn bodies() -> impl Strategy<Value = Body> {
    let query = (ids(), methods(), any::<(bool, bool, bool)>()).prop_map(
        |(id, method, (v4, v6, read_only))| {
            Body::Query(Query {
                id: NodeId(id),
                method,
                want: Want { v4, v6 },
                read_only,
            })
        },
    );
    let contact = (ids(), addresses()).prop_map(|(id, address)| Contact {
        id: NodeId(id),
        address,
    });
    let nodes = proptest::collection::vec(contact, 0..K);
    let values = proptest::collection::vec(addresses(), 0..20);
    let token = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..MAX_TOKEN));
    let answer = (
        ids(),
        nodes,
        values,
        token,
        proptest::option::of(addresses()),
    )
        .prop_map(|(id, mut nodes, values, token, seen)| {
            nodes.sort_by_key(|node| node.address.is_ipv6());
            Body::Answer(Answer {
                id: NodeId(id),
                nodes,
                values,
                token,
                seen,
            })
        });
    prop_oneof![
        query,
        answer,
        prop_oneof![Just(203), Just(204)].prop_map(Body::Error)
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(body in bodies(), transaction in proptest::collection::vec(any::<u8>(), 0..MAX_TRANSACTION)) {
        let message = Message { transaction, body };
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        // And it is sorted, as the standard says.
        prop_assert!(bip_bencode::BencodeRef::decode(&bytes, bip_bencode::BDecodeOpt::new(10, true, true)).is_ok());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>()) {
        let _ = Message::decode(&bytes);
        let mut message = b"d1:rd2:id20:abcdefghij01234567895:nodes26:abcdefghijklmnopqrstuvwxyz5:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re".to_vec();
        for (offset, byte) in bytes.iter().take(3).enumerate() {
            let at = (at.index(message.len()) + offset * 7) % message.len();
            message[at] = *byte;
        }
        let _ = Message::decode(&message);
    }
}
