//! Header values: the payment credential, digests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chiral_core::Cid;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Carries a client's word to the payment gate, in base64.
pub(super) const PAYMENT: HeaderName = HeaderName::from_static("chiral-payment");

/// RFC 9530.
pub(super) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A credential that is malformed or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCredential;

/// The credential of a request, if it has one.
pub(super) fn credential(headers: &HeaderMap) -> Result<Option<Bytes>, BadCredential> {
    let mut values = headers.get_all(PAYMENT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = STANDARD
        .decode(value.as_bytes())
        .map_err(|_| BadCredential)?;
    if values.next().is_some() || bytes.len() > MAX_PAYMENT_MESSAGE {
        return Err(BadCredential);
    }
    Ok(Some(bytes.into()))
}

/// The header value that carries a credential.
pub(super) fn credential_value(credential: &[u8]) -> Option<HeaderValue> {
    if credential.len() > MAX_PAYMENT_MESSAGE {
        return None;
    }
    HeaderValue::try_from(STANDARD.encode(credential)).ok()
}

/// SHA-256 of the whole file is the cid: foreign clients can check it too.
pub(super) fn repr_digest(cid: Cid) -> String {
    format!("sha-256=:{}:", STANDARD.encode(cid.as_bytes()))
}

/// The file's SHA-256 under a content coding, which a `Repr-Digest` would not be
/// (draft-ietf-httpbis-unencoded-digest).
pub(super) const UNENCODED_DIGEST: HeaderName = HeaderName::from_static("unencoded-digest");

/// How much a client wants a digest (RFC 9530 §4): 0 is not at all, 10 the most.
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");

/// How much a client wants the SHA-256 of what it asks for, from 0 to 10; `None` if it says
/// nothing about it. What is malformed says nothing.
pub(super) fn wants_digest(headers: &HeaderMap) -> Option<u8> {
    let values = headers.get_all(WANT_REPR_DIGEST).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut wants = texts.flat_map(|text| text.split(',')).filter_map(|member| {
        let (name, value) = member.trim_matches([' ', '\t']).split_once('=')?;
        let value = value.split(';').next()?.trim_end();
        let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let value = value.parse().ok().filter(|value| plain && *value <= 10);
        (name == "sha-256").then_some(value).flatten()
    });
    // Of several members with one name the last holds (RFC 9651 §3.2).
    wants.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_digest_is_heard() {
        for (value, expected) in [
            ("sha-256=10", Some(10)),
            ("sha-512=3, sha-256=1", Some(1)),
            ("sha-256=0", Some(0)),
            ("sha-256=2;x=y , unixsum=0", Some(2)),
            ("sha-256=3,sha-256=5", Some(5)),
            ("sha-256=11", None),
            ("sha-256=-1", None),
            ("sha-256=+1", None),
            ("sha-256", None),
            ("SHA-256=1", None),
            ("sha-512=10", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(WANT_REPR_DIGEST, HeaderValue::from_str(value).unwrap());
            assert_eq!(wants_digest(&headers), expected, "{value}");
        }
        assert_eq!(wants_digest(&HeaderMap::new()), None);
    }

    #[test]
    fn credentials_come_back_and_strange_ones_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(credential(&headers), Ok(None));
        let value = credential_value(b"voucher\0").unwrap();
        headers.insert(PAYMENT, value.clone());
        assert_eq!(
            credential(&headers),
            Ok(Some(Bytes::from_static(b"voucher\0")))
        );
        headers.append(PAYMENT, value);
        assert_eq!(credential(&headers), Err(BadCredential));
        for bad in ["*", "YQ", "YR==", "YQ==\n"] {
            if let Ok(value) = HeaderValue::from_str(bad) {
                headers.insert(PAYMENT, value);
                assert_eq!(credential(&headers), Err(BadCredential), "{bad}");
            }
        }
        assert!(credential_value(&vec![0; MAX_PAYMENT_MESSAGE + 1]).is_none());
        assert!(
            credential_value(&vec![0; MAX_PAYMENT_MESSAGE]).is_some_and(|v| v.len() < 24 << 10)
        );
    }
}
