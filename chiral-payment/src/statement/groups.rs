//! A statement added up: by file, by peer, by protocol, by day.

use std::collections::BTreeMap;
use std::fmt::Write;

use chiral_core::money::format_chi;

use super::*;

/// Seconds in a day.
const DAY: u64 = 86_400;

/// By what a statement is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GroupBy {
    /// By file.
    File,
    /// By the other side: its id in the network, or its wallet where it has none.
    Peer,
    /// By how it was delivered.
    Protocol,
    /// By day (UTC).
    Day,
}

/// What belongs together. Wei serialise as decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// The file, the peer or wallet, the protocol, or the day (`2026-11-29`).
    pub key: String,
    /// Wei received.
    #[serde(serialize_with = "text")]
    pub earned: U256,
    /// Wei that others owe.
    #[serde(serialize_with = "text")]
    pub receivable: U256,
    /// Wei paid.
    #[serde(serialize_with = "text")]
    pub spent: U256,
    /// Wei owed.
    #[serde(serialize_with = "text")]
    pub payable: U256,
    /// Bytes that others pay, or have paid, for.
    pub bytes_served: u64,
    /// Bytes that this node pays, or has paid, for.
    pub bytes_fetched: u64,
    /// Bills, and what is acknowledged and on none.
    pub entries: usize,
}

impl Statement {
    /// The statement added up, by rising key.
    pub fn by(&self, by: GroupBy) -> Vec<Group> {
        let mut groups = BTreeMap::new();
        for entry in &self.entries {
            let key = key(entry, by);
            let group = groups.entry(key.clone()).or_insert_with(|| Group::new(key));
            group.add(entry);
        }
        groups.into_values().collect()
    }

    /// The same as lines of text, in CHI, with a head and the sums below.
    pub fn table(&self, by: GroupBy) -> String {
        let mut sum = Group::new("in all".to_owned());
        for entry in &self.entries {
            sum.add(entry);
        }
        let groups = self.by(by);
        let widest = groups.iter().chain([&sum]).map(|group| group.key.len());
        let width = widest.max().unwrap_or(0);
        let mut table = String::new();
        let names = ["earned", "owed to you", "spent", "owed by you"];
        let head = line(width, "", &names.map(str::to_owned), "served", "fetched");
        table.push_str(&head);
        for group in groups.iter().chain([&sum]) {
            let wei = [group.earned, group.receivable, group.spent, group.payable];
            let (served, fetched) = (group.bytes_served, group.bytes_fetched);
            let chi = wei.map(format_chi);
            let (served, fetched) = (served.to_string(), fetched.to_string());
            table.push_str(&line(width, &group.key, &chi, &served, &fetched));
        }
        table
    }
}

fn line(width: usize, key: &str, chi: &[String; 4], served: &str, fetched: &str) -> String {
    let mut line = format!("{key:<width$}");
    for amount in chi {
        // Into a string this cannot fail.
        let _ = write!(line, "  {amount:>24}");
    }
    let _ = writeln!(line, "  {served:>16}  {fetched:>16}");
    line
}

impl Group {
    fn new(key: String) -> Self {
        Self {
            key,
            earned: U256::ZERO,
            receivable: U256::ZERO,
            spent: U256::ZERO,
            payable: U256::ZERO,
            bytes_served: 0,
            bytes_fetched: 0,
            entries: 0,
        }
    }

    fn add(&mut self, entry: &Entry) {
        let (total, bytes) = match (entry.direction, entry.status) {
            (Direction::Earned, Status::Settled) => (&mut self.earned, &mut self.bytes_served),
            (Direction::Earned, _) => (&mut self.receivable, &mut self.bytes_served),
            (Direction::Spent, Status::Settled) => (&mut self.spent, &mut self.bytes_fetched),
            (Direction::Spent, _) => (&mut self.payable, &mut self.bytes_fetched),
        };
        *total = total.saturating_add(entry.amount);
        *bytes = bytes.saturating_add(entry.bytes);
        self.entries += 1;
    }
}

fn key(entry: &Entry, by: GroupBy) -> String {
    match by {
        GroupBy::File => entry.cid.to_string(),
        GroupBy::Peer => match (&entry.peer, &entry.wallet) {
            (Some(peer), _) => peer.to_string(),
            (None, Some(wallet)) => wallet.to_string(),
            (None, None) => "-".to_owned(),
        },
        GroupBy::Protocol => entry.protocol.to_string(),
        GroupBy::Day => date(entry.time / DAY),
    }
}

/// The date so many days after 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> String {
    // Years that begin in March have the leap day at their end; 400 of them are 146,097 days.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(direction: Direction, status: Status, cid: u8, amount: u64, time: u64) -> Entry {
        Entry {
            direction,
            channel: None,
            bill: None,
            cid: Cid::from_bytes([cid; 32]),
            wallet: Some(Address::repeat_byte(cid)),
            peer: None,
            protocol: Protocol::Http,
            bytes: amount * 10,
            amount: U256::from(amount),
            status,
            transaction: None,
            time,
            receipt: false,
        }
    }

    fn statement() -> Statement {
        let mut statement = Statement::default();
        for entry in [
            entry(Direction::Earned, Status::Settled, 1, 5, 0),
            entry(Direction::Earned, Status::Outstanding, 1, 7, DAY),
            entry(Direction::Spent, Status::Settled, 2, 11, DAY),
            entry(Direction::Spent, Status::Pending, 1, 13, 2 * DAY),
        ] {
            statement.add(entry);
        }
        statement
    }

    #[test]
    fn every_grouping_adds_up_to_the_whole() {
        let statement = statement();
        for (by, groups) in [
            (GroupBy::File, 2),
            (GroupBy::Peer, 2),
            (GroupBy::Protocol, 1),
            (GroupBy::Day, 3),
        ] {
            let all = statement.by(by);
            assert_eq!(all.len(), groups, "{by:?}");
            let sum = |of: fn(&Group) -> U256| all.iter().map(of).sum::<U256>();
            assert_eq!(sum(|group| group.earned), statement.earned);
            assert_eq!(sum(|group| group.receivable), statement.receivable);
            assert_eq!(sum(|group| group.spent), statement.spent);
            assert_eq!(sum(|group| group.payable), statement.payable);
            assert_eq!(statement.table(by).lines().count(), groups + 2);
        }
        let days = statement.by(GroupBy::Day);
        assert_eq!(days[1].key, "1970-01-02");
        assert_eq!((days[1].bytes_served, days[1].bytes_fetched), (70, 110));
        let json = serde_json::to_value(&days[1]).unwrap();
        assert_eq!(json["spent"], "11");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (4_107_542_400, "2100-03-01"),
            (1_796_000_000, "2026-11-30"),
        ] {
            assert_eq!(date(seconds / DAY), text);
        }
        assert!(!date(u64::MAX / DAY).is_empty());
    }
}
