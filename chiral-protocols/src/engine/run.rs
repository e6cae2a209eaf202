//! A download from beginning to end: learn the identity, transfer, finish.

use std::collections::BTreeMap;
use std::time::Duration;

use chiral_core::chunk_store::StoreError;
use chiral_core::transfer::{TransferEventKind, TransferOutcome};
use chiral_core::{DownloadRequest, TransferDriver, TransferError};
use std::sync::Arc;
use tokio::time::Instant;

use super::assembly::Contributions;
use super::attribution::Attribution;
use super::connections::{Arrival, Connections};
use super::control;
use super::source::Connected;
use super::tellers::Tellers;
use super::wanted::Owner;
use super::{Connector, DownloadReport, Engine, EngineConfig};
use crate::downloads::Turn;
use crate::scheduler::SourceId;

/// What outlasts a change of how chunks are checked.
pub(super) struct Run {
    pub(super) engine: Engine,
    pub(super) driver: TransferDriver,
    pub(super) turn: Turn,
    pub(super) request: DownloadRequest,
    pub(super) started: Instant,
    pub(super) connections: Connections,
    /// Sources that are up.
    pub(super) known: BTreeMap<SourceId, Connected>,
    pub(super) attribution: Attribution,
    pub(super) tellers: Tellers,
    /// Told what readers may have.
    pub(super) owner: Owner,
    /// Who delivered chunks that are present and not proven.
    pub(super) unproven_from: BTreeMap<u32, Contributions>,
    /// What went wrong with a source last, in words.
    pub(super) last_trouble: Option<String>,
    /// Every announced root turned out wrong: go on without a manifest.
    pub(super) without_manifest: bool,
    /// What the file is called, as whoever knew its pieces said.
    pub(super) found_name: Option<String>,
    /// A first identity was announced to subscribers.
    pub(super) described: bool,
}

/// How a stage ended.
pub(super) enum Next {
    /// All is there.
    Finished(Box<DownloadReport>),
    /// Something was learnt that changes how chunks are checked.
    Again,
}

impl Engine {
    pub(super) async fn run(
        &self,
        driver: TransferDriver,
        turn: Turn,
        request: DownloadRequest,
        connector: Arc<dyn Connector>,
        owner: Owner,
    ) -> Result<DownloadReport, TransferError> {
        if let Err(stopped) = control::own_turn(&driver, &turn).await {
            let result = Err(stopped.into());
            owner.end(&result);
            drop(turn);
            driver.finish(TransferOutcome::Cancelled);
            return result;
        }
        let peers = self.peers.clone();
        let connections = Connections::new(connector, &request, &self.config, peers).await;
        let mut run = Run {
            engine: self.clone(),
            driver,
            turn,
            request,
            started: Instant::now(),
            connections,
            known: BTreeMap::new(),
            attribution: Attribution::default(),
            tellers: Tellers::default(),
            owner,
            unproven_from: BTreeMap::new(),
            last_trouble: None,
            without_manifest: false,
            found_name: None,
            described: false,
        };
        let result = run.stages().await;
        run.owner.end(&result);
        // Bills are made of what sources were told: all of it, before anybody hears of the end.
        std::mem::take(&mut run.tellers).finish().await;
        run.driver.set_sources(run.attribution.reports(None));
        if let Ok(report) = &result {
            run.driver.set_sources(report.sources.clone());
        }
        // Whoever hears of the end may begin anew at once.
        drop(run.turn);
        run.driver.finish(outcome(&result));
        result
    }
}

fn outcome(result: &Result<DownloadReport, TransferError>) -> TransferOutcome {
    match result {
        Ok(report) => TransferOutcome::Completed {
            cid: report.header.cid,
            root: Some(report.header.root),
            size: report.header.size,
        },
        Err(TransferError::Cancelled(_)) => TransferOutcome::Cancelled,
        Err(error) => TransferOutcome::Failed {
            reason: describe(error),
            retryable: error.is_retryable(),
        },
    }
}

/// An error with its causes, in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Run {
    async fn stages(&mut self) -> Result<DownloadReport, TransferError> {
        self.refuse_taken_destination()?;
        loop {
            let identity = self.identify().await?;
            match self.transfer(identity).await? {
                Next::Finished(report) => return Ok(*report),
                Next::Again => {}
            }
        }
    }

    /// A destination that exists is refused before anything is fetched.
    pub(super) fn refuse_taken_destination(&self) -> Result<(), TransferError> {
        use chiral_core::chunk_store::Destination;
        match &self.request.destination {
            Destination::File(path) if path.symlink_metadata().is_ok() => {
                Err(StoreError::AlreadyExists { path: path.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn config(&self) -> &EngineConfig {
        &self.engine.config
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes note of what came of connecting; answers the source if there is a new one.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<SourceId> {
        match arrival {
            Arrival::Up(id, connected) => {
                if self.known.len() >= self.config().max_sources {
                    self.connections.turn_away();
                    return None;
                }
                self.attribution.join(id, connected.offer().clone());
                self.tellers.join(id, connected.source.clone());
                self.driver.emit(TransferEventKind::SourceUp {
                    source: connected.name().to_owned(),
                    protocol: connected.offer().protocol.clone(),
                });
                self.known.insert(id, *connected);
                Some(id)
            }
            Arrival::Failed {
                endpoint,
                error,
                given_up,
            } => {
                let reason = describe(&error);
                tracing::debug!(source = %endpoint, given_up, reason, "cannot connect");
                self.driver.emit(TransferEventKind::SourceDown {
                    source: endpoint.as_str().to_owned(),
                    reason: reason.clone(),
                });
                self.last_trouble = Some(reason);
                None
            }
        }
    }

    /// A source is out for good.
    pub(super) fn put_out(&mut self, id: SourceId, reason: &str) {
        if self.attribution.is_banned(id) {
            return;
        }
        self.attribution.banned(id, reason.to_owned());
        if let Some(connected) = self.known.remove(&id) {
            let source = connected.name().to_owned();
            tracing::debug!(source, reason, "source banned");
            connected.source.banned();
            let target = &self.request.target;
            self.engine.peers.ban(connected.offer(), target, reason);
            self.connections.put_out(connected.offer());
            self.last_trouble = Some(format!("{source}: {reason}"));
            self.driver.emit(TransferEventKind::SourceBanned {
                source,
                reason: reason.to_owned(),
            });
        }
    }

    /// A source rests for a while.
    pub(super) fn demoted(&self, id: SourceId, reason: &str, lasts: Duration) {
        let Some(connected) = self.known.get(&id) else {
            return;
        };
        let (offer, target) = (connected.offer(), &self.request.target);
        self.engine.peers.demote(offer, target, reason, lasts);
        self.driver.emit(TransferEventKind::SourceDemoted {
            source: connected.name().to_owned(),
            reason: reason.to_owned(),
            for_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// The error for when nobody is left.
    pub(super) fn no_sources(&self, missing: u64) -> TransferError {
        let reason = match &self.last_trouble {
            Some(trouble) => trouble.clone(),
            None if self.request.offers.is_empty() => "nobody is known to have it".to_owned(),
            None => "no seeder delivers what is missing".to_owned(),
        };
        TransferError::NoSources { missing, reason }
    }
}
