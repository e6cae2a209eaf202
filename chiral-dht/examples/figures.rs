//! Figures of the directory: many nodes in this process publish and look up.
//!
//! ```text
//! cargo run --release -p chiral-dht --features libp2p --example figures [NODES [OPERATIONS [AT_ONCE]]]
//! ```
//!
//! 100 nodes, 200 operations of each kind, 8 at once, unless said otherwise. All share this
//! machine's processors, so the figures are of the work, not of a network's delays.

use std::error::Error;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use chiral_core::{
    Announcement, ContentIdentity, Endpoint, ManifestHeader, PeerOffer, Protocol, ProviderQuery,
};
use chiral_dht::{Libp2pConfig, Libp2pNode};
use futures_util::stream::{self, StreamExt};

type Fallible<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let count = arguments.next().transpose()?.unwrap_or(100).max(2);
    let operations = arguments.next().transpose()?.unwrap_or(200).max(1);
    let at_once = arguments.next().transpose()?.unwrap_or(8).max(1);
    let mut out = stdout();

    let before = resident()?;
    let mut nodes: Vec<Libp2pNode> = Vec::new();
    let start = Instant::now();
    for _ in 0..count {
        nodes.push(Libp2pNode::start(config()?).await?);
    }
    let idle = (resident()? - before) / count as f64;
    writeln!(out, "idle node                {idle:.2} MiB")?;
    drop(nodes);

    let mut nodes: Vec<Libp2pNode> = Vec::new();
    for _ in 0..count {
        let mut config = config()?;
        if let Some(first) = nodes.first() {
            config = config.with_bootstrap(first.listen_addresses()[0].clone());
        }
        nodes.push(Libp2pNode::start(config).await?);
    }
    let enough = (count - 1).min(20);
    while nodes.iter().any(|node| node.known_nodes() < enough) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let up = start.elapsed().as_secs_f64();
    let quiet = until_quiet().await?;
    writeln!(out, "idle network             {quiet:.2} of a processor")?;
    writeln!(out, "{count} nodes up            {:.2} s", up)?;
    let connected = (resident()? - before) / count as f64;
    writeln!(out, "connected node           {connected:.2} MiB")?;

    let headers: Vec<ManifestHeader> = (0..operations).map(header).collect::<Result<_, _>>()?;
    let publish = measure(
        at_once,
        headers.iter().enumerate(),
        async |(number, header)| {
            let offer = PeerOffer::new(Protocol::Http, Endpoint::new("http://192.0.2.1/")?);
            let announcement = Announcement::new(header.clone(), vec![offer]);
            nodes[number % count]
                .directory()
                .announce(announcement)
                .await?;
            Ok(1)
        },
    )
    .await?;
    writeln!(out, "publications             {publish}")?;
    let look_up = measure(
        at_once,
        headers.iter().enumerate(),
        async |(number, header)| {
            let reader = &nodes[(number + count / 2) % count];
            let query = ProviderQuery::new(header.cid.into());
            Ok(reader.directory().providers(query).await?.len())
        },
    )
    .await?;
    writeln!(out, "look-ups                 {look_up}")?;
    Ok(())
}

fn config() -> Fallible<Libp2pConfig> {
    Ok(Libp2pConfig::new()
        .allowing_loopback()
        .with_listen("/memory/0".parse()?))
}

/// A file without aliases: two records, under its cid and its root.
fn header(number: usize) -> Fallible<ManifestHeader> {
    let identity = ContentIdentity::of(format!("file {number}").as_bytes())?;
    Ok(ManifestHeader {
        size: identity.size,
        cid: identity.cid,
        root: identity.root,
        name: None,
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    })
}

/// Runs an operation for each item; a line of figures.
async fn measure<T>(
    at_once: usize,
    items: impl Iterator<Item = T>,
    operation: impl AsyncFn(T) -> Fallible<usize>,
) -> Fallible<String> {
    let start = Instant::now();
    let operation = &operation;
    let timed = stream::iter(items).map(async |item| {
        let start = Instant::now();
        let found = operation(item).await?;
        Fallible::Ok((start.elapsed(), found))
    });
    let results: Vec<_> = timed.buffer_unordered(at_once).collect().await;
    let mut times = Vec::new();
    let mut found = 0;
    for result in results {
        let (time, number) = result?;
        times.push(time);
        found += usize::from(number > 0);
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    Ok(format!(
        "{:.0}/s, p50 {:.0} ms, p99 {:.0} ms, {found} of {} succeeded",
        times.len() as f64 / start.elapsed().as_secs_f64(),
        at(50),
        at(99),
        times.len(),
    ))
}

/// Waits until the nodes have filled their routing tables, which they do all at once here:
/// as long as the use of the processors falls. Answers the use at the end.
async fn until_quiet() -> Fallible<f64> {
    const STEP: Duration = Duration::from_secs(3);
    let mut last = f64::MAX;
    loop {
        let before = processor_seconds()?;
        tokio::time::sleep(STEP).await;
        let now = (processor_seconds()? - before) / STEP.as_secs_f64();
        if now < 0.2 || (now > last * 0.95 && now < 0.6) {
            return Ok(now);
        }
        last = now;
    }
}

/// Processor time that this process has used, as Linux tells it: in hundredths of seconds.
fn processor_seconds() -> Fallible<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [user, system] = [fields.get(11), fields.get(12)];
    let ticks = user.ok_or("no time")?.parse::<f64>()? + system.ok_or("no time")?.parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Resident memory of this process in MiB, as Linux tells it.
fn resident() -> Fallible<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
}
