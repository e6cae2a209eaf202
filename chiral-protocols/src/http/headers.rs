//! Header values: the payment credential, the file name, the media type, digests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chiral_core::payment_gate::MAX_PAYMENT_MESSAGE;
use chiral_core::{Cid, ManifestHeader, link};
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

/// The media type to announce: the hint if it is one, else unspecific bytes.
pub(super) fn content_type(header: &ManifestHeader) -> HeaderValue {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let is_type = |mime: &&str| {
        let essence = mime.split(';').next().unwrap_or("").trim();
        essence
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
    };
    header
        .mime
        .as_deref()
        .filter(is_type)
        .and_then(|mime| HeaderValue::from_str(mime).ok())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// `Content-Disposition` with the name hint made harmless (RFC 6266, RFC 8187). Always an
/// attachment: a stranger's page shall not run under the address of this server.
pub(super) fn disposition(header: &ManifestHeader) -> HeaderValue {
    let plain = HeaderValue::from_static("attachment");
    let Some(name) = header.name.as_deref().and_then(link::file_name) else {
        return plain;
    };
    let fallback: String = name
        .chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() && !"\"\\%".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut value = format!("attachment; filename=\"{fallback}\"");
    if fallback != name {
        value.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                value.push(char::from(byte));
            } else {
                value.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    HeaderValue::try_from(value).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::MerkleRoot;

    fn header(name: &str, mime: &str) -> ManifestHeader {
        ManifestHeader {
            size: 1,
            cid: Cid::from_bytes([1; 32]),
            root: MerkleRoot::from_bytes([2; 32]),
            name: Some(name.to_owned()),
            mime: Some(mime.to_owned()),
            created_at: 0,
            aliases: Vec::new(),
        }
    }

    #[test]
    fn a_strangers_hints_cannot_break_out_of_their_headers() {
        for (name, expected) in [
            ("a b.txt", "attachment; filename=\"a b.txt\""),
            ("../../etc/passwd", "attachment; filename=\"passwd\""),
            ("a\r\nX: y", "attachment; filename=\"a__X_ y\""),
            (
                "ä%.txt",
                "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A4%25.txt",
            ),
            ("..", "attachment"),
        ] {
            assert_eq!(disposition(&header(name, "")), expected, "{name:?}");
        }
        for (mime, expected) in [
            ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
            ("image/svg+xml", "image/svg+xml"),
            ("text/html\r\nX: y", "application/octet-stream"),
            ("text", "application/octet-stream"),
            ("a/b/c", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(content_type(&header("a", mime)), expected, "{mime:?}");
        }
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
