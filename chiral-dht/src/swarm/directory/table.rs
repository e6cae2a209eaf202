//! [`Table`]: what this node announces, and when it is to be published next.
//!
//! Time is passed in. An entry is published by one attempt at a time; what changes meanwhile
//! makes it due again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chiral_core::{Announcement, Cid, FileIdentification, ManifestHeader};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::sequence::Sequence;
use crate::records::RecordKey;

/// Limit on the files that one node announces.
pub const MAX_FILES: usize = 65_536;

/// Pauses after attempts that reached nobody: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Fewer acknowledgements than this are worth another attempt when the network has grown.
const ENOUGH: usize = 20;

/// What is to be published.
#[derive(Clone, Debug)]
pub(super) enum Statement {
    Announced(Announcement),
    /// Until this time (seconds since 1970), when the announcement ends anyway.
    Withdrawn(ManifestHeader, u64),
}

impl Statement {
    fn header(&self) -> &ManifestHeader {
        match self {
            Self::Announced(announcement) => &announcement.header,
            Self::Withdrawn(header, _) => header,
        }
    }
}

#[derive(Debug)]
struct Entry {
    statement: Statement,
    /// Tells a statement from the one that replaced it.
    version: u64,
    /// When it is due; none while it is being published.
    due: Option<Instant>,
    /// Attempts that reached nobody since one that did.
    failures: u32,
    /// Acknowledgements of the last attempt, and how many nodes were known then.
    acknowledged: usize,
    known: usize,
    /// When the last announcement that may be held by others ends.
    expires_at: u64,
    /// Who waits for the next attempt.
    waiting: Vec<oneshot::Sender<()>>,
}

/// An attempt to publish one file's statement.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) cid: Cid,
    pub(super) version: u64,
    pub(super) statement: Statement,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Cid, Entry>,
    due: BTreeSet<(Instant, Cid)>,
    versions: u64,
    /// The numbers of announcements.
    pub(super) sequence: Sequence,
}

impl Table {
    /// Announces nothing yet.
    pub(super) fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            ..Self::default()
        }
    }

    /// Announces a file from now on; false if there are too many.
    pub(super) fn announce(
        &mut self,
        announcement: Announcement,
        attempt: oneshot::Sender<()>,
        now: Instant,
    ) -> bool {
        let cid = announcement.header.cid;
        if !self.entries.contains_key(&cid) && self.entries.len() >= MAX_FILES {
            return false;
        }
        self.state(cid, Statement::Announced(announcement), attempt, now);
        true
    }

    /// Withdraws what is announced under a name. The answers come with the attempts.
    pub(super) fn withdraw(
        &mut self,
        target: &FileIdentification,
        now: Instant,
    ) -> Vec<(Cid, oneshot::Receiver<()>)> {
        let cids: Vec<Cid> = match target {
            FileIdentification::Content { cid, .. } => vec![*cid],
            other => {
                let key = RecordKey::of(other);
                let named =
                    |header: &ManifestHeader| RecordKey::all(header).any(|name| Some(name) == key);
                let entries = self.entries.iter();
                entries
                    .filter(|(_, entry)| named(entry.statement.header()))
                    .map(|(cid, _)| *cid)
                    .collect()
            }
        };
        cids.into_iter()
            .filter_map(|cid| Some((cid, self.withdraw_one(cid, now)?)))
            .collect()
    }

    /// Withdraws everything.
    pub(super) fn withdraw_all(&mut self, now: Instant) -> Vec<oneshot::Receiver<()>> {
        let cids: Vec<Cid> = self.entries.keys().copied().collect();
        cids.into_iter()
            .filter_map(|cid| self.withdraw_one(cid, now))
            .collect()
    }

    fn withdraw_one(&mut self, cid: Cid, now: Instant) -> Option<oneshot::Receiver<()>> {
        let entry = self.entries.get(&cid)?;
        let Statement::Announced(announcement) = &entry.statement else {
            return None;
        };
        let statement = Statement::Withdrawn(announcement.header.clone(), entry.expires_at);
        let (attempt, attempted) = oneshot::channel();
        self.state(cid, statement, attempt, now);
        Some(attempted)
    }

    fn state(
        &mut self,
        cid: Cid,
        statement: Statement,
        attempt: oneshot::Sender<()>,
        now: Instant,
    ) {
        self.versions += 1;
        let version = self.versions;
        let entry = self.entries.entry(cid).or_insert_with(|| Entry {
            statement: statement.clone(),
            version,
            due: None,
            failures: 0,
            acknowledged: 0,
            known: 0,
            expires_at: 0,
            waiting: Vec::new(),
        });
        entry.statement = statement;
        entry.version = version;
        entry.failures = 0;
        entry.waiting.push(attempt);
        self.set_due(cid, Some(now));
    }

    fn set_due(&mut self, cid: Cid, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&cid) else {
            return;
        };
        if let Some(before) = entry.due.take() {
            self.due.remove(&(before, cid));
        }
        entry.due = due;
        if let Some(due) = due {
            self.due.insert((due, cid));
        }
    }

    /// When the next entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes an entry that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Job> {
        let (due, cid) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.set_due(cid, None);
        let entry = self.entries.get_mut(&cid)?;
        Some(Job {
            cid,
            version: entry.version,
            statement: entry.statement.clone(),
            waiting: std::mem::take(&mut entry.waiting),
        })
    }

    /// What was signed for a job is about to go out: others may hold it until then.
    pub(super) fn signed(&mut self, job: &Job, expires_at: u64) {
        if let Some(entry) = self.entries.get_mut(&job.cid) {
            entry.expires_at = entry.expires_at.max(expires_at);
            if let Statement::Withdrawn(_, until) = &mut entry.statement {
                *until = entry.expires_at;
            }
        }
    }

    /// An attempt ended. `pause` is until the next one if it reached somebody; `now_unix`
    /// is in seconds since 1970.
    pub(super) fn attempted(
        &mut self,
        job: Job,
        acknowledged: usize,
        known: usize,
        (now, now_unix): (Instant, u64),
        pause: Duration,
    ) {
        for waiting in job.waiting {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        let Some(entry) = self.entries.get_mut(&job.cid) else {
            return;
        };
        if entry.version != job.version {
            // Replaced meanwhile, and due already.
            return;
        }
        let done = match &entry.statement {
            Statement::Withdrawn(_, until) => acknowledged > 0 || *until <= now_unix,
            Statement::Announced(_) => false,
        };
        if done {
            self.entries.remove(&job.cid);
            return;
        }
        entry.acknowledged = acknowledged;
        entry.known = known;
        let next = if acknowledged > 0 {
            entry.failures = 0;
            pause
        } else {
            let doubled = FIRST_PAUSE * 2u32.saturating_pow(entry.failures.min(16));
            entry.failures = entry.failures.saturating_add(1);
            doubled.min(LAST_PAUSE)
        };
        self.set_due(job.cid, Some(now + next));
    }

    /// The network was found, or has grown: what reached nobody, or few where there are
    /// twice as many now, is due.
    pub(super) fn network_grew(&mut self, known: usize, now: Instant) {
        let thin = |entry: &Entry| {
            let few = entry.acknowledged < ENOUGH && known >= entry.known.saturating_mul(2);
            entry.due.is_some() && known > 0 && (entry.failures > 0 || (few && known > entry.known))
        };
        let cids: Vec<Cid> = self
            .entries
            .iter()
            .filter(|(_, entry)| thin(entry))
            .map(|(cid, _)| *cid)
            .collect();
        for cid in cids {
            self.set_due(cid, Some(now));
        }
    }

    /// The number of announced files, and some of them.
    pub(super) fn announced(&self, limit: usize) -> (usize, Vec<Cid>) {
        let announced = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.statement, Statement::Announced(_)));
        let some = announced.clone().take(limit).map(|(cid, _)| *cid).collect();
        (announced.count(), some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::Protocol;
    use chiral_core::conformance::peer_directory::{header, offer};

    const PAUSE: Duration = Duration::from_secs(1000);

    fn announce(table: &mut Table, name: &str, now: Instant) -> oneshot::Receiver<()> {
        let (attempt, attempted) = oneshot::channel();
        let announcement = Announcement::new(header(name), vec![offer(Protocol::Http, 1)]);
        assert!(table.announce(announcement, attempt, now));
        attempted
    }

    fn attempt(table: &mut Table, acknowledged: usize, known: usize, now: Instant) -> Job {
        let job = table.take_due(now).expect("due");
        table.signed(&job, 5000);
        let again = Job {
            cid: job.cid,
            version: job.version,
            statement: job.statement.clone(),
            waiting: Vec::new(),
        };
        table.attempted(job, acknowledged, known, (now, 0), PAUSE);
        again
    }

    #[tokio::test(start_paused = true)]
    async fn what_reaches_nobody_is_tried_again_until_it_does() {
        let (mut table, start) = (Table::default(), Instant::now());
        let mut attempted = announce(&mut table, "a", start);
        let mut now = start;
        for pause in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            attempt(&mut table, 0, 0, now);
            assert!(table.take_due(now).is_none());
            now += Duration::from_millis(pause);
            assert_eq!(table.next_due(), Some(now));
        }
        assert!(attempted.try_recv().is_ok(), "told after the first attempt");
        attempt(&mut table, 3, 3, now);
        assert_eq!(table.next_due(), Some(now + PAUSE));
        table.network_grew(5, now);
        assert_eq!(table.next_due(), Some(now + PAUSE), "not twice as many");
        table.network_grew(6, now);
        attempt(&mut table, 6, 6, now);
        table.network_grew(0, now);
        assert_eq!(table.next_due(), Some(now + PAUSE));
        attempt(&mut table, 0, 0, now + PAUSE);
        table.network_grew(1, now);
        assert_eq!(table.next_due(), Some(now), "found again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawal_outlives_the_attempt_that_it_overtakes() {
        let (mut table, now) = (Table::default(), Instant::now());
        announce(&mut table, "a", now);
        announce(&mut table, "b", now);
        assert_eq!(table.announced(1), (2, table.announced(1).1));
        let target = FileIdentification::Root(header("a").root);
        let job = loop {
            let job = table.take_due(now).unwrap();
            if job.cid == header("a").cid {
                break job;
            }
        };
        table.signed(&job, 5000);
        assert_eq!(table.withdraw(&target, now).len(), 1);
        assert_eq!(table.withdraw(&target, now).len(), 0, "once");
        table.attempted(job, 20, 20, (now, 0), PAUSE);
        let job = attempt(&mut table, 0, 0, now);
        assert!(
            matches!(job.statement, Statement::Withdrawn(_, 5000)),
            "{job:?}"
        );
        let later = table.next_due().unwrap();
        attempt(&mut table, 1, 1, later);
        assert_eq!(table.next_due(), None);
        assert_eq!(table.announced(9), (1, vec![header("b").cid]));
    }
}
