//! What kind of file it is and what to call it: `Content-Type`, `Content-Disposition`.

use chiral_core::{ManifestHeader, link};
use hyper::header::HeaderValue;

const OCTETS: &str = "application/octet-stream";

/// The media type to announce: the hint if it is one, else what the name suggests, else
/// unspecific bytes.
pub(super) fn media_type(header: &ManifestHeader) -> &str {
    let hint = header.mime.as_deref().filter(|mime| is_type(mime));
    let named = || {
        let (_, extension) = header.name.as_deref()?.rsplit_once('.')?;
        mime_guess::from_ext(extension).first_raw()
    };
    hint.or_else(named).unwrap_or(OCTETS)
}

/// The same as a header value.
pub(super) fn content_type(header: &ManifestHeader) -> HeaderValue {
    HeaderValue::from_str(media_type(header)).unwrap_or(HeaderValue::from_static(OCTETS))
}

fn is_type(mime: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let plain = mime.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    plain
        && essence(mime)
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// A media type without its parameters.
fn essence(mime: &str) -> &str {
    mime.split(';').next().unwrap_or("").trim()
}

/// Pictures, sounds and films: a browser shows these and runs nothing. SVG is a document that
/// may have scripts in it.
pub(super) fn is_viewable(header: &ManifestHeader) -> bool {
    let mime = essence(media_type(header)).to_ascii_lowercase();
    let family = mime.split('/').next().unwrap_or("");
    matches!(family, "video" | "audio" | "image") && !mime.contains("svg") && !mime.contains("xml")
}

/// Whether a content coding makes it shorter: text in any form, and programs for the web.
/// Whatever else is large is compressed already.
pub(super) fn is_compressible(header: &ManifestHeader) -> bool {
    let mime = essence(media_type(header)).to_ascii_lowercase();
    let (family, subtype) = mime.split_once('/').unwrap_or(("", ""));
    let structured = ["+json", "+xml", "+text"];
    match family {
        "text" => true,
        _ if structured.iter().any(|suffix| subtype.ends_with(suffix)) => true,
        "application" => matches!(
            subtype,
            "json"
                | "javascript"
                | "ecmascript"
                | "wasm"
                | "xml"
                | "xml-dtd"
                | "rtf"
                | "sql"
                | "toml"
                | "yaml"
                | "x-yaml"
                | "x-ndjson"
                | "x-sh"
                | "x-javascript"
                | "x-tar"
                | "x-tex"
                | "x-latex"
                | "postscript"
                | "typescript"
                | "graphql"
        ),
        "font" => matches!(subtype, "ttf" | "otf" | "sfnt" | "collection"),
        "image" => matches!(
            subtype,
            "bmp" | "x-ms-bmp" | "vnd.microsoft.icon" | "x-icon"
        ),
        _ => false,
    }
}

/// `Content-Disposition` with the name hint made harmless (RFC 6266, RFC 8187). What a
/// browser would run is always an attachment: a stranger's page shall not run under the
/// address of this server.
pub(super) fn disposition(header: &ManifestHeader) -> HeaderValue {
    let kind = if is_viewable(header) {
        "inline"
    } else {
        "attachment"
    };
    let plain = HeaderValue::from_static(kind);
    match header.name.as_deref().and_then(link::file_name) {
        Some(name) => named(kind, &name).unwrap_or(plain),
        None => plain,
    }
}

/// The same for a name that is harmless already.
pub(super) fn named(kind: &str, name: &str) -> Option<HeaderValue> {
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
    let mut value = format!("{kind}; filename=\"{fallback}\"");
    if fallback != name {
        value.push_str("; filename*=UTF-8''");
        value.push_str(&percent(name));
    }
    HeaderValue::try_from(value).ok()
}

/// Everything but unreserved characters escaped (RFC 3986 §2.1).
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::{Cid, MerkleRoot};

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
    fn a_name_suggests_a_type_where_there_is_no_hint() {
        for (name, mime, expected) in [
            ("film.MP4", "", "video/mp4"),
            ("a.tar.gz", "", "application/gzip"),
            ("x.wasm", "", "application/wasm"),
            ("film.mp4", "text/plain", "text/plain"),
            ("film.mp4", "not a type", "video/mp4"),
            ("a.\r\n", "", "application/octet-stream"),
            ("a.bin", "", "application/octet-stream"),
            ("a.", "", "application/octet-stream"),
            ("mp4", "", "application/octet-stream"),
        ] {
            assert_eq!(
                media_type(&header(name, mime)),
                expected,
                "{name:?} {mime:?}"
            );
        }
    }

    #[test]
    fn a_browser_shows_pictures_and_runs_nothing() {
        for (mime, viewable, compressible) in [
            ("video/mp4", true, false),
            ("audio/flac", true, false),
            ("image/png", true, false),
            ("image/bmp", true, true),
            ("image/svg+xml", false, true),
            ("IMAGE/SVG", false, false),
            ("text/html", false, true),
            ("application/xhtml+xml", false, true),
            ("application/pdf", false, false),
            ("text/plain; charset=utf-8", false, true),
            ("application/json", false, true),
            ("application/ld+json", false, true),
            ("application/wasm", false, true),
            ("application/zip", false, false),
            ("font/woff2", false, false),
            ("application/octet-stream", false, false),
        ] {
            let header = header("a", mime);
            assert_eq!(is_viewable(&header), viewable, "{mime}");
            assert_eq!(is_compressible(&header), compressible, "{mime}");
            let kind = if viewable { "inline" } else { "attachment" };
            let expected = format!("{kind}; filename=\"a\"");
            assert_eq!(disposition(&header), expected, "{mime}");
        }
    }
}
