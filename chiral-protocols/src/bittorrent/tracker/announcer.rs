//! [`Announcer`]: keeps one torrent announced.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::schedule::{Announce, MIN_INTERVAL, Schedule};
use super::{AnnounceAnswer, AnnounceEvent, AnnounceRequest, Tiers, TrackerClient, TrackerError};

/// Updates that wait to be read. Beyond that the announcer waits.
const UPDATES: usize = 16;
const COMMANDS: usize = 8;

/// What is announced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AnnouncerConfig {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// Who we are in its swarm.
    pub peer_id: [u8; 20],
    /// Where we listen.
    pub port: u16,
    /// The trackers.
    pub tiers: Tiers,
    /// How many peers are wanted.
    pub num_want: u32,
    /// Shortest interval in which a tracker is asked without an event, whatever it says.
    pub shortest_interval: Duration,
    /// How long a tracker may take to hear that we stop.
    pub stop_timeout: Duration,
}

impl AnnouncerConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(info_hash: [u8; 20], peer_id: [u8; 20], port: u16, tiers: Tiers) -> Self {
        Self {
            info_hash,
            peer_id,
            port,
            tiers,
            num_want: 80,
            shortest_interval: MIN_INTERVAL,
            stop_timeout: Duration::from_secs(3),
        }
    }
}

/// How far a transfer is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sent since it began.
    pub uploaded: u64,
    /// Received since it began.
    pub downloaded: u64,
    /// Still missing. A magnet link's size is not known at first: say 1.
    pub left: u64,
}

/// What has come of an announcement.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// A tracker has answered. In a private torrent (BEP 27), peers of another tracker are to
    /// be dropped.
    Answered {
        /// Which.
        tracker: String,
        /// What.
        answer: AnnounceAnswer,
    },
    /// A tracker has not; the next one is asked.
    Failed {
        /// Which.
        tracker: String,
        /// Why.
        error: TrackerError,
    },
}

enum Command {
    Completed,
    Hurry,
}

/// Keeps a torrent announced. To be ended by [`stop`](Self::stop), or else the trackers
/// believe that we are still there.
#[derive(Debug)]
pub struct Announcer {
    commands: mpsc::Sender<Command>,
    progress: watch::Sender<Progress>,
    updates: mpsc::Receiver<Update>,
    stopped: CancellationToken,
    tasks: TaskTracker,
}

impl Announcer {
    /// Starts: the first announcement is made at once.
    #[must_use]
    pub fn start(client: &TrackerClient, config: AnnouncerConfig, progress: Progress) -> Self {
        let (commands, mailbox) = mpsc::channel(COMMANDS);
        let (told, updates) = mpsc::channel(UPDATES);
        let (progress, watched) = watch::channel(progress);
        let (stopped, tasks) = (CancellationToken::new(), TaskTracker::new());
        let now = Instant::now().into_std();
        let mut random = client.random();
        let tiers = config.tiers.clone();
        let shortest = config.shortest_interval;
        let runner = Runner {
            schedule: Schedule::new(tiers, shortest, &mut random, now),
            request: AnnounceRequest {
                info_hash: config.info_hash,
                peer_id: config.peer_id,
                port: config.port,
                uploaded: 0,
                downloaded: 0,
                left: 0,
                event: AnnounceEvent::None,
                num_want: Some(config.num_want),
                key: random.u32(),
                tracker_id: None,
            },
            ids: Vec::new(),
            client: client.clone(),
            config,
            mailbox,
            told,
            watched,
            stopped: stopped.clone(),
        };
        tasks.spawn(runner.run());
        tasks.close();
        Self {
            commands,
            progress,
            updates,
            stopped,
            tasks,
        }
    }

    /// The next update; `None` once stopped.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if dropped.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }

    /// Says how far the transfer is, for the next announcement.
    pub fn progress(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Says that the transfer is complete, and was not when it began.
    pub fn completed(&self) {
        // A full mailbox has one already, or soon has the progress.
        let _ = self.commands.try_send(Command::Completed);
    }

    /// Asks for more peers as soon as the trackers allow.
    pub fn hurry(&self) {
        let _ = self.commands.try_send(Command::Hurry);
    }

    /// Tells the trackers that we stop, for [`AnnouncerConfig::stop_timeout`] at most.
    pub async fn stop(mut self) {
        self.stopped.cancel();
        self.updates.close();
        self.tasks.wait().await;
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

struct Runner {
    schedule: Schedule,
    request: AnnounceRequest,
    /// What trackers have given as their id for us.
    ids: Vec<(String, Vec<u8>)>,
    client: TrackerClient,
    config: AnnouncerConfig,
    mailbox: mpsc::Receiver<Command>,
    told: mpsc::Sender<Update>,
    watched: watch::Receiver<Progress>,
    stopped: CancellationToken,
}

impl Runner {
    async fn run(mut self) {
        let stopped = self.stopped.clone();
        stopped.run_until_cancelled(self.keep_announced()).await;
        self.schedule.stop();
        let wait = self.config.stop_timeout;
        let _ = timeout(wait, async {
            while let Some(announce) = self.schedule.poll(now()) {
                let result = self.announce(&announce).await;
                match result {
                    Ok(answer) => self.schedule.succeeded(&answer, now()),
                    Err(error) => self.schedule.failed(&error, now()),
                }
            }
        })
        .await;
    }

    async fn keep_announced(&mut self) {
        loop {
            while let Some(announce) = self.schedule.poll(now()) {
                let result = self.announce(&announce).await;
                let tracker = announce.url;
                let update = match result {
                    Ok(answer) => {
                        self.schedule.succeeded(&answer, now());
                        Update::Answered { tracker, answer }
                    }
                    Err(error) => {
                        self.schedule.failed(&error, now());
                        Update::Failed { tracker, error }
                    }
                };
                // Nobody reads any more: trackers are told nevertheless.
                let _ = self.told.send(update).await;
            }
            let due = self.schedule.poll_timeout(now());
            let wake = async {
                match due {
                    Some(due) => sleep_until(Instant::from_std(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(Command::Completed) => self.schedule.complete(now()),
                    Some(Command::Hurry) => self.schedule.hurry(),
                    None => return,
                },
                () = wake => {}
            }
        }
    }

    async fn announce(&mut self, announce: &Announce) -> Result<AnnounceAnswer, TrackerError> {
        let progress = *self.watched.borrow_and_update();
        let known = self.ids.iter().find(|(url, _)| *url == announce.url);
        let stops = announce.event == AnnounceEvent::Stopped;
        let request = AnnounceRequest {
            uploaded: progress.uploaded,
            downloaded: progress.downloaded,
            left: progress.left,
            event: announce.event,
            num_want: Some(if stops { 0 } else { self.config.num_want }),
            tracker_id: known.map(|(_, id)| id.clone()),
            ..self.request.clone()
        };
        let answer = self.client.announce(&announce.url, &request).await?;
        if let Some(id) = &answer.tracker_id {
            self.ids.retain(|(url, _)| *url != announce.url);
            self.ids.push((announce.url.clone(), id.clone()));
        }
        Ok(answer)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Update {
    /// The peers that it names, if it names any.
    #[must_use]
    pub fn peers(&self) -> &[SocketAddr] {
        match self {
            Self::Answered { answer, .. } => &answer.peers,
            Self::Failed { .. } => &[],
        }
    }
}
