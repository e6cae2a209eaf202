use super::*;
use crate::bittorrent::extension::{MAX_METADATA, METADATA_PIECE, Pex};
use crate::bittorrent::wire::{BLOCK_LEN, Reserved};
use chiral_core::PeerId;
use proptest::prelude::*;
use sha1::{Digest, Sha1};

const PIECE: u32 = 65_536;
const LENGTH: u64 = 20 * 65_536 - 1000;
const HASH: [u8; 20] = [5; 20];

fn geometry() -> Geometry {
    Geometry::new(PIECE, LENGTH).unwrap()
}

fn bitmap(pieces: impl IntoIterator<Item = u32>) -> Bitmap {
    let mut bitmap = Bitmap::new(geometry().pieces());
    for piece in pieces {
        bitmap.set(piece, true);
    }
    bitmap
}

fn all() -> Bitmap {
    bitmap(0..geometry().pieces())
}

fn config(id: u8, have: Bitmap) -> SessionConfig {
    let mut config = SessionConfig::new(HASH, [id; 20]).with_torrent(geometry(), have);
    config.remote = Some([10, 0, 0, id].into());
    config.port = Some(6000 + u16::from(id));
    config
}

fn handshake(reserved: Reserved) -> Handshake {
    let (info_hash, peer_id) = (HASH, [9; 20]);
    Handshake {
        reserved,
        info_hash,
        peer_id,
    }
}

fn at(ms: u64) -> Now {
    Duration::from_millis(ms)
}

/// Two sessions that talk to each other.
struct Pair {
    a: Session,
    b: Session,
    now: Now,
}

impl Pair {
    fn new(a: SessionConfig, b: SessionConfig) -> Self {
        let side = |config: &SessionConfig| Handshake {
            reserved: config.reserved,
            info_hash: config.info_hash,
            peer_id: config.peer_id,
        };
        let (first, second) = (side(&a), side(&b));
        let (a, b) = (
            Session::new(a, second, at(0)),
            Session::new(b, first, at(0)),
        );
        Self { a, b, now: at(0) }
    }

    /// Lets them talk until both are silent.
    fn talk(&mut self) {
        loop {
            let (from_a, from_b) = (self.a.outbox().take(), self.b.outbox().take());
            if from_a.is_empty() && from_b.is_empty() {
                return;
            }
            self.b.handle_bytes(self.now, &from_a).unwrap();
            self.a.handle_bytes(self.now, &from_b).unwrap();
        }
    }

    /// Serves what B is asked for.
    fn serve(&mut self) -> usize {
        let mut served = 0;
        while let Some(block) = self.b.next_upload() {
            let data = content(block);
            self.b.upload(self.now, data);
            served += 1;
        }
        served
    }
}

fn content(block: Block) -> Bytes {
    let range = geometry().range(block);
    (range.start..range.end)
        .map(|at| ((at * 31) >> 5) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// A session whose peer is the test itself.
fn alone(have: Bitmap, reserved: Reserved) -> Session {
    let mut session = Session::new(config(1, have), handshake(reserved), at(0));
    session.outbox().take();
    session
}

fn say(session: &mut Session, now: Now, message: &Message) -> Result<(), SessionError> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    session.handle_bytes(now, &bytes)
}

fn heard(session: &mut Session) -> Vec<Message> {
    let mut decoder = Decoder::new(Some(geometry().pieces()));
    decoder.buffer().extend_from_slice(&session.outbox().take());
    std::iter::from_fn(|| decoder.next_message().unwrap()).collect()
}

#[test]
fn a_leecher_gets_all_of_it_from_a_seeder() {
    let mut pair = Pair::new(config(1, bitmap([])), config(2, all()));
    pair.a.set_wanting(true);
    pair.talk();
    assert!(pair.b.is_peer_interested() && pair.a.is_choked());
    assert!(pair.a.peer_pieces().unwrap().is_full());
    pair.b.set_choking(false);
    pair.talk();
    let range = chiral_core::ByteRange::new(0, LENGTH);
    pair.a.want_all(pair.now, geometry().blocks(range), 7);
    let mut got = chiral_core::RangeSet::new();
    loop {
        pair.talk();
        if pair.serve() == 0 {
            break;
        }
        pair.now += at(5);
        pair.talk();
        for event in events(&mut pair.a) {
            if let Event::Block { block, token, data } = event {
                assert_eq!((token, &data), (7, &content(block)));
                got.insert(geometry().range(block));
            }
        }
    }
    assert_eq!(got.len(), LENGTH);
    assert_eq!(pair.a.downloaded().total(), LENGTH);
    assert_eq!(pair.b.uploaded().total(), LENGTH);
    let extended = pair.a.extended();
    assert_eq!(extended.port, Some(6002));
    assert!(extended.upload_only);
    let remote = SocketAddr::from(([10, 0, 0, 2], 44_444));
    assert_eq!(
        pair.a.listens_at(remote),
        Some(([10, 0, 0, 2], 6002).into())
    );
}

#[test]
fn no_more_is_asked_for_than_the_peer_takes_and_what_is_used() {
    let mut session = alone(bitmap([]), Reserved::OURS);
    let hello = ExtendedHandshake {
        reqq: Some(20),
        ..Default::default()
    };
    let body = hello.encode().into();
    say(&mut session, at(0), &Message::Extended { id: 0, body }).unwrap();
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    say(&mut session, at(0), &Message::Unchoke).unwrap();
    let range = chiral_core::ByteRange::new(0, LENGTH);
    session.want_all(at(0), geometry().blocks(range), 1);
    let requests = |said: Vec<Message>| {
        said.into_iter()
            .filter(|m| matches!(m, Message::Request(_)))
            .count()
    };
    assert_eq!(requests(heard(&mut session)), 20);
    session.set_room(at(0), 5);
    for (n, block) in geometry().blocks(range).take(20).enumerate() {
        let (piece, begin, data) = (block.piece, block.begin, content(block));
        say(&mut session, at(1), &Message::Piece { piece, begin, data }).unwrap();
        assert_eq!(requests(heard(&mut session)), usize::from(n >= 15), "{n}");
    }
}

#[test]
fn a_slow_peer_is_asked_for_little_at_once() {
    let mut session = alone(bitmap([]), Reserved::OURS);
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    say(&mut session, at(0), &Message::Unchoke).unwrap();
    let blocks: Vec<_> = geometry()
        .blocks(chiral_core::ByteRange::new(0, LENGTH))
        .collect();
    session.want_all(at(0), blocks.iter().copied(), 1);
    let mut flying = Vec::new();
    for second in 0..12 {
        // One block each second.
        let block = blocks[second as usize];
        let (piece, begin, data) = (block.piece, block.begin, content(block));
        say(
            &mut session,
            at(second * 1000),
            &Message::Piece { piece, begin, data },
        )
        .unwrap();
        flying.push(session.downloads.in_flight());
    }
    assert!(flying[0] >= 30, "{flying:?}");
    // It is asked for nothing new until little is left of what it was asked for at first.
    assert!(*flying.last().unwrap() < 24, "{flying:?}");
}

#[test]
fn what_is_taken_back_may_still_come_and_does_no_harm() {
    let mut session = alone(bitmap([]), Reserved::OURS);
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    say(&mut session, at(0), &Message::Unchoke).unwrap();
    let blocks: Vec<_> = geometry().blocks(geometry().piece(0)).collect();
    session.want_all(at(0), blocks.iter().copied(), 1);
    session.unwant(at(0), 1);
    let said = heard(&mut session);
    let cancels = said
        .iter()
        .filter(|m| matches!(m, Message::Cancel(_)))
        .count();
    assert_eq!(cancels, blocks.len());
    events(&mut session);
    let block = blocks[0];
    let message = Message::Piece {
        piece: 0,
        begin: block.begin,
        data: content(block),
    };
    say(&mut session, at(1), &message).unwrap();
    say(&mut session, at(1), &Message::Reject(blocks[1])).unwrap();
    assert_eq!(events(&mut session), []);
}

#[test]
fn a_choke_loses_what_was_asked_for() {
    for (reserved, rejects) in [(Reserved::OURS, true), (Reserved::default(), false)] {
        let mut session = alone(bitmap([]), reserved);
        let bits = Message::Bitfield(all().as_bytes().to_vec().into());
        say(&mut session, at(0), &bits).unwrap();
        say(&mut session, at(0), &Message::Unchoke).unwrap();
        assert_eq!(session.coverage(), Coverage::Complete);
        let blocks: Vec<_> = geometry().blocks(geometry().piece(0)).collect();
        session.want_all(at(0), blocks.iter().copied(), 1);
        events(&mut session);
        say(&mut session, at(0), &Message::Choke).unwrap();
        assert_eq!(session.coverage(), Coverage::Partial(Default::default()));
        if rejects {
            assert_eq!(events(&mut session), [Event::Available]);
            for block in &blocks {
                say(&mut session, at(0), &Message::Reject(*block)).unwrap();
            }
        }
        let lost = events(&mut session)
            .into_iter()
            .filter(|e| matches!(e, Event::Lost { .. }));
        assert_eq!(lost.count(), blocks.len());
    }
}

#[test]
fn pieces_allowed_to_the_choked_are_asked_for_and_given() {
    let mut pair = Pair::new(config(1, bitmap([])), config(2, all()));
    pair.talk();
    let remote = std::net::Ipv4Addr::new(10, 0, 0, 2);
    let mut set = allowed_fast(remote, HASH, geometry().pieces(), 10);
    set.sort_unstable();
    let Coverage::Partial(held) = pair.a.coverage() else {
        panic!("all of it from one that chokes");
    };
    assert!(pair.a.is_choked() && held.count() < 6);
    pair.a
        .want_all(pair.now, geometry().blocks(geometry().piece(set[0])), 3);
    pair.talk();
    assert_eq!(
        pair.serve(),
        geometry().blocks(geometry().piece(set[0])).count()
    );
    let other = (0..20).find(|piece| !set.contains(piece)).unwrap();
    pair.a
        .want_all(pair.now, geometry().blocks(geometry().piece(other)), 4);
    pair.talk();
    assert_eq!(pair.serve(), 0);
}

#[test]
fn requests_that_nobody_may_make_end_it_and_others_are_refused() {
    for (piece, begin, len) in [
        (0, 0, 0),
        (0, 0, BLOCK_LEN + 1),
        (0, PIECE - 1, 2),
        (0, u32::MAX, 2),
        (0, u32::MAX, u32::MAX),
        (20, 0, 1),
        (u32::MAX, 0, 1),
    ] {
        let mut session = alone(all(), Reserved::OURS);
        session.set_choking(false);
        let block = Block { piece, begin, len };
        let result = say(&mut session, at(0), &Message::Request(block));
        assert!(matches!(result, Err(SessionError::Block(_))), "{block:?}");
    }
    let mut session = alone(bitmap([0]), Reserved::OURS);
    let block = |piece| Block {
        piece,
        begin: 0,
        len: BLOCK_LEN,
    };
    say(&mut session, at(0), &Message::Request(block(0))).unwrap();
    assert_eq!(heard(&mut session), [Message::Reject(block(0))]);
    session.set_choking(false);
    say(&mut session, at(0), &Message::Request(block(1))).unwrap();
    assert_eq!(
        heard(&mut session),
        [Message::Unchoke, Message::Reject(block(1))]
    );
    for _ in 0..MAX_STANDING {
        say(&mut session, at(0), &Message::Request(block(0))).unwrap();
    }
    assert_eq!(heard(&mut session), []);
    say(&mut session, at(0), &Message::Request(block(0))).unwrap();
    assert_eq!(heard(&mut session), [Message::Reject(block(0))]);
    session.set_choking(true);
    assert_eq!(heard(&mut session).len(), 1 + MAX_STANDING);
    assert_eq!(session.next_upload(), None);
}

#[test]
fn blocks_past_the_end_end_it() {
    for (piece, begin, len) in [
        (20, 0, 5),
        (0, PIECE - 1, 2),
        (0, u32::MAX, 5),
        (19, 64_536, 1),
    ] {
        let mut session = alone(bitmap([]), Reserved::OURS);
        let data = vec![0; len].into();
        let result = say(&mut session, at(0), &Message::Piece { piece, begin, data });
        assert!(
            matches!(result, Err(SessionError::Block(_))),
            "{piece} {begin}"
        );
    }
}

/// Says the same again and again; how often until the connection ends, if it does within 1000.
fn until_it_ends(session: &mut Session, pause: u64, messages: &[Message]) -> Option<usize> {
    (0..1000).find(|n| {
        let now = at(*n as u64 * pause);
        messages
            .iter()
            .any(|message| say(session, now, message).is_err())
    })
}

#[test]
fn needless_messages_are_borne_now_and_then_and_not_for_ever() {
    let piece = |piece| Message::Piece {
        piece,
        begin: 0,
        data: Bytes::from_static(&[1; 100]),
    };
    let unnamed = Message::Extended {
        id: 255,
        body: Bytes::from_static(b"de"),
    };
    let handshake = Message::Extended {
        id: 0,
        body: Bytes::from_static(b"de"),
    };
    for said in [
        vec![Message::KeepAlive],
        vec![Message::Choke, Message::Unchoke],
        vec![Message::Interested, Message::NotInterested],
        vec![piece(3)],
        vec![Message::Have(3)],
        vec![unnamed],
        vec![handshake],
        vec![Message::Unknown(99)],
        vec![Message::Reject(Block {
            piece: 0,
            begin: 0,
            len: 5,
        })],
    ] {
        let fresh = || alone(bitmap([]), Reserved::OURS);
        assert!(until_it_ends(&mut fresh(), 0, &said).is_some(), "{said:?}");
        assert_eq!(until_it_ends(&mut fresh(), 30_000, &said), None, "{said:?}");
    }
}

#[test]
fn pieces_are_those_of_the_torrent() {
    let bits = |bytes: &[u8]| Message::Bitfield(Bytes::copy_from_slice(bytes));
    let full = bits(all().as_bytes());
    let result = |said: &[Message]| {
        let mut session = alone(bitmap([]), Reserved::OURS);
        said.iter()
            .try_for_each(|message| say(&mut session, at(0), message))
    };
    assert_eq!(result(std::slice::from_ref(&full)), Ok(()));
    assert_eq!(
        result(&[full.clone(), Message::HaveNone]),
        Err(SessionError::NoneAfterAll)
    );
    assert!(matches!(
        result(&[bits(&[0xff, 0xff])]),
        Err(SessionError::Wire(_))
    ));
    assert!(matches!(
        result(&[bits(&[0xff; 3])]),
        Err(SessionError::Wire(_))
    ));
    for past in [
        Message::Have(20),
        Message::AllowedFast(20),
        Message::Suggest(u32::MAX),
    ] {
        assert_eq!(result(&[past]), Err(SessionError::Piece));
    }
}

/// aria2 says so while it downloads, instead of many single pieces, and at its end.
#[test]
fn pieces_are_said_in_one_go_at_any_time_but_not_without_end() {
    let bits = |pieces: &[u32]| {
        let mut bits = all();
        (0..20)
            .filter(|piece| !pieces.contains(piece))
            .for_each(|piece| {
                bits.set(piece, false);
            });
        Message::Bitfield(bits.as_bytes().to_vec().into())
    };
    let mut session = alone(bitmap([]), Reserved::OURS);
    for said in [
        Message::HaveNone,
        Message::Have(7),
        bits(&[1, 7]),
        bits(&[2]),
    ] {
        say(&mut session, at(0), &said).unwrap();
    }
    let has: Vec<u32> = session.peer_pieces().unwrap().ones().collect();
    assert_eq!(has, [1, 2, 7]);
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    assert!(session.peer_pieces().unwrap().is_full());
    for said in [Message::HaveAll, bits(&[1])] {
        let mut fresh = alone(bitmap([]), Reserved::OURS);
        let said = std::slice::from_ref(&said);
        assert!(until_it_ends(&mut fresh, 0, said).is_some(), "{said:?}");
    }
}

#[test]
fn what_was_not_agreed_on_ends_it() {
    let block = Block {
        piece: 0,
        begin: 0,
        len: 5,
    };
    for said in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Suggest(0),
        Message::AllowedFast(0),
        Message::Reject(block),
        Message::Extended {
            id: 0,
            body: Bytes::from_static(b"de"),
        },
    ] {
        let mut session = alone(bitmap([]), Reserved::default());
        let result = say(&mut session, at(0), &said);
        assert!(
            matches!(result, Err(SessionError::NotAgreed(_))),
            "{said:?}"
        );
    }
}

#[test]
fn the_silent_and_the_useless_are_let_go_and_keep_alives_are_sent() {
    let timing = Timing::default();
    let mut session = alone(bitmap([]), Reserved::OURS);
    assert_eq!(session.poll_timeout(), timing.keep_alive);
    session.handle_timeout(timing.keep_alive).unwrap();
    assert_eq!(heard(&mut session), [Message::KeepAlive]);
    assert_eq!(
        session.handle_timeout(timing.silence),
        Err(SessionError::Silence)
    );

    let mut session = alone(bitmap([]), Reserved::OURS);
    let mut now = at(0);
    let ended = loop {
        now += Duration::from_secs(60);
        say(&mut session, now, &Message::KeepAlive).unwrap();
        if let Err(error) = session.handle_timeout(now) {
            break error;
        }
        assert!(now < Duration::from_secs(3600), "endless keep-alives");
    };
    assert_eq!(ended, SessionError::Useless);
}

#[test]
fn one_that_unchokes_and_gives_nothing_is_snubbing() {
    let mut session = alone(bitmap([]), Reserved::OURS);
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    say(&mut session, at(0), &Message::Unchoke).unwrap();
    session.want_all(at(0), geometry().blocks(geometry().piece(0)), 1);
    let snub = Timing::default().snub;
    assert!(!session.is_snubbed(snub - at(1)) && session.is_snubbed(snub));
    let data = content(geometry().block_at(0));
    say(
        &mut session,
        snub,
        &Message::Piece {
            piece: 0,
            begin: 0,
            data,
        },
    )
    .unwrap();
    assert!(!session.is_snubbed(snub + at(1)));
}

fn dictionary(len: usize) -> (Bytes, [u8; 20]) {
    let metadata: Bytes = (0..len)
        .map(|i| ((i * 7) >> 3) as u8)
        .collect::<Vec<_>>()
        .into();
    let hash = Sha1::digest(&metadata).into();
    (metadata, hash)
}

/// One that has the dictionary, and one that has nothing.
fn with_and_without(len: usize) -> (SessionConfig, SessionConfig, Bytes) {
    let (metadata, hash) = dictionary(len);
    let mut with = config(2, all());
    (with.metadata, with.info_hash) = (Some(metadata.clone()), hash);
    (SessionConfig::new(hash, [1; 20]), with, metadata)
}

#[test]
fn the_info_dictionary_comes_and_pieces_said_before_hold() {
    for len in [1, METADATA_PIECE as usize, 5 * METADATA_PIECE as usize + 3] {
        let (without, with, metadata) = with_and_without(len);
        let mut pair = Pair::new(without, with);
        pair.a.fetch_metadata();
        pair.talk();
        let came = events(&mut pair.a)
            .into_iter()
            .find_map(|event| match event {
                Event::Metadata(bytes) => Some(bytes),
                _ => None,
            });
        assert_eq!(came, Some(metadata.clone()));
        assert_eq!(pair.a.peer_pieces(), None);
        pair.a.set_wanting(true);
        pair.a.set_geometry(geometry(), metadata).unwrap();
        assert!(pair.a.peer_pieces().unwrap().is_full());
        pair.talk();
        assert!(pair.b.is_peer_interested());
    }
}

#[test]
fn a_false_info_dictionary_ends_it() {
    let (without, mut with, metadata) = with_and_without(20_000);
    let mut bytes = metadata.to_vec();
    bytes[17_000] ^= 1;
    with.metadata = Some(bytes.into());
    let mut pair = Pair::new(without, with);
    pair.a.fetch_metadata();
    let mut result = Ok(());
    while result.is_ok() {
        let (from_a, from_b) = (pair.a.outbox().take(), pair.b.outbox().take());
        assert!(!from_a.is_empty() || !from_b.is_empty(), "it passed");
        pair.b.handle_bytes(at(0), &from_a).unwrap();
        result = pair.a.handle_bytes(at(0), &from_b);
    }
    assert_eq!(result, Err(SessionError::Metadata));
}

#[test]
fn nobody_is_asked_for_an_endless_dictionary_or_given_one_endlessly() {
    let (without, with, _) = with_and_without(20_000);
    let mut session = Session::new(without, handshake(Reserved::OURS), at(0));
    session.fetch_metadata();
    let mut huge = ExtendedHandshake {
        metadata_size: Some(MAX_METADATA),
        ..Default::default()
    };
    huge.extensions = Extensions::ours(|_| true);
    let mut body = String::from_utf8(huge.encode()).unwrap();
    body = body.replace(&format!("i{MAX_METADATA}e"), "i4294967295e");
    let body = body.into_bytes().into();
    session.outbox().take();
    say(&mut session, at(0), &Message::Extended { id: 0, body }).unwrap();
    assert_eq!(heard(&mut session), []);

    let mut session = Session::new(with, handshake(Reserved::OURS), at(0));
    let body = huge.encode().into();
    say(&mut session, at(0), &Message::Extended { id: 0, body }).unwrap();
    let mut given = 0;
    for _ in 0..100 {
        session.outbox().take();
        let request = crate::bittorrent::extension::MetadataMessage::Request(0);
        let (id, body) = (Names::Metadata.id(), request.encode().into());
        say(&mut session, at(0), &Message::Extended { id, body }).unwrap();
        given += usize::from(session.outbox().take().len() > 1000);
    }
    assert_eq!(given, 6);
}

#[test]
fn peers_are_exchanged_seldom_and_not_in_private_torrents() {
    let somebody = [PexPeer::new(([10, 0, 0, 77], 7777).into())];
    let peers = |session: &mut Session| {
        let told = |event| match event {
            Event::Peers(peers) => Some(peers),
            _ => None,
        };
        events(session)
            .into_iter()
            .filter_map(told)
            .collect::<Vec<_>>()
    };
    let mut pair = Pair::new(config(1, bitmap([])), config(2, all()));
    pair.talk();
    pair.b.exchange_peers(at(0), &somebody);
    pair.b.exchange_peers(at(1000), &[]);
    pair.talk();
    assert_eq!(peers(&mut pair.a), [somebody.to_vec()]);
    // Another one at once is not read, and many of them end it.
    let (id, body) = (
        Names::Pex.id(),
        Bytes::from(
            Pex {
                added: somebody.to_vec(),
                dropped: vec![],
            }
            .encode(),
        ),
    );
    let hasty = Message::Extended { id, body };
    say(&mut pair.a, at(2000), &hasty).unwrap();
    assert_eq!(peers(&mut pair.a), [] as [Vec<PexPeer>; 0]);
    assert!(until_it_ends(&mut pair.a, 10, std::slice::from_ref(&hasty)).is_some());

    let private = |id| SessionConfig {
        private: true,
        ..config(id, all())
    };
    let mut pair = Pair::new(private(1), private(2));
    pair.talk();
    assert_eq!(pair.b.extended().extensions.id(Names::Pex), None);
    pair.b.exchange_peers(at(0), &somebody);
    assert!(pair.b.outbox().is_empty());
    say(&mut pair.a, at(0), &hasty).unwrap();
    assert_eq!(peers(&mut pair.a), [] as [Vec<PexPeer>; 0]);
}

#[test]
fn a_piece_that_is_gone_is_not_offered_any_more() {
    let mut pair = Pair::new(config(1, bitmap([])), config(2, bitmap([3])));
    pair.a.set_wanting(true);
    pair.talk();
    assert!(pair.b.is_peer_interested());
    assert!(pair.b.dont_have(3));
    pair.talk();
    assert!(!pair.b.is_peer_interested());
    assert_eq!(pair.a.peer_pieces().unwrap().count_ones(), 0);
    pair.b.have(4);
    pair.talk();
    assert!(pair.b.is_peer_interested());
}

#[test]
fn what_is_not_held_any_more_is_taken_back_from_whoever_understands_it() {
    let mut pair = Pair::new(config(1, all()), config(2, all()));
    pair.talk();
    assert!(pair.b.extended().upload_only);
    assert!(pair.a.hold(&bitmap([2])));
    pair.a.set_wanting(true);
    pair.talk();
    let pieces: Vec<u32> = pair.b.peer_pieces().unwrap().ones().collect();
    assert_eq!(pieces, [2]);
    assert!(!pair.b.extended().upload_only, "it wants something again");
    assert!(pair.b.is_peer_interested());
    assert!(pair.a.hold(&bitmap([1, 2])), "and it may grow again");
    pair.talk();
    let pieces = pair.b.peer_pieces().unwrap().count_ones();
    assert_eq!(pieces, 1, "whoever has a piece need not hear of it");

    let simple = |id| SessionConfig {
        reserved: Reserved::default(),
        ..config(id, all())
    };
    let mut pair = Pair::new(config(1, all()), simple(2));
    pair.talk();
    assert!(!pair.a.hold(&bitmap([2])), "it cannot be told");
    assert!(pair.b.hold(&all()), "nothing is gone");
}

#[test]
fn chiral_messages_go_to_those_alone_that_know_them() {
    let greeting = |id: u8| {
        let (peer, nonce) = (PeerId::from_bytes(&[id; 38]).unwrap(), [id; 32]);
        Some(Greeting {
            peer,
            wallet: None,
            nonce,
        })
    };
    let chiral = |id| SessionConfig {
        greeting: greeting(id),
        ..config(id, all())
    };
    let message = ChiralMessage::Payment {
        question: 4,
        body: Bytes::from_static(b"pay"),
    };
    let mut pair = Pair::new(chiral(1), config(2, all()));
    pair.talk();
    assert_eq!(pair.a.proof_due(), None);
    assert!(!pair.a.send_chiral(&message) && pair.a.outbox().is_empty());

    let mut pair = Pair::new(chiral(1), chiral(2));
    pair.talk();
    let both = (greeting(1).unwrap(), greeting(2).unwrap());
    assert_eq!(pair.a.proof_due(), Some(both));
    assert_eq!(pair.a.proof_due(), None);
    assert!(pair.a.send_chiral(&message));
    pair.talk();
    let asked = Event::Payment {
        question: 4,
        body: Bytes::from_static(b"pay"),
    };
    assert!(events(&mut pair.b).contains(&asked));
}

proptest! {
    #[test]
    fn no_bytes_panic_or_pile_up(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20),
        known: bool, fast: bool,
    ) {
        let reserved = if fast { Reserved::OURS } else { Reserved::default() };
        let config = if known { config(1, all()) } else { SessionConfig::new(HASH, [1; 20]) };
        let mut session = Session::new(config, handshake(reserved), at(0));
        for (n, part) in parts.into_iter().enumerate() {
            if session.handle_bytes(at(n as u64), &part).is_err() {
                break;
            }
        }
    }

    /// Whatever two sessions are made to do, neither takes the other for a liar.
    #[test]
    fn two_of_ours_never_annoy_each_other(steps in proptest::collection::vec(0u8..9, 0..60), fast: bool) {
        let mut with = config(2, all());
        let mut without = config(1, bitmap([0, 7]));
        if !fast {
            with.reserved = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0]);
            without.reserved = with.reserved;
        }
        let mut pair = Pair::new(without, with);
        pair.talk();
        let mut asked = 0u64;
        let mut answered = 0usize;
        let mut wanted = 0usize;
        for step in steps {
            pair.now += Duration::from_millis(700);
            match step {
                0 => pair.b.set_choking(true),
                1 | 2 => pair.b.set_choking(false),
                3 => pair.a.set_wanting(asked.is_multiple_of(2)),
                4 => {
                    let piece = (asked % 20) as u32;
                    let blocks: Vec<_> = geometry().blocks(geometry().piece(piece)).collect();
                    wanted += blocks.len();
                    pair.a.want_all(pair.now, blocks.into_iter(), asked);
                    asked += 1;
                }
                5 => pair.a.unwant(pair.now, asked.saturating_sub(1)),
                6 => pair.a.have((asked % 20) as u32),
                7 => { pair.serve(); }
                _ => {
                    pair.a.handle_timeout(pair.now).unwrap();
                    pair.b.handle_timeout(pair.now).unwrap();
                }
            }
            pair.talk();
            for event in events(&mut pair.a) {
                answered += usize::from(matches!(event, Event::Block { .. } | Event::Lost { .. }));
            }
        }
        prop_assert!(answered <= wanted);
    }
}

#[test]
fn a_block_that_comes_twice_counts_once_and_the_second_time_is_held_against_the_peer() {
    let mut session = alone(bitmap([]), Reserved::OURS);
    session.set_wanting(true);
    say(&mut session, at(0), &Message::HaveAll).unwrap();
    say(&mut session, at(0), &Message::Unchoke).unwrap();
    let block = geometry().block_at(0);
    session.want(at(0), block, 3);
    assert!(heard(&mut session).contains(&Message::Request(block)));
    let piece = Message::Piece {
        piece: block.piece,
        begin: block.begin,
        data: content(block),
    };
    say(&mut session, at(1), &piece).unwrap();
    let came = |session: &mut Session| {
        let blocks = events(session).into_iter();
        blocks
            .filter(|event| matches!(event, Event::Block { .. }))
            .count()
    };
    assert_eq!(came(&mut session), 1);
    // It is not handed out again, and whoever goes on with it is let go.
    let mut again = 0;
    while say(&mut session, at(2), &piece).is_ok() {
        assert_eq!(came(&mut session), 0);
        again += 1;
        assert!(again < 1000, "for ever");
    }
    assert!(again > 0, "once in a while it is no fault");
}

#[test]
fn who_has_everything_now_says_that_it_wants_nothing_more() {
    let mut pair = Pair::new(config(1, bitmap([0])), config(2, bitmap([1])));
    pair.talk();
    assert!(!pair.b.extended().upload_only);
    pair.a.have_all_of(&bitmap(0..3));
    pair.talk();
    assert!(!pair.b.extended().upload_only, "not all of it yet");
    pair.a.have_all_of(&all());
    pair.talk();
    assert!(pair.b.extended().upload_only);
    // The rest of what was said still holds, and it is said once.
    assert_eq!(pair.b.extended().extensions, pair.a.extended().extensions);
    pair.a.have_all_of(&all());
    assert!(pair.a.outbox().take().is_empty());
}
