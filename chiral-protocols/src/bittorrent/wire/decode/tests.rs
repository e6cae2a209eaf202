use super::*;
use proptest::prelude::*;

fn decode(bytes: &[u8], pieces: Option<u32>) -> Result<Option<Message>, WireError> {
    let mut decoder = Decoder::new(pieces);
    decoder.buffer().extend_from_slice(bytes);
    decoder.next_message()
}

/// A length prefix, an id, and nothing yet.
fn head(len: u32, id: u8) -> Vec<u8> {
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.push(id);
    bytes
}

#[test]
fn no_length_but_its_own_is_waited_for() {
    for id in 0..=255u8 {
        // 4 GiB, whatever it is.
        let expected = Err(WireError::Length { id, len: u32::MAX });
        assert_eq!(decode(&head(u32::MAX, id), None), expected);
        assert_eq!(decode(&head(u32::MAX, id), Some(1)), expected);
    }
    for (len, id) in [
        (2, 0),
        (2, 3),
        (4, 4),
        (6, 4),
        (12, 6),
        (14, 6),
        (9, 7),
        (9 + BLOCK_LEN + 1, 7),
        (12, 8),
        (2, 9),
        (2, 14),
        (12, 16),
        (1, 20),
        (3 + MAX_EXTENDED as u32, 20),
        (48, 21),
        (50, 22),
        (49 + 32 * (MAX_HASHES as u32 + 1), 22),
        (50, 23),
        (1 + MAX_UNKNOWN as u32, 99),
    ] {
        let refused = Err(WireError::Length { id, len });
        assert_eq!(decode(&head(len, id), Some(10)), refused, "{id} {len}");
    }
}

#[test]
fn bitfields_have_the_right_size_and_no_spare_bits() {
    let bitfield = |bytes: &[u8], pieces| {
        let mut message = head(1 + bytes.len() as u32, 5);
        message.extend(bytes);
        decode(&message, pieces)
    };
    assert!(matches!(
        bitfield(&[0xff, 0xc0], Some(10)),
        Ok(Some(Message::Bitfield(_)))
    ));
    assert_eq!(bitfield(&[0xff, 0xe0], Some(10)), Err(WireError::SpareBits));
    assert_eq!(
        bitfield(&[0xff], Some(10)),
        Err(WireError::Length { id: 5, len: 2 })
    );
    assert_eq!(
        bitfield(&[0xff; 3], Some(10)),
        Err(WireError::Length { id: 5, len: 4 })
    );
    assert!(bitfield(&[0xff; 3], None).is_ok_and(|message| message.is_some()));
    let most = 1 + MAX_PIECES / 8;
    assert_eq!(decode(&head(most, 5), None), Ok(None));
    let len = most + 1;
    assert_eq!(
        decode(&head(len, 5), None),
        Err(WireError::Length { id: 5, len })
    );
}

fn block_of(piece: u32, begin: u32, len: u32) -> Block {
    Block { piece, begin, len }
}

fn messages() -> impl Strategy<Value = Message> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 1..most).prop_map(Bytes::from);
    let block = (any::<u32>(), any::<u32>(), any::<u32>());
    let block = block.prop_map(|(a, b, c)| block_of(a, b, c));
    let range = (
        any::<[u8; 32]>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    );
    let range =
        range.prop_map(
            |(pieces_root, base_layer, index, length, proof_layers)| HashRange {
                pieces_root,
                base_layer,
                index,
                length,
                proof_layers,
            },
        );
    let hashes = proptest::collection::vec(any::<[u8; 32]>(), 0..9).prop_map(|all| all.concat());
    prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        any::<u32>().prop_map(Message::Have),
        bytes(40).prop_map(Message::Bitfield),
        block.clone().prop_map(Message::Request),
        (any::<u32>(), any::<u32>(), bytes(BLOCK_LEN as usize))
            .prop_map(|(piece, begin, data)| Message::Piece { piece, begin, data }),
        block.clone().prop_map(Message::Cancel),
        any::<u16>().prop_map(Message::Port),
        any::<u32>().prop_map(Message::Suggest),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        block.prop_map(Message::Reject),
        any::<u32>().prop_map(Message::AllowedFast),
        (any::<u8>(), bytes(300)).prop_map(|(id, body)| Message::Extended { id, body }),
        range.clone().prop_map(Message::HashRequest),
        (range.clone(), hashes).prop_map(|(range, hashes)| Message::Hashes {
            range,
            hashes: hashes.into()
        }),
        range.prop_map(Message::HashReject),
        (24u8..=255).prop_map(Message::Unknown),
    ]
}

proptest! {
    #[test]
    fn messages_come_back_however_they_are_cut(
        said in proptest::collection::vec(messages(), 0..8), cut in 1usize..5000,
    ) {
        let mut bytes = BytesMut::new();
        for message in &said {
            message.encode(&mut bytes);
        }
        let (mut decoder, mut heard) = (Decoder::new(None), Vec::new());
        for part in bytes.chunks(cut) {
            decoder.buffer().extend_from_slice(part);
            while let Some(message) = decoder.next_message().unwrap() {
                heard.push(message);
            }
        }
        prop_assert_eq!(decoder.pending(), 0);
        prop_assert_eq!(heard, said);
    }

    #[test]
    fn no_bytes_panic_or_pile_up(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        pieces in proptest::option::of(1u32..1000),
    ) {
        let mut decoder = Decoder::new(pieces);
        'all: for part in parts {
            decoder.buffer().extend_from_slice(&part);
            loop {
                match decoder.next_message() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
            prop_assert!(decoder.missing() <= 6 + MAX_PIECES as usize / 8);
        }
    }
}
