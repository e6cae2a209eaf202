//! What a `.torrent` file says outside its `info` dictionary: nothing of it is hashed.

use crate::bittorrent::bencode::{Item, Value};

/// Limit on trackers; more are left out.
pub const MAX_TRACKERS: usize = 200;

/// Limit on web seeds; more are left out.
pub const MAX_WEB_SEEDS: usize = 200;

/// Limit on DHT nodes; more are left out.
pub const MAX_NODES: usize = 200;

/// Limit on the bytes of a URL or host; longer ones are left out.
const MAX_URL_LEN: usize = 2048;

/// Limit on the bytes of a comment; a longer one is left out.
const MAX_COMMENT_LEN: usize = 64 * 1024;

/// Where peers are found, and what people are told. What is not valid, or too much, is left
/// out: a torrent with a bad tracker is still a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outer {
    /// URLs of trackers in tiers: a tier is tried when those before it fail (BEP 12). Of
    /// `announce` alone, one tier of one.
    pub trackers: Vec<Vec<String>>,
    /// URLs of web servers that have the files (BEP 19).
    pub web_seeds: Vec<String>,
    /// Hosts and ports of DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// What the maker says.
    pub comment: Option<String>,
    /// What it was made with.
    pub created_by: Option<String>,
    /// When it was made, in seconds since 1970 (UTC).
    pub creation_date: Option<i64>,
}

fn url(value: Value<'_, '_>) -> Option<String> {
    let text = value.text()?.trim();
    let fits = !text.is_empty() && text.len() <= MAX_URL_LEN;
    (fits && !text.contains(char::is_control)).then(|| text.to_owned())
}

impl Outer {
    pub(super) fn read(root: Value<'_, '_>) -> Self {
        let text = |key| {
            let text = root.get(key)?.text()?;
            (text.len() <= MAX_COMMENT_LEN).then(|| text.to_owned())
        };
        Self {
            trackers: trackers(root),
            web_seeds: web_seeds(root),
            nodes: nodes(root),
            comment: text("comment"),
            created_by: text("created by"),
            creation_date: root.get("creation date").and_then(|date| date.int()),
        }
    }

    /// All trackers, by tier.
    pub fn all_trackers(&self) -> impl Iterator<Item = &str> {
        self.trackers.iter().flatten().map(String::as_str)
    }

    pub(super) fn write(&self) -> Vec<(&'static str, Item)> {
        let mut pairs = Vec::new();
        let text = |text: &String| Item::from(text.as_str());
        if let Some(first) = self.trackers.iter().flatten().next() {
            pairs.push(("announce", text(first)));
        }
        if self.all_trackers().nth(1).is_some() {
            let tiers = self.trackers.iter().filter(|tier| !tier.is_empty());
            let tiers = tiers.map(|tier| Item::list(tier.iter().map(text)));
            pairs.push(("announce-list", Item::list(tiers)));
        }
        if !self.web_seeds.is_empty() {
            pairs.push(("url-list", Item::list(self.web_seeds.iter().map(text))));
        }
        if !self.nodes.is_empty() {
            let node = |(host, port): &(String, u16)| {
                Item::list([text(host), Item::from(u32::from(*port))])
            };
            pairs.push(("nodes", Item::list(self.nodes.iter().map(node))));
        }
        pairs.extend(
            self.comment
                .as_ref()
                .map(|comment| ("comment", text(comment))),
        );
        pairs.extend(self.created_by.as_ref().map(|by| ("created by", text(by))));
        pairs.extend(
            self.creation_date
                .map(|date| ("creation date", Item::Int(date))),
        );
        pairs
    }
}

fn trackers(root: Value<'_, '_>) -> Vec<Vec<String>> {
    let tiers = root.get("announce-list").and_then(|tiers| tiers.list());
    let mut left = MAX_TRACKERS;
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for tier in tiers.into_iter().flatten() {
        let urls = tier.list().into_iter().flatten().filter_map(url);
        let urls: Vec<String> = urls
            .filter(|url| seen.insert(url.clone()))
            .take(left)
            .collect();
        left -= urls.len();
        if !urls.is_empty() {
            found.push(urls);
        }
    }
    if found.is_empty() {
        found.extend(root.get("announce").and_then(url).map(|url| vec![url]));
    }
    found
}

fn web_seeds(root: Value<'_, '_>) -> Vec<String> {
    let Some(value) = root.get("url-list") else {
        return Vec::new();
    };
    let mut found: Vec<String> = Vec::new();
    let list = value.list().into_iter().flatten().filter_map(url);
    for url in list.chain(url(value)).take(MAX_WEB_SEEDS) {
        if !found.contains(&url) {
            found.push(url);
        }
    }
    found
}

fn nodes(root: Value<'_, '_>) -> Vec<(String, u16)> {
    let nodes = root.get("nodes").and_then(|nodes| nodes.list());
    let node = |node: Value<'_, '_>| {
        let mut pair = node.list()?;
        let (host, port) = (url(pair.next()?)?, pair.next()?.int()?);
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        Some((host, port))
    };
    nodes
        .into_iter()
        .flatten()
        .filter_map(node)
        .take(MAX_NODES)
        .collect()
}
