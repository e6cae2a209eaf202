//! [`ExtendedHandshake`]: what a side offers beyond the wire protocol (BEP 10).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::chiral::Greeting;
use super::metadata::MAX_METADATA;
use super::read;
use crate::bittorrent::bencode::{DictWriter, Value};

/// Most outstanding requests that are believed of anybody.
pub const MAX_REQQ: u32 = 4096;

/// Longest client name that is kept, in bytes.
const MAX_CLIENT: usize = 64;

/// A malformed extension message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed {what}")]
pub struct ExtensionError {
    /// What it was meant to be.
    pub what: &'static str,
}

/// The extensions that this library speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Names {
    /// `ut_metadata` (BEP 9).
    Metadata,
    /// `ut_pex` (BEP 11).
    Pex,
    /// `lt_donthave` (BEP 54).
    DontHave,
    /// `ut_holepunch` (BEP 55).
    Holepunch,
    /// `chiral`.
    Chiral,
}

impl Names {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Metadata,
        Self::Pex,
        Self::DontHave,
        Self::Holepunch,
        Self::Chiral,
    ];

    /// The name in `m`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "ut_metadata",
            Self::Pex => "ut_pex",
            Self::DontHave => "lt_donthave",
            Self::Holepunch => "ut_holepunch",
            Self::Chiral => "chiral",
        }
    }

    /// The number that this library gives it.
    pub const fn id(self) -> u8 {
        self as u8 + 1
    }

    /// Which one has this number of ours.
    pub fn of_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.id() == id)
    }
}

/// The numbers that a peer gave to extensions; what it did not name it does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions([u8; Names::ALL.len()]);

impl Extensions {
    /// All of ours, or some of them.
    pub fn ours(speaks: impl Fn(Names) -> bool) -> Self {
        Self(Names::ALL.map(|name| if speaks(name) { name.id() } else { 0 }))
    }

    /// The peer's number for an extension, if it speaks it.
    pub fn id(&self, name: Names) -> Option<u8> {
        Some(self.0[name as usize]).filter(|id| *id != 0)
    }

    fn set(&mut self, name: Names, id: u8) {
        self.0[name as usize] = id;
    }
}

/// An extended handshake. May come more than once; what a later one names counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtendedHandshake {
    /// Numbers of extensions.
    pub extensions: Extensions,
    /// TCP port that the sender listens on.
    pub port: Option<u16>,
    /// Its client, in words.
    pub client: Option<String>,
    /// How it sees our address.
    pub your_ip: Option<IpAddr>,
    /// Requests that it lets stand at once.
    pub reqq: Option<u32>,
    /// Bytes of the info dictionary.
    pub metadata_size: Option<u32>,
    /// Whether it wants nothing (BEP 21).
    pub upload_only: bool,
    /// What a Chiral node says of itself.
    pub chiral: Option<Greeting>,
}

impl ExtendedHandshake {
    /// The body of the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut m = DictWriter::new();
        for name in Names::ALL {
            if let Some(id) = self.extensions.id(name) {
                m = m.int(name.name(), id.into());
            }
        }
        let mut dict = DictWriter::new().dict("m", m);
        if let Some(port) = self.port {
            dict = dict.int("p", port.into());
        }
        if let Some(client) = &self.client {
            dict = dict.bytes("v", client.as_bytes());
        }
        if let Some(ip) = self.your_ip {
            dict = match ip {
                IpAddr::V4(ip) => dict.bytes("yourip", &ip.octets()),
                IpAddr::V6(ip) => dict.bytes("yourip", &ip.octets()),
            };
        }
        if let Some(reqq) = self.reqq {
            dict = dict.int("reqq", reqq.into());
        }
        if let Some(size) = self.metadata_size {
            dict = dict.int("metadata_size", size.into());
        }
        // Said either way: it may have been the other before.
        dict = dict.int("upload_only", i64::from(self.upload_only));
        if let Some(greeting) = &self.chiral {
            dict = dict.dict("chiral", greeting.write());
        }
        dict.finish()
    }

    /// Reads one on top of what earlier ones said.
    ///
    /// # Errors
    /// [`ExtensionError`] for what is no dictionary, or has a number of an extension that no
    /// message can have. Other odd values count as not said: clients differ.
    pub fn update(&mut self, body: &[u8]) -> Result<(), ExtensionError> {
        let what = "extended handshake";
        let mut next = self.clone();
        let taken = read(body, |dict, _| next.take(dict));
        taken.ok_or(ExtensionError { what })?;
        *self = next;
        Ok(())
    }

    fn take(&mut self, dict: Value<'_, '_>) -> Option<()> {
        if let Some(m) = dict.get("m") {
            for name in Names::ALL {
                if let Some(id) = m.int_of(name.name()) {
                    self.extensions.set(name, u8::try_from(id).ok()?);
                }
            }
        }
        let positive = |key| dict.int_of(key).filter(|value| *value > 0);
        if let Some(port) = positive("p").and_then(|port| u16::try_from(port).ok()) {
            self.port = Some(port);
        }
        if let Some(client) = dict.bytes_of("v") {
            let client = &client[..client.len().min(MAX_CLIENT)];
            let text = String::from_utf8_lossy(client);
            self.client = Some(text.chars().filter(|c| !c.is_control()).collect());
        }
        self.your_ip = dict.bytes_of("yourip").and_then(ip).or(self.your_ip);
        if let Some(reqq) = positive("reqq") {
            self.reqq = Some(u32::try_from(reqq).unwrap_or(MAX_REQQ).min(MAX_REQQ));
        }
        if let Some(size) = positive("metadata_size") {
            let size = u32::try_from(size).ok();
            self.metadata_size = size.filter(|size| *size <= MAX_METADATA);
        }
        if let Some(only) = dict.int_of("upload_only") {
            self.upload_only = only != 0;
        }
        // The first greeting stands: the nonce is what the other side signs.
        if self.chiral.is_none() {
            self.chiral = dict.get("chiral").and_then(Greeting::take);
        }
        Some(())
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::{Address, PeerId};
    use proptest::prelude::*;

    fn full() -> ExtendedHandshake {
        ExtendedHandshake {
            extensions: Extensions::ours(|_| true),
            port: Some(6881),
            client: Some("Chiral".into()),
            your_ip: Some([127, 0, 0, 1].into()),
            reqq: Some(512),
            metadata_size: Some(31_235),
            upload_only: true,
            chiral: Some(Greeting {
                peer: PeerId::from_bytes(&[7; 38]).unwrap(),
                wallet: Some(Address::from([9; 20])),
                nonce: [3; 32],
            }),
        }
    }

    #[test]
    fn the_example_of_the_standard_is_read() {
        let body = b"d1:md11:LT_metadatai1e6:\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e";
        let mut handshake = ExtendedHandshake::default();
        handshake.update(body).unwrap();
        assert_eq!(handshake.port, Some(6881));
        assert_eq!(handshake.client.as_deref(), Some("µTorrent 1.2"));
        assert_eq!(handshake.extensions, Extensions::default());
    }

    #[test]
    fn a_later_handshake_adds_and_takes_away() {
        let mut handshake = full();
        handshake
            .update(b"d1:md6:ut_pexi0e11:ut_metadatai255ee4:reqqi9999999999ee")
            .unwrap();
        assert_eq!(handshake.extensions.id(Names::Pex), None);
        assert_eq!(handshake.extensions.id(Names::Metadata), Some(255));
        assert_eq!(
            handshake.extensions.id(Names::Chiral),
            Some(Names::Chiral.id())
        );
        assert_eq!(handshake.reqq, Some(MAX_REQQ));
        assert_eq!(handshake.chiral, full().chiral);
    }

    #[test]
    fn what_no_client_sends_is_refused_or_counts_as_not_said() {
        let read = |body: &[u8]| {
            let mut handshake = ExtendedHandshake::default();
            handshake.update(body).map(|()| handshake)
        };
        for bad in [
            &b""[..],
            b"le",
            b"i1e",
            b"d",
            b"d1:md6:ut_pexi256eee",
            b"d1:md6:ut_pexi-1eee",
            b"d1:md6:ut_pexi99999999999999999999eee",
            b"d1:v999999999999:e",
        ] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(read(&b"d1:ml".repeat(100_000)).is_err());
        for odd in [
            &b"d1:mi3e1:pi-1e4:reqqi0e13:metadata_sizei-5ee"[..],
            b"d1:pi65536e13:metadata_sizei99999999999ee",
            b"d1:v0:6:yourip3:abce",
            b"d6:chirald1:n3:abcee",
        ] {
            let said = read(odd).unwrap();
            let said = ExtendedHandshake {
                client: None,
                ..said
            };
            assert_eq!(
                said,
                ExtendedHandshake::default(),
                "{}",
                String::from_utf8_lossy(odd)
            );
        }
    }

    #[test]
    fn every_number_is_its_own_and_none_is_that_of_the_handshake() {
        for name in Names::ALL {
            assert_eq!(Names::of_id(name.id()), Some(name));
        }
        assert_eq!((Names::of_id(0), Names::of_id(255)), (None, None));
    }

    #[test]
    fn all_of_it_comes_back() {
        let mut read = ExtendedHandshake::default();
        read.update(&full().encode()).unwrap();
        assert_eq!(read, full());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ExtendedHandshake::default().update(&body);
        }

        #[test]
        fn no_damaged_body_panics(at in 0usize..200, byte: u8, cut in 0usize..300) {
            let mut body = full().encode();
            let at = at % body.len();
            body[at] = byte;
            body.truncate(cut);
            let mut handshake = ExtendedHandshake::default();
            let _ = handshake.update(&body);
            prop_assert!(handshake.client.is_none_or(|client| client.chars().count() <= MAX_CLIENT));
        }
    }
}
