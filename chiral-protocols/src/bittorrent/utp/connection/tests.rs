//! Two ends and a network between them, under a clock of its own.

use std::collections::BTreeMap;

use super::*;
use crate::bittorrent::random::Random;

/// A network: what it does to datagrams.
#[derive(Clone, Copy)]
struct Way {
    /// Of a thousand, how many are lost, and how many come twice.
    lost: usize,
    twice: usize,
    delay: Duration,
    /// By chance up to so much more: they overtake each other.
    jitter: Duration,
    /// Bytes in a second that go through, queued before; none for no limit.
    rate: Option<u64>,
}

const PLAIN: Way = Way {
    lost: 0,
    twice: 0,
    delay: Duration::from_millis(20),
    jitter: Duration::ZERO,
    rate: None,
};

struct Pair {
    now: Instant,
    ends: [Option<Connection>; 2],
    /// When, a number by which none is equal, to whom, what.
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    free_at: [Instant; 2],
    random: Random,
    way: Way,
    sent: u64,
    longest_queue: Duration,
}

impl Pair {
    fn new(way: Way) -> Self {
        let now = Instant::now();
        let epoch = now - Duration::from_secs(5000);
        Self {
            now,
            ends: [Some(Connection::connect(65_535, epoch, now)), None],
            under_way: BTreeMap::new(),
            free_at: [now; 2],
            random: Random::from_seed([6; 32]),
            way,
            sent: 0,
            longest_queue: Duration::ZERO,
        }
    }

    fn end(&mut self, which: usize) -> &mut Connection {
        self.ends[which].as_mut().unwrap()
    }

    fn flush(&mut self) {
        for which in 0..2 {
            while let Some(end) = &mut self.ends[which]
                && let Some(bytes) = end.poll_transmit(self.now)
            {
                self.sent += 1;
                let copies = 1 + usize::from(self.random.below(1000) < self.way.twice);
                for _ in 0..copies {
                    if self.random.below(1000) < self.way.lost {
                        continue;
                    }
                    let micros = self.way.jitter.as_micros() as usize;
                    let more = Duration::from_micros(self.random.below(micros + 1) as u64);
                    let mut at = self.now;
                    if let Some(rate) = self.way.rate {
                        let start = self.free_at[which].max(at);
                        let queued = start - at;
                        if queued > Duration::from_millis(800) {
                            continue;
                        }
                        self.longest_queue = self.longest_queue.max(queued);
                        let took = bytes.len() as u64 * 1_000_000 / rate;
                        at = start + Duration::from_micros(took);
                        self.free_at[which] = at;
                    }
                    let key = (at + self.way.delay + more, self.sent * 2 + copies as u64);
                    self.under_way.insert(key, (1 - which, bytes.clone()));
                }
            }
        }
    }

    /// One step of time; `false` if nothing is left to happen.
    fn step(&mut self) -> bool {
        self.flush();
        let arrives = self.under_way.keys().next().map(|(at, _)| *at);
        let due = self
            .ends
            .iter()
            .flatten()
            .filter_map(Connection::poll_timeout);
        let Some(next) = due.chain(arrives).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, bytes) = entry.remove();
            let packet = Packet::decode(&bytes.into()).unwrap();
            match &mut self.ends[to] {
                Some(end) => end.handle(packet, self.now),
                None if packet.kind == Kind::Syn => {
                    // Another clock.
                    let epoch = self.now - Duration::from_secs(7);
                    let end = Connection::accept(&packet, 65_530, epoch, self.now);
                    self.ends[to] = Some(end);
                }
                None => {}
            }
        }
        for end in self.ends.iter_mut().flatten() {
            end.handle_timeout(self.now);
        }
        true
    }

    /// Sends so many bytes each way, and ends. What came out, and how long it took.
    fn exchange(&mut self, bytes: [usize; 2]) -> ([Vec<u8>; 2], Duration) {
        let start = self.now;
        let data = bytes.map(|len| -> Vec<u8> { (0..len).map(|n| (n * 7 % 251) as u8).collect() });
        let mut written = [0; 2];
        let mut got = [Vec::new(), Vec::new()];
        let limit = start + Duration::from_secs(3600);
        loop {
            for which in 0..2 {
                let Some(end) = &mut self.ends[which] else {
                    continue;
                };
                written[which] += end.write(&data[which][written[which]..]);
                if written[which] == data[which].len() {
                    end.finish();
                }
                end.read(usize::MAX, |part| got[which].extend_from_slice(part));
            }
            if self
                .ends
                .iter()
                .all(|end| end.as_ref().is_some_and(|end| end.ended().is_some()))
            {
                break;
            }
            assert!(self.step() && self.now < limit, "stuck: {:?}", self.ends);
        }
        for (which, got) in got.iter().enumerate() {
            assert!(
                *got == data[1 - which],
                "{} of {}",
                got.len(),
                data[1 - which].len()
            );
            assert_eq!(self.end(which).ended(), Some(Ended::Closed));
        }
        (got, self.now - start)
    }
}

#[test]
fn both_sides_say_all_and_end() {
    let (_, took) = Pair::new(PLAIN).exchange([3_000_000, 5_000]);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (_, took) = Pair::new(PLAIN).exchange([0, 0]);
    assert!(took < Duration::from_millis(200), "{took:?}");
}

#[test]
fn losses_doubles_and_disorder_change_nothing() {
    for (lost, twice, jitter) in [(10, 0, 0), (50, 50, 30), (200, 100, 5)] {
        let jitter = Duration::from_millis(jitter);
        let way = Way {
            lost,
            twice,
            jitter,
            ..PLAIN
        };
        let mut pair = Pair::new(way);
        pair.exchange([400_000, 300_000]);
        // Not everything is sent again and again.
        let least = 700_000 / crate::bittorrent::utp::PAYLOAD as u64;
        assert!(pair.sent < 8 * least, "{} of {least}", pair.sent);
    }
}

#[test]
fn a_narrow_way_is_used_and_its_queue_kept_short() {
    let way = Way {
        rate: Some(250_000),
        ..PLAIN
    };
    let mut pair = Pair::new(way);
    let (_, took) = pair.exchange([5_000_000, 0]);
    // 20 seconds are the least; others on the way are to wait 100 ms for us, not 800.
    assert!(took < Duration::from_secs(26), "{took:?}");
    assert!(
        pair.longest_queue < Duration::from_millis(300),
        "{:?}",
        pair.longest_queue
    );
}

#[test]
fn a_reader_that_sleeps_stops_the_writer_and_wakes_it() {
    let mut pair = Pair::new(PLAIN);
    let chunk = [5; 4096];
    let mut written = 0;
    let until = pair.now + Duration::from_secs(600);
    while pair.now < until && pair.step() {
        written += pair.end(0).write(&chunk);
    }
    let most = RECEIVE_BUFFER + crate::bittorrent::utp::SEND_BUFFER;
    assert!(
        written <= most + 4096 && written > RECEIVE_BUFFER,
        "{written}"
    );
    assert!(pair.end(0).ended().is_none() && pair.end(1).ended().is_none());
    let mut read = 0;
    pair.end(0).finish();
    while !pair.end(1).is_at_end() || pair.end(1).is_readable() && read < written {
        read += pair.end(1).read(usize::MAX, |_| {});
        assert!(pair.step());
    }
    assert_eq!(read, written);
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    let mut pair = Pair::new(Way {
        lost: 1000,
        ..PLAIN
    });
    while pair.step() {}
    assert_eq!(pair.end(0).ended(), Some(Ended::TimedOut));
    assert!(pair.sent <= u64::from(SYN_TRIES));
    let mut pair = Pair::new(PLAIN);
    for _ in 0..10 {
        pair.step();
    }
    assert!(pair.end(0).is_connected());
    pair.way.lost = 1000;
    pair.end(0).write(&[1; 10_000]);
    let start = pair.now;
    while pair.end(0).ended().is_none() {
        assert!(pair.step());
    }
    assert_eq!(pair.end(0).ended(), Some(Ended::TimedOut));
    assert!(pair.now - start < Duration::from_secs(180));
}

#[test]
fn a_reset_ends_and_a_lost_answer_is_repeated() {
    let mut pair = Pair::new(PLAIN);
    for _ in 0..10 {
        pair.step();
    }
    let packet = Packet {
        kind: Kind::Reset,
        connection: 65_535,
        timestamp: 0,
        delay: 0,
        window: 0,
        sequence: 0,
        acknowledged: 0,
        selective: Vec::new(),
        payload: bytes::Bytes::new(),
    };
    let now = pair.now;
    pair.end(0).handle(packet.clone(), now);
    assert_eq!(pair.end(0).ended(), Some(Ended::Reset));
    assert_eq!(pair.end(0).write(b"x"), 0);
    // An acknowledgement of what was never sent is not believed.
    let forged = Packet {
        kind: Kind::Data,
        acknowledged: 9,
        sequence: 2,
        payload: bytes::Bytes::from_static(b"evil"),
        ..packet.clone()
    };
    pair.end(1).handle(forged, now);
    assert!(!pair.end(1).is_readable());
    // The same answer as before, even after something was said.
    pair.end(1).write(b"x");
    while pair.end(1).poll_transmit(now).is_some() {}
    let syn = Packet {
        kind: Kind::Syn,
        ..packet
    };
    pair.end(1).handle(syn, now);
    let answer = pair.end(1).poll_transmit(now).unwrap();
    assert_eq!(
        (answer[0], &answer[16..18]),
        (0x21, &65_530_u16.to_be_bytes()[..])
    );
}

#[test]
fn who_lets_go_is_still_delivered() {
    let mut pair = Pair::new(PLAIN);
    for _ in 0..10 {
        pair.step();
    }
    let now = pair.now;
    assert_eq!(pair.end(0).write(&[9; 100_000]), 100_000);
    pair.end(0).let_go(now);
    let mut read = 0;
    while pair.end(0).ended().is_none() {
        read += pair.end(1).read(usize::MAX, |_| {});
        assert!(pair.step());
    }
    read += pair.end(1).read(usize::MAX, |_| {});
    assert_eq!(read, 100_000);
    assert!(pair.end(1).is_at_end());
    // What the other still sends then, nobody takes.
    let mut pair = Pair::new(PLAIN);
    for _ in 0..10 {
        pair.step();
    }
    let now = pair.now;
    pair.end(0).let_go(now);
    pair.end(1).write(&[9; 100_000]);
    while pair.end(1).ended().is_none() {
        assert!(pair.step());
    }
    assert!(pair.now - now < Duration::from_secs(1));
}

#[test]
fn silence_is_broken_now_and_then() {
    let mut pair = Pair::new(PLAIN);
    for _ in 0..10 {
        pair.step();
    }
    let (start, before) = (pair.now, pair.sent);
    while pair.now - start < Duration::from_secs(300) {
        assert!(pair.step());
    }
    let said = pair.sent - before;
    assert!((10..50).contains(&said), "{said}");
    assert!(pair.end(0).is_connected() && pair.end(1).is_connected());
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_packets_panic_or_fill_memory(
            packets in proptest::collection::vec(
                (0_u8..5, any::<(u16, u32, u32, u16, u16)>(), proptest::collection::vec(any::<u8>(), 0..64), 0_usize..2000, any::<bool>()),
                0..60,
            ),
        ) {
            let mut pair = Pair::new(PLAIN);
            for _ in 0..10 {
                pair.step();
            }
            pair.end(1).write(&[3; 20_000]);
            pair.flush();
            let mut now = pair.now;
            for (kind, n, selective, len, near) in packets {
                let kind = [Kind::Data, Kind::Fin, Kind::State, Kind::Data, Kind::Syn][usize::from(kind)];
                let end = pair.end(1);
                let packet = Packet {
                    kind,
                    connection: 0,
                    timestamp: n.1,
                    delay: n.2,
                    window: n.1,
                    sequence: if near { n.3 % 30 } else { n.3 },
                    acknowledged: if near { 65_529_u16.wrapping_add(n.4 % 15) } else { n.4 },
                    selective,
                    payload: vec![0; len].into(),
                };
                end.handle(packet, now);
                now += Duration::from_millis(u64::from(n.4 % 700));
                end.handle_timeout(now);
                while end.poll_transmit(now).is_some() {}
                prop_assert!(end.receiver.window() <= RECEIVE_BUFFER);
            }
        }
    }
}
