//! Peer ids of BitTorrent, which say no more than which client somebody runs.

use std::fmt;

/// Client and version at the start of our peer ids.
const PREFIX: &[u8; 8] = b"-CH0100-";

/// A BitTorrent peer id: made anew by every client, not to be confused with Chiral's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BtPeerId(pub [u8; 20]);

impl BtPeerId {
    /// Ours, with these random bytes.
    pub fn new(random: [u8; 12]) -> Self {
        let mut id = [0; 20];
        id[..8].copy_from_slice(PREFIX);
        id[8..].copy_from_slice(&random);
        Self(id)
    }
}

impl fmt::Display for BtPeerId {
    /// Printable characters as they are, others as dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self
            .0
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        f.pad(&text)
    }
}

impl fmt::Debug for BtPeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BtPeerId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_says_who_we_are_and_prints() {
        let id = BtPeerId::new([0xff; 12]);
        assert_eq!(id.to_string(), "-CH0100-............");
    }
}
