//! The accepting side: connections, their limits, what they speak, and the way they end.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{HttpConfig, HttpError};
use super::http2::Sessions;
use super::pace::{Pace, Paced};
use super::routes::Routes;
use super::sniff::{Beginning, sniff};
use super::tls::Acceptor;
use super::url::Url;

/// Pause after a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening server. All its tasks are in `tracker`.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    acceptor: Option<Acceptor>,
    drain: Duration,
    tracker: TaskTracker,
    /// Ends the accepting, and each connection after the request that it is at.
    stop: CancellationToken,
    /// Ends every connection where it is.
    kill: CancellationToken,
}

impl Server {
    pub(super) async fn bind(
        address: SocketAddr,
        config: &HttpConfig,
        tracker: TaskTracker,
        routes: Arc<Routes>,
    ) -> Result<Self, HttpError> {
        let listen = |source| HttpError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let acceptor = match &config.tls {
            Some(tls) => {
                let names = names(address, config);
                Some(Acceptor::new(tls, config.signer.as_ref(), names)?)
            }
            None => None,
        };
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let pace = Pace {
            period: config.write_timeout,
            bytes_per_second: config.min_send_bytes_per_second,
        };
        let (tasks, end) = (tracker.clone(), kill.clone());
        let speakers = Speakers {
            http1: builder(config),
            http2: Sessions::new(config, routes.clone(), tasks, end, pace),
            routes,
            acceptor: acceptor.clone(),
            patience: config.header_timeout,
            handshake: config.handshake_timeout,
            stop: stop.clone(),
        };
        let connections = Connections {
            speakers: Arc::new(speakers),
            pace,
            slots: Arc::new(Semaphore::new(
                config.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            crowd: Arc::new(Crowd {
                limit: config.max_connections_per_ip,
                ..Crowd::default()
            }),
            tracker: tracker.clone(),
            stop: stop.clone(),
            kill: kill.clone(),
        };
        tracker.spawn(connections.accept(listener));
        Ok(Self {
            address,
            acceptor,
            drain: config.drain_timeout,
            tracker,
            stop,
            kill,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it speaks TLS with.
    pub(super) fn acceptor(&self) -> Option<&Acceptor> {
        self.acceptor.as_ref()
    }

    /// Stops accepting, lets requests under way go on for a while, then ends them. When it
    /// returns the port is free. Dropped halfway, it can be called again.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(self.drain, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::debug!(address = %self.address, "connections are cut off");
        }
        self.kill.cancel();
        self.tracker.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            tracing::error!(address = %self.address, "http server dropped without shutdown");
        }
        self.stop.cancel();
        self.kill.cancel();
    }
}

fn builder(config: &HttpConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_headers(config.max_headers)
        .max_header_size(config.max_header_bytes)
        // Bounds what is read ahead of a request; bodies come in reads of their own size.
        .max_buf_size(config.max_header_bytes)
        .keep_alive(true)
        .half_close(true);
    builder
}

/// What a certificate of our own making is for: where we are reached, as far as we know.
fn names(address: SocketAddr, config: &HttpConfig) -> Vec<String> {
    let public = config.public_url.as_ref();
    let public = public.and_then(|url| Url::parse(url.as_str()).ok());
    let mut names: Vec<String> = public.into_iter().map(|url| url.host).collect();
    names.push("localhost".to_owned());
    for ip in [
        address.ip(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        if !ip.is_unspecified() {
            names.push(ip.to_string());
        }
    }
    names.sort();
    names.dedup();
    names
}

struct Connections {
    speakers: Arc<Speakers>,
    pace: Pace,
    slots: Arc<Semaphore>,
    crowd: Arc<Crowd>,
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Connections {
    async fn accept(self, listener: TcpListener) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            // The semaphore is never closed.
            while let Ok(slot) = self.slots.clone().acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, peer)) => self.admit(stream, peer, slot),
                    Err(error) => {
                        tracing::debug!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
        .await;
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let Some(place) = Crowd::enter(&self.crowd, peer.ip()) else {
            tracing::debug!(%peer, "too many connections from one address");
            return;
        };
        // Without it the tail of each answer would wait for the client's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection lost");
            return;
        }
        let stream = Paced::new(stream, self.pace);
        let (speakers, kill) = (self.speakers.clone(), self.kill.clone());
        self.tracker.spawn(async move {
            let serve = kill.run_until_cancelled(speakers.serve(stream));
            if let Some(Err(error)) = serve.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop((place, slot));
        });
    }
}

/// How connections are served, whatever they speak.
struct Speakers {
    routes: Arc<Routes>,
    http1: http1::Builder,
    http2: Sessions,
    acceptor: Option<Acceptor>,
    /// For the first bytes.
    patience: Duration,
    /// For a handshake of TLS.
    handshake: Duration,
    stop: CancellationToken,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Speakers {
    async fn serve(&self, stream: Paced<TcpStream>) -> Result<(), Failure> {
        let written = stream.written();
        // Whoever has asked nothing yet is not waited for.
        let first = timeout(self.patience, sniff(stream));
        let Some(first) = self.stop.run_until_cancelled(first).await else {
            return Ok(());
        };
        let Some((beginning, stream)) = first?? else {
            return Ok(());
        };
        match (beginning, &self.acceptor) {
            (Beginning::Tls, Some(acceptor)) => {
                let shake = timeout(self.handshake, acceptor.accept(stream));
                let (stream, http2) = shake.await??;
                match http2 {
                    true => Ok(self.http2.serve(stream, written, &self.stop).await?),
                    false => self.serve_http1(stream).await,
                }
            }
            (Beginning::Http2, _) => Ok(self.http2.serve(stream, written, &self.stop).await?),
            // TLS that was not set up is answered as any request that cannot be read.
            (Beginning::Http1 | Beginning::Tls, _) => self.serve_http1(stream).await,
        }
    }

    async fn serve_http1<T>(&self, io: T) -> Result<(), Failure>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = self.routes.clone();
        let service = service_fn(move |request| {
            let routes = routes.clone();
            async move { Ok::<_, std::convert::Infallible>(routes.answer(request).await) }
        });
        let connection = self.http1.serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        if let Some(result) = self.stop.run_until_cancelled(connection.as_mut()).await {
            return Ok(result?);
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// Connections by address.
#[derive(Debug, Default)]
struct Crowd {
    limit: usize,
    heads: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the connections of an address, for as long as it is held.
struct Place {
    crowd: Arc<Crowd>,
    ip: IpAddr,
}

impl Crowd {
    fn enter(crowd: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = subscriber(ip);
        let mut heads = crowd.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let count = heads.entry(ip).or_insert(0);
        if *count >= crowd.limit {
            return None;
        }
        *count += 1;
        drop(heads);
        Some(Place {
            crowd: crowd.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut heads = self
            .crowd
            .heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = heads.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                heads.remove(&self.ip);
            }
        }
    }
}

/// The address that stands for one client: of IPv6 the /64, which is what one is given.
fn subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_its_limit_and_no_more() {
        let crowd = Arc::new(Crowd {
            limit: 2,
            ..Crowd::default()
        });
        let a = "2001:db8::1".parse().unwrap();
        let same = "2001:db8::ffff:1".parse().unwrap();
        let other = "2001:db8:0:1::1".parse().unwrap();
        let first = Crowd::enter(&crowd, a).unwrap();
        let _second = Crowd::enter(&crowd, same).unwrap();
        assert!(Crowd::enter(&crowd, a).is_none());
        let _third = Crowd::enter(&crowd, other).unwrap();
        drop(first);
        assert!(Crowd::enter(&crowd, a).is_some());
        assert_eq!(crowd.heads.lock().unwrap().len(), 2);
        assert_eq!(
            subscriber("::ffff:1.2.3.4".parse().unwrap()),
            IpAddr::from([1, 2, 3, 4])
        );
    }
}
