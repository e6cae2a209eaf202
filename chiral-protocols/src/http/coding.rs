//! Content codings (RFC 9110 §8.4): which one a client would have, and the encoders.
//!
//! What is hashed, addressed by ranges and paid for is the file as it is. A coding is a way
//! to send the whole of a free text a little faster, and nothing else.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{self, HeaderMap, HeaderValue};
use zrip::{FrameEncoder, Options};

use super::accept;

/// Bytes under which a coding saves less than its headers cost.
pub(super) const MIN_SIZE: u64 = 1 << 10;

/// Bytes over which nothing is encoded: such an answer cannot be gone on with after a break,
/// and keeps a processor busy for as long as the client likes.
pub(super) const MAX_SIZE: u64 = 64 << 20;

/// How hard each encoder tries: what the encoders of web servers do as they send.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// Logarithm of the bytes that brotli and zstd look back, which bounds an encoder's memory:
/// 4.3 MiB for brotli, 2.7 for zstd (and the decoder's, RFC 9659). With twice as many brotli
/// takes 7.5 MiB, to make texts 4 % shorter.
const WINDOW_LOG: u32 = 18;

/// Bytes that the brotli encoder gives out at a time.
const STEP: usize = 64 << 10;

/// A way to make content shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// In the order in which they are taken if the client likes them equally.
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Zstd => &["zstd"],
            Self::Brotli => &["br"],
            Self::Gzip => &["gzip", "x-gzip"],
        }
    }

    /// The value of `Content-Encoding`.
    pub(super) fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    /// What the client would rather have than the file as it is, by its `Accept-Encoding`.
    pub(super) fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let list = accept::entries(headers, header::ACCEPT_ENCODING);
        let find = |names: &[&str]| {
            let mut found = list
                .iter()
                .filter(|(name, _)| names.contains(&name.as_str()));
            found.next().map(|(_, weight)| *weight)
        };
        let rest = find(&["*"]);
        // Without a word about it, the file as it is will do if nothing else does.
        let plain = find(&["identity"]).unwrap_or(0);
        let mut best = None;
        for coding in Self::ALL {
            let weight = find(coding.names()).or(rest).unwrap_or(0);
            let beaten = best.is_some_and(|(_, other)| weight <= other);
            if weight > 0 && weight >= plain && !beaten {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// Encodes what it is given, in pieces of any size.
pub(super) enum Encoder {
    Zstd(Box<FrameEncoder<Sink>>, Sink),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zstd(..) => "Encoder::Zstd",
            Self::Brotli(_) => "Encoder::Brotli",
            Self::Gzip(_) => "Encoder::Gzip",
        })
    }
}

impl Encoder {
    pub(super) fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => {
                let level = Compression::new(GZIP_LEVEL);
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
            Coding::Brotli => {
                let writer = CompressorWriter::new(Vec::new(), STEP, BROTLI_QUALITY, WINDOW_LOG);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let (sink, options) = (Sink::default(), Options::default().window_log(WINDOW_LOG));
                let encoder = FrameEncoder::with_options(sink.clone(), ZSTD_LEVEL, &options);
                Self::Zstd(Box::new(encoder.map_err(io::Error::other)?), sink)
            }
        })
    }

    /// Takes the next bytes. Answers what is ready of the encoding, which may be nothing yet.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Zstd(encoder, sink) => {
                encoder.write_all(bytes)?;
                Ok(sink.take())
            }
            Self::Brotli(writer) => {
                writer.write_all(bytes)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::Gzip(writer) => {
                writer.write_all(bytes)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }

    /// Ends the encoding. Answers the rest of it.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Zstd(encoder, _) => Ok(encoder.finish()?.take()),
            Self::Brotli(writer) => Ok(writer.into_inner().into()),
            Self::Gzip(writer) => Ok(writer.finish()?.into()),
        }
    }
}

/// Where an encoder that keeps its writer to itself leaves what is ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Bytes {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *bytes).into()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn negotiated(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_str(accept).unwrap(),
        );
        Coding::negotiate(&headers)
    }

    #[test]
    fn the_clients_weights_decide() {
        use Coding::{Brotli, Gzip, Zstd};
        assert_eq!(Coding::negotiate(&HeaderMap::new()), None);
        for (accept, expected) in [
            ("", None),
            ("identity", None),
            ("deflate", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip;q=1, br;q=0.9, zstd;q=0.8", Some(Gzip)),
            ("gzip;q=0.5, br;q=0.5", Some(Brotli)),
            ("gzip;q=0", None),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Brotli)),
            ("*;q=0", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("gzip;q=nan", None),
            ("gzip;q=1.5, br", Some(Brotli)),
        ] {
            assert_eq!(negotiated(accept), expected, "{accept}");
        }
    }

    fn encode(coding: Coding, pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(encoder.push(piece).unwrap());
        }
        out.extend(encoder.finish().unwrap());
        out
    }

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut out)
                .unwrap(),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096)
                .read_to_end(&mut out)
                .unwrap(),
            Coding::Zstd => {
                out = zrip::decompress(bytes).unwrap();
                out.len()
            }
        };
        out
    }

    #[test]
    fn text_gets_shorter_and_comes_back() {
        let text: Vec<u8> = (0..40_000)
            .flat_map(|i| format!("line {i} of a text\n").into_bytes())
            .collect();
        let pieces: Vec<Vec<u8>> = text.chunks(60_000).map(<[u8]>::to_vec).collect();
        for coding in Coding::ALL {
            let encoded = encode(coding, &pieces);
            assert!(
                encoded.len() * 3 < text.len(),
                "{coding:?} {}",
                encoded.len()
            );
            assert_eq!(decode(coding, &encoded), text, "{coding:?}");
            assert!(decode(coding, &encode(coding, &[])).is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..300),
                    (any::<u8>(), 0usize..200_000).prop_map(|(byte, count)| vec![byte; count]),
                ],
                0..6,
            ),
        ) {
            for coding in Coding::ALL {
                prop_assert_eq!(decode(coding, &encode(coding, &pieces)), pieces.concat());
            }
        }
    }
}
