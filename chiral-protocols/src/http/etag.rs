//! Conditions on a request (RFC 9110 §13) by entity tag. Content never changes under its
//! name, so there are no dates.

/// A strong entity tag: a hash in quotes.
pub(super) fn strong(hash: impl std::fmt::Display) -> String {
    format!("\"{hash}\"")
}

/// Whether a list of entity tags (`If-Match`, `If-None-Match`) names `etag`, or all.
/// A weak tag counts only if `weak` comparison is asked for. What is malformed names nothing.
pub(super) fn names(list: &[u8], etag: &str, weak: bool) -> bool {
    let Ok(mut rest) = std::str::from_utf8(list) else {
        return false;
    };
    if rest.trim_matches([' ', '\t']) == "*" {
        return true;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let is_weak = rest.starts_with("W/");
        let Some(tail) = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"') else {
            return false;
        };
        let Some((opaque, after)) = tail.split_once('"') else {
            return false;
        };
        let same = etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')) == Some(opaque);
        if same && (weak || !is_weak) {
            return true;
        }
        rest = after;
    }
}

/// Whether an `If-Range` holds. A date never does: nothing here is known by date.
pub(super) fn if_range_holds(value: &[u8], etag: &str) -> bool {
    value.trim_ascii() == etag.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_tags() {
        for (list, weak, strict) in [
            ("\"abc\"", true, true),
            ("W/\"abc\"", true, false),
            ("\"x\", \"abc\"", true, true),
            ("\"x\",W/\"abc\"", true, false),
            ("W/\"abc\", \"abc\"", true, true),
            ("*", true, true),
            (" * ", true, true),
            ("\"*\"", false, false),
            ("abc", false, false),
            ("\"abc", false, false),
            ("\"x,\"abc\"", false, false),
            ("", false, false),
            (",,,", false, false),
        ] {
            assert_eq!(names(list.as_bytes(), "\"abc\"", true), weak, "{list}");
            assert_eq!(names(list.as_bytes(), "\"abc\"", false), strict, "{list}");
        }
        assert!(if_range_holds(b"\"abc\"", "\"abc\""));
        assert!(!if_range_holds(b"W/\"abc\"", "\"abc\""));
        assert!(!if_range_holds(b"Wed, 21 Oct 2015 07:28:00 GMT", "\"abc\""));
    }

    proptest! {
        #[test]
        fn no_list_panics(list in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = names(&list, "\"abc\"", true);
        }
    }
}
