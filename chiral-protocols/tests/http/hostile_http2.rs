//! Servers that lie over HTTP/2, against the client.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ByteRange, ContentProtocol, Delivery, Endpoint, PeerOffer, Protocol, TransferError,
};
use chiral_protocols::http::HttpConfig;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PUSH_PROMISE,
    RST_STREAM, block, frame, receive, settings,
};
use crate::support::{client_with, soon};
use crate::tls_support::{Speaking, certificate, speaking};

/// What a server sends to a request for bytes: these frames, then others again and again.
#[derive(Clone, Debug, Default)]
struct Answer {
    frames: Vec<u8>,
    again: Vec<u8>,
    closes: bool,
}

fn headers(stream: u32, list: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(list))
}

const HONEST: [(&str, &str); 3] = [
    (":status", "206"),
    ("content-range", "bytes 100-199/1000"),
    ("content-length", "100"),
];

/// Fetches bytes 100 to 199 from a mirror that is honest until it is asked for them.
async fn fetch_from(
    answer: impl Fn(u32) -> Answer + Send + Sync + 'static,
) -> Vec<Result<Delivery, TransferError>> {
    let shown = certificate(|_, _| {});
    let how = Speaking {
        alpn: &[b"h2"],
        ..Speaking::default()
    };
    let answer = Arc::new(answer);
    let address = speaking(&shown, &how, move |session| {
        let answer = answer.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(session);
            let mut preface = [0; PREFACE.len()];
            if reader.read_exact(&mut preface).await.is_err() {
                return;
            }
            writer.write_all(&settings(&[])).await.unwrap_or_default();
            let mut asked = 0;
            while let Some(got) = receive(&mut reader).await {
                if got.kind != HEADERS {
                    continue;
                }
                asked += 1;
                if asked == 1 {
                    let list = [
                        (":status", "200"),
                        ("content-length", "1000"),
                        ("accept-ranges", "bytes"),
                    ];
                    let head = headers(got.stream, &list, END_STREAM);
                    writer.write_all(&head).await.unwrap_or_default();
                    continue;
                }
                let answer = answer(got.stream);
                if writer.write_all(&answer.frames).await.is_err() || answer.closes {
                    return;
                }
                while !answer.again.is_empty() {
                    if writer.write_all(&answer.again).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
    .await;
    let url = format!("https://{address}/file#sha256={}", shown.fingerprint());
    let offer = PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap()).as_mirror();
    let short = Duration::from_millis(700);
    let config = HttpConfig::default().with_timeouts(short, short, short);
    let client = client_with(config).await;
    let target = identification(b"whatever");
    let source = soon(client.connect(&offer, &target)).await.unwrap();
    let range = ByteRange::new(100, 200);
    let got = soon(source.fetch(range).collect()).await;
    soon(client.shutdown()).await.unwrap();
    got
}

#[tokio::test]
async fn an_honest_answer_is_taken() {
    for framing in 1..=2 {
        let got = fetch_from(move |stream| Answer {
            frames: [
                headers(stream, &HONEST[..4 - framing], 0),
                frame(DATA, 0, stream, &[7; 60]),
                frame(PING, 0, 0, &[1; 8]),
                frame(DATA, END_STREAM, stream, &[7; 40]),
            ]
            .concat(),
            ..Answer::default()
        })
        .await;
        let bytes: Vec<u8> = got.into_iter().flat_map(|d| d.unwrap().bytes).collect();
        assert_eq!(bytes, [7; 100]);
    }
}

#[tokio::test]
async fn answers_that_break_the_protocol_deliver_nothing() {
    let with = |more: &[(&'static str, &'static str)]| {
        let list = [&HONEST[..], more].concat();
        move |stream| Answer {
            frames: [
                headers(stream, &list, 0),
                frame(DATA, END_STREAM, stream, &[7; 100]),
            ]
            .concat(),
            ..Answer::default()
        }
    };
    let many: Vec<(&str, &str)> = (0..500).map(|_| ("x", "y")).collect();
    type Make = Box<dyn Fn(u32) -> Answer + Send + Sync>;
    let only = |make: fn(u32) -> Vec<u8>| -> Make {
        Box::new(move |stream| Answer {
            frames: make(stream),
            ..Answer::default()
        })
    };
    let cases: Vec<(&str, Make)> = vec![
        (
            "a coding not asked for",
            Box::new(with(&[("content-encoding", "gzip")])),
        ),
        ("two lengths", Box::new(with(&[("content-length", "99")]))),
        ("500 headers", Box::new(with(&many))),
        (
            "a header of HTTP/1.1",
            Box::new(with(&[("transfer-encoding", "chunked")])),
        ),
        ("upper case", Box::new(with(&[("X", "y")]))),
        (
            "200 for a range",
            only(|s| headers(s, &[(":status", "200"), ("content-length", "1000")], 0)),
        ),
        ("no status", only(|s| headers(s, &[("x", "y")], END_STREAM))),
        (
            "a reset",
            only(|s| frame(RST_STREAM, 0, s, &7u32.to_be_bytes())),
        ),
        ("a farewell", only(|_| frame(GOAWAY, 0, 0, &[0; 8]))),
        (
            "a broken block",
            only(|s| frame(HEADERS, END_HEADERS, s, &[0xff; 20])),
        ),
        (
            "a push",
            only(|s| {
                let block = block(&[
                    (":method", "GET"),
                    (":path", "/"),
                    (":scheme", "https"),
                    (":authority", "a"),
                ]);
                frame(
                    PUSH_PROMISE,
                    END_HEADERS,
                    s,
                    &[&2u32.to_be_bytes()[..], &block].concat(),
                )
            }),
        ),
        (
            "a frame over its limit",
            only(|s| {
                [
                    headers(s, &HONEST, 0),
                    frame(DATA, END_STREAM, s, &vec![7; 300_000]),
                ]
                .concat()
            }),
        ),
        (
            "data before headers",
            only(|s| frame(DATA, END_STREAM, s, &[7; 100])),
        ),
        (
            "a megabyte of headers",
            only(|s| {
                let large = block(&[("x", &"a".repeat(16_000))]);
                let mut out = frame(HEADERS, 0, s, &block(&HONEST));
                for _ in 0..64 {
                    out.extend(frame(CONTINUATION, 0, s, &large));
                }
                out.extend(frame(CONTINUATION, END_HEADERS, s, &[]));
                out.extend(frame(DATA, END_STREAM, s, &[7; 100]));
                out
            }),
        ),
        (
            "headers without end",
            Box::new(|s| Answer {
                frames: frame(HEADERS, 0, s, &block(&HONEST)),
                again: frame(CONTINUATION, 0, s, &block(&[("x", "y")])),
                ..Answer::default()
            }),
        ),
        (
            "a flood of beginnings",
            Box::new(|s| Answer {
                again: headers(s, &[(":status", "103")], 0).repeat(100),
                ..Answer::default()
            }),
        ),
        (
            "a closed connection",
            Box::new(|_| Answer {
                closes: true,
                ..Answer::default()
            }),
        ),
        (
            "a flood of pings",
            Box::new(|_| Answer {
                again: [frame(PING, 0, 0, &[1; 8]), settings(&[])]
                    .concat()
                    .repeat(100),
                ..Answer::default()
            }),
        ),
    ];
    for (what, make) in cases {
        let got = fetch_from(make).await;
        assert!(matches!(got[..], [Err(_)]), "{what}: {got:?}");
        let error = got[0].as_ref().unwrap_err();
        let blamed = matches!(
            error,
            TransferError::Protocol { .. }
                | TransferError::Connection { .. }
                | TransferError::Timeout { .. }
        );
        assert!(blamed, "{what}: {error:?}");
    }
}

#[tokio::test]
async fn bodies_of_another_length_are_cut_off() {
    let body = |list: &'static [(&str, &str)], data: usize, again: bool| {
        move |stream| Answer {
            frames: [
                headers(stream, list, 0),
                frame(
                    DATA,
                    if again { 0 } else { END_STREAM },
                    stream,
                    &vec![7; data],
                ),
            ]
            .concat(),
            again: match again {
                true => frame(DATA, 0, stream, &[7; 50]),
                false => Vec::new(),
            },
            closes: false,
        }
    };
    for (list, data, again) in [
        (&HONEST[..], 99, false),
        (&HONEST[..], 101, false),
        (&HONEST[..2], 99, false),
        (&HONEST[..2], 101, false),
        (&HONEST[..], 50, true),
        (&HONEST[..2], 50, true),
    ] {
        let got = fetch_from(body(list, data, again)).await;
        let bytes: usize = got.iter().flatten().map(|d| d.bytes.len()).sum();
        assert!(bytes <= 100, "{bytes} bytes");
        assert!(got.last().unwrap().is_err(), "{data} {again}: {got:?}");
    }
    // Data behind the end is no part of the answer.
    let got = fetch_from(|stream| Answer {
        frames: [
            headers(stream, &HONEST, 0),
            frame(DATA, END_STREAM, stream, &[7; 100]),
            frame(DATA, END_STREAM, stream, &[8; 100]),
        ]
        .concat(),
        ..Answer::default()
    })
    .await;
    let bytes: Vec<u8> = got
        .iter()
        .flatten()
        .flat_map(|d| d.bytes.to_vec())
        .collect();
    assert!(bytes.iter().all(|byte| *byte == 7) && bytes.len() <= 100);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    for data in [None, Some(0), Some(50)] {
        let got = fetch_from(move |stream| Answer {
            frames: match data {
                None => Vec::new(),
                Some(data) => [
                    headers(stream, &HONEST, 0),
                    frame(DATA, 0, stream, &vec![7; data]),
                ]
                .concat(),
            },
            ..Answer::default()
        })
        .await;
        let last = got.last().unwrap();
        assert!(
            matches!(last, Err(TransferError::Timeout { .. })),
            "{last:?}"
        );
    }
}
