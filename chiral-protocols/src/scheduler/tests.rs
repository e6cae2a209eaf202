//! Random operation sequences against the accounts of the scheduler.

use std::collections::BTreeSet;
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet, RequestGrid};
use proptest::prelude::*;

use super::*;

const SIZE: u64 = 3_000_000;

/// Panics if any account contradicts another.
fn audit(s: &Scheduler) {
    let ledger = &s.ledger;
    let waiting: u64 = s
        .held
        .values()
        .filter(|w| w.request.is_none())
        .map(|w| w.range.len())
        .sum();
    let (open, parked) = (ledger.pool.open(), &ledger.parked);
    assert_eq!(
        ledger.wanted.len(),
        open.len() + parked.len() + ledger.first.len() + waiting
    );
    let all = ByteRange::new(0, ledger.size);
    let mut seen = RangeSet::new();
    let held = s
        .held
        .values()
        .filter(|w| w.request.is_none())
        .map(|w| w.range);
    let claimed = ledger.first.within(all).into_iter().map(|(range, _)| range);
    for range in open.iter().chain(parked.iter()).chain(held).chain(claimed) {
        assert!(
            ledger.wanted.covers(range),
            "{range:?} is accounted for but not wanted"
        );
        assert_eq!(
            seen.insert(range),
            range.len(),
            "{range:?} is accounted for twice"
        );
    }
    for run in open.iter() {
        assert!(ledger.window.covers(run), "open outside the window");
    }
    for run in parked.iter() {
        assert!(
            ledger.window.intersection(run).is_none(),
            "parked inside the window"
        );
    }
    let mut claims: BTreeMap<RequestId, RangeSet> = BTreeMap::new();
    for (range, holder) in ledger.first.within(all) {
        claims.entry(holder).or_default().insert(range);
    }
    for (range, holder) in ledger.second.within(all) {
        for (_, owner) in ledger.first.within(range) {
            assert_ne!(owner, holder);
        }
        let covered: u64 = ledger
            .first
            .within(range)
            .iter()
            .map(|(r, _)| r.len())
            .sum();
        assert_eq!(covered, range.len());
        assert_eq!(claims.entry(holder).or_default().insert(range), range.len());
    }
    let mut out: BTreeMap<SourceId, u64> = BTreeMap::new();
    for (id, request) in &s.requests {
        assert_eq!(
            request.claim,
            claims.remove(id).unwrap_or_default(),
            "{id:?}"
        );
        assert!(!request.claim.is_empty(), "{id:?} has nothing to bring");
        for run in request.claim.iter() {
            assert!(
                request.due.covers(run),
                "{id:?} claims what it does not bring"
            );
        }
        assert!(s.sources[&request.source].queue.contains(id));
        *out.entry(request.source).or_default() += request.due.len();
    }
    assert!(claims.is_empty(), "claims of unknown requests");
    for (id, source) in &s.sources {
        assert_eq!(source.out, out.get(id).copied().unwrap_or(0), "{id:?}");
        let distinct: BTreeSet<_> = source.queue.iter().collect();
        assert_eq!(distinct.len(), source.queue.len());
        assert!(source.queue.len() <= source.max_requests);
        assert!(
            source
                .queue
                .iter()
                .all(|request| s.requests[request].source == *id)
        );
    }
}

fn drain(s: &mut Scheduler, now: Duration) {
    for round in 0.. {
        assert!(round < 2_000, "poll does not end");
        let open = s.ledger.pool.open().clone();
        match s.poll(now) {
            None => break,
            Some(Action::Assign {
                request,
                source,
                range,
            }) => {
                let held = s.sources[&source].stats().state == SourceState::Held;
                assert!(!held, "work for one that is held");
                if let Some(known) = s.requests.get(&request) {
                    assert_eq!(
                        s.sources[&source].grid.expand(range, SIZE),
                        range,
                        "off the grid"
                    );
                    assert!(s.sources[&source].covers(range), "not covered");
                    assert!(known.whole.is_some() || open.len() >= s.ledger.pool.open().len());
                }
            }
            Some(_) => {}
        }
        audit(s);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Up(u32, u8, u8, usize, u64),
    Down(u32),
    Coverage(u32, u64, u64),
    Added(u32, u64, u64),
    Arrived(u64, u64, u64),
    Deliver(u64, u8),
    Completed(u64),
    Failed(u64, u8),
    Ban(u32),
    Hold(u32),
    Release(u32),
    Invalidate(u64, u64),
    Whole(u64, u64, u32),
    Window(u64, u64),
    Next(u64, u64, u64),
    Order(u8),
    Pause(bool),
    Wait(u64),
    Tick,
    Poll,
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..SIZE + 100_000;
    let len = prop_oneof![0u64..300, 0u64..600_000, Just(u64::MAX / 2)];
    let request = 0u64..60;
    prop_oneof![
        3 => (0u32..6, 0u8..4, 0u8..4, 0usize..4, any::<u64>())
            .prop_map(|(a, b, c, d, e)| Op::Up(a, b, c, d, e)),
        1 => (0u32..6).prop_map(Op::Down),
        1 => (0u32..6, at.clone(), len.clone()).prop_map(|(a, b, c)| Op::Coverage(a, b, c)),
        1 => (0u32..6, at.clone(), len.clone()).prop_map(|(a, b, c)| Op::Added(a, b, c)),
        6 => (request.clone(), at.clone(), len.clone()).prop_map(|(a, b, c)| Op::Arrived(a, b, c)),
        9 => (request.clone(), any::<u8>()).prop_map(|(a, b)| Op::Deliver(a, b)),
        3 => request.clone().prop_map(Op::Completed),
        2 => (request, 0u8..3).prop_map(|(a, b)| Op::Failed(a, b)),
        1 => (0u32..20).prop_map(Op::Ban),
        1 => (0u32..6).prop_map(Op::Hold),
        1 => (0u32..6).prop_map(Op::Release),
        2 => (at.clone(), len.clone()).prop_map(|(a, b)| Op::Invalidate(a, b)),
        2 => (at.clone(), 0u64..400_000, 0u32..6).prop_map(|(a, b, c)| Op::Whole(a, b, c)),
        1 => (at.clone(), len.clone()).prop_map(|(a, b)| Op::Window(a, b)),
        1 => (at.clone(), len, at).prop_map(|(a, b, c)| Op::Next(a, b, c)),
        1 => (0u8..3).prop_map(Op::Order),
        1 => any::<bool>().prop_map(Op::Pause),
        4 => (0u64..9_000).prop_map(Op::Wait),
        2 => Just(Op::Tick),
        8 => Just(Op::Poll),
    ]
}

fn spec(grid: u8, coverage: u8, max_requests: usize, bits: u64) -> SourceSpec {
    let grid = match grid {
        0 => RequestGrid::ANY,
        1 => RequestGrid::parts(972_800, 184_320),
        2 => RequestGrid::every(262_144),
        _ => RequestGrid::every(16_384),
    };
    let spec = SourceSpec::complete(max_requests).with_grid(grid);
    if coverage == 0 {
        return spec;
    }
    let cells = (0..64).filter(|bit| bits >> bit & 1 == 1);
    let runs = cells.map(|bit| ByteRange::new(bit * 50_000, (bit + 1) * 50_000));
    spec.with_coverage(runs.collect())
}

fn apply(s: &mut Scheduler, now: &mut Duration, op: Op) {
    let range = |at: u64, len: u64| ByteRange::new(at, at.saturating_add(len));
    match op {
        Op::Up(id, grid, coverage, depth, bits) => {
            s.source_up(*now, SourceId(id), spec(grid, coverage, depth, bits));
        }
        Op::Down(id) => s.source_down(*now, SourceId(id)),
        Op::Coverage(id, at, len) => {
            s.coverage_changed(*now, SourceId(id), RangeSet::from(range(at, len)));
        }
        Op::Added(id, at, len) => s.coverage_added(*now, SourceId(id), range(at, len)),
        Op::Arrived(request, at, len) => {
            s.arrived(*now, RequestId(request), range(at, len));
        }
        Op::Deliver(nth, part) => {
            // Of a request that exists: the hostile case above seldom hits one.
            let known = s
                .requests
                .iter()
                .nth(nth as usize % s.requests.len().max(1));
            if let Some((&id, request)) = known {
                let asked = request.range;
                let end = asked.start + asked.len() * (u64::from(part) + 1) / 200;
                s.arrived(*now, id, ByteRange::new(asked.start, end));
            }
        }
        Op::Completed(request) => s.completed(*now, RequestId(request)),
        Op::Failed(request, kind) => {
            let kinds = [
                FailureKind::Temporary,
                FailureKind::Refused,
                FailureKind::Missing,
            ];
            s.failed(*now, RequestId(request), kinds[kind as usize % 3]);
        }
        Op::Ban(id) => s.ban(*now, SourceId(id)),
        Op::Hold(id) => s.hold(SourceId(id)),
        Op::Release(id) => s.release(*now, SourceId(id)),
        Op::Invalidate(at, len) => s.invalidate(*now, range(at, len), Blame::Nobody),
        Op::Whole(at, len, id) => s.retry_whole(*now, range(at, len), &[SourceId(id)]),
        Op::Window(at, len) => s.set_window(range(at, len)),
        Op::Next(at, len, other) => {
            s.set_wanted_next(*now, &[range(at, len), range(other, 100_000)]);
        }
        Op::Order(order) => {
            s.set_order([Order::Rarest, Order::Forward, Order::Backward][order as usize % 3]);
        }
        Op::Pause(true) => s.pause(),
        Op::Pause(false) => s.resume(),
        Op::Wait(millis) => *now += Duration::from_millis(millis),
        Op::Tick => s.tick(*now),
        Op::Poll => drain(s, *now),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("CHIRAL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
    ))]

    #[test]
    fn accounts_agree_after_any_sequence_and_the_file_completes(
        ops in proptest::collection::vec(op(), 1..120)
    ) {
        let mut s = Scheduler::new(SchedulerConfig::default(), SIZE);
        s.want(ByteRange::new(0, SIZE));
        let mut now = Duration::ZERO;
        for op in ops {
            apply(&mut s, &mut now, op);
            audit(&s);
        }
        // With an honest source of everything it ends.
        s.set_window(ByteRange::new(0, SIZE));
        s.resume();
        s.source_up(now, SourceId(99), SourceSpec::complete(3));
        let mut queue: VecDeque<(RequestId, ByteRange)> = VecDeque::new();
        for _ in 0..2_000 {
            if s.is_complete() {
                break;
            }
            now += Duration::from_millis(50);
            while let Some(action) = s.poll(now) {
                if let Action::Assign { request, source: SourceId(99), range } = action {
                    queue.push_back((request, range));
                }
            }
            if let Some((request, range)) = queue.pop_front() {
                s.arrived(now, request, range);
                s.completed(now, request);
            }
            s.tick(now);
            audit(&s);
        }
        prop_assert!(s.is_complete(), "missing {:?}", s.missing());
        prop_assert!(s.unserved().is_empty());
    }
}

#[test]
fn one_that_is_held_is_late_and_no_worse_for_it() {
    let ms = Duration::from_millis;
    let mut s = Scheduler::new(SchedulerConfig::default(), SIZE);
    s.want(ByteRange::new(0, SIZE));
    let (held, other) = (SourceId(1), SourceId(2));
    let assigned = |s: &mut Scheduler, now| {
        let mut out = Vec::new();
        while let Some(action) = s.poll(now) {
            match action {
                Action::Assign {
                    request,
                    source,
                    range,
                } => out.push((request, source, range)),
                Action::Demote { source, .. } => panic!("{source:?} was blamed"),
                _ => {}
            }
        }
        out
    };
    s.source_up(ms(0), held, SourceSpec::complete(2));
    let first = assigned(&mut s, ms(0));
    assert_eq!(first.len(), 2);
    s.hold(held);
    // Far longer than any stall.
    s.tick(ms(60_000));
    assert!(assigned(&mut s, ms(60_000)).is_empty());
    assert_eq!(
        s.source_stats(held).map(|it| it.outstanding_requests),
        Some(2)
    );
    assert!(s.unserved().is_empty(), "it still has its bytes");
    assert_eq!(s.next_deadline(), None);
    // What comes after all is taken, and tells nothing of its latency.
    let (request, _, range) = first[0];
    assert_eq!(s.arrived(ms(61_000), request, range), range.len());
    assert_eq!(s.source_stats(held).and_then(|it| it.latency), None);
    assert!(assigned(&mut s, ms(61_000)).is_empty(), "no new work");
    s.release(ms(62_000), held);
    s.tick(ms(62_000));
    assert!(!assigned(&mut s, ms(62_000)).is_empty(), "and now there is");
    assert_eq!(
        s.source_stats(held).map(|it| it.state),
        Some(SourceState::Active)
    );

    // Others end what it has begun nothing of.
    s.hold(held);
    s.source_up(ms(62_000), other, SourceSpec::complete(2));
    let mut now = 62_000;
    while !s.is_complete() && now < 122_000 {
        now += 100;
        for (request, source, range) in assigned(&mut s, ms(now)) {
            assert_eq!(source, other);
            s.arrived(ms(now + 50), request, range);
        }
        s.tick(ms(now + 50));
    }
    assert!(s.is_complete(), "missing {:?}", s.missing());
    s.release(ms(now), SourceId(77));
    s.hold(SourceId(77));
}

/// Sources looked at for one decision, on average, while so many sources bring a whole file.
fn looked_at(count: u32) -> f64 {
    let size = u64::from(count) * 20_000_000;
    let mut s = Scheduler::new(SchedulerConfig::default(), size);
    s.want(ByteRange::new(0, size));
    let rate = |id: u32| 100_000 + u64::from(id % 97) * 20_000;
    let mut busy: BTreeMap<SourceId, VecDeque<(RequestId, ByteRange)>> = BTreeMap::new();
    for id in 0..count {
        s.source_up(Duration::ZERO, SourceId(id), SourceSpec::complete(4));
    }
    // What each source sends in 200 ms arrives, one source after the other.
    let mut now = Duration::ZERO;
    while !s.is_complete() {
        for id in 0..count {
            now += Duration::from_millis(200) / count;
            while let Some(action) = s.poll(now) {
                match action {
                    Action::Assign {
                        request,
                        source,
                        range,
                    } => {
                        busy.entry(source).or_default().push_back((request, range));
                    }
                    Action::Cancel { request } => {
                        for queue in busy.values_mut() {
                            queue.retain(|(queued, _)| *queued != request);
                        }
                    }
                    Action::Truncate { request, end } => {
                        for (queued, range) in busy.values_mut().flatten() {
                            if *queued == request {
                                range.end = range.end.min(end.max(range.start));
                            }
                        }
                    }
                    _ => {}
                }
            }
            let mut room = rate(id) / 5;
            while let Some((request, range)) =
                busy.get_mut(&SourceId(id)).and_then(VecDeque::pop_front)
            {
                let end = range.end.min(range.start + room);
                room -= end - range.start;
                s.arrived(now, request, ByteRange::new(range.start, end));
                if end == range.end {
                    s.completed(now, request);
                } else {
                    let rest = (request, ByteRange::new(end, range.end));
                    busy.entry(SourceId(id)).or_default().push_front(rest);
                    break;
                }
            }
            s.tick(now);
        }
        assert!(
            now < Duration::from_secs(3_600),
            "missing {}",
            s.missing().len()
        );
    }
    let (decisions, sources) = s.index.work.get();
    sources as f64 / decisions as f64
}

#[test]
fn a_decision_looks_at_no_more_sources_if_there_are_more() {
    let few = looked_at(10);
    let many = looked_at(if cfg!(debug_assertions) { 300 } else { 1_000 });
    println!("sources looked at for a decision: {few:.2} of 10, {many:.2} of many");
    assert!(many <= 2.0 * few + 1.0, "{few} of 10, {many} of many");
    assert!(many <= 16.0, "{many}");
}
