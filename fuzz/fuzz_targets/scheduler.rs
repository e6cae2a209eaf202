//! Sources that report anything in any order: the scheduler ends its answers and keeps count.
#![no_main]

use std::time::Duration;

use chiral_core::{ByteRange, RequestGrid};
use chiral_protocols::scheduler::{
    Action, Blame, FailureKind, RequestId, Scheduler, SchedulerConfig, SourceId, SourceSpec,
};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 3_000_000;

fuzz_target!(|steps: Vec<(u8, u8, u32, u32)>| {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), SIZE);
    scheduler.want(ByteRange::new(0, SIZE));
    let mut now = Duration::ZERO;
    let mut assigned: Vec<(RequestId, ByteRange)> = Vec::new();
    for (what, who, a, b) in steps.into_iter().take(200) {
        now += Duration::from_millis(u64::from(a % 997));
        let source = SourceId(u32::from(who % 8));
        let range = ByteRange::new(u64::from(a) % SIZE, u64::from(b) % (SIZE * 2));
        let request = assigned
            .get(usize::from(who) % assigned.len().max(1))
            .map_or(RequestId(u64::from(b)), |(request, _)| *request);
        match what % 12 {
            0 => scheduler.source_up(now, source, SourceSpec::complete(1 + usize::from(who % 4))),
            1 => {
                let grid = RequestGrid::parts(u64::from(a) % 1_000_000, u64::from(b) % 200_000);
                let spec = SourceSpec::complete(2)
                    .with_grid(grid)
                    .with_coverage(range.into());
                scheduler.source_up(now, source, spec);
            }
            2 => scheduler.source_down(now, source),
            3 => scheduler.coverage_changed(now, source, range.into()),
            4 => scheduler.completed(now, request),
            5 => scheduler.failed(now, request, FailureKind::Temporary),
            6 => scheduler.failed(now, request, FailureKind::Missing),
            7 => scheduler.invalidate(now, range, Blame::Nobody),
            8 => scheduler.retry_whole(now, range, &[source]),
            9 => scheduler.set_window(range),
            10 => scheduler.tick(now),
            _ => {
                scheduler.arrived(now, request, range);
            }
        }
        let mut answers = 0;
        while let Some(action) = scheduler.poll(now) {
            answers += 1;
            assert!(answers < 10_000, "poll does not end");
            if let Action::Assign { request, range, .. } = action {
                assert!(range.end <= SIZE && !range.is_empty());
                assigned.push((request, range));
            }
        }
        assert_eq!(scheduler.is_complete(), scheduler.missing().is_empty());
    }
});
