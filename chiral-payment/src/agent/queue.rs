//! [`Queue`]: who locks next in a channel that several agreements are paid out of. One lock is
//! open at a time; whoever buys without a pause would keep the others out.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use alloy_primitives::B256;

use super::lock;

/// Those that wait for the lock of each channel, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    of: HashMap<B256, VecDeque<u64>>,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    channel: B256,
    number: u64,
}

impl Queue {
    /// Whether anybody waits.
    pub(super) fn is_waited_for(&self, channel: B256) -> bool {
        lock(&self.0).of.contains_key(&channel)
    }

    /// A place at the end.
    pub(super) fn wait_for(&self, channel: B256) -> Place<'_> {
        let mut waiting = lock(&self.0);
        waiting.last += 1;
        let number = waiting.last;
        waiting.of.entry(channel).or_default().push_back(number);
        Place {
            queue: self,
            channel,
            number,
        }
    }
}

impl Place<'_> {
    /// Whether nobody came before.
    pub(super) fn is_first(&self) -> bool {
        let waiting = lock(&self.queue.0);
        let of = waiting.of.get(&self.channel);
        of.and_then(VecDeque::front) == Some(&self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.queue.0);
        if let Some(of) = waiting.of.get_mut(&self.channel) {
            of.retain(|number| *number != self.number);
            if of.is_empty() {
                waiting.of.remove(&self.channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_first_and_who_goes_makes_room() {
        let (queue, channel) = (Queue::default(), B256::repeat_byte(1));
        assert!(!queue.is_waited_for(channel));
        let [a, b, c] = [(); 3].map(|()| queue.wait_for(channel));
        assert!(!queue.is_waited_for(B256::ZERO));
        assert!(a.is_first() && !b.is_first() && !c.is_first());
        drop(b);
        assert!(a.is_first() && !c.is_first());
        drop(a);
        assert!(c.is_first());
        drop(c);
        assert!(!queue.is_waited_for(channel));
    }
}
