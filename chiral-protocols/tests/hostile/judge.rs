//! Everything that is promised of a download, whoever took part.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};
use tokio::time::Instant;

use super::fake::{Asked, File, Sent, Told};
use super::scenario::{Kind, Peer, Scenario};
use super::{FIRST_BYTE_TIMEOUT, Outcome, STALL_TIMEOUT};

/// Time for the download to notice what has come.
const NOTICE: Duration = Duration::from_millis(50);

/// How long the tail check waits for somebody, by default.
const REQUEST_TIMEOUT: f64 = 10.0;

/// Looks at all of it; answers how many forgers could be convicted. `root`: whether every chunk
/// can be checked as it comes.
pub(crate) fn judge(file: &File, scenario: &Scenario, outcome: &Outcome, root: bool) -> usize {
    everything_is_paid_once(file, outcome);
    let mut convicted = 0;
    for peer in &scenario.peers {
        let told = &outcome.told[&peer.name];
        only_what_was_proven_is_paid(file, outcome, peer, told);
        if let Some(banned) = outcome.banned.get(&peer.name) {
            assert!(
                peer.kind == Kind::Corrupts || peer.kind == Kind::WrongSize,
                "{} forged nothing and was put out",
                peer.name
            );
            let after = told.asked.iter().filter(|asked| asked.at > *banned);
            assert_eq!(after.count(), 0, "{} was asked after it was out", peer.name);
        }
        if let Some(by) = conviction(file, outcome, peer, root) {
            convicted += 1;
            let banned = outcome.banned.get(&peer.name);
            assert!(
                banned.is_some_and(|banned| *banned <= by + NOTICE),
                "{} could be convicted at {by:?}, and was put out at {banned:?}",
                peer.name
            );
        }
        a_stall_costs_one_timeout(file, outcome, peer, root);
    }
    assert!(
        outcome.seconds <= scenario.bound(file),
        "{} s, at most {} s were expected of {:#?}",
        outcome.seconds,
        scenario.bound(file),
        scenario
    );
    convicted
}

/// What is billed is the file: every byte of it, and none twice.
fn everything_is_paid_once(file: &File, outcome: &Outcome) {
    let mut billed = RangeSet::new();
    for part in &outcome.report.delivered {
        for range in part.ranges.iter() {
            let name = part.offer.endpoint.as_str();
            assert_eq!(billed.insert(range), range.len(), "{name} is paid again");
        }
    }
    assert_eq!(
        billed,
        RangeSet::from(ByteRange::new(0, file.layout.size()))
    );
}

/// Who is paid for a byte sent it, and as it is in the file.
fn only_what_was_proven_is_paid(file: &File, outcome: &Outcome, peer: &Peer, told: &Told) {
    let delivered = outcome.report.delivered.iter();
    let own = delivered.filter(|part| part.offer.endpoint.as_str() == peer.name);
    let paid: Vec<ByteRange> = own
        .flat_map(|part| part.ranges.iter().collect::<Vec<_>>())
        .collect();
    let sent: RangeSet = told.sent.iter().map(|sent| sent.range).collect();
    for range in &paid {
        assert!(sent.covers(*range), "{} is paid for {range:?}", peer.name);
    }
    for index in &peer.manners.corrupt {
        let forged = file.layout.range(*index).start + 100;
        let of_it = paid.iter().find(|range| range.contains(forged));
        assert_eq!(
            of_it, None,
            "{} is paid for chunk {index}, which it forged",
            peer.name
        );
    }
    if peer.kind == Kind::WrongSize {
        assert!(
            paid.is_empty(),
            "{} has another file and is paid",
            peer.name
        );
    }
}

/// When a forger must be known for one at the latest: somebody who sent a whole forged chunk
/// in answer to one request, while nobody else had sent a byte of it. Under a root that is when
/// it has come; else when its place is proven. `None` if it gave no such occasion.
fn conviction(file: &File, outcome: &Outcome, peer: &Peer, root: bool) -> Option<Instant> {
    let by = |index: &u32| {
        // The tail check asks in its own way, and condemns nobody before somebody is right.
        if !root && Some(*index) == file.layout.last() {
            return None;
        }
        let chunk = file.layout.range(*index);
        let touches = |sent: &&Sent| sent.range.intersection(chunk).is_some();
        let first_other = outcome
            .told
            .iter()
            .filter(|(name, _)| **name != peer.name)
            .flat_map(|(_, told)| told.sent.iter().filter(touches))
            .map(|sent| sent.at)
            .min();
        let told = &outcome.told[&peer.name];
        let whole = |(request, asked): (usize, &Asked)| {
            let of_it = told.sent.iter().filter(|sent| sent.request == request);
            let mut missing = RangeSet::from(chunk);
            let last = of_it.filter(touches).find(|sent| {
                missing.remove(sent.range);
                missing.is_empty()
            });
            last.filter(|_| asked.range.covers(chunk))
                .map(|sent| sent.at)
        };
        let at = told.asked.iter().enumerate().filter_map(whole).min()?;
        if first_other.is_some_and(|other| other <= at) {
            return None;
        }
        match root {
            true => Some(at),
            false => outcome.proven.get(index).copied(),
        }
    };
    peer.manners.corrupt.iter().filter_map(by).min()
}

/// Whoever falls silent is waited for once, for no longer than one timeout: what it owed is
/// given to others then, and before it delivers again it is asked for little.
fn a_stall_costs_one_timeout(file: &File, outcome: &Outcome, peer: &Peer, root: bool) {
    if !matches!(peer.kind, Kind::Stalls | Kind::Drips) {
        return;
    }
    let told = &outcome.told[&peer.name];
    let stalls = outcome.stalls.get(&peer.name);
    let stalls = stalls.map(Vec::as_slice).unwrap_or_default();
    // Between two stalls it rests at least as long as the first rest lasts.
    for pair in stalls.windows(2) {
        let between = pair[1] - pair[0];
        assert!(
            between >= Duration::from_millis(400),
            "{}: {pair:?}",
            peer.name
        );
    }
    let last_chunk = file.layout.last().map(|last| file.layout.range(last));
    for asked in &told.asked {
        let Some(over) = asked.over else { continue };
        let heard = told.sent.iter().map(|sent| sent.at);
        let heard = heard.filter(|at| *at <= over).max();
        let silent = over - heard.map_or(asked.at, |at| at.max(asked.at));
        let tail_check = !root && Some(asked.range) == last_chunk;
        let timeout = match (tail_check, heard) {
            (true, _) => REQUEST_TIMEOUT,
            (false, Some(_)) => STALL_TIMEOUT,
            (false, None) => FIRST_BYTE_TIMEOUT,
        };
        assert!(
            silent <= Duration::from_secs_f64(timeout) + 2 * NOTICE,
            "{} was waited for {silent:?}: {asked:?}",
            peer.name
        );
        if stalls.first().is_some_and(|first| asked.at > *first) && !tail_check {
            assert!(
                asked.range.len() <= chiral_core::CHUNK_SIZE,
                "{} stalled before and is asked for much: {asked:?}",
                peer.name
            );
        }
    }
}
