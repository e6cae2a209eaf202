//! [`Connection`]: one connection, without socket and clock.

use std::time::{Duration, Instant};

use super::RECEIVE_BUFFER;
use super::packet::{Kind, Packet};
use super::receive::Receiver;
use super::send::Sender;

/// How often the first packet is sent.
const SYN_TRIES: u32 = 4;
/// How often in a row nothing is acknowledged in time before the peer is given up.
const MAX_EXPIRED: u32 = 7;
/// After so long without a word, one is said: routers forget who is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(29);
/// How long what was written is still delivered once nobody holds the connection.
const LINGER: Duration = Duration::from_secs(20);

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Both sides have said all.
    Closed,
    /// The peer knows of no such connection.
    Reset,
    /// The peer does not answer.
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// We have asked.
    Asking,
    Connected,
    Ended(Ended),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    state: State,
    /// What packets to us, and from us, are marked with.
    ids: (u16, u16),
    /// The clock of timestamps begins here.
    epoch: Instant,
    sender: Sender,
    receiver: Receiver,
    /// How long the last packet was under way to us, of two clocks.
    delay: u32,
    acknowledge: bool,
    /// Of a connection that was asked for: the number of our first packet, and whether the
    /// asker has to hear it (again).
    first: u16,
    answer: bool,
    /// What the peer was last told that there is room for.
    told_window: usize,
    last_sent: Instant,
    syn: Option<Instant>,
    syn_due: Option<Instant>,
    let_go: Option<Instant>,
    reset: bool,
}

impl Connection {
    /// Asks for a connection. `id` and `epoch` are by chance, `id` free.
    #[must_use]
    pub fn connect(id: u16, epoch: Instant, now: Instant) -> Self {
        let mut connection = Self::new(State::Asking, (id, id.wrapping_add(1)), epoch, now);
        connection.syn_due = Some(now);
        connection
    }

    /// Takes a connection that somebody asks for. `first` is by chance.
    #[must_use]
    pub fn accept(syn: &Packet, first: u16, epoch: Instant, now: Instant) -> Self {
        let id = syn.connection;
        let mut connection = Self::new(State::Connected, (id.wrapping_add(1), id), epoch, now);
        connection.sender = Sender::new(first, now);
        connection.receiver = Receiver::new(syn.sequence);
        connection.delay = connection.clock(now).wrapping_sub(syn.timestamp);
        (connection.first, connection.answer) = (first, true);
        connection
    }

    fn new(state: State, ids: (u16, u16), epoch: Instant, now: Instant) -> Self {
        Self {
            state,
            ids,
            epoch,
            // The first packet has the number 1.
            sender: Sender::new(2, now),
            receiver: Receiver::new(0),
            delay: 0,
            acknowledge: false,
            first: 0,
            answer: false,
            told_window: RECEIVE_BUFFER,
            last_sent: now,
            syn: None,
            syn_due: None,
            let_go: None,
            reset: false,
        }
    }

    /// Whether the peer has answered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        match self.state {
            State::Ended(why) => Some(why),
            _ => None,
        }
    }

    /// Whether something can be read, the end too.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.receiver.is_readable()
    }

    /// Whether the peer has said all, and all was read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.receiver.is_at_end()
    }

    /// Hands what was received to `put`, at most `room` bytes. Returns how many.
    pub fn read(&mut self, room: usize, put: impl FnMut(&[u8])) -> usize {
        let read = self.receiver.read(room, put);
        // Whoever waits for room has to hear that there is some.
        let window = self.receiver.window();
        if self.told_window < RECEIVE_BUFFER / 4 && window >= RECEIVE_BUFFER / 2 {
            self.acknowledge = true;
        }
        read
    }

    /// Takes bytes to be sent. Returns how many there was room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Ended(_) => 0,
            _ => self.sender.write(bytes),
        }
    }

    /// Whether something can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.sender.room() > 0
    }

    /// Whether everything that was written has arrived.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.sender.is_flushed()
    }

    /// Whether the peer has got everything, and knows that nothing follows.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.sender.is_done()
    }

    /// Nothing more will be written.
    pub fn finish(&mut self) {
        self.sender.end();
    }

    /// Nobody reads any more, either. What was written is still delivered, for a while.
    pub fn let_go(&mut self, now: Instant) {
        self.sender.end();
        self.receiver.discard();
        self.let_go.get_or_insert(now);
        match self.state {
            State::Asking => self.state = State::Ended(Ended::Closed),
            State::Connected if self.sender.is_done() => self.end_if_done(),
            _ => {}
        }
    }

    /// Takes a packet that has come with our mark.
    pub fn handle(&mut self, packet: Packet, now: Instant) {
        if let State::Ended(_) = self.state {
            return;
        }
        if packet.kind == Kind::Reset {
            // Whoever has said all forgets the connection at once.
            let why = match self.receiver.is_at_end() {
                true => Ended::Closed,
                false => Ended::Reset,
            };
            self.state = State::Ended(why);
            return;
        }
        if packet.kind == Kind::Syn {
            // Our answer was lost.
            self.answer = self.state == State::Connected && packet.connection == self.ids.1;
            return;
        }
        if self.state == State::Asking {
            // Data that has overtaken the answer does not say where data begins.
            if packet.acknowledged != 1 || packet.kind != Kind::State {
                return;
            }
            if let Some(sent) = self.syn {
                self.sender.measured(now.saturating_duration_since(sent));
            }
            self.state = State::Connected;
            self.syn_due = None;
            self.receiver = Receiver::new(packet.sequence.wrapping_sub(1));
        }
        if !self.sender.is_plausible(packet.acknowledged) {
            return;
        }
        self.delay = self.clock(now).wrapping_sub(packet.timestamp);
        let carries = matches!(packet.kind, Kind::Data | Kind::Fin);
        self.sender.acknowledged(
            packet.acknowledged,
            &packet.selective,
            packet.window,
            packet.delay,
            carries,
            now,
        );
        if carries {
            if self.let_go.is_some() && !packet.payload.is_empty() {
                // Nobody will read it.
                self.reset = true;
                self.state = State::Ended(Ended::Closed);
                return;
            }
            let last = packet.kind == Kind::Fin;
            self.receiver.take(packet.sequence, packet.payload, last);
            self.acknowledge = true;
        }
        self.end_if_done();
    }

    fn end_if_done(&mut self) {
        let heard_all = self.receiver.is_at_end() || self.let_go.is_some();
        if self.sender.is_done() && heard_all && self.state == State::Connected {
            self.state = State::Ended(Ended::Closed);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Ended(_) = self.state {
            return;
        }
        if self.sender.due().is_some_and(|due| now >= due) && self.sender.expired(now) > MAX_EXPIRED
        {
            self.state = State::Ended(Ended::TimedOut);
        }
        if now.saturating_duration_since(self.last_sent) >= KEEP_ALIVE {
            self.acknowledge = true;
        }
        if self
            .let_go
            .is_some_and(|since| now.saturating_duration_since(since) >= LINGER)
        {
            self.reset = true;
            self.state = State::Ended(Ended::Closed);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and then take what is to be
    /// sent.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ended(_) => None,
            State::Asking => self.syn_due,
            State::Connected => {
                let alive = self.last_sent + KEEP_ALIVE;
                let linger = self.let_go.map(|since| since + LINGER);
                let times = [Some(alive), self.sender.due(), linger];
                times.into_iter().flatten().min()
            }
        }
    }

    /// A datagram to be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        match self.state {
            State::Asking => return self.ask(now),
            State::Ended(_) => {
                let kind = if std::mem::take(&mut self.reset) {
                    Kind::Reset
                } else if std::mem::take(&mut self.acknowledge) {
                    Kind::State
                } else {
                    return None;
                };
                return Some(self.packet(kind, now).encode());
            }
            State::Connected => {}
        }
        if std::mem::take(&mut self.answer) {
            let mut packet = self.packet(Kind::State, now);
            packet.sequence = self.first;
            self.last_sent = now;
            return Some(packet.encode());
        }
        let packet = match self.sender.poll(now) {
            Some(out) => {
                let kind = if out.last { Kind::Fin } else { Kind::Data };
                Packet {
                    sequence: out.sequence,
                    payload: out.payload,
                    ..self.packet(kind, now)
                }
            }
            None if self.acknowledge => self.packet(Kind::State, now),
            None => return None,
        };
        self.acknowledge = false;
        self.last_sent = now;
        Some(packet.encode())
    }

    fn ask(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.syn_due.is_none_or(|due| now < due) {
            return None;
        }
        if self.syn.is_some() && self.sender.waited() >= SYN_TRIES {
            self.state = State::Ended(Ended::TimedOut);
            return None;
        }
        self.syn = Some(now);
        self.syn_due = Some(now + self.sender.wait());
        let mut packet = self.packet(Kind::Syn, now);
        packet.connection = self.ids.0;
        packet.sequence = 1;
        Some(packet.encode())
    }

    fn packet(&mut self, kind: Kind, now: Instant) -> Packet {
        let window = self.receiver.window();
        self.told_window = window;
        Packet {
            kind,
            connection: self.ids.1,
            timestamp: self.clock(now),
            delay: self.delay,
            window: u32::try_from(window).unwrap_or(u32::MAX),
            sequence: self.sender.next(),
            acknowledged: self.receiver.acknowledged(),
            selective: self.receiver.selective(),
            payload: bytes::Bytes::new(),
        }
    }

    /// In microseconds, as far as they go.
    fn clock(&self, now: Instant) -> u32 {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        (micros & u128::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests;
