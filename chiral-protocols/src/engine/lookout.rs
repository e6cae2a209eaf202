//! Asking the directory again who seeds a file, while it is downloaded.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::{FileIdentification, PeerDirectory, PeerOffer, ProviderQuery};

type Asking = Pin<Box<dyn Future<Output = Vec<PeerOffer>> + Send>>;

/// Asks one directory from time to time.
pub(super) struct Lookout {
    directory: Option<Arc<dyn PeerDirectory>>,
    target: FileIdentification,
    every: Duration,
    asking: Option<Asking>,
    first: bool,
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookout")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Lookout {
    /// Asks this directory, at once unless its first answer is known.
    pub(super) fn new(
        directory: Option<Arc<dyn PeerDirectory>>,
        target: FileIdentification,
        every: Duration,
        asked: bool,
    ) -> Self {
        Self {
            first: directory.is_some() && !asked,
            directory,
            target,
            every,
            asking: None,
        }
    }

    /// Whether the first answer has not come.
    pub(super) fn is_first(&self) -> bool {
        self.first
    }

    /// What the directory answers next; pending for ever without one. A directory that fails
    /// knows nobody this time.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Vec<PeerOffer> {
        let Some(directory) = &self.directory else {
            return std::future::pending().await;
        };
        let asking = self.asking.get_or_insert_with(|| {
            let pause = if self.first {
                Duration::ZERO
            } else {
                self.every
            };
            Box::pin(ask(directory.clone(), self.target, pause))
        });
        let offers = asking.await;
        self.asking = None;
        self.first = false;
        offers
    }
}

async fn ask(
    directory: Arc<dyn PeerDirectory>,
    target: FileIdentification,
    pause: Duration,
) -> Vec<PeerOffer> {
    tokio::time::sleep(pause).await;
    match directory.providers(ProviderQuery::new(target)).await {
        Ok(offers) => offers,
        Err(error) => {
            tracing::debug!(%error, "the directory did not answer");
            Vec::new()
        }
    }
}
