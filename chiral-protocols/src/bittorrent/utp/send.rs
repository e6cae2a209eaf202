//! [`Sender`]: what is under way, what has to be sent again, what waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::ledbat::{Ledbat, MIN_WINDOW};
use super::packet::ahead;
use super::rtt::Rtt;
use super::{PAYLOAD, SEND_BUFFER};

/// Most packets under way: fewer than can be acknowledged selectively.
const MAX_PACKETS: usize = 1000;
/// Packets behind one that have arrived before that one is taken for lost.
const REORDERING: usize = 3;

#[derive(Debug)]
struct Sent {
    sequence: u16,
    payload: Bytes,
    last: bool,
    at: Instant,
    times: u32,
    arrived: bool,
    /// To be sent again.
    lost: bool,
}

/// A packet to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) sequence: u16,
    pub(super) payload: Bytes,
    pub(super) last: bool,
}

#[derive(Debug)]
pub(super) struct Sender {
    next: u16,
    /// In order, the oldest that has not arrived first.
    sent: VecDeque<Sent>,
    /// Bytes of them that are under way.
    flight: usize,
    waiting: BytesMut,
    ending: bool,
    end_sent: bool,
    ledbat: Ledbat,
    rtt: Rtt,
    peer_window: usize,
    /// When the oldest packet is taken for lost.
    due: Option<Instant>,
    /// Until this number has arrived, losses are the same one.
    recovering: Option<u16>,
    duplicates: usize,
}

impl Sender {
    pub(super) fn new(next: u16, now: Instant) -> Self {
        Self {
            next,
            sent: VecDeque::new(),
            flight: 0,
            waiting: BytesMut::new(),
            ending: false,
            end_sent: false,
            ledbat: Ledbat::new(now),
            rtt: Rtt::default(),
            peer_window: RECEIVE_GUESS,
            due: None,
            recovering: None,
            duplicates: 0,
        }
    }

    /// The number of the next new packet.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    pub(super) fn room(&self) -> usize {
        match self.ending {
            true => 0,
            false => SEND_BUFFER.saturating_sub(self.waiting.len()),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let part = bytes.len().min(self.room());
        self.waiting.extend_from_slice(&bytes[..part]);
        part
    }

    /// Nothing more will be written.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether everything has arrived, the end too if it was told.
    pub(super) fn is_done(&self) -> bool {
        self.is_flushed() && self.end_sent
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.sent.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a number that the peer acknowledges is one that it can have got.
    pub(super) fn is_plausible(&self, acknowledged: u16) -> bool {
        let oldest = self.sent.front().map_or(self.next, |sent| sent.sequence);
        // One or a few round trips old acknowledgements are late, not wrong.
        let back = ahead(acknowledged, oldest.wrapping_sub(1));
        ahead(acknowledged, self.next) < 0 && back >= -(MAX_PACKETS as i16)
    }

    /// The peer has everything up to a number, and some after it. `carries` is whether the
    /// packet that says so has data: then it repeats itself without meaning it.
    pub(super) fn acknowledged(
        &mut self,
        acknowledged: u16,
        selective: &[u8],
        window: u32,
        delay: u32,
        carries: bool,
        now: Instant,
    ) {
        self.peer_window = window as usize;
        if self.peer_window < PAYLOAD {
            // It is there, and has no room: that is no reason to give it up.
            self.rtt.calm();
        }
        let was_full = self.flight + PAYLOAD >= self.ledbat.window();
        let mut arrived = 0;
        let before = self.sent.len();
        while let Some(oldest) = self.sent.front()
            && ahead(oldest.sequence, acknowledged) <= 0
        {
            arrived += self.arrive(0, now);
            self.sent.pop_front();
        }
        let advanced = self.sent.len() < before;
        let mut behind = 0;
        let first = acknowledged.wrapping_add(2);
        for at in 0..self.sent.len() {
            let bit = usize::try_from(ahead(self.sent[at].sequence, first));
            let is_set = bit.is_ok_and(|bit| {
                let byte = selective.get(bit / 8);
                byte.is_some_and(|byte| byte & 1 << (bit % 8) != 0)
            });
            if is_set {
                behind += 1;
                arrived += self.arrive(at, now);
            }
        }
        if advanced {
            self.duplicates = 0;
        } else if !carries && !self.sent.is_empty() && selective.is_empty() {
            self.duplicates += 1;
        }
        if arrived > 0 || advanced {
            self.rtt.calm();
            self.ledbat.acknowledged(arrived, delay, was_full, now);
            self.due = (!self.sent.is_empty()).then(|| now + self.rtt.wait());
        }
        if self
            .recovering
            .is_some_and(|until| ahead(acknowledged, until) >= 0)
        {
            self.recovering = None;
        }
        if self.duplicates >= REORDERING {
            self.duplicates = 0;
            self.lose_first(1);
        } else if behind >= REORDERING {
            self.lose_before(behind);
        }
    }

    /// Marks a packet as arrived. How many bytes that is news of.
    fn arrive(&mut self, at: usize, now: Instant) -> usize {
        let sent = &mut self.sent[at];
        if sent.arrived {
            return 0;
        }
        sent.arrived = true;
        if !sent.lost {
            self.flight -= sent.payload.len();
        }
        sent.lost = false;
        if sent.times == 1 {
            self.rtt.measure(now.saturating_duration_since(sent.at));
        }
        sent.payload.len()
    }

    /// Packets that enough have overtaken are lost, unless they were sent again just now.
    fn lose_before(&mut self, behind: usize) {
        let mut left = behind;
        let mut count = 0;
        for sent in &self.sent {
            if left < REORDERING {
                break;
            }
            if sent.arrived {
                left -= 1;
            } else {
                count += 1;
            }
        }
        self.lose_first(count);
    }

    /// The oldest so many that have not arrived are lost.
    fn lose_first(&mut self, count: usize) {
        let mut any = false;
        let missing = self.sent.iter_mut().filter(|sent| !sent.arrived);
        for sent in missing.take(count) {
            // What was sent again is waited for as long as anything: by the clock.
            if sent.lost || sent.times > 1 {
                continue;
            }
            sent.lost = true;
            self.flight -= sent.payload.len();
            any = true;
        }
        if any && self.recovering.is_none() {
            self.recovering = Some(self.next.wrapping_sub(1));
            self.ledbat.lost();
        }
    }

    /// Nothing was acknowledged in time. How often in a row.
    pub(super) fn expired(&mut self, now: Instant) -> u32 {
        let times = self.rtt.expired();
        self.ledbat.timed_out();
        self.recovering = None;
        self.duplicates = 0;
        for sent in self.sent.iter_mut().filter(|sent| !sent.arrived) {
            sent.lost = true;
        }
        self.flight = 0;
        self.due = Some(now + self.rtt.wait());
        times
    }

    /// The next packet to be sent, if one may be.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        let window = self.ledbat.window().min(self.peer_window.max(PAYLOAD));
        let idle = self.flight == 0;
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.lost) {
            if !idle && self.flight + sent.payload.len() > window.max(MIN_WINDOW) {
                return None;
            }
            sent.lost = false;
            sent.times += 1;
            sent.at = now;
            self.flight += sent.payload.len();
            let outgoing = Outgoing {
                sequence: sent.sequence,
                payload: sent.payload.clone(),
                last: sent.last,
            };
            self.due = self.due.or(Some(now + self.rtt.wait()));
            return Some(outgoing);
        }
        let part = self.waiting.len().min(PAYLOAD);
        let last = part == 0 && self.ending && !self.end_sent;
        // Where the peer has no room, a packet at a time asks whether it has again.
        let blocked = self.peer_window < part && !self.sent.is_empty();
        let full = self.flight + part > window || self.sent.len() >= MAX_PACKETS;
        if (part == 0 && !last) || blocked || (full && !idle) {
            return None;
        }
        let payload = self.waiting.split_to(part).freeze();
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        self.end_sent |= last;
        self.flight += part;
        self.sent.push_back(Sent {
            sequence,
            payload: payload.clone(),
            last,
            at: now,
            times: 1,
            arrived: false,
            lost: false,
        });
        self.due = self.due.or(Some(now + self.rtt.wait()));
        Some(Outgoing {
            sequence,
            payload,
            last,
        })
    }

    /// How long an answer takes at most, for what is not counted here.
    pub(super) fn wait(&self) -> Duration {
        self.rtt.wait()
    }

    /// Counts one that did not come.
    pub(super) fn waited(&mut self) -> u32 {
        self.rtt.expired()
    }

    /// An answer to the first packet took so long.
    pub(super) fn measured(&mut self, sample: Duration) {
        self.rtt.measure(sample);
        self.rtt.calm();
    }
}

/// What the peer has room for, before it says.
const RECEIVE_GUESS: usize = 64 << 10;
