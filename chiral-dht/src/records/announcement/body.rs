//! Between [`Body`] and its message.

use alloy_primitives::{Address, U256};
use chiral_core::{
    ChunkLayout, Cid, Coverage, Endpoint, MerkleRoot, Price, Protocol, WalletSignature,
};
use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol as Part};

use super::{Body, MAX_ADDRESS_LEN, MAX_ENDPOINTS, ServedEndpoint, Service, Statement};
use crate::records::wire::{array, check_len};
use crate::records::{RecordError, RecordKey, WalletBinding, coverage, wire};

pub(super) fn to_wire(body: &Body) -> Result<wire::Announcement, RecordError> {
    let layout = layout(body.size)?;
    let mut message = wire::Announcement {
        cid: body.cid.as_bytes().to_vec(),
        root: body.root.as_bytes().to_vec(),
        size: body.size,
        seq: body.seq,
        expires_at: body.expires_at,
        withdrawn: body.statement == Statement::Withdrawn,
        alias: body.key.pointer_name(),
        ..Default::default()
    };
    if let Statement::Serves(service) = &body.statement {
        // What most endpoints have in common is said once: the first one's.
        let first = service.endpoints.first();
        let price = first.map_or(Price::FREE, |first| first.price);
        let held = first.and_then(|first| first.coverage.as_ref());
        message.price = price_to_wire(price);
        message.coverage = held.map(|held| coverage::encode(Some(held), layout));
        message.endpoints = service
            .endpoints
            .iter()
            .map(|served| wire::Endpoint {
                protocol: served.protocol.as_str().to_owned(),
                address: served.endpoint.as_str().to_owned(),
                mirror: served.mirror,
                price: (served.price != price).then(|| price_to_wire(served.price)),
                coverage: (served.coverage.as_ref() != held)
                    .then(|| coverage::encode(served.coverage.as_ref(), layout)),
            })
            .collect();
        message.header_digest = service.header_digest.to_vec();
        if let Some(wallet) = &service.wallet {
            message.wallet = wallet.wallet().to_vec();
            message.wallet_sig = wallet.signature().as_bytes().to_vec();
        }
    }
    Ok(message)
}

pub(super) fn from_wire(
    message: wire::Announcement,
    key: &RecordKey,
    signer: &PeerId,
) -> Result<Body, RecordError> {
    let cid = Cid::from_bytes(array(&message.cid, "cid")?);
    let root = MerkleRoot::from_bytes(array(&message.root, "root")?);
    let layout = layout(message.size)?;
    let own_key = match key {
        RecordKey::Cid(of) => *of == cid,
        RecordKey::Root(of) => *of == root,
        RecordKey::Alias(_) => true,
    };
    if !own_key || message.alias != key.pointer_name() {
        return Err(RecordError::Foreign);
    }
    let is_pointer = !message.alias.is_empty();
    let statement = if message.withdrawn || is_pointer {
        let bare = wire::Announcement {
            endpoints: Vec::new(),
            wallet: Vec::new(),
            wallet_sig: Vec::new(),
            price: Vec::new(),
            coverage: None,
            header_digest: Vec::new(),
            ..message.clone()
        };
        if bare != message {
            let what = "terms where nothing is served";
            return Err(RecordError::Malformed { what });
        }
        if message.withdrawn {
            Statement::Withdrawn
        } else {
            Statement::Points
        }
    } else {
        Statement::Serves(service(&message, layout, signer)?)
    };
    Ok(Body {
        key: *key,
        cid,
        root,
        size: message.size,
        seq: message.seq,
        expires_at: message.expires_at,
        statement,
    })
}

fn service(
    message: &wire::Announcement,
    layout: ChunkLayout,
    signer: &PeerId,
) -> Result<Service, RecordError> {
    check_len(message.endpoints.len(), "endpoints", MAX_ENDPOINTS)?;
    let price = price_from_wire(&message.price)?;
    let held = coverage_from_wire(message.coverage.as_ref(), layout)?;
    let endpoints: Vec<ServedEndpoint> = message
        .endpoints
        .iter()
        .map(|wire| served(wire, price, held.as_ref(), layout, signer))
        .collect::<Result<_, _>>()?;
    let wallet = wallet_from_wire(&message.wallet, &message.wallet_sig)?;
    let what = match (endpoints.is_empty(), wallet) {
        (true, _) => "no endpoints",
        (_, None) if endpoints.iter().any(|served| !served.price.is_free()) => {
            "a price without a wallet"
        }
        _ => {
            return Ok(Service {
                endpoints,
                wallet,
                header_digest: array(&message.header_digest, "header digest")?,
            });
        }
    };
    Err(RecordError::Malformed { what })
}

fn served(
    wire: &wire::Endpoint,
    price: Price,
    held: Option<&Coverage>,
    layout: ChunkLayout,
    signer: &PeerId,
) -> Result<ServedEndpoint, RecordError> {
    let malformed = |what| RecordError::Malformed { what };
    check_len(wire.address.len(), "address", MAX_ADDRESS_LEN)?;
    let protocol: Protocol = wire.protocol.parse().map_err(|_| malformed("protocol"))?;
    let endpoint = Endpoint::new(wire.address.as_str()).map_err(|_| malformed("address"))?;
    if !wire.mirror && names_another(&wire.address, signer) {
        return Err(RecordError::Foreign);
    }
    let price = wire.price.as_deref().map_or(Ok(price), price_from_wire)?;
    if wire.mirror && !price.is_free() {
        return Err(malformed("a mirror with a price"));
    }
    let coverage = match &wire.coverage {
        None => held.cloned(),
        own => coverage_from_wire(own.as_ref(), layout)?,
    };
    Ok(ServedEndpoint {
        protocol,
        endpoint,
        mirror: wire.mirror,
        price,
        coverage,
    })
}

/// Whether an address leads to another peer than the announcer, so that announcing costs
/// somebody else the dials.
fn names_another(address: &str, signer: &PeerId) -> bool {
    if !address.starts_with('/') || !address.contains("/p2p/") {
        return false;
    }
    match address.parse::<Multiaddr>() {
        // The last one: a circuit's first is the relay.
        Ok(parsed) => !matches!(parsed.iter().last(), Some(Part::P2p(peer)) if peer == *signer),
        Err(_) => true,
    }
}

/// A wallet's binding in two fields, both empty if there is none.
pub(in crate::records) fn wallet_from_wire(
    wallet: &[u8],
    signature: &[u8],
) -> Result<Option<WalletBinding>, RecordError> {
    if wallet.is_empty() && signature.is_empty() {
        return Ok(None);
    }
    let wallet = Address::from(array::<20>(wallet, "wallet")?);
    let signature = WalletSignature::from_bytes(array(signature, "wallet signature")?)
        .map_err(|_| RecordError::Wallet)?;
    Ok(Some(WalletBinding::from_parts(wallet, signature)))
}

fn layout(size: u64) -> Result<ChunkLayout, RecordError> {
    ChunkLayout::new(size).map_err(|_| RecordError::Malformed { what: "size" })
}

fn price_to_wire(price: Price) -> Vec<u8> {
    price.wei_per_mib().to_be_bytes_trimmed_vec()
}

fn price_from_wire(bytes: &[u8]) -> Result<Price, RecordError> {
    if bytes.len() > 32 || bytes.first() == Some(&0) {
        return Err(RecordError::Malformed { what: "price" });
    }
    Ok(Price::from_wei_per_mib(U256::from_be_slice(bytes)))
}

fn coverage_from_wire(
    wire: Option<&wire::Coverage>,
    layout: ChunkLayout,
) -> Result<Option<Coverage>, RecordError> {
    wire.map_or(Ok(None), |wire| coverage::decode(wire, layout))
}
