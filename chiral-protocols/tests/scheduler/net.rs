//! A discrete-event network in virtual time, driving one scheduler.
//!
//! Each peer serves its requests one after the other in order, like HTTP keep-alive, in pieces
//! of 10 ms, at most 2 MiB; slow ones of up to 200 ms. A message takes half a round trip. Cutting
//! short a request that is being served costs the peer `cut_cost` round trips, like a new connection.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};
use chiral_protocols::scheduler::{
    Action, Order, RequestId, Scheduler, SchedulerConfig, SourceId, SourceSpec,
};

use crate::peer::Peer;
use crate::rng::Rng;

/// Window of a download that verifies backwards: 64 chunks.
pub(crate) const WINDOW: u64 = 64 * 262_144;

#[derive(Clone, Debug)]
enum Event {
    Up(usize),
    Down(usize),
    Asked(usize, RequestId, ByteRange),
    Cut(usize, RequestId, u64),
    Sent(usize, u64),
    Arrived(usize, RequestId, ByteRange, bool),
    Reopened(usize),
    Tick,
}

#[derive(Debug, Default)]
struct Server {
    up: bool,
    queue: VecDeque<(RequestId, ByteRange)>,
    /// The piece on the wire, since when, and its number.
    piece: Option<(ByteRange, f64)>,
    number: u64,
    /// Whether the request in service was cut short.
    cut: bool,
    reopening: bool,
    /// When the last piece that it sent arrives: what is sent again holds up what follows.
    arrives: f64,
}

/// How one run went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Seconds until the last byte arrived.
    pub(crate) time: f64,
    /// Bytes that peers sent, over the size of the file.
    pub(crate) wire: f64,
    /// The part of these that was lost because its peer vanished.
    pub(crate) lost: f64,
    /// The part of these that arrived although it had arrived before.
    pub(crate) again: f64,
    pub(crate) requests: u64,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Net<'a> {
    peers: &'a [Peer],
    servers: Vec<Server>,
    scheduler: Scheduler,
    owners: Vec<usize>,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    log: Vec<Event>,
    now: u64,
    tick_at: Option<u64>,
    size: u64,
    got: RangeSet,
    wire: f64,
    lost: f64,
    again: f64,
    luck: Rng,
    cut_cost: f64,
    backward: bool,
    dirty: bool,
}

const NANOS: f64 = 1e9;

impl<'a> Net<'a> {
    pub(crate) fn new(peers: &'a [Peer], size: u64, cut_cost: f64) -> Self {
        let mut scheduler = Scheduler::new(SchedulerConfig::default(), size);
        scheduler.want(ByteRange::new(0, size));
        Self {
            peers,
            servers: peers.iter().map(|_| Server::default()).collect(),
            scheduler,
            owners: Vec::new(),
            events: BinaryHeap::new(),
            log: Vec::new(),
            now: 0,
            tick_at: None,
            size,
            got: RangeSet::new(),
            wire: 0.0,
            lost: 0.0,
            again: 0.0,
            luck: Rng::new(size),
            cut_cost,
            backward: false,
            dirty: false,
        }
    }

    /// From the end, in a window that follows the proven part.
    pub(crate) fn backward(mut self) -> Self {
        self.backward = true;
        self.scheduler.set_order(Order::Backward);
        self.slide();
        self
    }

    pub(crate) fn run(mut self) -> Outcome {
        for index in 0..self.peers.len() {
            self.push(self.peers[index].up_at, Event::Up(index));
            self.push(self.peers[index].down_at, Event::Down(index));
        }
        while !self.scheduler.is_complete() {
            let Some(Reverse((at, _, index))) = self.events.pop() else {
                panic!(
                    "stuck, missing {:?} at {}",
                    self.scheduler.missing(),
                    self.now
                );
            };
            self.now = at;
            assert!(self.log.len() < 4_000_000, "too many events");
            let event = self.log[index].clone();
            self.dirty |= self.handle(event);
            // What happens at once is reported before the scheduler decides.
            let more = self
                .events
                .peek()
                .is_some_and(|Reverse((next, _, _))| *next == at);
            if self.dirty && !more {
                self.dirty = false;
                self.drain();
            }
        }
        assert_eq!(self.got.len(), self.size, "complete without all bytes");
        Outcome {
            time: self.seconds(),
            wire: self.wire / self.size as f64,
            lost: self.lost / self.size as f64,
            again: self.again / self.size as f64,
            requests: self.owners.len() as u64,
        }
    }

    fn seconds(&self) -> f64 {
        self.now as f64 / NANOS
    }

    fn push(&mut self, at: f64, event: Event) {
        if at.is_finite() && at < 1e9 {
            let at = ((at * NANOS).ceil() as u64).max(self.now);
            self.events
                .push(Reverse((at, self.log.len() as u64, self.log.len())));
            self.log.push(event);
        }
    }

    /// Returns whether the scheduler learnt something.
    fn handle(&mut self, event: Event) -> bool {
        let now = Duration::from_nanos(self.now);
        match event {
            Event::Up(index) => {
                let peer = &self.peers[index];
                self.servers[index].up = true;
                let mut spec = SourceSpec::complete(peer.depth).with_grid(peer.grid);
                if let Some(coverage) = &peer.coverage {
                    spec = spec.with_coverage(coverage.clone());
                }
                self.scheduler.source_up(now, SourceId(index as u32), spec);
            }
            Event::Down(index) => {
                let before = self.wire;
                self.abort_piece(index);
                self.lost += self.wire - before;
                self.servers[index] = Server::default();
                self.scheduler.source_down(now, SourceId(index as u32));
            }
            Event::Asked(index, request, range) => {
                if self.servers[index].up {
                    self.servers[index].queue.push_back((request, range));
                    self.serve(index);
                }
                return false;
            }
            Event::Cut(index, request, end) => {
                self.cut(index, request, end);
                return false;
            }
            Event::Sent(index, number) => {
                self.sent(index, number);
                return false;
            }
            Event::Reopened(index) => {
                self.servers[index].reopening = false;
                self.serve(index);
                return false;
            }
            Event::Arrived(index, request, range, last) => {
                if !self.servers[index].up {
                    self.lost += range.len() as f64;
                    return false;
                }
                let missing = self.scheduler.missing().len();
                let fresh = self.scheduler.arrived(now, request, range);
                assert_eq!(missing - fresh, self.scheduler.missing().len());
                self.again += (range.len() - fresh) as f64;
                if fresh > 0 {
                    assert!(self.got.insert(range) >= fresh);
                }
                if last {
                    self.scheduler.completed(now, request);
                }
                if self.backward {
                    self.slide();
                }
            }
            Event::Tick => {
                self.tick_at = None;
                self.scheduler.tick(now);
            }
        }
        true
    }

    fn slide(&mut self) {
        let proven = self
            .scheduler
            .missing()
            .prev_run(u64::MAX)
            .map_or(0, |run| run.end);
        let proven = proven.div_ceil(262_144) * 262_144;
        self.scheduler
            .set_window(ByteRange::new(proven.saturating_sub(WINDOW), proven));
    }

    fn drain(&mut self) {
        let now = Duration::from_nanos(self.now);
        let half = |peer: &Peer| peer.latency / 2.0;
        let mut actions = 0;
        while let Some(action) = self.scheduler.poll(now) {
            actions += 1;
            assert!(actions < 20_000, "poll does not end: {action:?}");
            match action {
                Action::Assign {
                    request,
                    source,
                    range,
                } => {
                    let index = source.0 as usize;
                    assert_eq!(request.0, self.owners.len() as u64);
                    self.owners.push(index);
                    let peer = &self.peers[index];
                    assert!(peer.covers(range) && !range.is_empty());
                    assert_eq!(peer.grid.expand(range, self.size), range);
                    self.push(
                        self.seconds() + half(peer),
                        Event::Asked(index, request, range),
                    );
                }
                Action::Cancel { request } => self.tell(request, 0),
                Action::Truncate { request, end } => self.tell(request, end),
                Action::Demote { .. } | Action::Ban { .. } => {}
            }
        }
        if let Some(deadline) = self.scheduler.next_deadline() {
            let at = (deadline.as_nanos() as u64).max(self.now + 1);
            if self.tick_at.is_none_or(|tick| at < tick) {
                self.tick_at = Some(at);
                self.push(at as f64 / NANOS, Event::Tick);
            }
        }
    }

    fn tell(&mut self, request: RequestId, end: u64) {
        let index = self.owners[request.0 as usize];
        let at = self.seconds() + self.peers[index].latency / 2.0;
        self.push(at, Event::Cut(index, request, end));
    }

    /// Begins the next piece, if the peer is free.
    fn serve(&mut self, index: usize) {
        let (now, peer) = (self.seconds(), &self.peers[index]);
        let server = &mut self.servers[index];
        if !server.up || server.reopening || server.piece.is_some() {
            return;
        }
        let Some((_, range)) = server.queue.front() else {
            return;
        };
        // What arrives in 10 ms, or, if that is little, 16 KiB or what arrives in 200 ms.
        let [short, long] = [0.01, 0.2].map(|time| peer.sends(now, now + time) as u64);
        let length = short.clamp(long.clamp(1460, 16 << 10), 2 << 20);
        let piece = ByteRange::new(range.start, range.end.min(range.start + length));
        server.piece = Some((piece, now));
        server.number += 1;
        let number = server.number;
        self.push(
            peer.sent_at(now, piece.len() as f64),
            Event::Sent(index, number),
        );
    }

    fn sent(&mut self, index: usize, number: u64) {
        let now = self.seconds();
        let peer = &self.peers[index];
        let mut arrives = now + peer.latency / 2.0;
        let server = &mut self.servers[index];
        if server.number != number {
            return;
        }
        if peer.loss > 0.0 && self.luck.chance(peer.loss) {
            // Noticed by what comes behind it, or, seldom, by a timeout.
            let timeout = if self.luck.chance(0.1) { 0.2 } else { 0.0 };
            arrives += peer.latency + timeout;
        }
        arrives = arrives.max(server.arrives);
        server.arrives = arrives;
        let Some((piece, _)) = server.piece.take() else {
            return;
        };
        let Some((request, range)) = server.queue.front_mut() else {
            return;
        };
        range.start = piece.end;
        let (request, last) = (*request, range.is_empty());
        self.wire += piece.len() as f64;
        if last {
            server.queue.pop_front();
        }
        let reopen = last && std::mem::take(&mut server.cut);
        self.push(arrives, Event::Arrived(index, request, piece, last));
        if reopen {
            self.reopen(index);
        } else {
            self.serve(index);
        }
    }

    /// The peer learns that only what is before `end` of a request is wanted.
    fn cut(&mut self, index: usize, request: RequestId, end: u64) {
        let now = self.seconds();
        let server = &mut self.servers[index];
        let Some(place) = server
            .queue
            .iter()
            .position(|(queued, _)| *queued == request)
        else {
            return;
        };
        let range = &mut server.queue[place].1;
        range.end = range.end.min(end.max(range.start));
        let (range, serving) = (*range, place == 0 && server.piece.is_some());
        if !serving {
            if range.is_empty() {
                server.queue.remove(place);
            }
            return;
        }
        server.cut = true;
        if range.is_empty() {
            self.abort_piece(index);
            self.servers[index].queue.pop_front();
            self.reopen(index);
            return;
        }
        if let Some((piece, since)) = &mut server.piece
            && piece.end > range.end
        {
            piece.end = range.end;
            server.number += 1;
            let number = server.number;
            let done = self.peers[index]
                .sent_at(*since, piece.len() as f64)
                .max(now);
            self.push(done, Event::Sent(index, number));
        }
    }

    /// Drops the piece on the wire; what was sent of it is wasted.
    fn abort_piece(&mut self, index: usize) {
        let now = self.seconds();
        let server = &mut self.servers[index];
        server.cut = false;
        server.number += 1;
        if let Some((piece, since)) = server.piece.take() {
            self.wire += self.peers[index].sends(since, now).min(piece.len() as f64);
        }
    }

    fn reopen(&mut self, index: usize) {
        self.servers[index].reopening = true;
        let at = self.seconds() + self.cut_cost * self.peers[index].latency;
        self.push(at, Event::Reopened(index));
    }
}
