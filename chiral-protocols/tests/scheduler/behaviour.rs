//! Single promises of the scheduler, driven by hand.

use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};
use chiral_protocols::scheduler::{
    Action, Blame, FailureKind, Order, RequestId, Scheduler, SchedulerConfig, SourceId, SourceSpec,
    SourceState,
};

const CHUNK: u64 = 262_144;
const A: SourceId = SourceId(1);
const B: SourceId = SourceId(2);

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn wanting(size: u64) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), size);
    scheduler.want(ByteRange::new(0, size));
    scheduler
}

fn actions(scheduler: &mut Scheduler, now: Duration) -> Vec<Action> {
    std::iter::from_fn(|| scheduler.poll(now)).collect()
}

/// Requests newly made of a source.
fn assigned(actions: &[Action], to: SourceId) -> Vec<(RequestId, ByteRange)> {
    let own = |action: &Action| match action {
        Action::Assign {
            request,
            source,
            range,
        } if *source == to => Some((*request, *range)),
        _ => None,
    };
    actions.iter().filter_map(own).collect()
}

#[test]
fn a_chunk_under_suspicion_comes_whole_from_a_source_that_did_not_deliver_it() {
    let mut scheduler = wanting(CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(2));
    let (request, range) = assigned(&actions(&mut scheduler, at(0.0)), A)[0];
    scheduler.arrived(at(0.1), request, range);
    scheduler.retry_whole(at(0.2), ByteRange::new(0, CHUNK), &[A]);
    assert!(
        actions(&mut scheduler, at(0.2))
            .iter()
            .all(|a| !matches!(a, Action::Assign { .. }))
    );
    assert_eq!(scheduler.unserved().len(), CHUNK);
    assert_eq!(
        scheduler.arrived(at(0.25), request, range),
        0,
        "bytes of the excluded source"
    );

    scheduler.source_up(at(0.3), B, SourceSpec::complete(2));
    assert!(!scheduler.is_starved());
    let whole = assigned(&actions(&mut scheduler, at(0.3)), B);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].1, ByteRange::new(0, CHUNK));
    // Half of it is not enough: the next source begins anew.
    assert_eq!(
        scheduler.arrived(at(0.4), whole[0].0, ByteRange::new(0, CHUNK / 2)),
        CHUNK / 2
    );
    scheduler.source_down(at(0.5), B);
    assert_eq!(scheduler.missing().len(), CHUNK);
    assert!(scheduler.is_starved());
}

#[test]
fn a_banned_source_is_cut_off_and_its_bytes_are_asked_for_elsewhere() {
    let mut scheduler = wanting(8 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(2));
    let first = assigned(&actions(&mut scheduler, at(0.0)), A);
    scheduler.arrived(at(0.1), first[0].0, first[0].1);
    scheduler.invalidate(at(0.2), first[0].1, Blame::Ban(A));
    assert_eq!(
        actions(&mut scheduler, at(0.2)),
        [Action::Ban { source: A }]
    );
    assert_eq!(scheduler.arrived(at(0.3), first[1].0, first[1].1), 0);
    assert_eq!(scheduler.missing().len(), 8 * CHUNK);
    assert_eq!(
        scheduler.source_stats(A).unwrap().state,
        SourceState::Banned
    );
    scheduler.source_up(at(0.4), A, SourceSpec::complete(2));
    assert!(actions(&mut scheduler, at(0.4)).is_empty());
    assert_eq!(scheduler.unserved().len(), 8 * CHUNK);
}

#[test]
fn a_range_that_a_source_refused_or_lacks_is_not_asked_of_it_again() {
    let mut scheduler = wanting(4 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(1));
    let (request, range) = assigned(&actions(&mut scheduler, at(0.0)), A)[0];
    scheduler.failed(at(0.1), request, FailureKind::Missing);
    assert_eq!(scheduler.unserved(), RangeSet::from(range));
    let (_, next) = assigned(&actions(&mut scheduler, at(0.1)), A)[0];
    assert!(next.intersection(range).is_none());
}

/// Runs a source of which every request fails at once, as it lacks the range, whereupon it lists
/// what `lists` says of the range; counts the requests of a minute.
fn requests_of_a_liar(lists: impl Fn(ByteRange) -> RangeSet) -> usize {
    let mut scheduler = wanting(4 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(2));
    let mut now = at(0.0);
    let mut tries = 0;
    while now < at(60.0) {
        let before = tries;
        loop {
            let requests = assigned(&actions(&mut scheduler, now), A);
            if requests.is_empty() {
                break;
            }
            for (request, range) in requests {
                tries += 1;
                scheduler.failed(now, request, FailureKind::Missing);
                scheduler.coverage_changed(now, A, lists(range));
            }
            assert!(tries - before <= 8, "asked without end at {now:?}");
        }
        let deadline = scheduler.next_deadline().expect("a retry is planned");
        assert!(deadline > now, "nothing is gained by waiting");
        now = deadline;
        scheduler.tick(now);
    }
    tries
}

#[test]
fn who_lacks_what_it_lists_is_asked_for_it_again_but_not_at_once() {
    let all = ByteRange::new(0, 4 * CHUNK);
    let tries = requests_of_a_liar(|_| RangeSet::from(all));
    assert!((8..=64).contains(&tries), "{tries} tries in a minute");
    // Nor if it owns up to what it was asked for last, and to nothing else.
    let tries = requests_of_a_liar(|last| {
        let mut rest = RangeSet::from(all);
        rest.remove(last);
        rest
    });
    assert!((8..=64).contains(&tries), "{tries} tries in a minute");
}

#[test]
fn who_lacks_a_part_is_asked_for_the_rest_meanwhile_and_for_the_part_later() {
    let mut scheduler = wanting(4 * CHUNK);
    let all = RangeSet::from(ByteRange::new(0, 4 * CHUNK));
    scheduler.source_up(at(0.0), A, SourceSpec::complete(1));
    let (request, lacking) = assigned(&actions(&mut scheduler, at(0.0)), A)[0];
    scheduler.failed(at(0.1), request, FailureKind::Missing);
    scheduler.coverage_changed(at(0.1), A, all.clone());
    assert_eq!(scheduler.unserved(), RangeSet::from(lacking));
    // Saying so again, and bit by bit, changes nothing.
    scheduler.coverage_added(at(0.1), A, lacking);
    let mut now = at(0.1);
    while scheduler.missing().len() > lacking.len() {
        now += at(0.05);
        for (request, range) in assigned(&actions(&mut scheduler, now), A) {
            assert!(range.intersection(lacking).is_none());
            scheduler.arrived(now, request, range);
            scheduler.completed(now, request);
        }
        scheduler.tick(now);
    }
    assert!(now < at(0.5), "the rest was asked for at once");
    assert!(assigned(&actions(&mut scheduler, now), A).is_empty());
    // It has it by now.
    let later = scheduler.next_deadline().expect("a retry is planned");
    assert_eq!(later, at(0.6));
    scheduler.tick(later);
    for _ in 0..8 {
        for (request, range) in assigned(&actions(&mut scheduler, later), A) {
            scheduler.arrived(later, request, range);
            scheduler.completed(later, request);
        }
    }
    assert!(scheduler.is_complete());
}

#[test]
fn a_lone_source_that_fails_is_tried_again_but_not_at_once() {
    let mut scheduler = wanting(4 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(1));
    let mut now = at(0.0);
    let mut tries = 0;
    while now < at(60.0) {
        for (request, _) in assigned(&actions(&mut scheduler, now), A) {
            tries += 1;
            scheduler.failed(now, request, FailureKind::Temporary);
        }
        assert!(
            actions(&mut scheduler, now)
                .iter()
                .all(|a| !matches!(a, Action::Assign { .. }))
        );
        let deadline = scheduler.next_deadline().expect("a retry is planned");
        assert!(deadline > now, "the deadline {deadline:?} does not move on");
        now = deadline;
        scheduler.tick(now);
    }
    assert!((8..25).contains(&tries), "{tries} tries in a minute");
}

#[test]
fn a_staller_costs_one_timeout_and_is_probed_when_its_rest_ends() {
    let mut scheduler = wanting(400 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(4));
    let (request, range) = assigned(&actions(&mut scheduler, at(0.0)), A)[0];
    scheduler.arrived(
        at(0.1),
        request,
        ByteRange::new(range.start, range.start + 65_536),
    );
    scheduler.arrived(
        at(0.2),
        request,
        ByteRange::new(range.start, range.start + 131_072),
    );
    scheduler.source_up(at(0.3), B, SourceSpec::complete(1));
    actions(&mut scheduler, at(0.3));
    let deadline = scheduler.next_deadline().expect("a stall would be noticed");
    assert!(deadline <= at(6.0), "{deadline:?}");
    scheduler.tick(deadline);
    let after = actions(&mut scheduler, deadline);
    assert!(
        after
            .iter()
            .any(|a| matches!(a, Action::Demote { source: A, .. })),
        "{after:?}"
    );
    let Some(SourceState::Demoted { until }) = scheduler.source_stats(A).map(|s| s.state) else {
        panic!("not demoted");
    };
    assert!(assigned(&after, A).is_empty());
    scheduler.tick(until);
    let probe = assigned(&actions(&mut scheduler, until), A);
    assert_eq!(probe.len(), 1);
    assert!(probe[0].1.len() <= CHUNK);
}

#[test]
fn a_source_that_stalls_again_and_again_rests_briefly_at_first_and_then_longer() {
    let mut scheduler = wanting(400 * CHUNK);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(1));
    scheduler.source_up(at(0.0), B, SourceSpec::complete(1));
    let (mut now, mut rests) = (at(0.0), Vec::new());
    while rests.len() < 8 {
        for action in actions(&mut scheduler, now) {
            match action {
                Action::Demote {
                    source: A, until, ..
                } => rests.push((until - now).as_millis()),
                // One delivers at once, the other one never.
                Action::Assign {
                    request,
                    source: B,
                    range,
                } => {
                    scheduler.arrived(now, request, ByteRange::new(range.start, range.start + 1));
                }
                _ => {}
            }
        }
        let deadline = scheduler.next_deadline().expect("something is under way");
        now = deadline.max(now + Duration::from_millis(1));
        scheduler.tick(now);
    }
    assert_eq!(rests, [500, 500, 500, 500, 500, 1_000, 2_000, 4_000]);
}

#[test]
fn backwards_takes_the_highest_bytes_of_the_window_and_no_others() {
    let mut scheduler = wanting(100 * CHUNK);
    scheduler.set_order(Order::Backward);
    scheduler.set_window(ByteRange::new(90 * CHUNK, 94 * CHUNK));
    scheduler.source_up(at(0.0), A, SourceSpec::complete(8));
    let made = assigned(&actions(&mut scheduler, at(0.0)), A);
    assert_eq!(made[0].1, ByteRange::new(93 * CHUNK, 94 * CHUNK));
    assert!(
        made.iter()
            .all(|(_, range)| range.start >= 90 * CHUNK && range.end <= 94 * CHUNK)
    );
}

#[test]
fn the_rarest_bytes_come_first() {
    let mut scheduler = wanting(8 * CHUNK);
    let half = RangeSet::from(ByteRange::new(0, 4 * CHUNK));
    scheduler.source_up(at(0.0), B, SourceSpec::complete(1).with_coverage(half));
    scheduler.source_up(at(0.0), A, SourceSpec::complete(1));
    let made = actions(&mut scheduler, at(0.0));
    assert_eq!(assigned(&made, A)[0].1.start, 4 * CHUNK);
    assert_eq!(assigned(&made, B)[0].1.start, 0);
}

#[test]
fn what_is_read_next_comes_first_and_in_order() {
    let mut scheduler = wanting(400 * CHUNK);
    let window = ByteRange::new(100 * CHUNK + 5, 104 * CHUNK);
    scheduler.set_wanted_next(at(0.0), &[window]);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(8));
    let made = assigned(&actions(&mut scheduler, at(0.0)), A);
    assert_eq!(made[0].1, ByteRange::new(100 * CHUNK, 101 * CHUNK));
    let starts: Vec<u64> = made.iter().map(|(_, range)| range.start / CHUNK).collect();
    assert_eq!(starts[..2], [100, 101]);
    let mut order = Vec::new();
    let mut queue: std::collections::VecDeque<_> = made.into();
    let mut now = 0.1;
    while let Some((request, range)) = queue.pop_front() {
        order.push(range);
        scheduler.arrived(at(now), request, range);
        queue.extend(assigned(&actions(&mut scheduler, at(now)), A));
        now += 0.1;
    }
    assert!(scheduler.is_complete());
    let read = order
        .iter()
        .take_while(|range| range.intersection(window).is_some());
    assert_eq!(
        read.map(ByteRange::len).sum::<u64>(),
        4 * CHUNK,
        "{:?}",
        &order[..6]
    );
}

#[test]
fn what_a_slow_source_was_asked_for_is_taken_over_when_a_reader_gets_there() {
    let mut scheduler = wanting(400 * CHUNK);
    let (slow, fast) = (10_000, 20_000_000);
    scheduler.source_up(at(0.0), A, SourceSpec::complete(2).with_rate_hint(slow));
    let first = assigned(&actions(&mut scheduler, at(0.0)), A);
    scheduler.source_up(at(0.1), B, SourceSpec::complete(2).with_rate_hint(fast));
    let ahead = assigned(&actions(&mut scheduler, at(0.1)), B);
    assert!(!ahead.is_empty());
    scheduler.tick(at(0.2));
    let place = first[0].1;
    scheduler.set_wanted_next(at(0.2), &[ByteRange::new(place.start, place.start + CHUNK)]);
    let made = actions(&mut scheduler, at(0.2));
    let to_fast = assigned(&made, B);
    assert_eq!(to_fast[0].1.start, place.start, "{made:?}");
    let gone =
        |action: &Action| matches!(action, Action::Cancel { request } if *request == first[0].0);
    assert!(made.iter().any(gone), "{made:?}");
    // And a slow source is not asked for what is read next while a faster one has room.
    scheduler.source_up(
        at(0.3),
        SourceId(3),
        SourceSpec::complete(2).with_rate_hint(slow),
    );
    scheduler.set_wanted_next(at(0.3), &[ByteRange::new(200 * CHUNK, 210 * CHUNK)]);
    let made = assigned(&actions(&mut scheduler, at(0.3)), SourceId(3));
    assert!(
        made.iter().all(|(_, range)| range.start != 200 * CHUNK),
        "{made:?}"
    );
}

#[test]
fn what_one_slow_seeder_alone_has_is_asked_of_it_first_however_many_others_there_are() {
    let size = 400 * CHUNK;
    let rare = ByteRange::new(200 * CHUNK, 201 * CHUNK);
    let mut common = RangeSet::from(ByteRange::new(0, size));
    common.remove(rare);
    let mut scheduler = wanting(size);
    for id in 0..50 {
        let spec = SourceSpec::complete(4).with_rate_hint(50_000_000);
        let spec = spec.with_coverage(common.clone());
        scheduler.source_up(at(0.0), SourceId(id), spec);
    }
    let slow = SourceSpec::complete(1).with_rate_hint(20_000);
    let all = RangeSet::from(ByteRange::new(0, size));
    scheduler.source_up(at(0.0), SourceId(99), slow.with_coverage(all));
    let first = assigned(&actions(&mut scheduler, at(0.0)), SourceId(99));
    assert!(rare.covers(first[0].1), "{first:?}");
}

#[test]
fn every_source_is_used_and_every_byte_asked_for_once_while_there_is_plenty() {
    for count in [1, 10, 50] {
        let size = u64::from(count) * 64 * CHUNK;
        let mut scheduler = wanting(size);
        for id in 0..count {
            scheduler.source_up(at(0.0), SourceId(id), SourceSpec::complete(2));
        }
        let made = actions(&mut scheduler, at(0.0));
        let mut seen = RangeSet::new();
        for id in 0..count {
            let own = assigned(&made, SourceId(id));
            assert!(!own.is_empty(), "{id} of {count} has nothing to do");
            for (_, range) in own {
                assert_eq!(
                    seen.insert(range),
                    range.len(),
                    "{range:?} was asked for twice"
                );
            }
        }
    }
}
