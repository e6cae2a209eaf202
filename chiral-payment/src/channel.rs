//! Payment in channels: a deposit on the chain, and signed words beside it.
//!
//! A *voucher* says how much of the deposit the payer has paid in all, so the payee needs only
//! the last one, and a lost or repeated one does no harm. A *locked voucher* says the same
//! under the hash of a key: it is worth nothing until the payee shows the key, and showing it
//! gives the payer what the key opens. Vouchers name in their context for which agreement the
//! money is and how many bytes it pays for there, so one channel serves any number of files.
//!
//! [`PayerChannel`] and [`PayeeChannel`] decide and sign nothing, send nothing, know no clock;
//! [`Channels`] keeps them in the journal, signs, verifies, and watches the chain.

pub mod cipher;
pub mod messages;
pub mod payee;
pub mod payer;
pub mod terms;
pub mod voucher;
pub mod window;

pub(crate) mod book;
mod house;
pub mod on_chain;
pub(crate) mod past;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod watcher;

pub use book::{ChannelView, Side};
pub(crate) use house::NextLock;
pub(crate) use house::call_id;
pub use house::{Channels, ChannelsConfig, ChannelsError};
pub use messages::ChannelMessage;
pub use payee::PayeeChannel;
pub use payer::PayerChannel;
pub use terms::ChannelTerms;
pub use voucher::{ChannelDomain, Close, LockedVoucher, Voucher};
pub use window::Window;
