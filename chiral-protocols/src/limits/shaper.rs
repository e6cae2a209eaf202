//! [`Shaper`]: who may move how many bytes, and when. No clock, no waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chiral_core::Rate;

use super::bucket::Bucket;

/// A flow of a [`Shaper`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(u64);

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Leave to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who waited for it.
    pub ticket: Ticket,
    /// Bytes: at least 1, and no more than were asked for.
    pub bytes: u64,
}

/// Virtual time that one byte takes at weight 1.
const BYTE_TIME: u128 = 1 << 32;

#[derive(Debug)]
struct FlowState {
    weight: u32,
    own: Option<Bucket>,
    /// Virtual time at which its next bytes begin.
    start: u128,
    waiting: VecDeque<(Ticket, u64)>,
}

impl FlowState {
    /// Bytes that would be granted next.
    fn wish(&self, total: Option<&Bucket>) -> u64 {
        let asked = self.waiting.front().map_or(0, |(_, bytes)| *bytes);
        let most = [total, self.own.as_ref()].into_iter().flatten();
        most.map(Bucket::quantum).fold(asked, u64::min)
    }
}

/// Shares a rate among flows, each with a weight and perhaps a rate of its own.
///
/// Flows that have something to move get bytes in proportion to their weights (start-time fair
/// queueing); what one cannot use because of its own rate goes to the others. Every `now` is
/// the time since some start of the caller's choice and should not decrease.
#[derive(Debug, Default)]
pub struct Shaper {
    total: Option<Bucket>,
    flows: BTreeMap<FlowId, FlowState>,
    /// Flows in which somebody waits, by their virtual time.
    backlog: BTreeSet<(u128, FlowId)>,
    /// Virtual time of what was granted last.
    clock: u128,
    next: u64,
}

impl Shaper {
    /// A shaper that limits nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits all flows together.
    pub fn set_total(&mut self, now: Duration, limit: Option<Rate>) {
        change(&mut self.total, now, limit);
    }

    /// The limit on all flows together.
    pub fn total(&self) -> Option<Rate> {
        self.total.as_ref().map(Bucket::rate)
    }

    /// Adds a flow.
    pub fn add(&mut self, now: Duration, weight: u32, limit: Option<Rate>) -> FlowId {
        let id = FlowId(self.number());
        let state = FlowState {
            weight: weight.max(1),
            own: limit.map(|rate| Bucket::new(rate, now)),
            start: self.clock,
            waiting: VecDeque::new(),
        };
        self.flows.insert(id, state);
        id
    }

    /// Takes a flow out; whoever waits in it is not answered any more.
    pub fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.backlog.remove(&(flow.start, id));
        }
    }

    /// Changes what a flow gets beside others.
    pub fn set_weight(&mut self, id: FlowId, weight: u32) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.weight = weight.max(1);
        }
    }

    /// Changes a flow's own limit.
    pub fn set_limit(&mut self, now: Duration, id: FlowId, limit: Option<Rate>) {
        if let Some(flow) = self.flows.get_mut(&id) {
            change(&mut flow.own, now, limit);
        }
    }

    /// A flow's own limit.
    pub fn limit(&self, id: FlowId) -> Option<Rate> {
        self.flows.get(&id)?.own.as_ref().map(Bucket::rate)
    }

    /// Asks for leave to move bytes; [`poll`](Self::poll) grants it, or a part of it.
    pub fn ask(&mut self, now: Duration, id: FlowId, bytes: u64) -> Ticket {
        let ticket = Ticket(self.number());
        if self.backlog.is_empty()
            && let Some(total) = &mut self.total
        {
            total.begin(now);
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            if flow.waiting.is_empty() {
                if let Some(own) = &mut flow.own {
                    own.begin(now);
                }
                flow.start = flow.start.max(self.clock);
                self.backlog.insert((flow.start, id));
            }
            flow.waiting.push_back((ticket, bytes.max(1)));
        }
        ticket
    }

    /// Takes a wish back. Costs O(those who wait in the flow).
    pub fn withdraw(&mut self, id: FlowId, ticket: Ticket) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.waiting.retain(|(other, _)| *other != ticket);
            if flow.waiting.is_empty() {
                self.backlog.remove(&(flow.start, id));
            }
        }
    }

    /// Bytes that were granted will not be moved.
    pub fn put_back(&mut self, id: FlowId, bytes: u64) {
        let own = self.flows.get_mut(&id).and_then(|flow| flow.own.as_mut());
        for bucket in [self.total.as_mut(), own].into_iter().flatten() {
            bucket.put_back(bytes);
        }
    }

    /// The next grant, if there is one now.
    pub fn poll(&mut self, now: Duration) -> Option<Grant> {
        if let Some(total) = &mut self.total {
            total.fill(now);
        }
        let (start, id, bytes) = self.first(now)?;
        if self.total.as_ref().is_some_and(|total| !total.has(bytes)) {
            return None;
        }
        if let Some(total) = &mut self.total {
            total.take(bytes);
        }
        let flow = self.flows.get_mut(&id)?;
        if let Some(own) = &mut flow.own {
            own.take(bytes);
        }
        let (ticket, _) = flow.waiting.pop_front()?;
        self.backlog.remove(&(start, id));
        self.clock = self.clock.max(start);
        flow.start = start + u128::from(bytes) * BYTE_TIME / u128::from(flow.weight);
        if !flow.waiting.is_empty() {
            self.backlog.insert((flow.start, id));
        }
        Some(Grant { ticket, bytes })
    }

    /// When [`poll`](Self::poll) may have a grant, if somebody waits and nothing else happens.
    pub fn next_at(&mut self, now: Duration) -> Option<Duration> {
        if let Some(total) = &mut self.total {
            total.fill(now);
        }
        // Nobody passes the one whose turn it is among those that their own limits let go on.
        if let Some((_, _, bytes)) = self.first(now) {
            return Some(self.total.as_ref().map_or(now, |t| t.ready_at(bytes)));
        }
        let waiting = self.backlog.iter().filter_map(|(_, id)| self.flows.get(id));
        let own = waiting.filter_map(|flow| {
            let bytes = flow.wish(self.total.as_ref());
            let total = self.total.as_ref().map(|total| total.ready_at(bytes));
            flow.own.as_ref().map(|own| own.ready_at(bytes)).max(total)
        });
        own.min()
    }

    /// Whose turn it is, of those whose own limits allow it, and how many bytes it would get.
    fn first(&mut self, now: Duration) -> Option<(u128, FlowId, u64)> {
        for (start, id) in &self.backlog {
            let Some(flow) = self.flows.get_mut(id) else {
                continue;
            };
            let bytes = flow.wish(self.total.as_ref());
            let ready = flow.own.as_mut().is_none_or(|own| {
                own.fill(now);
                own.has(bytes)
            });
            if ready {
                return Some((*start, *id, bytes));
            }
        }
        None
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn change(bucket: &mut Option<Bucket>, now: Duration, limit: Option<Rate>) {
    match (bucket.as_mut(), limit) {
        (Some(bucket), Some(rate)) => bucket.set_rate(now, rate),
        (_, limit) => *bucket = limit.map(|rate| Bucket::new(rate, now)),
    }
}

#[cfg(test)]
mod tests;
