//! UDP trackers (BEP 15), without socket and clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{
    AnnounceAnswer, AnnounceEvent, AnnounceRequest, MAX_PEERS, MAX_SCRAPE, Retry, ScrapeEntry,
    TrackerError, text,
};
use crate::bittorrent::compact;

/// What every tracker takes for the beginning of a connection.
const MAGIC: u64 = 0x0417_2710_1980;
/// How long a connection id may be used.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// First wait for an answer; each further one is twice as long.
pub const FIRST_WAIT: Duration = Duration::from_secs(15);
/// Longest datagram that is read.
pub const MAX_DATAGRAM: usize = 20 + MAX_PEERS * compact::V6;
/// Longest request string, path and query of the tracker's URL (BEP 41).
pub const MAX_REQUEST_STRING: usize = 1024;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// What a tracker is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// To know of us, and tell us of others.
    Announce {
        /// What it is told.
        request: AnnounceRequest,
        /// Path and query of its URL (BEP 41); may be empty.
        request_string: String,
    },
    /// What it knows of torrents, at most [`MAX_SCRAPE`].
    Scrape(Vec<[u8; 20]>),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To an announcement.
    Announce(AnnounceAnswer),
    /// To a scrape, in the order of the question.
    Scrape(Vec<ScrapeEntry>),
}

/// A connection id, and how long it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The tracker's id for us.
    pub id: u64,
    /// Until when.
    pub until: Instant,
}

/// One question to one tracker.
#[derive(Debug)]
pub struct Exchange {
    question: Question,
    transaction: u32,
    v6: bool,
    connection: Option<Connection>,
    /// Whether the connection was only waited for; else the answer.
    connecting: bool,
    due: Instant,
    wait: Duration,
    tries_left: u32,
    out: Option<Vec<u8>>,
}

impl Exchange {
    /// Begins to ask. `connection` is one that an earlier question to the same tracker gave,
    /// `transaction` unpredictable, `v6` whether the tracker is asked over IPv6, and `tries`
    /// how often to ask before giving up.
    #[must_use]
    pub fn new(
        question: Question,
        transaction: u32,
        v6: bool,
        connection: Option<Connection>,
        tries: u32,
        now: Instant,
    ) -> Self {
        let mut exchange = Self {
            question,
            transaction,
            v6,
            connection,
            connecting: false,
            due: now,
            wait: FIRST_WAIT,
            tries_left: tries.max(1),
            out: None,
        };
        exchange.ask(now);
        exchange
    }

    /// The connection id that was last got, for the next question.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.connection
    }

    /// A datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.take()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// No answer has come in time: asks again.
    ///
    /// # Errors
    ///
    /// [`TrackerError::Timeout`]: it was asked often enough.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), TrackerError> {
        if now < self.due {
            return Ok(());
        }
        self.tries_left -= 1;
        if self.tries_left == 0 {
            return Err(TrackerError::Timeout);
        }
        self.wait *= 2;
        self.ask(now);
        Ok(())
    }

    /// Takes a datagram from the tracker; `None` if there is no answer yet.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Result<Reply, TrackerError>> {
        let (action, transaction, rest) = header(datagram)?;
        if transaction != self.transaction {
            return None;
        }
        let expected = match (&self.question, self.connecting) {
            (_, true) => CONNECT,
            (Question::Announce { .. }, _) => ANNOUNCE,
            (Question::Scrape(_), _) => SCRAPE,
        };
        match action {
            ERROR => Some(Err(TrackerError::Refused {
                reason: text(rest),
                retry: Retry::Unsaid,
            })),
            // A late answer to an earlier try.
            _ if action != expected => None,
            CONNECT => {
                let id = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
                let until = now + CONNECTION_LIFE;
                self.connection = Some(Connection { id, until });
                self.ask(now);
                None
            }
            ANNOUNCE => Some(announced(rest, self.v6).map(Reply::Announce)),
            _ => match &self.question {
                Question::Scrape(torrents) => Some(scraped(rest, torrents.len())),
                Question::Announce { .. } => None,
            },
        }
    }

    fn ask(&mut self, now: Instant) {
        let connection = self.connection.filter(|known| now < known.until);
        self.connecting = connection.is_none();
        self.due = now + self.wait;
        let mut out = Vec::with_capacity(128);
        let (id, action) = match (connection, &self.question) {
            (None, _) => (MAGIC, CONNECT),
            (Some(known), Question::Announce { .. }) => (known.id, ANNOUNCE),
            (Some(known), Question::Scrape(_)) => (known.id, SCRAPE),
        };
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&action.to_be_bytes());
        out.extend_from_slice(&self.transaction.to_be_bytes());
        match &self.question {
            _ if self.connecting => {}
            Question::Announce {
                request,
                request_string,
            } => write_announce(&mut out, request, request_string),
            Question::Scrape(torrents) => {
                for torrent in torrents.iter().take(MAX_SCRAPE) {
                    out.extend_from_slice(torrent);
                }
            }
        }
        self.out = Some(out);
    }
}

/// Action, transaction and what follows of an answer.
fn header(datagram: &[u8]) -> Option<(u32, u32, &[u8])> {
    if datagram.len() > MAX_DATAGRAM {
        return None;
    }
    let (action, rest) = datagram.split_first_chunk::<4>()?;
    let (transaction, rest) = rest.split_first_chunk::<4>()?;
    let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
    Some((number(action), number(transaction), rest))
}

/// The transaction of an answer.
pub(super) fn transaction(datagram: &[u8]) -> Option<u32> {
    header(datagram).map(|(_, transaction, _)| transaction)
}

fn write_announce(out: &mut Vec<u8>, request: &AnnounceRequest, request_string: &str) {
    out.extend_from_slice(&request.info_hash);
    out.extend_from_slice(&request.peer_id);
    for number in [request.downloaded, request.left, request.uploaded] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let event: u32 = match request.event {
        AnnounceEvent::None => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    // The address is the one that the datagram comes from.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&request.key.to_be_bytes());
    out.extend_from_slice(&request.num_want.unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&request.port.to_be_bytes());
    let path = request_string.as_bytes();
    for part in path[..path.len().min(MAX_REQUEST_STRING)].chunks(255) {
        let len = u8::try_from(part.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[2, len]);
        out.extend_from_slice(part);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn announced(rest: &[u8], v6: bool) -> Result<AnnounceAnswer, TrackerError> {
    let parsed = || {
        let interval = number(rest, 0)?;
        let (leechers, seeders) = (number(rest, 4)?, number(rest, 8)?);
        let size = if v6 { compact::V6 } else { compact::V4 };
        let peers: Vec<SocketAddr> = compact::read_all(&rest[12..], size)
            .take(MAX_PEERS)
            .collect();
        Some(AnnounceAnswer {
            interval: Duration::from_secs(interval.into()),
            peers,
            seeders: Some(seeders),
            leechers: Some(leechers),
            ..AnnounceAnswer::default()
        })
    };
    parsed().ok_or(TrackerError::Malformed("too short"))
}

fn scraped(rest: &[u8], asked: usize) -> Result<Reply, TrackerError> {
    let entries = rest.chunks_exact(12).take(asked).filter_map(|entry| {
        Some(ScrapeEntry {
            seeders: number(entry, 0)?,
            completed: number(entry, 4)?,
            leechers: number(entry, 8)?,
        })
    });
    let entries: Vec<_> = entries.collect();
    match entries.len() == asked {
        true => Ok(Reply::Scrape(entries)),
        false => Err(TrackerError::Malformed("too short")),
    }
}

/// The connection ids of trackers, while they hold.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<SocketAddr, Connection>);

impl Connections {
    /// Most that are kept.
    const MAX: usize = 64;

    pub(super) fn get(&self, tracker: SocketAddr, now: Instant) -> Option<Connection> {
        self.0.get(&tracker).copied().filter(|c| now < c.until)
    }

    pub(super) fn forget(&mut self, tracker: SocketAddr) {
        self.0.remove(&tracker);
    }

    pub(super) fn keep(&mut self, tracker: SocketAddr, connection: Connection, now: Instant) {
        self.0.retain(|_, c| now < c.until);
        if self.0.len() < Self::MAX {
            self.0.insert(tracker, connection);
        }
    }
}

#[cfg(test)]
mod tests;
