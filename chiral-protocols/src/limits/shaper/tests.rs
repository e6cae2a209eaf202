//! Exactness, shares and hostile sequences, under virtual time.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn rate(bytes_per_second: u64) -> Rate {
    Rate::new(bytes_per_second).unwrap()
}

/// Flows that always have more to move: bytes that each moved in `time`, with a timer that is
/// late by `late` each time.
fn greedy(shaper: &mut Shaper, flows: &[FlowId], time: Duration, late: Duration) -> Vec<u64> {
    greedy_from(shaper, flows, Duration::ZERO, time, late)
}

fn greedy_from(
    shaper: &mut Shaper,
    flows: &[FlowId],
    mut now: Duration,
    end: Duration,
    late: Duration,
) -> Vec<u64> {
    let mut owner = BTreeMap::new();
    let mut moved = vec![0; flows.len()];
    for (at, flow) in flows.iter().enumerate() {
        owner.insert(shaper.ask(now, *flow, MIB), at);
    }
    while let Some(next) = shaper.next_at(now) {
        now = next.max(now) + late;
        if now > end {
            break;
        }
        while let Some(grant) = shaper.poll(now) {
            let at = owner.remove(&grant.ticket).unwrap();
            moved[at] += grant.bytes;
            owner.insert(shaper.ask(now, flows[at], MIB), at);
        }
    }
    for (ticket, at) in owner {
        shaper.withdraw(flows[at], ticket);
    }
    moved
}

#[test]
fn a_limit_is_met_to_a_hair_and_never_passed_whatever_the_timer() {
    for bytes_per_second in [1 << 10, 10 << 10, MIB, 50 * MIB, 1 << 30] {
        for late in [0, 1, 15, 60] {
            let mut shaper = Shaper::new();
            shaper.set_total(Duration::ZERO, Some(rate(bytes_per_second)));
            let flows = [shaper.add(Duration::ZERO, 1, None)];
            let seconds = 100;
            let time = Duration::from_secs(seconds);
            let moved = greedy(&mut shaper, &flows, time, Duration::from_millis(late))[0];
            let exact = bytes_per_second * seconds;
            assert!(moved <= exact, "{bytes_per_second} {late}");
            assert!(
                moved as f64 >= exact as f64 * 0.98,
                "{bytes_per_second} {late}: {moved}"
            );
        }
    }
}

#[test]
fn what_is_shared_goes_by_weight_and_what_one_cannot_use_goes_to_the_others() {
    let mut shaper = Shaper::new();
    shaper.set_total(Duration::ZERO, Some(rate(21 * MIB)));
    let flows = [1, 4, 16].map(|weight| shaper.add(Duration::ZERO, weight, None));
    let end = Duration::from_secs(10);
    let moved = greedy(&mut shaper, &flows, end, Duration::from_millis(1));
    for (moved, share) in moved.iter().zip([1, 4, 16]) {
        let exact = (share * 10 * MIB) as f64;
        assert!(
            (*moved as f64 - exact).abs() < exact * 0.03,
            "{moved} of {exact}"
        );
    }
    // The heavy one is held to 2 MiB/s: the others share 19 as one to four.
    shaper.set_limit(end, flows[2], Some(rate(2 * MIB)));
    let later = end * 2;
    let moved = greedy_from(&mut shaper, &flows, end, later, Duration::from_millis(1));
    for (moved, share) in moved.iter().zip([3.8, 15.2, 2.0]) {
        let exact = share * 10.0 * MIB as f64;
        assert!(
            (*moved as f64 - exact).abs() < exact * 0.03,
            "{moved} of {exact}"
        );
    }
    // Equal weights from now on.
    shaper.set_limit(later, flows[2], None);
    flows.iter().for_each(|flow| shaper.set_weight(*flow, 7));
    let moved = greedy_from(&mut shaper, &flows, later, later + end, Duration::ZERO);
    for moved in moved {
        let exact = 70.0 * MIB as f64;
        assert!(
            (moved as f64 - exact).abs() < exact * 0.03,
            "{moved} of {exact}"
        );
    }
}

#[test]
fn one_that_was_idle_has_no_claim_on_what_it_did_not_use() {
    let mut shaper = Shaper::new();
    shaper.set_total(Duration::ZERO, Some(rate(10 * MIB)));
    let busy = shaper.add(Duration::ZERO, 1, None);
    let idle = shaper.add(Duration::ZERO, 1, None);
    let second = Duration::from_secs(1);
    greedy(&mut shaper, &[busy], second * 60, Duration::ZERO);
    let moved = greedy_from(
        &mut shaper,
        &[busy, idle],
        second * 60,
        second * 62,
        Duration::ZERO,
    );
    let half = 10 * MIB;
    assert!(
        moved.iter().all(|moved| moved.abs_diff(half) < MIB),
        "{moved:?}"
    );
}

#[test]
fn whoever_begins_after_a_pause_gets_the_rate_and_no_more() {
    let mut shaper = Shaper::new();
    shaper.set_total(Duration::ZERO, Some(rate(50 * MIB)));
    let flow = [shaper.add(Duration::ZERO, 1, Some(rate(50 * MIB)))];
    let hour = Duration::from_secs(3600);
    let second = Duration::from_secs(1);
    let moved = greedy_from(&mut shaper, &flow, hour, hour + second, Duration::ZERO)[0];
    assert!((49 * MIB..=50 * MIB).contains(&moved), "{moved}");
}

#[test]
fn everybody_in_a_flow_has_an_equal_part() {
    let mut shaper = Shaper::new();
    shaper.set_total(Duration::ZERO, Some(rate(MIB)));
    let flow = shaper.add(Duration::ZERO, 1, None);
    let moved = greedy(
        &mut shaper,
        &[flow; 8],
        Duration::from_secs(40),
        Duration::ZERO,
    );
    assert!(
        moved.iter().all(|moved| moved.abs_diff(5 * MIB) < MIB / 4),
        "{moved:?}"
    );
}

#[test]
fn without_limits_everything_is_granted_at_once_in_full() {
    let mut shaper = Shaper::new();
    let flow = shaper.add(Duration::ZERO, 4, None);
    let ticket = shaper.ask(Duration::ZERO, flow, u64::MAX);
    assert_eq!(shaper.next_at(Duration::ZERO), Some(Duration::ZERO));
    let bytes = u64::MAX;
    assert_eq!(shaper.poll(Duration::ZERO), Some(Grant { ticket, bytes }));
    assert_eq!(shaper.poll(Duration::ZERO), None);
    assert_eq!(shaper.next_at(Duration::ZERO), None);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, u64),
    Withdraw(usize),
    Total(Option<u64>),
    Limit(usize, Option<u64>),
    Weight(usize, u32),
    PutBack(usize, u64),
    Wait(u64),
    Remove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limit = || proptest::option::of(1024u64..1 << 40);
    let step = prop_oneof![
        4 => (0..4usize, 0..=u64::MAX).prop_map(|(flow, bytes)| Step::Ask(flow, bytes)),
        1 => (0..64usize).prop_map(Step::Withdraw),
        1 => limit().prop_map(Step::Total),
        1 => (0..4usize, limit()).prop_map(|(flow, limit)| Step::Limit(flow, limit)),
        1 => (0..4usize, 0..=u32::MAX).prop_map(|(flow, weight)| Step::Weight(flow, weight)),
        1 => (0..4usize, 0..=u64::MAX).prop_map(|(flow, bytes)| Step::PutBack(flow, bytes)),
        4 => (0..10_000_000_000u64).prop_map(Step::Wait),
        1 => (0..4usize).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever happens in whatever order, nothing panics, nobody gets more than was asked
    /// for, and whoever still waits is served in the end.
    #[test]
    fn everybody_is_served_in_the_end(steps in steps()) {
        let mut shaper = Shaper::new();
        let mut now = Duration::ZERO;
        let mut flows: Vec<_> = (0..4).map(|_| shaper.add(now, 1, None)).collect();
        let mut open: Vec<(Ticket, usize, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Ask(flow, bytes) => open.push((shaper.ask(now, flows[flow], bytes), flow, bytes)),
                Step::Withdraw(at) if at < open.len() => {
                    let (ticket, flow, _) = open.swap_remove(at);
                    shaper.withdraw(flows[flow], ticket);
                }
                Step::Withdraw(_) => {}
                Step::Total(limit) => shaper.set_total(now, limit.map(rate)),
                Step::Limit(flow, limit) => shaper.set_limit(now, flows[flow], limit.map(rate)),
                Step::Weight(flow, weight) => shaper.set_weight(flows[flow], weight),
                Step::PutBack(flow, bytes) => shaper.put_back(flows[flow], bytes),
                Step::Wait(nanos) => now += Duration::from_nanos(nanos),
                Step::Remove(flow) => {
                    shaper.remove(flows[flow]);
                    open.retain(|(_, other, _)| *other != flow);
                    flows[flow] = shaper.add(now, 1, None);
                }
            }
            while let Some(grant) = shaper.poll(now) {
                let at = open.iter().position(|(ticket, ..)| *ticket == grant.ticket);
                let (_, _, asked) = open.swap_remove(at.unwrap());
                prop_assert!((1..=asked.max(1)).contains(&grant.bytes));
            }
        }
        while let Some(at) = shaper.next_at(now) {
            now = now.max(at);
            match shaper.poll(now) {
                Some(grant) => open.retain(|(ticket, ..)| *ticket != grant.ticket),
                // Somebody else's turn came first; it is not said to be now.
                None => prop_assert!(shaper.next_at(now).is_some_and(|at| at > now)),
            }
        }
        prop_assert!(open.is_empty());
    }
}

proptest! {
    /// Of two flows that both always have more to move, neither is ever ahead of the other by
    /// more than one grant of each, by weight: nobody starves, whoever comes and goes.
    #[test]
    fn nobody_is_ever_ahead_by_more_than_a_grant(
        weights in proptest::collection::vec(1u32..=16, 2..8),
        bytes_per_second in (64u64 << 10)..(64 << 20),
        late in 0u64..30,
    ) {
        let mut shaper = Shaper::new();
        shaper.set_total(Duration::ZERO, Some(rate(bytes_per_second)));
        let add = |weight: &u32| shaper.add(Duration::ZERO, *weight, None);
        let flows: Vec<FlowId> = weights.iter().map(add).collect();
        let mut owner = BTreeMap::new();
        for (at, flow) in flows.iter().enumerate() {
            owner.insert(shaper.ask(Duration::ZERO, *flow, MIB), at);
        }
        let mut moved = vec![0u64; flows.len()];
        let (mut now, mut most) = (Duration::ZERO, 0);
        for _ in 0..400 {
            let Some(next) = shaper.next_at(now) else { break };
            now = next.max(now) + Duration::from_millis(late);
            while let Some(grant) = shaper.poll(now) {
                let at = owner.remove(&grant.ticket).unwrap();
                moved[at] += grant.bytes;
                most = most.max(grant.bytes);
                owner.insert(shaper.ask(now, flows[at], MIB), at);
                for (a, x) in moved.iter().zip(&weights) {
                    for (b, y) in moved.iter().zip(&weights) {
                        let (a, b) = (a * u64::from(*y), b * u64::from(*x));
                        let grants = most * u64::from(x + y);
                        prop_assert!(a <= b + grants, "{moved:?} by {weights:?}");
                    }
                }
            }
        }
        prop_assert!(moved.iter().all(|bytes| *bytes > 0), "{moved:?}");
    }
}
