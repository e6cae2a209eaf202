//! What an answer's head must say before a byte of its body is believed to stand where it
//! was asked for.

use chiral_core::{ByteRange, Endpoint, TransferError};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap};

use super::connect::{protocol, refused};
use super::range::{exact, parse_content_range};

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The status says no.
    Status(StatusCode),
    /// It contradicts itself or what was asked.
    Protocol(&'static str),
}

impl Fault {
    /// The error, but for 402, whose body is its message.
    pub(super) fn into_transfer(self, name: &Endpoint) -> TransferError {
        let status = match self {
            Self::Protocol(reason) => return protocol(name, reason),
            Self::Status(status) => status,
        };
        let retryable = matches!(status.as_u16(), 300..400 | 408 | 421 | 425 | 429 | 500..600)
            && !matches!(status.as_u16(), 501 | 505);
        match status.as_u16() {
            404 | 410 | 416 => TransferError::Missing {
                source_name: name.to_string(),
                what: "what was asked for",
            },
            300..600 => refused(name, status.to_string(), retryable),
            _ => protocol(name, "an unexpected status"),
        }
    }
}

/// The length that the headers announce.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let length = value
        .to_str()
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(exact);
    match (length, values.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(Fault::Protocol("a malformed Content-Length")),
    }
}

fn not_encoded(headers: &HeaderMap) -> Result<(), Fault> {
    let plain = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        Ok(())
    } else {
        Err(Fault::Protocol("a content coding that was not asked for"))
    }
}

/// Checks the answer to a request for everything. Answers its length, if announced.
pub(super) fn whole(status: StatusCode, headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    if status != StatusCode::OK {
        return Err(match status {
            StatusCode::PARTIAL_CONTENT => Fault::Protocol("206 for a request without a range"),
            status => Fault::Status(status),
        });
    }
    not_encoded(headers)?;
    content_length(headers)
}

/// Checks the answer to a request for `asked` of a file of `size` bytes (`None`: not known
/// yet). Answers the size that it tells.
pub(super) fn part(
    status: StatusCode,
    headers: &HeaderMap,
    asked: ByteRange,
    size: Option<u64>,
) -> Result<Option<u64>, Fault> {
    let length = content_length(headers)?;
    not_encoded(headers)?;
    let (range, total) = match status {
        StatusCode::PARTIAL_CONTENT => {
            let mut values = headers.get_all(header::CONTENT_RANGE).iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return Err(Fault::Protocol("206 without one Content-Range"));
            };
            parse_content_range(value.as_bytes())
                .ok_or(Fault::Protocol("a malformed Content-Range"))?
        }
        // A server may ignore a range; that helps if the range was everything.
        StatusCode::OK if size == Some(asked.len()) => (asked, size),
        StatusCode::OK => return Err(Fault::Protocol("200 for a range")),
        status => return Err(Fault::Status(status)),
    };
    if range != asked {
        return Err(Fault::Protocol("another range than was asked for"));
    }
    if total.is_some() && size.is_some() && total != size {
        return Err(Fault::Protocol("another size than before"));
    }
    if length.is_some_and(|length| length != asked.len()) {
        return Err(Fault::Protocol("a length that is not its range's"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_lying_head_is_refused() {
        let asked = ByteRange::new(10, 20);
        let check = |status, list: &[(&'static str, &str)]| {
            part(
                StatusCode::from_u16(status).unwrap(),
                &headers(list),
                asked,
                Some(100),
            )
        };
        let range = ("content-range", "bytes 10-19/100");
        assert_eq!(
            check(206, &[range, ("content-length", "10")]),
            Ok(Some(100))
        );
        assert_eq!(check(206, &[range]), Ok(Some(100)));
        assert_eq!(check(206, &[("content-range", "bytes 10-19/*")]), Ok(None));
        assert_eq!(
            check(206, &[range, ("content-encoding", "identity")]),
            Ok(Some(100))
        );
        for (status, list) in [
            (200, vec![("content-length", "100")]),
            (200, vec![range]),
            (206, vec![]),
            (206, vec![range, range]),
            (206, vec![("content-range", "bytes 0-9/100")]),
            (206, vec![("content-range", "bytes 10-20/100")]),
            (206, vec![("content-range", "bytes 10-18/100")]),
            (206, vec![("content-range", "bytes 10-19/101")]),
            (206, vec![("content-range", "bytes 10-19/15")]),
            (206, vec![range, ("content-length", "11")]),
            (206, vec![range, ("content-length", "9")]),
            (206, vec![range, ("content-length", "x")]),
            (
                206,
                vec![range, ("content-length", "10"), ("content-length", "10")],
            ),
            (206, vec![range, ("content-encoding", "gzip")]),
            (
                206,
                vec![
                    range,
                    ("content-encoding", "identity"),
                    ("content-encoding", "br"),
                ],
            ),
        ] {
            assert!(
                matches!(check(status, &list), Err(Fault::Protocol(_))),
                "{status} {list:?}"
            );
        }
        assert_eq!(check(404, &[]), Err(Fault::Status(StatusCode::NOT_FOUND)));
        let all = ByteRange::new(0, 100);
        assert_eq!(
            part(StatusCode::OK, &headers(&[]), all, Some(100)),
            Ok(Some(100))
        );
        let lie = headers(&[("content-length", "99")]);
        assert!(part(StatusCode::OK, &lie, all, Some(100)).is_err());
    }

    #[test]
    fn statuses_say_whether_to_come_back() {
        let name = Endpoint::new("http://a/").unwrap();
        let error =
            |status| Fault::Status(StatusCode::from_u16(status).unwrap()).into_transfer(&name);
        for status in [404, 410, 416] {
            assert!(
                matches!(error(status), TransferError::Missing { .. }),
                "{status}"
            );
        }
        for (status, expected) in [
            (301, true),
            (401, false),
            (403, false),
            (429, true),
            (451, false),
            (500, true),
            (501, false),
            (503, true),
        ] {
            let TransferError::Refused { retryable, .. } = error(status) else {
                panic!("{status}")
            };
            assert_eq!(retryable, expected, "{status}");
        }
        assert!(matches!(error(204), TransferError::Protocol { .. }));
    }
}
