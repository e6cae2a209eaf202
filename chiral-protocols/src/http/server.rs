//! The accepting side: connections, their limits, and the way they end.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{HttpConfig, HttpError};
use super::pace::{Pace, Paced};
use super::routes::Routes;

/// Pause after a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening server. All its tasks are in `tracker`.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
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
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let connections = Connections {
            routes,
            builder: builder(config),
            pace: Pace {
                period: config.write_timeout,
                bytes_per_second: config.min_send_bytes_per_second,
            },
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
            drain: config.drain_timeout,
            tracker,
            stop,
            kill,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
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

struct Connections {
    routes: Arc<Routes>,
    builder: http1::Builder,
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
        let routes = self.routes.clone();
        let service = service_fn(move |request| {
            let routes = routes.clone();
            async move { Ok::<_, std::convert::Infallible>(routes.answer(request).await) }
        });
        let io = TokioIo::new(Paced::new(stream, self.pace));
        let mut connection = Box::pin(self.builder.serve_connection(io, service));
        let (stop, kill) = (self.stop.clone(), self.kill.clone());
        self.tracker.spawn(async move {
            let serve = async {
                if let Some(result) = stop.run_until_cancelled(connection.as_mut()).await {
                    return result;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            };
            if let Some(Err(error)) = kill.run_until_cancelled(serve).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop((place, slot));
        });
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
