//! The stage in which bytes move: the loop around the scheduler.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chiral_core::buffers::Buffers;
use chiral_core::transfer::{Stopped, TransferEventKind};
use chiral_core::{
    Bitmap, ByteRange, ChunkLayout, Cid, ManifestHeader, PartialFile, TransferError,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::assembly::{Assembled, Assemblies};
use super::backward::Backward;
use super::checks::Checks;
use super::connections::Arrival;
use super::control::{self, Control};
use super::coverage::Refresh;
use super::fetch::{Asked, Fetched, fetch};
use super::forward::Forward;
use super::identify::{Identity, Start};
use super::jobs::JobDone;
use super::pieces::Pieces;
use super::pinned::Pinned;
use super::run::{Next, Run, describe};
use super::source::failure_kind;
use crate::scheduler::{Action, RequestId, Scheduler, SourceId, SourceState};

/// How often progress is reported and the scheduler looked after when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Pieces waiting to be looked at; each is at most a chunk.
const QUEUE: usize = 8;

/// Most chunks on their way to disk while pieces are checked by their own hashes. They are written one
/// after the other: more would only lie in memory, and keep processors from SHA-256 behind them.
const PIECE_JOBS: usize = 8;

/// Pieces looked at before everything else gets its turn.
const BATCH: usize = 16;

/// A request that is being worked off.
struct Ongoing {
    source: SourceId,
    end: watch::Sender<u64>,
    task: AbortHandle,
}

/// How the stage ends.
pub(super) enum Step {
    /// All that was wanted is proven.
    Done,
    /// Something was learnt that changes how chunks are checked.
    Again,
}

/// How chunks are checked.
pub(super) enum Mode {
    Pinned(Pinned),
    Backward(Backward),
    Forward(Forward),
    Pieces(Pieces),
}

/// A download in the stage of transfer.
pub(super) struct Active<'a> {
    pub(super) run: &'a mut Run,
    pub(super) layout: ChunkLayout,
    /// `None` while only another network's hashes are known.
    pub(super) cid: Option<Cid>,
    pub(super) partial: Arc<dyn PartialFile>,
    pub(super) hints: Option<ManifestHeader>,
    pub(super) scheduler: Scheduler,
    pub(super) assemblies: Assemblies,
    pub(super) jobs: JoinSet<JobDone>,
    pub(super) checks: Checks,
    /// Chunks on disk, and those proven, as this task knows them.
    pub(super) present: Bitmap,
    pub(super) proven: Bitmap,
    /// Chunks that are being checked or written.
    pub(super) busy: std::collections::BTreeSet<u32>,
    ongoing: HashMap<RequestId, Ongoing>,
    fetched: mpsc::Receiver<Fetched>,
    sender: mpsc::Sender<Fetched>,
    /// Memory for chunks that are being received.
    buffers: Arc<Buffers>,
    meter: Meter,
    /// Sources that arrange payment, and since when.
    pub(super) paying: BTreeMap<SourceId, Duration>,
    /// Partial seeders that are asked what they hold by now.
    pub(super) refresh: Refresh,
    /// When bytes came last, or could not come before.
    moved: Duration,
    /// Since when nobody delivers anything.
    idle_since: Option<Duration>,
}

/// Bytes per second over the last seconds.
#[derive(Default)]
struct Meter {
    at: Duration,
    bytes: u64,
    rate: f64,
}

impl Meter {
    fn update(&mut self, now: Duration, bytes: u64) -> u64 {
        let span = now.saturating_sub(self.at).as_secs_f64();
        if span > 0.0 {
            let current = (bytes - self.bytes) as f64 / span;
            // A time constant of one second.
            self.rate += (current - self.rate) * (1.0 - (-span).exp());
            (self.at, self.bytes) = (now, bytes);
        }
        self.rate as u64
    }
}

impl Run {
    pub(super) async fn transfer(&mut self, identity: Identity) -> Result<Next, TransferError> {
        let Identity {
            layout,
            cid,
            partial,
            hints,
            start,
        } = identity;
        let (sender, fetched) = mpsc::channel(QUEUE);
        let moved = self.now();
        let mut active = Active {
            scheduler: Scheduler::new(self.config().scheduler.clone(), layout.size()),
            run: self,
            layout,
            cid,
            hints,
            assemblies: Assemblies::new(layout),
            jobs: JoinSet::new(),
            checks: Checks::new(),
            present: partial.present(),
            proven: partial.proven(),
            partial,
            busy: Default::default(),
            ongoing: HashMap::new(),
            fetched,
            sender,
            buffers: Arc::default(),
            meter: Meter::default(),
            paying: BTreeMap::new(),
            refresh: Refresh::default(),
            moved,
            idle_since: None,
        };
        let mut mode = match start {
            Start::Pinned(root) => Mode::Pinned(active.begin_pinned(root)),
            Start::Backward { candidates, last } => {
                Mode::Backward(active.begin_backward(candidates, last).await?)
            }
            Start::Forward => Mode::Forward(active.begin_forward()),
            Start::Pieces(hashes) => Mode::Pieces(active.begin_pieces(hashes)?),
        };
        if !matches!(mode, Mode::Forward(_)) {
            active.open_to_readers();
        }
        let result = active.drive(&mut mode).await;
        active.stop_requests();
        active.remember();
        while active.jobs.join_next().await.is_some() {}
        match result {
            Ok(Step::Again) => Ok(Next::Again),
            Ok(Step::Done) => active
                .finish()
                .await
                .map(|report| Next::Finished(Box::new(report))),
            Err(error) => {
                // What has come is kept for the next try; a disk that fails has said so.
                active.partial.flush().await.unwrap_or_default();
                Err(error)
            }
        }
    }
}

impl Active<'_> {
    /// Runs until all that is wanted is proven, or something else must be tried.
    async fn drive(&mut self, mode: &mut Mode) -> Result<Step, TransferError> {
        let already = self.present.count_ones();
        self.run.driver.emit(TransferEventKind::Started {
            chunks_resumed: already,
        });
        for id in self.run.known.keys().copied().collect::<Vec<_>>() {
            self.engage(id);
        }
        self.want_next(mode);
        let mut control = Control::default();
        let mut next_tick = Duration::ZERO;
        let wished = self.run.owner.readable().clone();
        let mut cleared = self.run.engine.peers.cleared();
        loop {
            if self.run.now() >= next_tick {
                self.tick()?;
                if wished.is_waited_for() {
                    self.want_next(mode);
                }
                next_tick = self.run.now() + TICK;
            }
            self.act();
            if let Some(end) = self.step(mode).await? {
                return Ok(end);
            }
            // Checking may have asked for bytes again, or put somebody out.
            self.act();
            self.start_checks();
            let now = self.run.now();
            // The scheduler's own deadlines are looked after at every turn of the loop too.
            let due = self
                .scheduler
                .next_deadline()
                .map_or(next_tick, |at| at.min(next_tick));
            let wait = due.saturating_sub(now).max(Duration::from_millis(1));
            let room = self.has_room(mode);
            tokio::select! {
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    self.job_done(mode, done).await?;
                    while let Some(done) = self.jobs.try_join_next() {
                        self.job_done(mode, done).await?;
                    }
                }
                Some(fetched) = self.fetched.recv(), if room => {
                    self.fetched(mode, fetched).await?;
                    for _ in 0..BATCH {
                        let Some(next) = self.has_room(mode).then(|| self.fetched.try_recv().ok()).flatten() else {
                            break;
                        };
                        self.fetched(mode, next).await?;
                    }
                }
                arrival = self.run.connections.next() => {
                    if self.arrived(mode, arrival) {
                        return Ok(Step::Again);
                    }
                }
                changed = control::changed(&self.run.driver, &self.run.turn, control) => {
                    control = changed;
                    self.control(control).await?;
                }
                () = wished.wished() => self.want_next(mode),
                Ok(()) = cleared.changed() => self.forgive(),
                Some((source, told)) = self.refresh.next() => self.told(mode, source, told),
                () = tokio::time::sleep(wait) => {
                    let now = self.run.now();
                    self.scheduler.tick(now);
                }
            }
        }
    }

    /// Whether more chunks may be on their way through checks and to disk.
    fn has_room(&self, mode: &Mode) -> bool {
        let most = self.run.config().max_jobs;
        let most = match mode {
            Mode::Pieces(_) => most.min(PIECE_JOBS),
            _ => most,
        };
        self.jobs.len() + self.checks.len() < most
    }

    /// Lets the checking go on with what has come; answers how the stage ends, if it does.
    async fn step(&mut self, mode: &mut Mode) -> Result<Option<Step>, TransferError> {
        match mode {
            Mode::Pinned(pinned) => self.step_pinned(pinned),
            Mode::Backward(backward) => self.step_backward(backward).await,
            Mode::Forward(forward) => self.step_forward(forward),
            Mode::Pieces(pieces) => self.step_pieces(pieces),
        }
    }

    async fn job_done(
        &mut self,
        mode: &mut Mode,
        done: Result<JobDone, tokio::task::JoinError>,
    ) -> Result<(), TransferError> {
        let done = match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(TransferError::Closed),
        };
        match (mode, done) {
            (_, JobDone::StoreFailed(error)) => Err(error.into()),
            (mode, JobDone::Coverage { source, coverage }) => {
                self.coverage_told(mode, source, coverage);
                Ok(())
            }
            (Mode::Pinned(pinned), done) => {
                self.pinned_done(pinned, done);
                Ok(())
            }
            (Mode::Backward(backward), done) => self.backward_done(backward, done).await,
            (Mode::Forward(forward), done) => self.forward_done(forward, done).await,
            (Mode::Pieces(pieces), done) => self.pieces_done(pieces, done).await,
        }
    }

    /// Does what the scheduler says.
    fn act(&mut self) {
        let now = self.run.now();
        while let Some(action) = self.scheduler.poll(now) {
            match action {
                Action::Assign {
                    request,
                    source,
                    range,
                } => self.assign(request, source, range),
                Action::Cancel { request } => {
                    if let Some(ongoing) = self.ongoing.remove(&request) {
                        ongoing.task.abort();
                    }
                }
                Action::Truncate { request, end } => {
                    if let Some(ongoing) = self.ongoing.get(&request) {
                        ongoing.end.send_replace(end);
                    }
                }
                Action::Demote {
                    source,
                    until,
                    reason,
                } => {
                    let reason = format!("{reason:?}").to_lowercase();
                    self.run.demoted(source, &reason, until.saturating_sub(now));
                }
                Action::Ban { source } => self.abort_all(source),
                // The scheduler is of this crate: no other action exists.
            }
        }
    }

    fn assign(&mut self, request: RequestId, source: SourceId, range: ByteRange) {
        let Some(connected) = self.run.known.get(&source) else {
            self.scheduler.source_down(self.run.now(), source);
            return;
        };
        let (end, watched) = watch::channel(range.end);
        let (from, out) = (connected.source.clone(), self.sender.clone());
        let asked = Asked {
            source,
            request,
            range,
            end: watched,
            flow: self.run.turn.flow().clone(),
            buffers: self.buffers.clone(),
        };
        let task = tokio::spawn(fetch(from, asked, out)).abort_handle();
        self.ongoing.insert(request, Ongoing { source, end, task });
    }

    async fn fetched(&mut self, mode: &mut Mode, fetched: Fetched) -> Result<(), TransferError> {
        let now = self.run.now();
        match fetched {
            Fetched::Piece {
                source,
                request,
                offset,
                bytes,
                checked,
            } => {
                let range = ByteRange::new(offset, offset + bytes.len() as u64);
                self.run.attribution.received(source, range.len(), now);
                (self.moved, self.idle_since) = (now, None);
                let useful = self.scheduler.arrived(now, request, range);
                let index = ChunkLayout::chunk_at(offset);
                let needless = self.present.get(index) || self.busy.contains(&index);
                if useful == 0 || needless || self.run.attribution.is_banned(source) {
                    return Ok(());
                }
                if let Some(chunk) = self.assemblies.add(offset, bytes, source) {
                    let chunk = chunk.checked(checked);
                    self.assembled(mode, chunk);
                }
                Ok(())
            }
            Fetched::Done { request } => {
                self.ongoing.remove(&request);
                self.scheduler.completed(now, request);
                Ok(())
            }
            Fetched::Failed {
                source,
                request,
                error,
            } => {
                self.ongoing.remove(&request);
                let kind = failure_kind(&error);
                self.scheduler.failed(now, request, kind);
                let reason = describe(&error);
                tracing::debug!(source = source.0, reason, "request failed");
                if matches!(error, TransferError::Missing { .. }) {
                    self.ask_coverage(source);
                }
                self.run.last_trouble = Some(reason);
                Ok(())
            }
        }
    }

    fn assembled(&mut self, mode: &mut Mode, chunk: Assembled) {
        self.busy.insert(chunk.index);
        match mode {
            Mode::Pinned(pinned) => self.check_pinned(pinned, chunk),
            Mode::Backward(backward) => self.link_backward(backward, chunk),
            Mode::Forward(_) => self.store_unproven(chunk),
            Mode::Pieces(pieces) => {
                pieces.hold(chunk.index, &chunk.bytes);
                self.store_unproven(chunk);
            }
        }
    }

    /// A source came, or did not. True if it knows what this stage lacks.
    fn arrived(&mut self, mode: &mut Mode, arrival: Arrival) -> bool {
        let Some(id) = self.run.arrive(arrival) else {
            return false;
        };
        self.idle_since = None;
        let announces = self
            .run
            .known
            .get(&id)
            .is_some_and(|connected| connected.header.is_some());
        match mode {
            Mode::Forward(_) if announces && !self.run.without_manifest => return true,
            Mode::Forward(forward) if forward.shuns(id) => return false,
            Mode::Backward(backward) => self.announced(backward, id),
            Mode::Pinned(_) | Mode::Forward(_) | Mode::Pieces(_) => {}
        }
        self.engage(id);
        false
    }

    /// Lets the scheduler use a source.
    pub(super) fn engage(&mut self, id: SourceId) {
        let Some(connected) = self.run.known.get(&id) else {
            return;
        };
        if connected.fits(self.layout) {
            let mut spec = connected.spec(self.layout);
            spec.rate_hint = self.run.engine.peers.expected(connected.offer());
            self.scheduler.source_up(self.run.now(), id, spec);
            self.watch_coverage(id, Duration::ZERO);
        } else {
            let source = connected.name().to_owned();
            let reason = "it has a file of another size".to_owned();
            self.run
                .driver
                .emit(TransferEventKind::SourceDown { source, reason });
        }
    }

    async fn control(&mut self, control: Control) -> Result<(), TransferError> {
        if control.cancelled {
            return Err(Stopped.into());
        }
        if control.held {
            self.scheduler.pause();
            self.stop_requests();
            self.partial.flush().await?;
        } else {
            self.scheduler.resume();
        }
        (self.moved, self.idle_since) = (self.run.now(), None);
        Ok(())
    }

    /// Stops everything under way; what it was for is handed out again later. Whoever had not
    /// begun is not to blame.
    pub(super) fn stop_requests(&mut self) {
        let now = self.run.now();
        for (request, ongoing) in std::mem::take(&mut self.ongoing) {
            ongoing.task.abort();
            self.scheduler.withdrawn(now, request);
        }
    }

    /// Penalties were taken back: whoever rests and need not any more goes on.
    fn forgive(&mut self) {
        let (now, target) = (self.run.now(), &self.run.request.target);
        for (id, connected) in &self.run.known {
            if self
                .run
                .engine
                .peers
                .penalty(connected.offer(), target)
                .is_none()
            {
                self.scheduler.forgive(now, *id);
            }
        }
    }

    pub(super) fn abort_all(&mut self, source: SourceId) {
        self.ongoing.retain(|_, ongoing| {
            if ongoing.source == source {
                ongoing.task.abort();
            }
            ongoing.source != source
        });
    }

    fn tick(&mut self) -> Result<(), TransferError> {
        let now = self.run.now();
        let paying = self.hold_the_paying();
        self.refresh_coverage();
        self.scheduler.tick(now);
        self.report();
        let silent = now.saturating_sub(self.moved) > self.run.config().manifest_patience;
        if silent && !paying && self.run.turn.is_own() {
            self.run.connections.use_last_resort();
        }
        let waiting = self.jobs.is_empty() && self.run.turn.is_own();
        if !self.ongoing.is_empty() || paying || !waiting || self.scheduler.is_complete() {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert(now);
        let resting = |id: &SourceId| {
            self.scheduler
                .source_stats(*id)
                .is_some_and(|stats| !matches!(stats.state, SourceState::Banned))
        };
        let hopeless = self.run.connections.exhausted() && !self.run.known.keys().any(resting);
        if hopeless || now - since > self.run.config().source_patience {
            return Err(self.run.no_sources(self.scheduler.missing().len()));
        }
        Ok(())
    }

    /// How fast each source was is remembered over the download.
    fn remember(&self) {
        let held_up = self.run.turn.flow().was_held_up();
        for (id, connected) in &self.run.known {
            if let Some(stats) = self.scheduler.source_stats(*id)
                && let Some(rate) = stats.rate
            {
                let (peers, bytes) = (&self.run.engine.peers, stats.useful_bytes);
                peers.record(connected.offer(), bytes, rate, held_up);
            }
        }
    }

    /// Publishes progress.
    pub(super) fn report(&mut self) {
        let now = self.run.now();
        let rate = self
            .meter
            .update(now, self.run.attribution.total_received());
        let bytes = |bitmap: &Bitmap| {
            let full = u64::from(bitmap.count_ones()) * chiral_core::CHUNK_SIZE;
            match self.layout.last() {
                Some(last) if bitmap.get(last) => {
                    full - chiral_core::CHUNK_SIZE + self.layout.range(last).len()
                }
                _ => full,
            }
        };
        let (present, proven) = (bytes(&self.present), bytes(&self.proven));
        let wanted = self.run.request.only.map_or(self.layout.size(), |only| {
            let touched = self.layout.touched(only);
            self.layout.span(touched.start, touched.end).len()
        });
        let unproven = self.unproven();
        let sources = u32::try_from(self.run.known.len()).unwrap_or(u32::MAX);
        self.run.driver.update(|progress| {
            progress.size = Some(self.layout.size());
            progress.wanted = wanted;
            progress.present = present;
            progress.proven = proven;
            progress.chunks = self.layout.count();
            progress.chunks_unproven = unproven;
            progress.sources = sources;
            progress.bytes_per_second = rate;
        });
        self.run
            .driver
            .set_sources(self.run.attribution.reports(Some(self.layout)));
    }

    /// Chunks present and not proven.
    pub(super) fn unproven(&self) -> u32 {
        self.present.count_ones() - self.proven.count_ones()
    }
}
