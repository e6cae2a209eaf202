//! [`Fetcher`]: small documents by their URL, as BitTorrent's trackers give them: bounded,
//! redirected three times at most, and only where the address policy and a redirect's origin
//! allow.

use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{Endpoint, TransferError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::{AddressPolicy, Reach};
use super::client::collect;
use super::config::{HttpConfig, HttpError, MAX_REDIRECTS};
use super::connect::{Origin, Transport, refused};
use super::mirror::location;
use super::pool::{Ask, Pool};
use super::proxy::Proxies;
use super::tls::Connector;
use super::url::Url;

/// Why there is no document.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// Not a URL that can be asked for.
    Url,
    Timeout,
    Failed(TransferError),
}

impl From<TransferError> for FetchError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Timeout { .. } => Self::Timeout,
            error => Self::Failed(error),
        }
    }
}

/// Fetches documents; keeps no connections.
#[derive(Debug)]
pub(crate) struct Fetcher {
    transport: Arc<Transport>,
    reach: Reach,
    closed: CancellationToken,
}

impl Fetcher {
    /// `announced` counts in addition to the policy of the settings.
    pub(crate) fn new(config: &HttpConfig, announced: AddressPolicy) -> Result<Self, HttpError> {
        let all = config.addresses;
        let transport = Transport {
            proxies: Proxies::new(&config.proxies)?,
            tls: Connector::new(&config.trust)?,
            tasks: TaskTracker::new(),
            config: Arc::new(config.clone()),
        };
        let announced = Some(announced);
        Ok(Self {
            transport: Arc::new(transport),
            reach: Reach { all, announced },
            closed: CancellationToken::new(),
        })
    }

    /// The status and the body, of at most so many bytes.
    pub(crate) async fn get(&self, url: &str, limit: usize) -> Result<(u16, Bytes), FetchError> {
        let url = Url::parse(url).map_err(|_| FetchError::Url)?;
        // Errors show it, and the rest of the URL may be a secret.
        let name = format!("{}{}", url.scheme(), url.authority);
        let name = Endpoint::new(name).map_err(|_| FetchError::Url)?;
        let (transport, reach) = (&self.transport, self.reach);
        let mut origin = Origin::resolve(url, None, &name, reach, transport).await?;
        for _ in 0..=MAX_REDIRECTS {
            let closed = self.closed.child_token();
            let pool = Pool::new(name.clone(), transport.clone(), origin, closed.clone());
            let _guard = closed.drop_guard();
            let (mut link, answer) = pool.ask(&Ask::get(pool.origin.url.path.clone())).await?;
            let (head, body) = answer.into_parts();
            let Some(location) = location(head.status, &head.headers) else {
                let wait = transport.config.answer_timeout;
                let body = collect(&mut link, body, limit, wait, &name).await?;
                return Ok((head.status.as_u16(), body));
            };
            let peer = link.peer();
            let redirect = pool
                .origin
                .redirect(&location, peer, &name, reach, transport);
            origin = redirect.await?;
        }
        Err(refused(&name, "too many redirects", false).into())
    }

    /// Ends what is under way.
    pub(crate) async fn shutdown(&self) {
        self.closed.cancel();
        self.transport.tasks.close();
        self.transport.tasks.wait().await;
    }
}
