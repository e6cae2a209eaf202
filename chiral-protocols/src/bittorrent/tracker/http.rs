//! HTTP trackers: the questions as URLs, and what answers mean.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{
    AnnounceAnswer, AnnounceEvent, AnnounceRequest, MAX_PEERS, Retry, ScrapeEntry, TrackerError,
    text,
};
use crate::bittorrent::bencode::{Decoded, Limits, Value};
use crate::bittorrent::compact;

/// Longest answer that is read.
pub const MAX_ANSWER: usize = 1 << 20;
/// What is too much in it: peers may be a dictionary each.
const LIMITS: Limits = Limits {
    max_len: MAX_ANSWER,
    max_tokens: 100_000,
    ..Limits::MESSAGE.unsorted()
};
/// Longest `tracker id` that is kept.
const MAX_TRACKER_ID: usize = 256;
/// Longest interval that can be meant, in seconds.
const MAX_SECONDS: i64 = 7 * 24 * 3600;

/// The URL of an announcement (BEP 3, 23).
#[must_use]
pub fn announce_url(tracker: &str, request: &AnnounceRequest) -> String {
    let mut url = begin(tracker);
    let hash = escape(&request.info_hash);
    let id = escape(&request.peer_id);
    // Writing to a String does not fail.
    let _ = write!(
        url,
        "info_hash={hash}&peer_id={id}&port={}&uploaded={}&downloaded={}&left={}",
        request.port, request.uploaded, request.downloaded, request.left
    );
    let _ = write!(url, "&compact=1&no_peer_id=1&key={:08X}", request.key);
    if let Some(wanted) = request.num_want {
        let _ = write!(url, "&numwant={wanted}");
    }
    match request.event {
        AnnounceEvent::None => {}
        AnnounceEvent::Started => url.push_str("&event=started"),
        AnnounceEvent::Completed => url.push_str("&event=completed"),
        AnnounceEvent::Stopped => url.push_str("&event=stopped"),
    }
    if let Some(id) = &request.tracker_id {
        let _ = write!(url, "&trackerid={}", escape(id));
    }
    url
}

/// The URL of a scrape (BEP 48); `None` if this tracker has none.
#[must_use]
pub fn scrape_url(tracker: &str, torrents: &[[u8; 20]]) -> Option<String> {
    let plain = tracker.split('#').next().unwrap_or("");
    let (path, query) = plain.split_once('?').unwrap_or((plain, ""));
    let (before, last) = path.rsplit_once('/')?;
    let after = last.strip_prefix("announce")?;
    let mut url = format!("{before}/scrape{after}");
    if !query.is_empty() {
        let _ = write!(url, "?{query}");
    }
    let mut url = begin(&url);
    for (index, torrent) in torrents.iter().enumerate() {
        let and = if index == 0 { "" } else { "&" };
        let _ = write!(url, "{and}info_hash={}", escape(torrent));
    }
    Some(url)
}

/// Reads the answer to an announcement.
///
/// # Errors
///
/// [`TrackerError::Refused`], [`TrackerError::Malformed`].
pub fn announced(body: &[u8]) -> Result<AnnounceAnswer, TrackerError> {
    let decoded = dictionary(body)?;
    let value = decoded.root();
    refusal(value)?;
    let seconds = |key| {
        let seconds = value.int_of(key)?.clamp(0, MAX_SECONDS);
        Some(Duration::from_secs(seconds.unsigned_abs()))
    };
    let count = |key| u32::try_from(value.int_of(key)?).ok();
    let mut peers = Vec::new();
    match value.get("peers") {
        Some(peers4) => match peers4.bytes() {
            Some(bytes) => peers.extend(compact::read_all(bytes, compact::V4).take(MAX_PEERS)),
            None => peers.extend(peers4.items().filter_map(peer).take(MAX_PEERS)),
        },
        None if value.get("interval").is_none() => {
            return Err(TrackerError::Malformed("neither peers nor interval"));
        }
        None => {}
    }
    let six = value.bytes_of("peers6").unwrap_or_default();
    peers.extend(compact::read_all(six, compact::V6));
    peers.truncate(MAX_PEERS);
    let id = value
        .bytes_of("tracker id")
        .filter(|id| id.len() <= MAX_TRACKER_ID);
    Ok(AnnounceAnswer {
        interval: seconds("interval").unwrap_or_default(),
        min_interval: seconds("min interval"),
        peers,
        seeders: count("complete"),
        leechers: count("incomplete"),
        tracker_id: id.map(<[u8]>::to_vec),
        external_ip: value.bytes_of("external ip").and_then(external_ip),
        warning: value.bytes_of("warning message").map(text),
    })
}

/// Reads the answer to a scrape, in the order of the question. What the tracker does not
/// know has no peers.
///
/// # Errors
///
/// [`TrackerError::Refused`], [`TrackerError::Malformed`].
pub fn scraped(body: &[u8], torrents: &[[u8; 20]]) -> Result<Vec<ScrapeEntry>, TrackerError> {
    let decoded = dictionary(body)?;
    let value = decoded.root();
    refusal(value)?;
    let files = value.get("files").filter(Value::is_dict);
    let files = files.ok_or(TrackerError::Malformed("no files"))?;
    let entry = |torrent: &[u8; 20]| {
        let file = files.get(torrent);
        let count = |key| {
            let count = file.and_then(|file| file.int_of(key)).unwrap_or(0);
            u32::try_from(count).unwrap_or(0)
        };
        ScrapeEntry {
            seeders: count("complete"),
            completed: count("downloaded"),
            leechers: count("incomplete"),
        }
    };
    Ok(torrents.iter().map(entry).collect())
}

fn dictionary(body: &[u8]) -> Result<Decoded<'_>, TrackerError> {
    if body.len() > MAX_ANSWER {
        return Err(TrackerError::Malformed("too long"));
    }
    let decoded = Decoded::parse(body, LIMITS).ok();
    let decoded = decoded.filter(|decoded| decoded.root().is_dict());
    decoded.ok_or(TrackerError::Malformed("not a bencoded dictionary"))
}

fn refusal(value: Value<'_, '_>) -> Result<(), TrackerError> {
    let Some(reason) = value.bytes_of("failure reason") else {
        return Ok(());
    };
    let retry = match value.get("retry in") {
        None => Retry::Unsaid,
        Some(said) => match (said.int(), said.bytes()) {
            (Some(minutes), _) => {
                let minutes = minutes.clamp(0, MAX_SECONDS / 60).unsigned_abs();
                Retry::After(Duration::from_secs(60 * minutes))
            }
            (_, Some(b"never")) => Retry::Never,
            _ => Retry::Unsaid,
        },
    };
    Err(TrackerError::Refused {
        reason: text(reason),
        retry,
    })
}

/// A peer as a dictionary (BEP 3). One by name would have to be looked up: it is left out.
fn peer(value: Value<'_, '_>) -> Option<SocketAddr> {
    let ip = std::str::from_utf8(value.bytes_of("ip")?).ok()?;
    let port = u16::try_from(value.int_of("port")?).ok()?;
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

fn external_ip(bytes: &[u8]) -> Option<IpAddr> {
    compact::read(&[bytes, &[0, 0]].concat()).map(|address| address.ip())
}

/// The URL up to its first own parameter.
fn begin(tracker: &str) -> String {
    let plain = tracker.split('#').next().unwrap_or("");
    let mut url = String::with_capacity(plain.len() + 256);
    url.push_str(plain);
    match plain.split_once('?') {
        None => url.push('?'),
        Some((_, "")) => {}
        Some((_, query)) if query.ends_with('&') => {}
        Some(_) => url.push('&'),
    }
    url
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(3 * bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> AnnounceRequest {
        AnnounceRequest {
            info_hash: *b"\x00\x01aZ9-._~ /%&+?#\xffxyz",
            peer_id: *b"-CH0001-abcdefghijkl",
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: u64::MAX,
            event: AnnounceEvent::Stopped,
            num_want: Some(0),
            key: 0xab,
            tracker_id: Some(b"a b".to_vec()),
        }
    }

    #[test]
    fn urls_are_made() {
        let hash = "%00%01aZ9-._~%20%2F%25%26%2B%3F%23%FFxyz";
        let tail = format!(
            "info_hash={hash}&peer_id=-CH0001-abcdefghijkl&port=6881&uploaded=1&downloaded=2\
             &left=18446744073709551615&compact=1&no_peer_id=1&key=000000AB&numwant=0\
             &event=stopped&trackerid=a%20b"
        );
        for (tracker, begin) in [
            ("http://t/announce", "http://t/announce?"),
            ("http://t/a?passkey=x", "http://t/a?passkey=x&"),
            ("http://t/a?", "http://t/a?"),
            ("http://t/a#f", "http://t/a?"),
        ] {
            let expected = format!("{begin}{tail}");
            assert_eq!(announce_url(tracker, &request()), expected);
        }
        let url = |tracker| scrape_url(tracker, &[*b"aaaaaaaaaaaaaaaaaaaa", [b'b'; 20]]);
        for (tracker, expected) in [
            ("http://t/announce", Some("http://t/scrape?")),
            ("http://t/x/announce", Some("http://t/x/scrape?")),
            ("http://t/announce.php", Some("http://t/scrape.php?")),
            (
                "http://t/announce?x2%0644",
                Some("http://t/scrape?x2%0644&"),
            ),
            ("http://t/a", None),
            ("http://t/announce?x=2/4", Some("http://t/scrape?x=2/4&")),
            ("http://t/x%064announce", None),
        ] {
            let tail = format!("info_hash={}&info_hash={}", "a".repeat(20), "b".repeat(20));
            assert_eq!(
                url(tracker),
                expected.map(|e| format!("{e}{tail}")),
                "{tracker}"
            );
        }
    }

    #[test]
    fn answers_are_read() {
        let answer = announced(
            b"d8:completei5e11:external ip4:\x01\x02\x03\x0410:incompletei6e8:intervali1800e\
              12:min intervali60e5:peers12:\x01\x02\x03\x04\x00\x05\x06\x07\x08\x09\x00\x0a\
              6:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x07\
              10:tracker id2:xy15:warning message3:hi\x07e",
        );
        let answer = answer.unwrap();
        assert_eq!(answer.interval, Duration::from_secs(1800));
        assert_eq!(answer.min_interval, Some(Duration::from_secs(60)));
        let peers = ["1.2.3.4:5", "6.7.8.9:10", "[2001:db8::1]:7"];
        assert_eq!(answer.peers, peers.map(|at| at.parse().unwrap()));
        assert_eq!((answer.seeders, answer.leechers), (Some(5), Some(6)));
        assert_eq!(answer.external_ip, Some("1.2.3.4".parse().unwrap()));
        assert_eq!(answer.tracker_id.as_deref(), Some(&b"xy"[..]));
        assert_eq!(answer.warning.as_deref(), Some("hi "));
        // As dictionaries, with a name, a port too high and a hole in it.
        let answer = announced(
            b"d8:intervali-5e5:peersld2:ip7:1.2.3.44:porti5eed2:ip4:host4:porti5ee\
              d2:ip7:1.2.3.44:porti65536eed4:porti5eed2:ip3:::14:porti9eeee",
        );
        let answer = answer.unwrap();
        assert_eq!(
            answer.peers,
            ["1.2.3.4:5", "[::1]:9"].map(|at| at.parse().unwrap())
        );
        assert_eq!(answer.interval, Duration::ZERO);
    }

    #[test]
    fn refusals_say_when_to_come_again() {
        for (body, expected) in [
            (&b"d14:failure reason2:noe"[..], Retry::Unsaid),
            (b"d14:failure reason2:no8:retry in5:nevere", Retry::Never),
            (
                b"d14:failure reason2:no8:retry ini5ee",
                Retry::After(Duration::from_secs(300)),
            ),
            (
                b"d14:failure reason2:no8:retry ini-5ee",
                Retry::After(Duration::ZERO),
            ),
            (b"d14:failure reason2:no8:retry inlee", Retry::Unsaid),
        ] {
            match announced(body) {
                Err(TrackerError::Refused { reason, retry }) => {
                    assert_eq!((reason.as_str(), retry), ("no", expected));
                }
                other => panic!("{other:?}"),
            }
        }
        for body in [&b""[..], b"<html>", b"i5e", b"de", b"le", b"d8:intervali1e"] {
            assert!(matches!(announced(body), Err(TrackerError::Malformed(_))));
        }
    }

    #[test]
    fn scrapes_are_read() {
        let body =
            b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei5e10:downloadedi50e10:incompletei10eeee";
        let entries = scraped(body, &[[b'b'; 20], [b'a'; 20]]).unwrap();
        let known = ScrapeEntry {
            seeders: 5,
            completed: 50,
            leechers: 10,
        };
        assert_eq!(entries, [ScrapeEntry::default(), known]);
        assert!(scraped(b"de", &[]).is_err());
    }

    #[test]
    fn no_more_peers_are_taken_than_the_limit() {
        let peers = vec![1; 6 * (MAX_PEERS + 10)];
        let body = [format!("d5:peers{}:", peers.len()).as_bytes(), &peers, b"e"].concat();
        assert_eq!(announced(&body).unwrap().peers.len(), MAX_PEERS);
        assert!(announced(&vec![b'd'; MAX_ANSWER + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = announced(&bytes);
            let _ = scraped(&bytes, &[[0; 20]]);
            let body = [b"d14:failure reason", format!("{}:", bytes.len()).as_bytes(), &bytes, b"e"].concat();
            let refused = matches!(announced(&body), Err(TrackerError::Refused { .. }));
            prop_assert!(refused);
        }
    }
}
