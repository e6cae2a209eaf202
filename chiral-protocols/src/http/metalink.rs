//! Metalinks (RFC 5854): a file's name, size, SHA-256, and everywhere it can be had.
//!
//! No hashes of pieces: Chiral's chunk hashes are states of SHA-256, not the hashes that a
//! Metalink means, and those would take another pass over the file.

use std::fmt::Write;

use chiral_core::{ManifestHeader, link};

use super::escape::Escaped;

/// Media type of the document.
pub(super) const MEDIA: &str = "application/metalink4+xml";

/// What the document calls the file: its name hint made harmless (RFC 5854 §4.1.2.1), or its
/// cid. Without ampersands: aria2 leaves them in attributes escaped, however they are.
pub(super) fn name(header: &ManifestHeader) -> String {
    let name = header.name.as_deref().and_then(link::file_name);
    name.map_or_else(|| header.cid.to_string(), |name| name.replace('&', "_"))
}

/// Writes the document; the URLs come in the order in which they should be tried.
pub(super) fn document(header: &ManifestHeader, urls: &[String]) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n\
         \x20 <generator>chiral/{}</generator>\n\
         \x20 <file name=\"{}\">\n\
         \x20   <size>{}</size>\n\
         \x20   <hash type=\"sha-256\">{}</hash>\n",
        env!("CARGO_PKG_VERSION"),
        Escaped(&name(header)),
        header.size,
        header.cid,
    );
    for (index, url) in urls.iter().enumerate() {
        let priority = index + 1;
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "    <url priority=\"{priority}\">{}</url>",
            Escaped(url)
        );
    }
    out.push_str("  </file>\n</metalink>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::{Cid, MerkleRoot};

    fn header(name: Option<&str>) -> ManifestHeader {
        ManifestHeader {
            size: 5,
            cid: Cid::from_bytes([1; 32]),
            root: MerkleRoot::from_bytes([2; 32]),
            name: name.map(str::to_owned),
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        }
    }

    #[test]
    fn hostile_names_and_urls_stay_text() {
        let name = "../a\"><file name='x'>&\u{ffff}";
        let urls = vec!["http://a/?x=1&y=<2>".to_owned(), "http://b/".to_owned()];
        let text = document(&header(Some(name)), &urls);
        assert!(
            text.contains("<file name=\"a___file name=&#39;x&#39;__\u{fffd}\">"),
            "{text}"
        );
        assert!(text.contains("<url priority=\"1\">http://a/?x=1&amp;y=&lt;2&gt;</url>"));
        assert!(text.contains("<url priority=\"2\">http://b/</url>"));
        assert_eq!(text.matches("<file").count(), 1);
        assert!(text.contains("<size>5</size>"));
        assert!(text.contains(&format!(
            "<hash type=\"sha-256\">{}</hash>",
            "01".repeat(32)
        )));
    }

    #[test]
    fn without_a_name_a_file_is_called_by_its_cid() {
        for hint in [None, Some(".."), Some("")] {
            assert_eq!(name(&header(hint)), "01".repeat(32), "{hint:?}");
        }
    }
}
