use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1000,
    fields: 10,
};

/// Reads one answer out of bytes that come in parts: its status, its body, whether another may
/// follow, and what is left over. `Ok(None)` if it is not whole.
type Whole = (u16, Vec<u8>, bool, Vec<u8>);

fn read(bytes: &[u8], part: usize, to_head: bool) -> Result<Option<Whole>, AnswerError> {
    let (mut answer, mut input) = (Answer::new(LIMITS, to_head), BytesMut::new());
    let (mut head, mut body) = (None, Vec::new());
    let mut parts = bytes.chunks(part.max(1));
    loop {
        if head.is_none() {
            head = answer.head(&mut input)?;
        }
        let next = answer.body(&mut input)?;
        match (next, &head) {
            (Body::Data(data), _) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
                continue;
            }
            (Body::End, Some(head)) => {
                let mut left = input.to_vec();
                left.extend(parts.flatten());
                return Ok(Some((head.status.as_u16(), body, answer.keeps(), left)));
            }
            (Body::End, None) => unreachable!("a body without a head"),
            (Body::More, _) => {}
        }
        match (parts.next(), &head) {
            (Some(more), _) => input.extend_from_slice(more),
            (None, Some(head)) if answer.ends_with_connection() => {
                return Ok(Some((
                    head.status.as_u16(),
                    body,
                    answer.keeps(),
                    Vec::new(),
                )));
            }
            (None, _) => return Ok(None),
        }
    }
}

fn text(head: &str, body: &str) -> Vec<u8> {
    format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes()
}

#[test]
fn an_answer_ends_where_its_head_says() {
    for (head, body, expected) in [
        (
            "HTTP/1.1 206 P\nContent-Length: 3",
            "abcHTTP/1.1",
            (206, "abc", true, "HTTP/1.1"),
        ),
        (
            "HTTP/1.1 200 OK\ncontent-length: 3\nContent-Length: 3",
            "abcd",
            (200, "abc", true, "d"),
        ),
        (
            "HTTP/1.1 200 OK\nContent-Length: 3\nConnection: x, Close",
            "abc",
            (200, "abc", false, ""),
        ),
        (
            "HTTP/1.0 200 OK\nContent-Length: 3",
            "abc",
            (200, "abc", false, ""),
        ),
        (
            "HTTP/1.0 200 OK\nContent-Length: 3\nConnection: keep-alive",
            "abc",
            (200, "abc", true, ""),
        ),
        ("HTTP/1.1 200", "to the end", (200, "to the end", false, "")),
        (
            "HTTP/1.1 204 No\nContent-Length: 5",
            "next",
            (204, "", true, "next"),
        ),
        (
            "HTTP/1.1 304 No\nTransfer-Encoding: chunked",
            "next",
            (304, "", true, "next"),
        ),
        (
            "HTTP/1.1 100 Go on\n\nHTTP/1.1 103 See\nLink: x\n\nHTTP/1.1 200 OK\nContent-Length: 1",
            "a",
            (200, "a", true, ""),
        ),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: Chunked",
            "1\r\na\r\n0A ;x=\"y\"\r\n0123456789\r\n0\r\nX: y\r\n\r\nz",
            (200, "a0123456789", true, "z"),
        ),
        (
            "\n\nHTTP/1.1 200 OK\nContent-Length: 0",
            "",
            (200, "", true, ""),
        ),
    ] {
        let bytes = text(head, body);
        let (status, body, keeps, left) = expected;
        let expected = (status, body.into(), keeps, left.into());
        for part in [1, 2, 3, 7, 1000] {
            assert_eq!(
                read(&bytes, part, false),
                Ok(Some(expected.clone())),
                "{head:?} by {part}"
            );
        }
    }
    let head = text("HTTP/1.1 200 OK\nContent-Length: 1000", "next");
    assert_eq!(
        read(&head, 5, true),
        Ok(Some((200, Vec::new(), true, b"next".to_vec())))
    );
}

#[test]
fn what_is_no_answer_is_refused() {
    for (head, body) in [
        ("SSH-2.0-OpenSSH", ""),
        ("HTTP/2 200 OK", ""),
        ("HTTP/1.1 20 OK", ""),
        ("HTTP/1.1 200 OK\nno colon", ""),
        ("HTTP/1.1 200 OK\nX: a\n folded", ""),
        ("HTTP/1.1 101 Switch\nUpgrade: x", ""),
        ("HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4", ""),
        ("HTTP/1.1 200 OK\nContent-Length: +3", ""),
        ("HTTP/1.1 200 OK\nContent-Length: 3, 3", ""),
        ("HTTP/1.1 200 OK\nContent-Length: 18446744073709551616", ""),
        (
            "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked",
            "",
        ),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked", ""),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked, chunked", ""),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: identity", ""),
        ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked", ""),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: \u{e9}",
            "",
        ),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
            "1\r\r\na\r\n",
        ),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "\r\n"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "-1\r\n"),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
            "0x1\r\na\r\n",
        ),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "1\na\r\n"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "1\r\nab\r\n"),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
            "10000000000000000\r\n",
        ),
    ] {
        let bytes = text(head, body);
        for part in [1, 1000] {
            let read = read(&bytes, part, false);
            assert_eq!(read, Err(AnswerError::Malformed), "{head:?} {body:?}");
        }
    }
}

#[test]
fn everything_has_its_limit() {
    let many = format!("HTTP/1.1 200 OK{}", "\nX: y".repeat(11));
    let long = format!("HTTP/1.1 200 OK\nX: {}", "y".repeat(1000));
    let interim = "HTTP/1.1 100 Go on\n\n".repeat(9) + "HTTP/1.1 200 OK";
    let chunked = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked";
    let extended = format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(20);
    for (head, body) in [
        (many.as_str(), ""),
        (&long, ""),
        (&interim, ""),
        (chunked, &*format!("1;{}", "x".repeat(2000))),
        (chunked, &extended),
        (chunked, &*format!("0\r\n{}", "X: y\r\n".repeat(300))),
        (chunked, &*format!("0\r\nX: {}", "y".repeat(2000))),
    ] {
        let bytes = text(head, body);
        for part in [1, 10_000] {
            assert_eq!(
                read(&bytes, part, false),
                Err(AnswerError::TooLong),
                "{head:.60} {body:.20}"
            );
        }
    }
    // Also of a head that never ends.
    let endless = "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"y".repeat(2000);
    assert_eq!(
        read(endless.as_bytes(), 1, false),
        Err(AnswerError::TooLong)
    );
}

#[test]
fn a_request_is_written_as_it_is() {
    let mut request = Request::new(Bytes::from_static(b"body"));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = "/a?b=c".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("h:1"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(4));
    let expected = "POST /a?b=c HTTP/1.1\r\nhost: h:1\r\ncontent-length: 4\r\n\r\nbody";
    assert_eq!(encode(&request), expected.as_bytes());
}

proptest! {
    #[test]
    fn bytes_mean_the_same_however_they_come(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "(\r\n)?HTTP/1\\.[01] (100|200|204|206) [a-z]{0,3}\r\n(Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: chunked\r\n|Connection: close\r\n|X: [a-z]*\r\n){0,3}\r\n([0-9a-f]{1,2}(;x)?\r\n[a-z\r\n]{0,20}){0,4}(0\r\n\r\n)?"
                .prop_map(String::into_bytes),
        ],
        part in 1usize..40,
        to_head in any::<bool>(),
    ) {
        let whole = read(&bytes, bytes.len(), to_head);
        let parts = read(&bytes, part, to_head);
        // What is wrong may be told of a part before the rest, but never instead of an answer.
        match (&whole, &parts) {
            (Err(_), Err(_)) => {}
            _ => prop_assert_eq!(whole, parts),
        }
    }

    #[test]
    fn chunks_are_put_together(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
        part in 1usize..60,
    ) {
        let mut bytes = text("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", "");
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\nnext");
        let expected = (200, chunks.concat(), true, b"next".to_vec());
        prop_assert_eq!(read(&bytes, part, false), Ok(Some(expected)));
    }
}
