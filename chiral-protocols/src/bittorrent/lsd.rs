//! Local service discovery (BEP 14): peers in the same network, by multicast.
//!
//! Off unless [`LocalDiscovery`] is started: whoever is in the network learns which torrents we
//! have.

mod driver;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

pub use driver::{Found, LocalDiscovery, LsdConfig};

/// Where announcements go, over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// Where announcements go, over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);
/// The port of the groups.
pub const PORT: u16 = 6771;
/// Longest announcement that is read or written: what fits in one datagram.
pub const MAX_MESSAGE: usize = 1400;
/// Most torrents in one announcement.
pub const MAX_TORRENTS: usize = 20;
/// Longest cookie that is compared.
const MAX_COOKIE: usize = 64;
/// How often a torrent is announced (BEP 14).
pub const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Between two announcements of ours at least (BEP 14).
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Announcements that are taken from one address in [`MIN_INTERVAL`].
pub const MAX_PER_SENDER: u32 = 10;
/// Most senders that are remembered.
const MAX_SENDERS: usize = 256;

/// What a peer announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsdMessage {
    /// Where it listens, on the address that the datagram came from.
    pub port: u16,
    /// Its torrents.
    pub torrents: Vec<[u8; 20]>,
    /// By which it knows its own announcements again.
    pub cookie: Option<String>,
}

/// Why a datagram is no announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LsdError {
    /// Over [`MAX_MESSAGE`], or not text.
    #[error("not a text within its limit")]
    Text,
    /// It does not begin with `BT-SEARCH * HTTP/1.1`.
    #[error("not a search")]
    Method,
    /// No port that is one.
    #[error("no port")]
    Port,
    /// No info-hash that is one.
    #[error("no info-hash")]
    InfoHash,
}

impl LsdMessage {
    /// Reads a datagram. Info-hashes that are none are left out if there is one that is.
    ///
    /// # Errors
    ///
    /// [`LsdError`].
    pub fn decode(datagram: &[u8]) -> Result<Self, LsdError> {
        let fits = datagram.len() <= MAX_MESSAGE;
        let text = std::str::from_utf8(datagram).ok().filter(|_| fits);
        let mut lines = text.ok_or(LsdError::Text)?.split("\r\n");
        let first = lines.next().unwrap_or_default();
        if !first.eq_ignore_ascii_case("BT-SEARCH * HTTP/1.1") {
            return Err(LsdError::Method);
        }
        let (mut port, mut torrents, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "port" => port = value.parse().ok().filter(|port| *port != 0),
                "infohash" if torrents.len() < MAX_TORRENTS => torrents.extend(hash(value)),
                "cookie" if value.len() <= MAX_COOKIE => cookie = Some(value.to_owned()),
                _ => {}
            }
        }
        let port = port.ok_or(LsdError::Port)?;
        if torrents.is_empty() {
            return Err(LsdError::InfoHash);
        }
        Ok(Self {
            port,
            torrents,
            cookie,
        })
    }

    /// Writes a datagram for one of the groups; torrents over [`MAX_TORRENTS`] are left out.
    #[must_use]
    pub fn encode(&self, v4: bool) -> Vec<u8> {
        let group: SocketAddr = group(v4);
        let mut out = String::from("BT-SEARCH * HTTP/1.1\r\n");
        // Writing to a String does not fail.
        let _ = write!(out, "Host: {group}\r\nPort: {}\r\n", self.port);
        for torrent in self.torrents.iter().take(MAX_TORRENTS) {
            out.push_str("Infohash: ");
            for byte in torrent {
                let _ = write!(out, "{byte:02x}");
            }
            out.push_str("\r\n");
        }
        if let Some(cookie) = &self.cookie {
            let _ = write!(out, "cookie: {cookie}\r\n");
        }
        out.push_str("\r\n\r\n");
        out.into_bytes()
    }
}

/// The group of an address family.
#[must_use]
pub fn group(v4: bool) -> SocketAddr {
    let ip: IpAddr = if v4 { GROUP_V4.into() } else { GROUP_V6.into() };
    SocketAddr::new(ip, PORT)
}

fn hash(hex: &str) -> Option<[u8; 20]> {
    let digits: &[u8; 40] = hex.as_bytes().try_into().ok()?;
    let mut out = [0; 20];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// Which of our torrents are announced when, and how much is taken from others. No clock, no
/// socket.
#[derive(Debug, Default)]
pub(crate) struct LsdState {
    /// When each was announced last.
    own: Vec<([u8; 20], Option<Instant>)>,
    last: Option<Instant>,
    senders: HashMap<IpAddr, (Instant, u32)>,
}

/// Most torrents of our own that are announced.
pub const MAX_OWN: usize = 1000;

impl LsdState {
    /// Announces a torrent from now on. Whether there is room.
    pub(crate) fn add(&mut self, torrent: [u8; 20]) -> bool {
        if self.own.iter().any(|(own, _)| *own == torrent) {
            return true;
        }
        let room = self.own.len() < MAX_OWN;
        if room {
            self.own.push((torrent, None));
        }
        room
    }

    pub(crate) fn remove(&mut self, torrent: &[u8; 20]) {
        self.own.retain(|(own, _)| own != torrent);
    }

    /// The torrents to announce now; those first that have waited longest.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<[u8; 20]> {
        if self.poll_timeout(now).is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.own.sort_by_key(|(_, announced)| *announced);
        let due = |at: &Option<Instant>| at.is_none_or(|at| now >= at + INTERVAL);
        let ready = self.own.iter_mut().filter(|(_, at)| due(at));
        let mut out = Vec::new();
        for (torrent, at) in ready.take(MAX_TORRENTS) {
            *at = Some(now);
            out.push(*torrent);
        }
        self.last = Some(now);
        out
    }

    /// When [`due`](Self::due) has some, at `now` or later; `None` if never.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let wanted = self
            .own
            .iter()
            .map(|(_, at)| at.map_or(now, |at| at + INTERVAL));
        let allowed = self.last.map_or(now, |last| last + MIN_INTERVAL);
        Some(wanted.min()?.max(allowed))
    }

    /// Whether an announcement is taken from there.
    pub(crate) fn admits(&mut self, from: IpAddr, now: Instant) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= MIN_INTERVAL;
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&from) {
            self.senders.retain(|_, (since, _)| !is_old(*since));
            if self.senders.len() >= MAX_SENDERS {
                return false;
            }
        }
        let (since, count) = self.senders.entry(from).or_insert((now, 0));
        if is_old(*since) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_PER_SENDER
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_message_is_as_the_standard_has_it() {
        let message = LsdMessage {
            port: 6881,
            torrents: vec![[0xab; 20]],
            cookie: Some("c".into()),
        };
        let hex = "ab".repeat(20);
        let text = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
             Infohash: {hex}\r\ncookie: c\r\n\r\n\r\n"
        );
        assert_eq!(message.encode(true), text.as_bytes());
        assert_eq!(LsdMessage::decode(text.as_bytes()), Ok(message.clone()));
        let six = String::from_utf8(message.encode(false)).unwrap();
        assert!(
            six.contains("\r\nHost: [ff15::efc0:988f]:6771\r\n"),
            "{six}"
        );
        // As another client writes it.
        let loud = text.to_uppercase().replace(": ", ":");
        assert_eq!(
            LsdMessage::decode(loud.as_bytes()).unwrap().torrents,
            [[0xab; 20]]
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let hex = "ab".repeat(20);
        let good = format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: {hex}\r\n\r\n");
        for (from, to, error) in [
            ("BT-SEARCH", "GET", LsdError::Method),
            ("Port: 1", "Port: 0", LsdError::Port),
            ("Port: 1", "Port: 65536", LsdError::Port),
            ("Port: 1", "Port: ", LsdError::Port),
            ("Port: 1", "\r\nPort: 1", LsdError::Port),
            (&hex[..], &hex[1..], LsdError::InfoHash),
            (&hex[..4], "+1zz", LsdError::InfoHash),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_eq!(LsdMessage::decode(bad.as_bytes()), Err(error), "{bad}");
        }
        assert_eq!(
            LsdMessage::decode(&[b'a'; MAX_MESSAGE + 1]),
            Err(LsdError::Text)
        );
        assert_eq!(LsdMessage::decode(b"\xff"), Err(LsdError::Text));
        let many =
            good.replace("\r\n\r\n", &format!("\r\nInfohash: {hex}").repeat(23)) + "\r\n\r\n";
        assert_eq!(
            LsdMessage::decode(many.as_bytes()).unwrap().torrents.len(),
            MAX_TORRENTS
        );
    }

    #[test]
    fn announcements_keep_their_distance() {
        let start = Instant::now();
        let mut state = LsdState::default();
        assert_eq!(state.poll_timeout(start), None);
        for n in 0..30 {
            assert!(state.add([n; 20]));
        }
        assert_eq!(state.due(start).len(), MAX_TORRENTS);
        assert!(state.due(start + Duration::from_secs(59)).is_empty());
        let rest = state.due(start + MIN_INTERVAL);
        assert_eq!(rest.len(), 10);
        assert!(state.due(start + 2 * MIN_INTERVAL).is_empty());
        assert_eq!(state.poll_timeout(start), Some(start + INTERVAL));
        assert_eq!(state.due(start + INTERVAL).len(), MAX_TORRENTS);
        for n in 0..30 {
            state.remove(&[n; 20]);
        }
        assert_eq!(state.poll_timeout(start), None);
    }

    #[test]
    fn one_sender_is_heard_now_and_then_only() {
        let start = Instant::now();
        let mut state = LsdState::default();
        let one = IpAddr::from([10, 0, 0, 1]);
        let heard = (0..100).filter(|_| state.admits(one, start)).count();
        assert_eq!(heard, MAX_PER_SENDER as usize);
        assert!(state.admits(one, start + MIN_INTERVAL));
        for n in 0..1000_u32 {
            state.admits(IpAddr::from(n.to_be_bytes()), start + MIN_INTERVAL);
        }
        assert_eq!(state.senders.len(), MAX_SENDERS);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(port in 1_u16.., torrents in proptest::collection::vec(any::<[u8; 20]>(), 1..=MAX_TORRENTS), cookie in proptest::option::of("[a-z0-9]{1,32}"), v4 in any::<bool>()) {
            let message = LsdMessage { port, torrents, cookie };
            let bytes = message.encode(v4);
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(LsdMessage::decode(&bytes), Ok(message));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,100}") {
            let _ = LsdMessage::decode(&bytes);
            let _ = LsdMessage::decode(format!("BT-SEARCH * HTTP/1.1\r\n{text}").as_bytes());
        }
    }
}
