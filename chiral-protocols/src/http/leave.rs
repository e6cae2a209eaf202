//! [`Leave`]: waiting for a [`Flow`] in a poll function.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::limits::Flow;

/// Leave of a flow to send bytes, waited for by polling.
pub(super) struct Leave {
    flow: Flow,
    waiting: Option<Pin<Box<dyn Future<Output = u64> + Send>>>,
}

impl Leave {
    pub(super) fn of(flow: Flow) -> Self {
        Self {
            flow,
            waiting: None,
        }
    }

    /// Waits for leave to send some of `bytes`, which are not 0; answers how many.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<usize> {
        if self.waiting.is_none() && !self.flow.is_limited() {
            return Poll::Ready(bytes);
        }
        let flow = &self.flow;
        let waiting = self.waiting.get_or_insert_with(|| {
            let flow = flow.clone();
            Box::pin(async move { flow.acquire(bytes as u64).await })
        });
        let leave = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(bytes.min(leave as usize))
    }
}
