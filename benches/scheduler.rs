//! Time that the scheduler takes per decision: a request assigned, delivered and finished.
//!
//! The file has 1 TiB; of every 4 MiB the first chunk is there already, so that 262,144 runs
//! of bytes are missing. And the same near the end, where a source that is done has to take
//! work from others. `cargo bench --bench scheduler`.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use chiral_core::{ByteRange, RangeSet};
use chiral_protocols::scheduler::{
    Action, RequestId, Scheduler, SchedulerConfig, SourceId, SourceSpec,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const SIZE: u64 = 1 << 40;
const STRIDE: u64 = 4 << 20;
const CHUNK: u64 = 262_144;

/// A scheduler in the middle of a download. Every other source is a partial seeder that has
/// 64 MiB of each 256 MiB.
fn scheduler(sources: u32) -> Scheduler {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), SIZE);
    for start in (0..SIZE).step_by(STRIDE as usize) {
        scheduler.want(ByteRange::new(start + CHUNK, start + STRIDE));
    }
    for id in 0..sources {
        let mut spec = SourceSpec::complete(4);
        if id % 2 == 1 {
            let first = u64::from(id) * (5 << 20);
            let runs = (first..SIZE).step_by(256 << 20);
            let coverage: RangeSet = runs
                .map(|at| ByteRange::new(at, (at + (64 << 20)).min(SIZE)))
                .collect();
            spec = spec.with_coverage(coverage);
        }
        scheduler.source_up(Duration::ZERO, SourceId(id), spec.with_rate_hint(8 << 20));
    }
    scheduler
}

/// Delivers the oldest request at 8 MiB/s per source, wants its bytes again so that the file
/// never ends, and takes what is assigned instead.
fn step(
    scheduler: &mut Scheduler,
    sources: u32,
    now: &mut Duration,
    queue: &mut VecDeque<(RequestId, ByteRange)>,
) {
    if let Some((request, range)) = queue.pop_front() {
        let rate = f64::from(8 << 20) * f64::from(sources);
        *now += Duration::from_secs_f64(range.len() as f64 / rate);
        black_box(scheduler.arrived(*now, request, range));
        scheduler.completed(*now, request);
        scheduler.want(range);
    }
    while let Some(action) = scheduler.poll(*now) {
        if let Action::Assign { request, range, .. } = action {
            queue.push_back((request, range));
        }
    }
    black_box(scheduler.next_deadline());
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler/decision");
    for sources in [1u32, 10, 50] {
        let mut state = scheduler(sources);
        let (mut now, mut queue) = (Duration::ZERO, VecDeque::new());
        for _ in 0..1_000 {
            step(&mut state, sources, &mut now, &mut queue);
        }
        group.bench_function(BenchmarkId::from_parameter(sources), |b| {
            b.iter(|| step(&mut state, sources, &mut now, &mut queue));
        });
    }
    group.finish();
}

/// A download in which all bytes are asked for: what is delivered is wanted again only when a
/// quarter of it has been, so that sources run dry and take from each other.
fn take_over(
    scheduler: &mut Scheduler,
    sources: u32,
    now: &mut Duration,
    queue: &mut VecDeque<(RequestId, ByteRange)>,
    delivered: &mut VecDeque<ByteRange>,
) {
    if let Some((request, range)) = queue.pop_front() {
        let rate = f64::from(8 << 20) * f64::from(sources);
        *now += Duration::from_secs_f64(range.len() as f64 / rate);
        black_box(scheduler.arrived(*now, request, range));
        scheduler.completed(*now, request);
        delivered.push_back(range);
    }
    if queue.is_empty() || delivered.len() > sources as usize / 4 {
        for range in delivered.drain(..) {
            scheduler.want(range);
        }
    }
    scheduler.tick(*now);
    while let Some(action) = scheduler.poll(*now) {
        match action {
            Action::Assign { request, range, .. } => queue.push_back((request, range)),
            Action::Cancel { request } => queue.retain(|(queued, _)| *queued != request),
            Action::Truncate { request, end } => {
                for (queued, range) in queue.iter_mut() {
                    if *queued == request {
                        *range = ByteRange::new(range.start, range.end.min(end));
                    }
                }
            }
            _ => {}
        }
    }
    black_box(scheduler.next_deadline());
}

fn near_the_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler/near-the-end");
    for sources in [10u32, 50, 500] {
        let size = u64::from(sources) * (8 << 20);
        let mut state = Scheduler::new(SchedulerConfig::default(), size);
        state.want(ByteRange::new(0, size));
        for id in 0..sources {
            let spec = SourceSpec::complete(4).with_rate_hint(8 << 20);
            state.source_up(Duration::ZERO, SourceId(id), spec);
        }
        let (mut now, mut queue) = (Duration::ZERO, VecDeque::new());
        let mut delivered = VecDeque::new();
        group.bench_function(BenchmarkId::from_parameter(sources), |b| {
            b.iter(|| take_over(&mut state, sources, &mut now, &mut queue, &mut delivered));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, near_the_end);
criterion_main!(benches);
