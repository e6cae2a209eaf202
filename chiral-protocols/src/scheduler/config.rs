//! What a scheduler can be told to do differently.

use std::time::Duration;

/// Limits and aims of a [`Scheduler`](super::Scheduler). Lengths are in bytes.
///
/// The defaults suit downloads over the Internet from one to fifty sources.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Requests end at multiples of this where the source's grid allows, so that a chunk
    /// usually comes whole from one source. Default 262,144, the Chiral chunk.
    pub chunk_bytes: u64,
    /// A request is as long as what its source delivers in this time. Default 1 s.
    pub slice: Duration,
    /// Shortest request while there is plenty to do, and the length of the probe that a
    /// source gets when its demotion ends. Default 65,536.
    pub min_request_bytes: u64,
    /// Length of the first requests to a source whose rate is unknown. Default 262,144.
    pub initial_request_bytes: u64,
    /// Longest ordinary request. Default 8 MiB.
    pub max_request_bytes: u64,
    /// Longest request to a source that takes too few at once to hide its latency otherwise.
    /// Default 512 MiB.
    pub max_stretched_request_bytes: u64,
    /// Less than this is not worth taking away from another source. Default 4,096.
    pub min_steal_bytes: u64,
    /// A source that owes bytes and sends none for this long is stalled, unless it is known
    /// to send more seldom than that. Default 4 s.
    pub stall_timeout: Duration,
    /// The same for a source that never sent a byte: connecting takes longer. Default 8 s.
    pub first_byte_timeout: Duration,
    /// A source is not stalled before this many of its usual gaps between bytes have passed.
    /// Default 4.
    pub stall_factor: u32,
    /// How long a source rests after each of its first four stalls; doubles with each further
    /// one. Default 500 ms.
    pub stall_demotion: Duration,
    /// How long a source rests after its first temporary failure; doubles with each further
    /// one. Default 500 ms.
    pub failure_demotion: Duration,
    /// Longest rest. Default 5 min.
    pub max_demotion: Duration,
    /// Longest rest of a source that nobody can stand in for. Default 5 s.
    pub max_lone_demotion: Duration,
    /// Bytes that come twice, or that may after a request that takes that risk, in thousandths
    /// of the bytes wanted; a quarter more once that is enough for all that is missing. Default 7.
    pub duplicate_permille: u32,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            chunk_bytes: 262_144,
            slice: Duration::from_secs(1),
            min_request_bytes: 65_536,
            initial_request_bytes: 262_144,
            max_request_bytes: 8 << 20,
            max_stretched_request_bytes: 512 << 20,
            min_steal_bytes: 4_096,
            stall_timeout: Duration::from_secs(4),
            first_byte_timeout: Duration::from_secs(8),
            stall_factor: 4,
            stall_demotion: Duration::from_millis(500),
            failure_demotion: Duration::from_millis(500),
            max_demotion: Duration::from_secs(300),
            max_lone_demotion: Duration::from_secs(5),
            duplicate_permille: 7,
        }
    }
}

impl SchedulerConfig {
    /// Sets [`chunk_bytes`](Self::chunk_bytes).
    pub fn with_chunk_bytes(mut self, bytes: u64) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Sets [`slice`](Self::slice).
    pub fn with_slice(mut self, slice: Duration) -> Self {
        self.slice = slice;
        self
    }

    /// Sets the [shortest](Self::min_request_bytes) and the
    /// [longest](Self::max_request_bytes) ordinary request.
    pub fn with_request_bytes(mut self, min: u64, max: u64) -> Self {
        self.min_request_bytes = min;
        self.max_request_bytes = max;
        self
    }

    /// Sets [`initial_request_bytes`](Self::initial_request_bytes).
    pub fn with_initial_request_bytes(mut self, bytes: u64) -> Self {
        self.initial_request_bytes = bytes;
        self
    }

    /// Sets [`stall_timeout`](Self::stall_timeout) and
    /// [`first_byte_timeout`](Self::first_byte_timeout).
    pub fn with_timeouts(mut self, stall: Duration, first_byte: Duration) -> Self {
        self.stall_timeout = stall;
        self.first_byte_timeout = first_byte;
        self
    }

    /// Sets [`stall_demotion`](Self::stall_demotion) and
    /// [`max_demotion`](Self::max_demotion).
    pub fn with_demotion(mut self, first: Duration, max: Duration) -> Self {
        self.stall_demotion = first;
        self.max_demotion = max;
        self
    }

    /// Sets [`duplicate_permille`](Self::duplicate_permille).
    pub fn with_duplicate_permille(mut self, permille: u32) -> Self {
        self.duplicate_permille = permille;
        self
    }

    /// Raises what is too small to work with, so that any configuration terminates.
    pub(super) fn sane(mut self) -> Self {
        let tick = Duration::from_millis(10);
        self.chunk_bytes = self.chunk_bytes.max(1);
        self.min_request_bytes = self.min_request_bytes.max(1);
        self.initial_request_bytes = self.initial_request_bytes.max(self.min_request_bytes);
        self.max_request_bytes = self.max_request_bytes.max(self.initial_request_bytes);
        self.max_stretched_request_bytes =
            self.max_stretched_request_bytes.max(self.max_request_bytes);
        self.min_steal_bytes = self.min_steal_bytes.max(1);
        self.stall_factor = self.stall_factor.clamp(1, 1_000);
        for time in [
            &mut self.slice,
            &mut self.stall_timeout,
            &mut self.first_byte_timeout,
            &mut self.stall_demotion,
            &mut self.failure_demotion,
            &mut self.max_demotion,
            &mut self.max_lone_demotion,
        ] {
            *time = (*time).max(tick);
        }
        self
    }
}
