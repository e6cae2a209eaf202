//! What a client would rather have: lists with weights, as in `Accept` and
//! `Accept-Encoding` (RFC 9110 §12.4.2).

use hyper::header::{HeaderMap, HeaderName};

/// Most entries of such a list that are looked at.
const MAX_ENTRIES: usize = 64;

/// The weighted entries of a header, lower-case, each with its weight in thousandths. What is
/// malformed is left out.
pub(super) fn entries(headers: &HeaderMap, name: HeaderName) -> Vec<(String, u16)> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .take(MAX_ENTRIES)
        .filter_map(entry)
        .collect()
}

fn entry(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let value = parts.next().filter(|value| !value.is_empty())?;
    let mut weight = 1000;
    for part in parts {
        if let Some((name, q)) = part.split_once('=')
            && name.trim_end().eq_ignore_ascii_case("q")
        {
            weight = parse_weight(q.trim_start())?;
        }
    }
    Some((value.to_ascii_lowercase(), weight))
}

/// `0` to `1` with at most three digits behind the point, in thousandths.
fn parse_weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// The weight of a media type under an `Accept` header: that of the most specific entry that
/// names it. 0 if none does; 1000 if there is no such header.
pub(super) fn media_weight(headers: &HeaderMap, media: &str) -> u16 {
    if !headers.contains_key(hyper::header::ACCEPT) {
        return 1000;
    }
    let family = media.split_once('/').map_or("", |(family, _)| family);
    let family = format!("{family}/*");
    let list = entries(headers, hyper::header::ACCEPT);
    let named = |name: &str| list.iter().find(|(value, _)| value == name);
    let found = named(media).or(named(&family)).or(named("*/*"));
    found.map_or(0, |(_, weight)| *weight)
}

/// Whether an `Accept` header names this media type itself.
pub(super) fn names_media(headers: &HeaderMap, media: &str) -> bool {
    entries(headers, hyper::header::ACCEPT)
        .iter()
        .any(|(value, weight)| value == media && *weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{ACCEPT, HeaderValue};
    use proptest::prelude::*;

    fn accepting(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn weights_are_read_exactly_or_not_at_all() {
        for (text, weight) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.05", Some(50)),
            ("0.999", Some(999)),
            ("1.001", None),
            ("2", None),
            ("0.0001", None),
            ("-0", None),
            ("+1", None),
            (".5", None),
            ("0,5", None),
            ("", None),
            ("nan", None),
        ] {
            assert_eq!(parse_weight(text), weight, "{text}");
        }
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, html, json) in [
            (browser, 1000, 800),
            ("*/*", 1000, 1000),
            ("application/json", 0, 1000),
            ("Application/JSON; q=0.5, text/*;q=0.25", 250, 500),
            ("text/html;q=0, */*", 0, 1000),
            ("text/html;q=x", 0, 0),
            ("", 0, 0),
        ] {
            let headers = accepting(accept);
            assert_eq!(media_weight(&headers, "text/html"), html, "{accept}");
            assert_eq!(media_weight(&headers, "application/json"), json, "{accept}");
        }
        assert_eq!(media_weight(&HeaderMap::new(), "text/html"), 1000);
        assert!(names_media(&accepting(browser), "text/html"));
        assert!(!names_media(&accepting("*/*"), "text/html"));
    }

    proptest! {
        #[test]
        fn no_list_panics(value in "[ -~]{0,200}") {
            for (_, weight) in entries(&accepting(&value), ACCEPT) {
                prop_assert!(weight <= 1000);
            }
        }
    }
}
