//! [`FileMetadata`]: what is known of a file and of who serves it, and the JSON view of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{CHUNK_SIZE, ManifestHeader, PeerOffer, Protocol};

/// Chunks listed for one seeder in the JSON view; beyond that only runs are given.
const MAX_LISTED_CHUNKS: u64 = 4096;

/// A file and its seeders.
///
/// The JSON is a view, derived by the reader; it is never stored or exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileMetadata {
    /// Identity and hints.
    pub header: ManifestHeader,
    /// Who serves it.
    pub offers: Vec<PeerOffer>,
}

impl FileMetadata {
    /// A file with these seeders.
    pub fn new(header: ManifestHeader, offers: Vec<PeerOffer>) -> Self {
        Self { header, offers }
    }

    /// The architecture's view: file fields, `seeders` by protocol, and counts.
    ///
    /// Amounts are decimal strings, so that no reader turns them into floats. `chunks` lists
    /// a partial seeder's chunks up to 4,096 of them; `chunk_runs` always holds all.
    pub fn to_json(&self) -> Value {
        let mut seeders: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for offer in &self.offers {
            seeders
                .entry(offer.protocol.as_str())
                .or_default()
                .push(self.seeder(offer));
        }
        let counts: BTreeMap<_, _> = seeders
            .iter()
            .map(|(name, list)| (*name, list.len()))
            .collect();
        let chunks = self.header.layout().map_or(0, |layout| layout.count());
        json!({
            "file_hash": self.header.cid,
            "merkle_root": self.header.root,
            "file_name": self.header.name,
            "file_size": self.header.size,
            "total_chunks": chunks,
            "chunk_size": CHUNK_SIZE,
            "created_at": self.header.created_at,
            "mime_type": self.header.mime,
            "link": self.header.link().to_string(),
            "total_seeders": self.offers.len(),
            "seeders_by_protocol": counts,
            "seeders": seeders,
        })
    }

    fn seeder(&self, offer: &PeerOffer) -> Value {
        let place = match offer.protocol {
            Protocol::Http => "http_url",
            _ => "multiaddr",
        };
        let layout = self.header.layout().ok();
        let runs = offer
            .coverage
            .as_ref()
            .zip(layout)
            .map(|(held, layout)| held.runs(layout));
        let listed = runs
            .as_ref()
            .filter(|runs| runs.count() <= MAX_LISTED_CHUNKS);
        json!({
            place: offer.endpoint.as_str(),
            "peer_id": offer.peer.as_ref().map(ToString::to_string),
            "wallet": offer.wallet.map(|wallet| wallet.to_string()),
            "price_per_mb": offer.price.to_string(),
            "price_wei_per_mib": offer.price.wei_per_mib().to_string(),
            "chunks": listed.map(|runs| runs.chunks().collect::<Vec<_>>()),
            "chunk_runs": runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkRuns, ContentIdentity, Coverage, Endpoint};

    #[test]
    fn the_view_has_the_fields_of_the_architecture() {
        let identity = ContentIdentity::of(&vec![1; 1_048_576]).unwrap();
        let header = ManifestHeader {
            size: identity.size,
            cid: identity.cid,
            root: identity.root,
            name: Some("document.pdf".into()),
            mime: Some("application/pdf".into()),
            created_at: 1_640_995_200,
            aliases: Vec::new(),
        };
        let layout = header.layout().unwrap();
        let mut offer = PeerOffer::new(
            Protocol::Http,
            Endpoint::new("http://192.168.1.100:8080/").unwrap(),
        );
        offer.price = "0.001".parse().unwrap();
        offer.coverage = Some(Coverage::Partial(
            ChunkRuns::new(vec![(1, 3)], layout).unwrap(),
        ));
        let json = FileMetadata::new(header, vec![offer]).to_json();
        assert_eq!(json["total_chunks"], 4);
        assert_eq!(json["file_hash"], identity.cid.to_string());
        assert_eq!(json["total_seeders"], 1);
        assert_eq!(json["seeders_by_protocol"]["http"], 1);
        let seeder = &json["seeders"]["http"][0];
        assert_eq!(seeder["http_url"], "http://192.168.1.100:8080/");
        assert_eq!(seeder["chunks"], json!([1, 2]));
        assert_eq!(seeder["chunk_runs"], json!([[1, 3]]));
        assert_eq!(seeder["price_per_mb"], "0.001");
        assert_eq!(seeder["wallet"], Value::Null);
    }
}
