//! The accepting side: connections, their limits, and the way they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Api;
use super::config::ServerError;
use super::patience::Patience;

/// Pause after a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Headers of a request at most.
const MAX_HEADERS: usize = 64;

/// Bytes that are read ahead of a connection, and thereby of a head, at most.
const READ_AHEAD: usize = 16 * 1024;

/// A listening socket and its connections.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    drain: Duration,
    tracker: TaskTracker,
    /// Ends the accepting, and each connection after the request that it is at.
    stop: CancellationToken,
    /// Ends every connection where it is.
    kill: CancellationToken,
}

impl Listener {
    pub(super) async fn bind(address: SocketAddr, api: Arc<Api>) -> Result<Self, ServerError> {
        let listen = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let made = Self {
            address,
            drain: api.config.drain_timeout,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let slots = api.config.max_connections.min(Semaphore::MAX_PERMITS);
        let connections = Connections {
            api,
            slots: Arc::new(Semaphore::new(slots)),
            tracker: made.tracker.clone(),
            stop: made.stop.clone(),
            kill: made.kill.clone(),
        };
        made.tracker.spawn(connections.accept(listener));
        Ok(made)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

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

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            tracing::error!(address = %self.address, "json-rpc server dropped without shutdown");
        }
        self.stop.cancel();
        self.kill.cancel();
    }
}

struct Connections {
    api: Arc<Api>,
    slots: Arc<Semaphore>,
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
                    Ok((stream, _)) => self.admit(stream, slot),
                    Err(error) => {
                        tracing::debug!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
        .await;
    }

    fn admit(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        // Answers are small and waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let stream = Patience::new(stream, self.api.config.write_timeout);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.api.config.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(READ_AHEAD);
        let api = self.api.clone();
        let service = service_fn(move |request| api.clone().serve(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let (stop, kill) = (self.stop.clone(), self.kill.clone());
        self.tracker.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        served = connection => served,
                        () = kill.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection broke");
            }
            drop(slot);
        });
    }
}
