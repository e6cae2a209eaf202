//! What each seeder delivered: as a table, as JSON, and whether it is as promised.

use std::fmt;
use std::time::Duration;

use chiral::core::transfer::SourceReport;
use chiral::{Got, Link};
use serde_json::{Value, json};

use super::Failure;
use super::ledger::Ledger;
use super::network::Network;

/// Least share of the file, in hundredths, that each seeder of the sample must deliver.
const LEAST_PERCENT: u64 = 15;

pub(crate) struct Report {
    link: Link,
    size: u64,
    elapsed: Duration,
    /// From the end of the download until the chain showed the payments.
    paying: Duration,
    /// Each seeder by name; those that delivered nothing too.
    sources: Vec<(&'static str, SourceReport)>,
    ledger: Ledger,
}

impl Report {
    pub(crate) fn new(
        network: &Network,
        link: Link,
        got: &Got,
        elapsed: Duration,
        paying: Duration,
        ledger: Ledger,
    ) -> Self {
        let name = |source: &SourceReport| network.name_of(&source.source);
        let mut sources: Vec<_> = got.sources.iter().map(|s| (name(s), s.clone())).collect();
        let place = |name: &str| network.seeders.iter().position(|s| s.name == name);
        sources.sort_by_key(|(name, _)| place(name));
        Self {
            link,
            size: got.header.size,
            elapsed,
            paying,
            sources,
            ledger,
        }
    }

    /// The time in which all sources were delivering, in milliseconds from the start.
    fn together(&self) -> Option<(u64, u64)> {
        let spans = self.sources.iter().map(|(_, source)| span(source));
        let spans: Vec<_> = spans.collect::<Option<_>>()?;
        let begin = spans.iter().map(|(first, _)| *first).max()?;
        let end = spans.iter().map(|(_, last)| *last).min()?;
        (begin < end).then_some((begin, end))
    }

    /// Whether the file came as it should have. Of a user's file, which may be of a single
    /// chunk, no particular shares are demanded.
    pub(crate) fn check(&self, made_up: bool) -> Result<(), Failure> {
        let delivered: u64 = self.sources.iter().map(|(_, source)| source.bytes).sum();
        if delivered != self.size {
            return Err(format!("{delivered} of {} bytes are accounted for", self.size).into());
        }
        self.ledger.check()?;
        if !made_up {
            return Ok(());
        }
        if self.sources.len() != 3 {
            return Err(format!("{} seeders took part, not 3", self.sources.len()).into());
        }
        for (name, source) in &self.sources {
            if source.bytes * 100 < self.size * LEAST_PERCENT {
                let percent = source.bytes * 100 / self.size;
                return Err(format!("{name} delivered {percent} %, not {LEAST_PERCENT}").into());
            }
        }
        match self.together() {
            Some(_) => Ok(()),
            None => Err("the seeders delivered one after another".into()),
        }
    }

    /// The last event of the JSON form.
    pub(crate) fn to_json(&self) -> Value {
        let source = |(name, source): &(&str, SourceReport)| {
            json!({
                "seeder": name,
                "source": source.source,
                "protocol": source.protocol,
                "bytes": source.bytes,
                "chunks": source.chunks,
                "bytes_per_second": rate(source),
                "first_byte_ms": source.first_byte_ms,
                "last_byte_ms": source.last_byte_ms,
            })
        };
        json!({
            "event": "report",
            "cid": self.link.cid,
            "link": self.link.to_string(),
            "size": self.size,
            "elapsed_ms": self.elapsed.as_millis() as u64,
            "all_at_once_ms": self.together(),
            "paid_ms": self.paying.as_millis() as u64,
            "sources": self.sources.iter().map(source).collect::<Vec<_>>(),
            "payments": self.ledger.to_json(),
        })
    }
}

fn span(source: &SourceReport) -> Option<(u64, u64)> {
    Some((source.first_byte_ms?, source.last_byte_ms?))
}

/// Bytes per second while it delivered; a millisecond is the least that is counted.
fn rate(source: &SourceReport) -> Option<u64> {
    let (first, last) = span(source)?;
    Some(source.bytes * 1000 / (last - first).max(1))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:<10} {:>12} {:>7} {:>9} {:>9} {:>9}",
            "seeder", "protocol", "bytes", "chunks", "MB/s", "from", "to"
        )?;
        for (name, source) in &self.sources {
            let millis = |time: Option<u64>| time.map_or("-".into(), |ms| format!("{ms} ms"));
            let rate = rate(source).map_or("-".into(), |rate| format!("{:.1}", rate as f64 / 1e6));
            writeln!(
                f,
                "{:<12} {:<10} {:>12} {:>7} {:>9} {:>9} {:>9}",
                name,
                source.protocol,
                source.bytes,
                source.chunks,
                rate,
                millis(source.first_byte_ms),
                millis(source.last_byte_ms),
            )?;
        }
        if let Some((begin, end)) = self.together() {
            let count = self.sources.len();
            writeln!(f, "\n{count} at once from {begin} ms to {end} ms")?;
        }
        writeln!(f, "\n{}", self.ledger)?;
        let paid = self.paying.as_secs_f64();
        writeln!(f, "on the chain {paid:.3} s after the last byte\n")?;
        let (size, seconds) = (self.size, self.elapsed.as_secs_f64());
        writeln!(f, "{size} bytes in {seconds:.3} s, every byte verified")?;
        writeln!(f, "cid   {}  (its SHA-256)", self.link.cid)?;
        write!(f, "link  {}", self.link)
    }
}
