//! Answers of HTTP/1.1 servers, in parts: however they are cut, they mean the same.

#![no_main]

use bytes::BytesMut;
use chiral_protocols::http::codec::{Answer, AnswerError, Body, HeadLimits};
use libfuzzer_sys::fuzz_target;

/// Status and body of the first answer, and what is behind it.
type Whole = (u16, Vec<u8>, Vec<u8>);

fn read(bytes: &[u8], part: usize, to_head: bool) -> Result<Option<Whole>, AnswerError> {
    let limits = HeadLimits { bytes: 4096, fields: 20 };
    let (mut answer, mut input) = (Answer::new(limits, to_head), BytesMut::new());
    let (mut status, mut body) = (None, Vec::new());
    let mut parts = bytes.chunks(part);
    loop {
        if status.is_none() {
            status = answer.head(&mut input)?.map(|head| head.status.as_u16());
        }
        match (answer.body(&mut input)?, status) {
            (Body::Data(data), Some(_)) => body.extend_from_slice(&data),
            (Body::End, Some(status)) => {
                let mut left = input.to_vec();
                left.extend(parts.flatten());
                return Ok(Some((status, body, left)));
            }
            (Body::More, _) => match parts.next() {
                Some(more) => input.extend_from_slice(more),
                None => return Ok(status.map(|status| (status, body, Vec::new()))),
            },
            (Body::Data(_) | Body::End, None) => panic!("a body without a head"),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let to_head = kind & 1 == 0;
    let whole = read(data, data.len().max(1), to_head);
    let parts = read(data, usize::from(kind >> 1) + 1, to_head);
    // Of a faulty answer a part may be refused for another reason, or sooner.
    if whole.is_ok() || parts.is_ok() {
        assert_eq!(whole, parts);
    }
});
