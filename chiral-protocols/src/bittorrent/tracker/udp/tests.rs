use proptest::prelude::*;

use super::*;

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: [1; 20],
        peer_id: [2; 20],
        port: 0x1234,
        uploaded: 3,
        downloaded: 4,
        left: 5,
        event: AnnounceEvent::Started,
        num_want: Some(50),
        key: 6,
        tracker_id: None,
    }
}

fn question() -> Question {
    Question::Announce {
        request: request(),
        request_string: "/announce?k=v".into(),
    }
}

fn begin(now: Instant) -> Exchange {
    Exchange::new(question(), 77, false, None, 3, now)
}

fn answer(action: u32, rest: &[u8]) -> Vec<u8> {
    [&action.to_be_bytes()[..], &77_u32.to_be_bytes(), rest].concat()
}

#[test]
fn a_question_goes_as_the_standard_has_it() {
    let now = Instant::now();
    let mut exchange = begin(now);
    let connect = exchange.poll_transmit().unwrap();
    assert_eq!(
        connect,
        [
            0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 77
        ]
    );
    assert!(
        exchange
            .handle_datagram(&answer(0, &9_u64.to_be_bytes()), now)
            .is_none()
    );
    let sent = exchange.poll_transmit().unwrap();
    assert_eq!(
        sent[..16],
        [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 77]
    );
    assert_eq!((&sent[16..36], &sent[36..56]), (&[1; 20][..], &[2; 20][..]));
    let numbers = [4_u64, 5, 3].map(u64::to_be_bytes).concat();
    assert_eq!(sent[56..80], numbers);
    let numbers = [2_u32, 0, 6, 50].map(u32::to_be_bytes).concat();
    assert_eq!(sent[80..96], numbers);
    assert_eq!(sent[96..98], [0x12, 0x34]);
    assert_eq!(sent[98..], *b"\x02\x0d/announce?k=v");
    let peers = [1800_u32, 3, 2].map(u32::to_be_bytes).concat();
    let peers = [&peers[..], &[1, 2, 3, 4, 0, 5, 9]].concat();
    let reply = exchange
        .handle_datagram(&answer(1, &peers), now)
        .unwrap()
        .unwrap();
    let Reply::Announce(reply) = reply else {
        panic!()
    };
    assert_eq!(reply.interval, Duration::from_secs(1800));
    assert_eq!((reply.leechers, reply.seeders), (Some(3), Some(2)));
    assert_eq!(reply.peers, ["1.2.3.4:5".parse().unwrap()]);
    // The next question needs no connection.
    let scrape = Question::Scrape(vec![[1; 20], [2; 20]]);
    let mut next = Exchange::new(scrape, 77, false, exchange.connection(), 3, now);
    let sent = next.poll_transmit().unwrap();
    assert_eq!((sent.len(), &sent[8..12]), (56, &[0, 0, 0, 2][..]));
    let entries = [1_u32, 2, 3, 4, 5, 6].map(u32::to_be_bytes).concat();
    let short = next.handle_datagram(&answer(2, &entries[..20]), now);
    assert!(matches!(short, Some(Err(TrackerError::Malformed(_)))));
    let reply = next
        .handle_datagram(&answer(2, &entries), now)
        .unwrap()
        .unwrap();
    let entry = |seeders, completed, leechers| ScrapeEntry {
        seeders,
        completed,
        leechers,
    };
    assert_eq!(reply, Reply::Scrape(vec![entry(1, 2, 3), entry(4, 5, 6)]));
}

#[test]
fn waits_double_and_a_connection_expires() {
    let start = Instant::now();
    let mut exchange = Exchange::new(question(), 77, false, None, 4, start);
    exchange.poll_transmit().unwrap();
    let mut now = start;
    assert!(
        exchange
            .handle_datagram(&answer(0, &9_u64.to_be_bytes()), now)
            .is_none()
    );
    let mut kinds = Vec::new();
    let mut waits = Vec::new();
    loop {
        if let Some(sent) = exchange.poll_transmit() {
            kinds.push(sent[11]);
        }
        let due = exchange.poll_timeout();
        waits.push((due - now).as_secs());
        now = due;
        match exchange.handle_timeout(now) {
            Ok(()) => {}
            Err(TrackerError::Timeout) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(waits, [15, 30, 60, 120]);
    // After 60 seconds the id is no more: another is asked for.
    assert_eq!(kinds, [1, 1, 1, 0]);
}

#[test]
fn what_does_not_belong_here_is_left_alone() {
    let now = Instant::now();
    let mut exchange = begin(now);
    let id = 9_u64.to_be_bytes();
    let mut other = answer(0, &id);
    other[7] ^= 1;
    assert!(exchange.handle_datagram(&other, now).is_none());
    assert!(
        exchange
            .handle_datagram(&answer(1, &[0; 12]), now)
            .is_none()
    );
    assert!(
        exchange
            .handle_datagram(&answer(0, &id[..7]), now)
            .is_none()
    );
    assert!(exchange.handle_datagram(&[0; 7], now).is_none());
    assert!(
        exchange
            .handle_datagram(&vec![0; MAX_DATAGRAM + 1], now)
            .is_none()
    );
    assert_eq!(exchange.connection(), None);
    assert!(exchange.handle_datagram(&answer(0, &id), now).is_none());
    assert!(exchange.connection().is_some());
    let short = exchange.handle_datagram(&answer(1, &[0; 11]), now);
    assert!(matches!(short, Some(Err(TrackerError::Malformed(_)))));
    let refusal = [&b"bad\n\x1b[31m"[..], &[b'x'; 5000]].concat();
    let Some(Err(TrackerError::Refused { reason, .. })) =
        exchange.handle_datagram(&answer(3, &refusal), now)
    else {
        panic!()
    };
    assert!(reason.starts_with("bad  [31m") && reason.len() == MAX_TEXT_LEN);
}

const MAX_TEXT_LEN: usize = super::super::MAX_TEXT;

#[test]
fn over_ipv6_peers_are_longer() {
    let now = Instant::now();
    let connection = Connection {
        id: 1,
        until: now + CONNECTION_LIFE,
    };
    let mut exchange = Exchange::new(question(), 77, true, Some(connection), 1, now);
    let rest = [&[0; 12][..], &[1; 18 * 2 + 5]].concat();
    let reply = exchange
        .handle_datagram(&answer(1, &rest), now)
        .unwrap()
        .unwrap();
    let Reply::Announce(reply) = reply else {
        panic!()
    };
    assert_eq!(reply.peers.len(), 2);
    assert!(reply.peers.iter().all(SocketAddr::is_ipv6));
}

#[test]
fn a_long_request_string_goes_in_parts() {
    let mut out = Vec::new();
    write_announce(&mut out, &request(), &"x".repeat(5000));
    let options = &out[out.len() - (MAX_REQUEST_STRING + 10)..];
    assert_eq!(options[..2], [2, 255]);
    assert_eq!(options[257..259], [2, 255]);
    assert_eq!(options[4 * 257..4 * 257 + 2], [2, 4]);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), actions in proptest::collection::vec(0_u32..5, 0..4)) {
        let now = Instant::now();
        for question in [question(), Question::Scrape(vec![[1; 20]])] {
            let mut exchange = Exchange::new(question, 77, false, None, 3, now);
            let _ = exchange.handle_datagram(&bytes, now);
            for action in &actions {
                let _ = exchange.handle_datagram(&answer(*action, &bytes), now);
            }
        }
    }
}
