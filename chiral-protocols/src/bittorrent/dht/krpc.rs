//! KRPC: the messages of the mainline DHT (BEP 5, 32, 42, 43).

use std::net::SocketAddr;

use super::node_id::NodeId;
use crate::bittorrent::bencode::{Decoded, DictWriter, Limits, Value};
use crate::bittorrent::compact;

/// Longest message that is read.
pub const MAX_MESSAGE: usize = 4096;
/// Longest transaction id that is answered.
pub const MAX_TRANSACTION: usize = 32;
/// Longest token that is kept.
pub const MAX_TOKEN: usize = 64;
/// Most nodes that are taken from one answer, for each address family.
pub const MAX_NODES: usize = 32;
/// Most peers that are taken from one answer.
pub const MAX_VALUES: usize = 200;
/// How many nodes an answer names, for each address family.
pub const K: usize = 8;

/// What is too much in a message.
const LIMITS: Limits = Limits {
    max_len: MAX_MESSAGE,
    max_depth: 10,
    ..Limits::MESSAGE.unsorted()
};

/// Our mark in the key `v`: client and version, as others have them.
const VERSION: &[u8; 4] = b"CH\x00\x01";

/// A node: who, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contact {
    /// Its id.
    pub id: NodeId,
    /// Where it receives datagrams.
    pub address: SocketAddr,
}

/// Which address families an answer should name nodes of (BEP 32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Are you there?
    Ping,
    /// The nodes closest to an id.
    FindNode {
        /// The id.
        target: NodeId,
    },
    /// The peers of a torrent, or the nodes closest to it.
    GetPeers {
        /// The torrent.
        info_hash: [u8; 20],
    },
    /// The sender is a peer of a torrent.
    AnnouncePeer {
        /// The torrent.
        info_hash: [u8; 20],
        /// Where the peer listens.
        port: u16,
        /// It listens where this datagram came from, whatever `port` says.
        implied_port: bool,
        /// What an answer to `get_peers` gave.
        token: Vec<u8>,
    },
    /// Something else.
    Unknown,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub id: NodeId,
    /// What.
    pub method: Method,
    /// Families that it wants nodes of; by default that of the datagram.
    pub want: Want,
    /// The asker answers no questions (BEP 43).
    pub read_only: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers.
    pub id: NodeId,
    /// Nodes over IPv4 and IPv6.
    pub nodes: Vec<Contact>,
    /// Peers of the torrent.
    pub values: Vec<SocketAddr>,
    /// What `announce_peer` must give back.
    pub token: Option<Vec<u8>>,
    /// The asker's address as the answerer sees it (BEP 42).
    pub seen: Option<SocketAddr>,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A question.
    Query(Query),
    /// An answer.
    Answer(Answer),
    /// A refusal: its code.
    Error(i64),
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What answer and question have in common.
    pub transaction: Vec<u8>,
    /// What it says.
    pub body: Body,
}

/// Why a datagram is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KrpcError {
    /// Over [`MAX_MESSAGE`].
    #[error("a message over its limit")]
    TooLong,
    /// Not bencoded.
    #[error("not bencoded")]
    Encoding,
    /// Without something that each has, or with something of another kind or length.
    #[error("no or malformed `{0}`")]
    Field(&'static str),
}

impl Message {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// [`KrpcError`]: it is none.
    pub fn decode(datagram: &[u8]) -> Result<Self, KrpcError> {
        if datagram.len() > MAX_MESSAGE {
            return Err(KrpcError::TooLong);
        }
        let decoded = Decoded::parse(datagram, LIMITS).map_err(|_| KrpcError::Encoding)?;
        let value = decoded.root();
        let transaction = value.bytes_of("t").ok_or(KrpcError::Field("t"))?;
        if transaction.len() > MAX_TRANSACTION {
            return Err(KrpcError::Field("t"));
        }
        let body = match value.bytes_of("y") {
            Some(b"q") => Body::Query(query(value)?),
            Some(b"r") => Body::Answer(answer(value)?),
            Some(b"e") => Body::Error(error_code(value)),
            _ => return Err(KrpcError::Field("y")),
        };
        let transaction = transaction.to_vec();
        Ok(Self { transaction, body })
    }

    /// Writes a datagram. A query of a method that is unknown cannot be written: it is a
    /// ping.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match &self.body {
            Body::Query(query) => {
                let out = DictWriter::new()
                    .raw("a", &arguments(query))
                    .bytes("q", name(&query.method).as_bytes());
                let out = match query.read_only {
                    true => out.int("ro", 1),
                    false => out,
                };
                self.ends(out, b"q")
            }
            Body::Answer(answer) => {
                let mut out = DictWriter::new();
                if let Some(seen) = answer.seen {
                    out = out.bytes("ip", &compact::write(seen));
                }
                self.ends(out.raw("r", &returned(answer)), b"r")
            }
            Body::Error(code) => {
                let text = match code {
                    201 => "generic error",
                    202 => "server error",
                    203 => "protocol error",
                    _ => "method unknown",
                };
                let list = format!("li{code}e{}:{text}e", text.len());
                self.ends(DictWriter::new().raw("e", list.as_bytes()), b"e")
            }
        }
    }

    fn ends(&self, out: DictWriter, kind: &[u8]) -> Vec<u8> {
        out.bytes("t", &self.transaction)
            .bytes("v", VERSION)
            .bytes("y", kind)
            .finish()
    }
}

fn name(method: &Method) -> &'static str {
    match method {
        Method::Ping | Method::Unknown => "ping",
        Method::FindNode { .. } => "find_node",
        Method::GetPeers { .. } => "get_peers",
        Method::AnnouncePeer { .. } => "announce_peer",
    }
}

fn arguments(query: &Query) -> Vec<u8> {
    let id = &query.id.0;
    let out = DictWriter::new().bytes("id", id);
    let out = match &query.method {
        Method::Ping | Method::Unknown => out,
        Method::FindNode { target } => out.bytes("target", &target.0),
        Method::GetPeers { info_hash } => out.bytes("info_hash", info_hash),
        Method::AnnouncePeer {
            info_hash,
            port,
            implied_port,
            token,
        } => DictWriter::new()
            .bytes("id", id)
            .int("implied_port", (*implied_port).into())
            .bytes("info_hash", info_hash)
            .int("port", (*port).into())
            .bytes("token", token),
    };
    let Want { v4, v6 } = query.want;
    if !v4 && !v6 {
        return out.finish();
    }
    let families = [(v4, &b"n4"[..]), (v6, b"n6")];
    let wanted = families
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name));
    out.list("want", wanted).finish()
}

fn returned(answer: &Answer) -> Vec<u8> {
    let nodes = |v4: bool| -> Vec<u8> {
        let of_family = answer.nodes.iter().filter(|n| n.address.is_ipv4() == v4);
        let bytes = of_family.flat_map(|n| [n.id.0.to_vec(), compact::write(n.address)].concat());
        bytes.collect()
    };
    let mut out = DictWriter::new().bytes("id", &answer.id.0);
    for (key, v4) in [("nodes", true), ("nodes6", false)] {
        let nodes = nodes(v4);
        if !nodes.is_empty() {
            out = out.bytes(key, &nodes);
        }
    }
    if let Some(token) = &answer.token {
        out = out.bytes("token", token);
    }
    if !answer.values.is_empty() {
        let values: Vec<_> = answer.values.iter().map(|at| compact::write(*at)).collect();
        out = out.list("values", values.iter().map(Vec::as_slice));
    }
    out.finish()
}

fn id(value: Value<'_, '_>, key: &'static str) -> Result<[u8; 20], KrpcError> {
    let bytes = value.bytes_of(key).ok_or(KrpcError::Field(key))?;
    bytes.try_into().map_err(|_| KrpcError::Field(key))
}

fn query(value: Value<'_, '_>) -> Result<Query, KrpcError> {
    let named = value.bytes_of("q").ok_or(KrpcError::Field("q"))?;
    let arguments = value.get("a").ok_or(KrpcError::Field("a"))?;
    let method = match named {
        b"ping" => Method::Ping,
        b"find_node" => Method::FindNode {
            target: NodeId(id(arguments, "target")?),
        },
        b"get_peers" => Method::GetPeers {
            info_hash: id(arguments, "info_hash")?,
        },
        b"announce_peer" => announced(arguments)?,
        _ => Method::Unknown,
    };
    let mut want = Want::default();
    for family in arguments.get("want").iter().flat_map(Value::items) {
        want.v4 |= family.bytes() == Some(b"n4");
        want.v6 |= family.bytes() == Some(b"n6");
    }
    Ok(Query {
        id: NodeId(id(arguments, "id")?),
        method,
        want,
        read_only: value.int_of("ro") == Some(1),
    })
}

fn announced(arguments: Value<'_, '_>) -> Result<Method, KrpcError> {
    let implied_port = arguments.int_of("implied_port").is_some_and(|set| set != 0);
    let port = arguments
        .int_of("port")
        .and_then(|port| u16::try_from(port).ok());
    let port = match (port, implied_port) {
        (Some(port), _) => port,
        (None, true) => 0,
        (None, false) => return Err(KrpcError::Field("port")),
    };
    let token = arguments
        .bytes_of("token")
        .ok_or(KrpcError::Field("token"))?;
    if token.len() > MAX_TOKEN {
        return Err(KrpcError::Field("token"));
    }
    Ok(Method::AnnouncePeer {
        info_hash: id(arguments, "info_hash")?,
        port,
        implied_port,
        token: token.to_vec(),
    })
}

fn answer(value: Value<'_, '_>) -> Result<Answer, KrpcError> {
    let returned = value.get("r").ok_or(KrpcError::Field("r"))?;
    let mut nodes = Vec::new();
    for (key, size) in [("nodes", compact::V4), ("nodes6", compact::V6)] {
        let bytes = returned.bytes_of(key).unwrap_or_default();
        nodes.extend(
            bytes
                .chunks_exact(20 + size)
                .take(MAX_NODES)
                .filter_map(contact),
        );
    }
    let values = returned.get("values");
    let values = values.iter().flat_map(Value::items);
    let values = values.filter_map(|value| compact::read(value.bytes()?));
    let token = returned
        .bytes_of("token")
        .filter(|token| token.len() <= MAX_TOKEN);
    Ok(Answer {
        id: NodeId(id(returned, "id")?),
        nodes,
        values: values.take(MAX_VALUES).collect(),
        token: token.map(<[u8]>::to_vec),
        seen: value.bytes_of("ip").and_then(compact::read),
    })
}

/// Reads an id with an address behind it.
pub(super) fn contact(bytes: &[u8]) -> Option<Contact> {
    let (id, address) = bytes.split_at_checked(20)?;
    Some(Contact {
        id: NodeId(id.try_into().ok()?),
        address: compact::read(address)?,
    })
}

/// Some nodes say neither code nor text.
fn error_code(value: Value<'_, '_>) -> i64 {
    let first = value.get("e").and_then(|list| list.items().next());
    first.and_then(|code| code.int()).unwrap_or(201)
}

#[cfg(test)]
mod tests;
