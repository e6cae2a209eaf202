//! [`Tiers`]: which tracker is asked after which (BEP 12).

use crate::bittorrent::random::Random;

/// Most trackers of one torrent.
pub const MAX_TRACKERS: usize = 64;
/// Longest URL of a tracker.
pub const MAX_URL: usize = 2048;

/// The trackers of a torrent, by tiers: all of one are tried before any of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers(Vec<Vec<String>>);

impl Tiers {
    /// Takes an `announce-list`. Duplicates, URLs over their limit and what is over
    /// [`MAX_TRACKERS`] are left out.
    #[must_use]
    pub fn new(list: &[Vec<String>]) -> Self {
        let mut seen = Vec::new();
        let mut tiers = Vec::new();
        for tier in list {
            let mut kept = Vec::new();
            for url in tier {
                let fits = !url.is_empty() && url.len() <= MAX_URL && seen.len() < MAX_TRACKERS;
                if fits && !seen.contains(url) {
                    seen.push(url.clone());
                    kept.push(url.clone());
                }
            }
            if !kept.is_empty() {
                tiers.push(kept);
            }
        }
        Self(tiers)
    }

    /// The trackers of a magnet link, each a tier of its own as clients take them; or one
    /// tracker.
    #[must_use]
    pub fn each(urls: &[String]) -> Self {
        let list: Vec<_> = urls.iter().map(|url| vec![url.clone()]).collect();
        Self::new(&list)
    }

    /// Puts each tier into an order of chance, once, before the first announcement.
    pub(super) fn shuffle(&mut self, random: &mut Random) {
        for tier in &mut self.0 {
            random.shuffle(tier);
        }
    }

    /// All, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A tracker has answered: it is the first of its tier from now on.
    pub(super) fn worked(&mut self, url: &str) {
        for tier in &mut self.0 {
            if let Some(at) = tier.iter().position(|other| other == url) {
                tier[..=at].rotate_right(1);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tiers: &[&[&str]]) -> Vec<Vec<String>> {
        let tier = |tier: &&[&str]| tier.iter().map(|url| (*url).to_owned()).collect();
        tiers.iter().map(tier).collect()
    }

    #[test]
    fn who_works_goes_first_in_its_tier() {
        let mut tiers = Tiers::new(&list(&[&["a", "b", "a", "c"], &[], &["d", "b", ""]]));
        assert_eq!(tiers.iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        tiers.worked("c");
        assert_eq!(tiers.iter().collect::<Vec<_>>(), ["c", "a", "b", "d"]);
        tiers.worked("d");
        tiers.worked("nobody");
        assert_eq!(tiers.iter().collect::<Vec<_>>(), ["c", "a", "b", "d"]);
        tiers.shuffle(&mut Random::from_seed([1; 32]));
        assert_eq!(tiers.iter().last(), Some("d"));
        assert_eq!(tiers.iter().count(), 4);
    }

    #[test]
    fn a_list_has_limits() {
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert_eq!(Tiers::each(&many).iter().count(), MAX_TRACKERS);
        assert!(Tiers::each(&["x".repeat(MAX_URL + 1)]).is_empty());
    }
}
