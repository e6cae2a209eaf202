//! What the directory keeps in the DHT, without any IO: announcements, their keys, the sets
//! that merge them, and the store that validates them.
//!
//! - Every seeder signs its own [`announcement`]; nobody else can alter or remove it.
//! - A value in the DHT is a [`set`] of them under one [`key`]. Sets merge: whoever puts one
//!   adds to what is there, and a [`reader`] unites the copies of several nodes.
//! - The [`store`] checks before it keeps. What is refused changes nothing.
//!
//! Time is an argument everywhere: a [`Duration`] since 1970 (UTC).
//!
//! [`Duration`]: std::time::Duration

pub mod announcement;
mod choice;
mod coverage;
mod error;
pub mod key;
pub mod node_record;
pub mod publication;
pub mod reader;
pub mod set;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wallet;
mod wire;

pub use announcement::{SignedAnnouncement, VerifiedAnnouncement};
pub use error::RecordError;
pub use key::{RecordKey, provider_key};
pub use node_record::NodeRecord;
pub use publication::Publication;
pub use reader::Reader;
pub use set::SeederSet;
pub use store::{ChiralStore, StoreLimits};
pub use wallet::WalletBinding;
