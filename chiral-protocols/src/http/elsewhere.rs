//! [`OtherSeeders`]: where else a file can be had, for the Metalinks that the server answers.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::{Cid, Coverage, Endpoint, PeerOffer, Protocol};
use hyper::Uri;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::address::AddressPolicy;
use super::path::{Part, Resource};

/// Most URLs of others in one Metalink.
pub(super) const MAX_URLS: usize = 16;

/// Time for [`OtherSeeders`] to answer; a Metalink without others is a Metalink too.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer is used again, and one that there is nobody; for how many files.
const KEPT_FOR: Duration = Duration::from_secs(60);
const NOBODY_FOR: Duration = Duration::from_secs(5);
const KEPT: usize = 64;

/// Questions under way at once: whoever asks for Metalinks makes this node ask the network.
const MAX_AT_ONCE: usize = 4;

/// Knows who else seeds a file.
#[async_trait]
pub trait OtherSeeders: Send + Sync + fmt::Debug + 'static {
    /// Offers of others, over any protocol. Only free ones over HTTP are told to clients.
    async fn offers(&self, cid: Cid) -> Vec<PeerOffer>;
}

/// Asks [`OtherSeeders`] within limits.
#[derive(Debug)]
pub(super) struct Elsewhere {
    seeders: Arc<dyn OtherSeeders>,
    policy: AddressPolicy,
    slots: Semaphore,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    cid: Cid,
    until: Instant,
    urls: Vec<String>,
}

impl Elsewhere {
    pub(super) fn new(seeders: Arc<dyn OtherSeeders>, policy: AddressPolicy) -> Self {
        Self {
            seeders,
            policy,
            slots: Semaphore::new(MAX_AT_ONCE),
            kept: Mutex::default(),
        }
    }

    /// URLs of a file at others; none if they are not found in time.
    pub(super) async fn urls(&self, cid: Cid) -> Vec<String> {
        let now = Instant::now();
        if let Some(urls) = self.kept(cid, now) {
            return urls;
        }
        let Ok(_slot) = self.slots.try_acquire() else {
            return Vec::new();
        };
        let Ok(offers) = timeout(PATIENCE, self.seeders.offers(cid)).await else {
            return Vec::new();
        };
        let mut urls: Vec<String> = Vec::new();
        for offer in &offers {
            let url = url(offer, cid, self.policy).filter(|url| !urls.contains(url));
            urls.extend(url);
            if urls.len() == MAX_URLS {
                break;
            }
        }
        let time = if urls.is_empty() {
            NOBODY_FOR
        } else {
            KEPT_FOR
        };
        self.keep(cid, now + time, urls.clone());
        urls
    }

    fn kept(&self, cid: Cid, now: Instant) -> Option<Vec<String>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.until > now);
        let found = kept.iter().find(|kept| kept.cid == cid);
        found.map(|kept| kept.urls.clone())
    }

    fn keep(&self, cid: Cid, until: Instant, urls: Vec<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.cid != cid);
        kept.truncate(KEPT - 1);
        kept.push_front(Kept { cid, until, urls });
    }
}

/// Where any program can get the file by an offer; `None` if it is not free and whole, or
/// leads where strangers should not send anybody.
fn url(offer: &PeerOffer, cid: Cid, policy: AddressPolicy) -> Option<String> {
    let whole = matches!(offer.coverage, None | Some(Coverage::Complete));
    if offer.protocol != Protocol::Http || !offer.price.is_free() || !whole {
        return None;
    }
    let text = offer.endpoint.as_str();
    if !is_plain(&offer.endpoint, policy) {
        return None;
    }
    if offer.mirror {
        return Some(text.to_owned());
    }
    let part = Part::File;
    let path = Resource { cid, part }.to_path();
    let base = (!text.contains('?')).then(|| text.trim_end_matches('/'))?;
    Some(format!("{base}{path}"))
}

/// Whether a client may be sent there: names are for it to resolve, and to judge.
fn is_plain(endpoint: &Endpoint, policy: AddressPolicy) -> bool {
    let text = endpoint.as_str();
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or("");
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let allowed = match ip.parse::<IpAddr>() {
        Ok(ip) => policy.allows(ip),
        Err(_) => allows_name(ip, policy),
    };
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let user = uri.authority().is_none_or(|it| it.as_str().contains('@'));
    web && allowed && !user && !text.contains('#')
}

/// Names that are known to mean this machine count as its address; addresses in strange
/// spellings (`127.1`, `0x7f000001`) do not pass for names.
fn allows_name(name: &str, policy: AddressPolicy) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return policy.allows(IpAddr::from([127, 0, 0, 1]));
    }
    let last = name.rsplit('.').next().unwrap_or("");
    last.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::Price;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn offer(endpoint: &str) -> PeerOffer {
        PeerOffer::new(Protocol::Http, Endpoint::new(endpoint).unwrap())
    }

    #[test]
    fn only_what_anybody_can_use_is_told() {
        let cid = Cid::from_bytes([1; 32]);
        let global = AddressPolicy::GlobalOnly;
        let told = |endpoint: &str| url(&offer(endpoint), cid, global);
        for good in [
            "http://seed.example/",
            "https://seed.example:8443/x/",
            "http://8.8.8.8:80",
            "http://[2606:4700::1111]:8480/",
        ] {
            let expected = format!("{}/file/{cid}", good.trim_end_matches('/'));
            assert_eq!(told(good), Some(expected));
        }
        for bad in [
            "http://127.0.0.1/",
            "http://localhost/",
            "http://x.localhost./",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/",
            "http://user@seed.example/",
            "http://seed.example/?x=",
            "http://seed.example/#x",
            "ftp://seed.example/",
            "javascript:alert(1)",
            "/ip4/8.8.8.8/tcp/80",
            "//seed.example/",
        ] {
            assert_eq!(told(bad), None, "{bad}");
        }
        let mut mirror = offer("http://seed.example/a?b=c").as_mirror();
        assert_eq!(
            url(&mirror, cid, global).as_deref(),
            Some("http://seed.example/a?b=c")
        );
        mirror.price = Price::from_wei_per_mib(chiral_core::U256::from(1));
        assert_eq!(url(&mirror, cid, global), None);
        let other = PeerOffer::new(Protocol::BitTorrent, Endpoint::new("http://a.b/").unwrap());
        assert_eq!(url(&other, cid, global), None);
        let near = offer("http://127.0.0.1:1/");
        assert!(url(&near, cid, AddressPolicy::Any).is_some());
    }

    #[derive(Debug, Default)]
    struct Many(AtomicUsize);

    #[async_trait]
    impl OtherSeeders for Many {
        async fn offers(&self, _: Cid) -> Vec<PeerOffer> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let twice = (0..100).chain(0..100);
            twice
                .map(|i| offer(&format!("http://s{i}.example/")))
                .collect()
        }
    }

    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl OtherSeeders for Silent {
        async fn offers(&self, _: Cid) -> Vec<PeerOffer> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_few_and_answers_are_short() {
        let many = Arc::new(Many::default());
        let elsewhere = Elsewhere::new(many.clone(), AddressPolicy::Any);
        let cid = |n: u8| Cid::from_bytes([n; 32]);
        for _ in 0..50 {
            let urls = elsewhere.urls(cid(1)).await;
            assert_eq!(urls.len(), MAX_URLS);
            assert!(urls[1].starts_with("http://s1.example/file/0101"));
        }
        assert_eq!(many.0.load(Ordering::SeqCst), 1);
        tokio::time::sleep(KEPT_FOR).await;
        elsewhere.urls(cid(1)).await;
        assert_eq!(many.0.load(Ordering::SeqCst), 2);
        for n in 0..=200 {
            elsewhere.urls(cid(n)).await;
        }
        assert_eq!(elsewhere.kept.lock().unwrap().len(), KEPT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_network_holds_up_nobody() {
        let elsewhere = Arc::new(Elsewhere::new(Arc::new(Silent), AddressPolicy::Any));
        let begun = Instant::now();
        let questions = (0..20).map(|n| {
            let elsewhere = elsewhere.clone();
            async move { elsewhere.urls(Cid::from_bytes([n; 32])).await }
        });
        let answers = futures_util::future::join_all(questions).await;
        assert!(answers.iter().all(Vec::is_empty));
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
