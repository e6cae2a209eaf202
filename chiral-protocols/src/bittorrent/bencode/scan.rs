//! One look over the bytes, without recursion and without memory that grows with them.

use std::ops::Range;

use super::{BencodeError, Limits};

/// What a value lies in.
enum Open {
    List,
    /// The last key, and whether its value is still to come.
    Dict {
        last: Option<Range<usize>>,
        awaits_value: bool,
    },
}

/// Digits of the longest integer, with its sign.
const MAX_INTEGER_LEN: usize = 20;

/// Digits of the longest length.
const MAX_LENGTH_LEN: usize = 10;

/// Finds the end of the value that begins at byte 0; checks everything on the way but that no
/// key is there twice in a dictionary that is not sorted.
pub(super) fn scan(bytes: &[u8], limits: Limits) -> Result<usize, BencodeError> {
    // The value may end before the limit, with more behind it.
    let window = &bytes[..bytes.len().min(limits.max_len)];
    scan_window(window, limits).map_err(|error| match error {
        BencodeError::Ended | BencodeError::Length { .. } if bytes.len() > window.len() => {
            BencodeError::TooLong {
                len: bytes.len(),
                limit: limits.max_len,
            }
        }
        other => other,
    })
}

fn scan_window(bytes: &[u8], limits: Limits) -> Result<usize, BencodeError> {
    let mut open: Vec<Open> = Vec::new();
    let (mut at, mut tokens) = (0, 0);
    loop {
        let offset = at;
        let byte = *bytes.get(at).ok_or(BencodeError::Ended)?;
        tokens += 1;
        if tokens > limits.max_tokens {
            return Err(BencodeError::TooMany {
                limit: limits.max_tokens,
            });
        }
        // A key, unless the dictionary ends.
        if let Some(Open::Dict { last, awaits_value }) = open.last_mut()
            && !*awaits_value
            && byte != b'e'
        {
            let key = string(bytes, at)?;
            if let Some(last) = last.take()
                && !limits.unsorted_keys
            {
                match bytes[key.clone()].cmp(&bytes[last]) {
                    std::cmp::Ordering::Greater => {}
                    std::cmp::Ordering::Equal => {
                        return Err(BencodeError::DuplicateKey { offset });
                    }
                    std::cmp::Ordering::Less => return Err(BencodeError::KeyOrder { offset }),
                }
            }
            at = key.end;
            (*last, *awaits_value) = (Some(key), true);
            continue;
        }
        match byte {
            b'i' => at = integer(bytes, at)?,
            b'0'..=b'9' => at = string(bytes, at)?.end,
            b'l' | b'd' => {
                if open.len() >= limits.max_depth {
                    return Err(BencodeError::TooDeep {
                        offset,
                        limit: limits.max_depth,
                    });
                }
                at += 1;
                open.push(match byte {
                    b'l' => Open::List,
                    _ => Open::Dict {
                        last: None,
                        awaits_value: false,
                    },
                });
                continue;
            }
            b'e' => match open.pop() {
                Some(Open::List)
                | Some(Open::Dict {
                    awaits_value: false,
                    ..
                }) => at += 1,
                _ => return Err(BencodeError::Unexpected { offset }),
            },
            _ => return Err(BencodeError::Unexpected { offset }),
        }
        // A value has ended.
        match open.last_mut() {
            None => return Ok(at),
            Some(Open::Dict { awaits_value, .. }) => *awaits_value = false,
            Some(Open::List) => {}
        }
    }
}

/// The digits from `at` to `end`, which must come within `most` bytes.
fn until(bytes: &[u8], at: usize, end: u8, most: usize) -> Option<&[u8]> {
    let window = bytes.get(at..bytes.len().min(at + most + 1))?;
    let len = window.iter().position(|byte| *byte == end)?;
    window.get(..len)
}

/// Whether these are digits without a leading zero.
fn is_canonical(digits: &[u8]) -> bool {
    let leading_zero = digits.len() > 1 && digits[0] == b'0';
    !digits.is_empty() && !leading_zero && digits.iter().all(u8::is_ascii_digit)
}

/// The end of the integer that begins at `at`.
fn integer(bytes: &[u8], at: usize) -> Result<usize, BencodeError> {
    let wrong = BencodeError::Integer { offset: at };
    let Some(text) = until(bytes, at + 1, b'e', MAX_INTEGER_LEN) else {
        let short = bytes.len() - at <= MAX_INTEGER_LEN + 1;
        return Err(if short { BencodeError::Ended } else { wrong });
    };
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let minus_zero = digits == b"0" && text.len() == 2;
    let fits = std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok());
    match is_canonical(digits) && !minus_zero && fits {
        true => Ok(at + text.len() + 2),
        false => Err(wrong),
    }
}

/// Where the bytes of the string lie whose length begins at `at`.
fn string(bytes: &[u8], at: usize) -> Result<Range<usize>, BencodeError> {
    let wrong = BencodeError::Length { offset: at };
    let Some(digits) = until(bytes, at, b':', MAX_LENGTH_LEN) else {
        let short = bytes.len() - at <= MAX_LENGTH_LEN;
        let so_far = bytes[at..].iter().all(u8::is_ascii_digit);
        return Err(if short && so_far {
            BencodeError::Ended
        } else {
            wrong
        });
    };
    if !is_canonical(digits) {
        return Err(wrong);
    }
    let len = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse::<usize>().ok());
    let start = at + digits.len() + 1;
    let end = len.and_then(|len| start.checked_add(len));
    match end {
        Some(end) if end <= bytes.len() => Ok(start..end),
        _ => Err(wrong),
    }
}
