//! [`TrackerClient`]: asks one tracker one question, over UDP or HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::TransferError;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::udp::{self, Connections, Exchange, Question, Reply};
use super::{AnnounceAnswer, AnnounceRequest, MAX_SCRAPE, ScrapeEntry, TrackerError, http};
use crate::bittorrent::compact::dialable;
use crate::bittorrent::random::Random;
use crate::bittorrent::udp::{Datagram, UdpPort, Use};
use crate::http::AddressPolicy;
use crate::http::HttpConfig;
use crate::http::fetch::{FetchError, Fetcher};

/// Questions under way at a time over UDP.
const MAX_UNDER_WAY: usize = 256;
/// Time to look a name up.
const LOOKUP_TIME: Duration = Duration::from_secs(10);

/// Settings of a [`TrackerClient`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrackerConfig {
    /// Which trackers may be asked, and which peers are taken from them. Default: those of
    /// the public internet.
    pub addresses: AddressPolicy,
    /// How often a UDP tracker is asked before it is given up, after 15 seconds, 30, 60 and so
    /// on.
    pub udp_tries: u32,
    /// For HTTP trackers: times, proxies, roots. Its `addresses` count in addition.
    pub http: HttpConfig,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        let http = HttpConfig {
            answer_timeout: Duration::from_secs(20),
            ..HttpConfig::default()
        };
        Self {
            addresses: AddressPolicy::GlobalOnly,
            udp_tries: 3,
            http,
        }
    }
}

#[derive(Debug)]
struct Inner {
    config: TrackerConfig,
    port: Option<UdpPort>,
    fetcher: Fetcher,
    state: Mutex<State>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    random: Random,
    connections: Connections,
    /// Who waits for the answer to a transaction of which tracker.
    waiting: HashMap<u32, (SocketAddr, mpsc::Sender<Bytes>)>,
}

/// Asks trackers. Clones are the same client. To be ended by [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct TrackerClient(Arc<Inner>);

impl TrackerClient {
    /// A client that asks UDP trackers from this port, if there is one.
    ///
    /// # Errors
    ///
    /// The system has no random numbers, or something in the settings for HTTP cannot be
    /// used.
    pub fn new(config: TrackerConfig, port: Option<&UdpPort>) -> std::io::Result<Self> {
        let fetcher =
            Fetcher::new(&config.http, config.addresses).map_err(std::io::Error::other)?;
        let client = Self(Arc::new(Inner {
            state: Mutex::new(State {
                random: Random::from_system()?,
                connections: Connections::default(),
                waiting: HashMap::new(),
            }),
            config,
            port: port.cloned(),
            fetcher,
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        if let Some(port) = port {
            let arrived = port.subscribe(Use::Tracker);
            let (inner, closed) = (Arc::downgrade(&client.0), client.0.closed.clone());
            let deliver = async move {
                let mut arrived = arrived;
                while let Some(datagram) = arrived.recv().await {
                    let Some(inner) = inner.upgrade() else { return };
                    inner.deliver(datagram);
                }
            };
            client
                .0
                .tasks
                .spawn(closed.run_until_cancelled_owned(deliver));
        }
        client.0.tasks.close();
        Ok(client)
    }

    /// Tells a tracker of us. The answer has peers that may be dialled only.
    ///
    /// # Errors
    ///
    /// [`TrackerError`].
    ///
    /// # Cancel safety
    ///
    /// If dropped, the tracker may know of us nevertheless.
    pub async fn announce(
        &self,
        tracker: &str,
        request: &AnnounceRequest,
    ) -> Result<AnnounceAnswer, TrackerError> {
        let mut answer = match scheme(tracker)? {
            Scheme::Udp { host, port, rest } => {
                let question = Question::Announce {
                    request: request.clone(),
                    request_string: rest.to_owned(),
                };
                let mut together = AnnounceAnswer::default();
                for reply in self.ask(host, port, question).await? {
                    if let Reply::Announce(answer) = reply {
                        merge(&mut together, answer);
                    }
                }
                together
            }
            Scheme::Http => {
                let url = http::announce_url(tracker, request);
                http::announced(&self.fetch(&url).await?)?
            }
        };
        let policy = self.0.config.addresses;
        answer.peers.retain(|peer| dialable(*peer, policy));
        Ok(answer)
    }

    /// Asks a tracker what it knows of torrents, at most [`MAX_SCRAPE`].
    ///
    /// # Errors
    ///
    /// [`TrackerError`].
    pub async fn scrape(
        &self,
        tracker: &str,
        torrents: &[[u8; 20]],
    ) -> Result<Vec<ScrapeEntry>, TrackerError> {
        let torrents = &torrents[..torrents.len().min(MAX_SCRAPE)];
        match scheme(tracker)? {
            Scheme::Udp { host, port, .. } => {
                let question = Question::Scrape(torrents.to_vec());
                let replies = self.ask(host, port, question).await?;
                let mut scraped = replies.into_iter().filter_map(|reply| match reply {
                    Reply::Scrape(entries) => Some(entries),
                    Reply::Announce(_) => None,
                });
                scraped.next().ok_or(TrackerError::Timeout)
            }
            Scheme::Http => {
                let reason = "it cannot be scraped";
                let url = http::scrape_url(tracker, torrents);
                let url = url.ok_or(TrackerError::Url { reason })?;
                http::scraped(&self.fetch(&url).await?, torrents)
            }
        }
    }

    /// Ends the client: what is under way fails.
    pub async fn shutdown(&self) {
        self.0.closed.cancel();
        self.0.tasks.wait().await;
        self.0.fetcher.shutdown().await;
    }

    /// A number that nobody can predict, for [`AnnounceRequest::key`].
    #[must_use]
    pub fn new_key(&self) -> u32 {
        self.0.state().random.u32()
    }

    pub(super) fn random(&self) -> Random {
        Random::from_seed(self.0.state().random.bytes())
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, TrackerError> {
        let fetch = self.0.fetcher.get(url, http::MAX_ANSWER);
        let fetched = self.0.closed.run_until_cancelled(fetch).await;
        let (status, body) = fetched
            .ok_or(TrackerError::Closed)?
            .map_err(|error| match error {
                FetchError::Timeout => TrackerError::Timeout,
                FetchError::Url => TrackerError::Url {
                    reason: "a malformed url",
                },
                FetchError::Failed(TransferError::Refused { reason, .. })
                    if reason.contains("may not be dialled") =>
                {
                    TrackerError::Address
                }
                FetchError::Failed(error) => TrackerError::Unreachable(error.into()),
            })?;
        // Some say why in the body of an error.
        let is_bencoded = body.first() == Some(&b'd');
        if status != 200 && !is_bencoded {
            return Err(TrackerError::Status(status));
        }
        Ok(body)
    }

    /// Asks over each address family that the tracker has and we have; an answer over one is
    /// an answer.
    async fn ask(
        &self,
        host: &str,
        port: u16,
        question: Question,
    ) -> Result<Vec<Reply>, TrackerError> {
        let Some(udp) = &self.0.port else {
            let reason = "no port for udp is open";
            return Err(TrackerError::Url { reason });
        };
        let found = timeout(LOOKUP_TIME, lookup_host((host, port))).await;
        let found: Vec<_> = found
            .map_err(|_| TrackerError::Timeout)?
            .map_err(|error| TrackerError::Unreachable(error.into()))?
            .collect();
        let policy = self.0.config.addresses;
        let first = |v4: bool| {
            let able = udp.local_addr(v4).is_some();
            let mut fits = found
                .iter()
                .filter(|at| able && at.is_ipv4() == v4 && dialable(**at, policy));
            fits.next().copied()
        };
        let (four, six) = (first(true), first(false));
        if four.is_none() && six.is_none() {
            return Err(TrackerError::Address);
        }
        let over = |at: Option<SocketAddr>| {
            let question = question.clone();
            async move {
                match at {
                    Some(at) => Some(self.exchange(udp, at, question).await),
                    None => None,
                }
            }
        };
        let both = async { tokio::join!(over(four), over(six)) };
        let answers = self.0.closed.run_until_cancelled(both).await;
        let (four, six) = answers.ok_or(TrackerError::Closed)?;
        let mut replies = Vec::new();
        let mut failure = TrackerError::Timeout;
        for answer in [four, six].into_iter().flatten() {
            match answer {
                Ok(reply) => replies.push(reply),
                Err(error) => failure = error,
            }
        }
        if replies.is_empty() {
            return Err(failure);
        }
        Ok(replies)
    }

    async fn exchange(
        &self,
        udp: &UdpPort,
        tracker: SocketAddr,
        question: Question,
    ) -> Result<Reply, TrackerError> {
        let now = || Instant::now().into_std();
        let (waiter, mut arrived) = mpsc::channel(4);
        let (place, known) = {
            let mut state = self.0.state();
            if state.waiting.len() >= MAX_UNDER_WAY {
                return Err(TrackerError::Timeout);
            }
            let mut transaction = state.random.u32();
            while state.waiting.contains_key(&transaction) {
                transaction = state.random.u32();
            }
            state.waiting.insert(transaction, (tracker, waiter));
            let inner = &*self.0;
            let place = Place { inner, transaction };
            (place, state.connections.get(tracker, now()))
        };
        let (tries, v6) = (self.0.config.udp_tries, tracker.is_ipv6());
        let mut exchange = Exchange::new(question, place.transaction, v6, known, tries, now());
        let reply = loop {
            if let Some(datagram) = exchange.poll_transmit()
                && let Err(error) = udp.send_to(tracker, &datagram).await
            {
                break Err(TrackerError::Unreachable(error.into()));
            }
            tokio::select! {
                datagram = arrived.recv() => {
                    let Some(datagram) = datagram else {
                        break Err(TrackerError::Closed);
                    };
                    if let Some(reply) = exchange.handle_datagram(&datagram, now()) {
                        break reply;
                    }
                }
                () = sleep_until(Instant::from_std(exchange.poll_timeout())) => {
                    if let Err(error) = exchange.handle_timeout(now()) {
                        break Err(error);
                    }
                }
            }
        };
        // An id that a tracker refuses is not tried again.
        if let (Ok(_), Some(connection)) = (&reply, exchange.connection()) {
            self.0.state().connections.keep(tracker, connection, now());
        } else {
            self.0.state().connections.forget(tracker);
        }
        reply
    }
}

/// The place of someone who waits for an answer.
struct Place<'a> {
    inner: &'a Inner,
    transaction: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.inner.state().waiting.remove(&self.transaction);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, (from, datagram): Datagram) {
        let Some(transaction) = udp::transaction(&datagram) else {
            return;
        };
        if let Some((tracker, waiter)) = self.state().waiting.get(&transaction)
            && *tracker == from
        {
            let _ = waiter.try_send(datagram);
        }
    }
}

enum Scheme<'a> {
    Udp {
        host: &'a str,
        port: u16,
        /// Path and query.
        rest: &'a str,
    },
    Http,
}

fn scheme(tracker: &str) -> Result<Scheme<'_>, TrackerError> {
    let bad = |reason| TrackerError::Url { reason };
    let (scheme, rest) = tracker.split_once("://").ok_or(bad("not a url"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => Ok(Scheme::Http),
        "udp" => {
            let rest = rest.split('#').next().unwrap_or("");
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            let (host, port) = authority
                .rsplit_once(':')
                .ok_or(bad("a udp url without port"))?;
            let port = port.parse().ok().filter(|port| *port != 0);
            let port = port.ok_or(bad("a udp url with no port that is one"))?;
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            if host.is_empty() || host.contains('@') {
                return Err(bad("a udp url without host"));
            }
            Ok(Scheme::Udp { host, port, rest })
        }
        _ => Err(bad("neither udp nor http")),
    }
}

/// Puts the answers over two address families together.
fn merge(into: &mut AnnounceAnswer, other: AnnounceAnswer) {
    into.interval = into.interval.max(other.interval);
    into.min_interval = into.min_interval.max(other.min_interval);
    into.seeders = into.seeders.max(other.seeders);
    into.leechers = into.leechers.max(other.leechers);
    into.peers.extend(other.peers);
    into.peers.truncate(super::MAX_PEERS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, expected) in [
            ("udp://t:1/announce?x", ("t", 1, "/announce?x")),
            ("UDP://[::1]:65535", ("::1", 65535, "")),
            ("udp://127.0.0.1:80/#f", ("127.0.0.1", 80, "/")),
            ("udp://t:5?passkey", ("t", 5, "?passkey")),
        ] {
            match scheme(url) {
                Ok(Scheme::Udp { host, port, rest }) => assert_eq!((host, port, rest), expected),
                _ => panic!("{url}"),
            }
        }
        for url in [
            "",
            "udp://t",
            "udp://t:0",
            "udp://:1",
            "udp://u@t:1",
            "ws://t:1",
            "udp://t:99999",
            "t:1",
        ] {
            assert!(
                matches!(scheme(url), Err(TrackerError::Url { .. })),
                "{url}"
            );
        }
        assert!(matches!(scheme("https://t/announce"), Ok(Scheme::Http)));
    }
}
