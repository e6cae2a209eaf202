//! [`ChannelTerms`]: what a quote says of channels, signed with it.

use alloy_primitives::Address;

use super::window::Window;
use crate::contracts::channels::CHALLENGE_SECONDS;
use crate::messages::Policy;

/// What a quote says of channels, windows and batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTerms {
    /// The `Channels` contract.
    pub contract: Address,
    /// Shortest challenge period that the payee takes, in seconds: as long as it may be away.
    pub challenge: u32,
    /// Chunks that are served before the first is paid.
    pub window_first: u32,
    /// Chunks that are served and not paid, at most.
    pub window_cap: u32,
    /// Chunks after which a payment is due.
    pub batch: u32,
}

impl Default for ChannelTerms {
    /// No contract; a day; a window of one chunk that grows to 64; a payment every 4 chunks.
    fn default() -> Self {
        Self {
            contract: Address::ZERO,
            challenge: 86_400,
            window_first: 1,
            window_cap: 64,
            batch: 4,
        }
    }
}

impl ChannelTerms {
    /// Whether somebody could keep to them.
    pub fn make_sense(&self) -> bool {
        let (least, most) = CHALLENGE_SECONDS;
        (least..=most).contains(&self.challenge)
            && self.window_first >= 1
            && self.window_first <= self.window_cap
            && self.batch >= 1
    }

    /// How much may be served under a policy ahead of payment; `None` where no window decides.
    pub fn window(&self, policy: Policy) -> Option<Window> {
        match policy {
            Policy::PayAfter | Policy::PayFirst => None,
            Policy::Incremental => Some(Window::fixed(self.batch)),
            Policy::Channel => Some(Window::new(self.window_first, self.window_cap)),
            Policy::LockedVoucher => Some(Window::fixed(self.window_cap)),
        }
    }
}
