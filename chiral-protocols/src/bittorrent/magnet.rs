//! [`Magnet`]: a torrent by its hash (BEP 9), with the files selected (BEP 53).
//!
//! ```
//! use chiral_protocols::bittorrent::magnet::Magnet;
//!
//! let magnet: Magnet = "magnet:?xt=urn:btih:a9993e364706816aba3e25717850c26c9cd0d89d\
//!     &dn=a%20name&x.pe=127.0.0.1:6881&so=0,2-4".parse()?;
//! assert_eq!(magnet.name.as_deref(), Some("a name"));
//! assert_eq!(magnet.peers[0].port, 6881);
//! assert!(magnet.is_selected(3) && !magnet.is_selected(1));
//! # Ok::<(), chiral_protocols::bittorrent::magnet::ParseMagnetError>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::metainfo::{InfoHashes, MAX_FILES};

/// Limit on the bytes of a magnet link.
pub const MAX_MAGNET_LEN: usize = 64 * 1024;

/// Limit on each of trackers, web seeds, peers and selected runs; more are left out, but of
/// selected runs, of which more are an error.
pub const MAX_EACH: usize = 200;

/// Limit on the bytes of a name; a longer one is left out.
const MAX_NAME_LEN: usize = 1024;

/// What is escaped: everything that has a meaning in a link, or none in a URL.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Why a text is no magnet link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseMagnetError {
    /// More than [`MAX_MAGNET_LEN`].
    #[error("a magnet link of {len} bytes, over the limit of {MAX_MAGNET_LEN}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// It does not begin with `magnet:?`.
    #[error("not a magnet link")]
    Scheme,
    /// It names no torrent.
    #[error("a magnet link without a BitTorrent info-hash")]
    NoHash,
    /// `urn:btih:` without 40 hexadecimal or 32 base32 digits, or `urn:btmh:` without `1220`
    /// and 64 hexadecimal digits.
    #[error("a malformed info-hash in a magnet link")]
    Hash,
    /// Two hashes of one kind.
    #[error("a magnet link to two torrents")]
    TwoHashes,
    /// `so` is not a list of file numbers.
    #[error("a malformed selection of files in a magnet link")]
    Selection,
}

impl ParseMagnetError {
    /// The same text is as wrong the next time.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// A peer that a link names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MagnetPeer {
    /// An address without brackets, or a host name.
    pub host: String,
    /// Its port, not 0.
    pub port: u16,
}

impl fmt::Display for MagnetPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<Ipv6Addr>() {
            Ok(_) => write!(f, "[{}]:{}", self.host, self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for MagnetPeer {
    type Err = ParseMagnetError;

    fn from_str(text: &str) -> Result<Self, ParseMagnetError> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port > 0)?;
            let host = match host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
            {
                Some(host) => host.parse::<Ipv6Addr>().ok()?.to_string(),
                None => match host.parse::<IpAddr>() {
                    Ok(IpAddr::V4(address)) => address.to_string(),
                    Ok(IpAddr::V6(_)) => return None,
                    Err(_) => host.to_owned(),
                },
            };
            let letter = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
            let is_host = !host.is_empty() && host.len() <= 253 && host.chars().all(letter);
            is_host.then_some(Self { host, port })
        };
        parse().ok_or(ParseMagnetError::Scheme)
    }
}

/// A magnet link to a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Magnet {
    /// Which torrent; of a hybrid one perhaps both.
    pub hashes: InfoHashes,
    /// What it is called, says the link (`dn`).
    pub name: Option<String>,
    /// How many bytes it has, says the link (`xl`).
    pub length: Option<u64>,
    /// URLs of trackers (`tr`).
    pub trackers: Vec<String>,
    /// URLs of web seeds (`ws`).
    pub web_seeds: Vec<String>,
    /// Peers to begin with (`x.pe`).
    pub peers: Vec<MagnetPeer>,
    /// Numbers of the files to download (`so`); all if there are none. See
    /// [`TorrentFile::index`](super::metainfo::TorrentFile::index).
    pub selected: Vec<RangeInclusive<u32>>,
}

impl Magnet {
    /// Whether a file is to be downloaded.
    pub fn is_selected(&self, index: u32) -> bool {
        self.selected.is_empty() || self.selected.iter().any(|run| run.contains(&index))
    }
}

impl FromStr for Magnet {
    type Err = ParseMagnetError;

    /// Takes every form of the hashes that is in use; parameters that it does not know, and
    /// trackers, web seeds and peers that are none, are passed over.
    fn from_str(text: &str) -> Result<Self, ParseMagnetError> {
        let len = text.len();
        if len > MAX_MAGNET_LEN {
            return Err(ParseMagnetError::TooLong { len });
        }
        let text = text.trim();
        let scheme = text
            .get(..8)
            .filter(|scheme| scheme.eq_ignore_ascii_case("magnet:?"));
        scheme.ok_or(ParseMagnetError::Scheme)?;
        let mut magnet = Self::default();
        for pair in text[8..].split('&') {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            // `tr.1` is `tr`: an old habit for parameters that are there several times.
            let (key, number) = key.rsplit_once('.').unwrap_or((key, "0"));
            let key = match number.bytes().all(|digit| digit.is_ascii_digit()) {
                true => key,
                false => &pair[..key.len() + 1 + number.len()],
            };
            // In a URL a plus is a plus; in a name many write it for a space.
            let value = match key {
                "dn" => Cow::Owned(value.replace('+', " ")),
                _ => Cow::Borrowed(value),
            };
            magnet.take(key, &percent_decode_str(&value).decode_utf8_lossy())?;
        }
        match magnet.hashes {
            InfoHashes { v1: None, v2: None } => Err(ParseMagnetError::NoHash),
            _ => Ok(magnet),
        }
    }
}

impl Magnet {
    fn take(&mut self, key: &str, value: &str) -> Result<(), ParseMagnetError> {
        match key {
            "xt" => return self.take_topic(value),
            "dn" => {
                let fits = (1..=MAX_NAME_LEN).contains(&value.len());
                self.name = fits.then(|| value.to_owned());
            }
            "xl" => self.length = value.parse().ok(),
            "tr" => add(&mut self.trackers, url(value)),
            "ws" => add(&mut self.web_seeds, url(value)),
            "x.pe" => add(&mut self.peers, value.parse().ok()),
            "so" => self.selected = selection(value).ok_or(ParseMagnetError::Selection)?,
            _ => {}
        }
        Ok(())
    }

    fn take_topic(&mut self, topic: &str) -> Result<(), ParseMagnetError> {
        let lower = topic.to_ascii_lowercase();
        if let Some(hash) = lower.strip_prefix("urn:btih:") {
            set(&mut self.hashes.v1, v1(hash))
        } else if let Some(hash) = lower.strip_prefix("urn:btmh:") {
            set(&mut self.hashes.v2, hash.strip_prefix("1220").and_then(hex))
        } else {
            Ok(())
        }
    }
}

fn set<const N: usize>(
    held: &mut Option<[u8; N]>,
    new: Option<[u8; N]>,
) -> Result<(), ParseMagnetError> {
    let new = new.ok_or(ParseMagnetError::Hash)?;
    match held.replace(new) {
        Some(old) if old != new => Err(ParseMagnetError::TwoHashes),
        _ => Ok(()),
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, new: Option<T>) {
    if let Some(new) = new
        && list.len() < MAX_EACH
        && !list.contains(&new)
    {
        list.push(new);
    }
}

fn url(text: &str) -> Option<String> {
    let plain = !text.contains(char::is_control) && text.trim() == text;
    (plain && text.contains("://")).then(|| text.to_owned())
}

fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    data_encoding::HEXLOWER
        .decode_mut(digits.as_bytes(), &mut bytes)
        .ok()?;
    Some(bytes)
}

fn v1(digits: &str) -> Option<[u8; 20]> {
    if digits.len() != 32 {
        return hex(digits);
    }
    let mut bytes = [0; 20];
    let upper = digits.to_ascii_uppercase();
    data_encoding::BASE32
        .decode_mut(upper.as_bytes(), &mut bytes)
        .ok()?;
    Some(bytes)
}

fn selection(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let number = text
            .parse()
            .ok()
            .filter(|number| *number < MAX_FILES as u32);
        number.filter(|_| digits)
    };
    let run = |text: &str| match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        }
        None => number(text).map(|one| one..=one),
    };
    let runs: Vec<_> = text
        .split(',')
        .take(MAX_EACH + 1)
        .map(run)
        .collect::<Option<_>>()?;
    (runs.len() <= MAX_EACH).then_some(runs)
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let v1 = self
            .hashes
            .v1
            .map(|hash| format!("xt=urn:btih:{}", hex(&hash)));
        let v2 = self
            .hashes
            .v2
            .map(|hash| format!("xt=urn:btmh:1220{}", hex(&hash)));
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let mut pairs: Vec<String> = v1.into_iter().chain(v2).collect();
        pairs.extend(
            self.name
                .as_ref()
                .map(|name| format!("dn={}", escape(name))),
        );
        pairs.extend(self.length.map(|length| format!("xl={length}")));
        pairs.extend(
            self.trackers
                .iter()
                .map(|url| format!("tr={}", escape(url))),
        );
        pairs.extend(
            self.web_seeds
                .iter()
                .map(|url| format!("ws={}", escape(url))),
        );
        pairs.extend(self.peers.iter().map(|peer| format!("x.pe={peer}")));
        if !self.selected.is_empty() {
            let run = |run: &RangeInclusive<u32>| match (*run.start(), *run.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            };
            let runs: Vec<_> = self.selected.iter().map(run).collect();
            pairs.push(format!("so={}", runs.join(",")));
        }
        write!(f, "magnet:?{}", pairs.join("&"))
    }
}

#[cfg(test)]
mod tests;
