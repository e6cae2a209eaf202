//! Paths of requests. One spelling only: no percent escapes but in a file's name, no
//! upper-case digits, no leading zeros, no trailing slash.

use chiral_core::{Cid, ManifestHeader, link};

/// Where messages to the payment gate are posted.
pub(super) const PAYMENT: &str = "/payment";

/// Where a file's Metalink is: behind its address.
const METALINK: &str = ".meta4";

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// Something that Chiral's own clients ask for.
    Resource(Resource),
    /// A file by its name behind its cid, as BitTorrent clients ask a web seed (BEP 19). The
    /// name is as it stands in the path.
    Named(Cid, &'a str),
    /// A file's Metalink.
    Metalink(Cid),
    /// The list of what is served, for people unless the client would rather have JSON.
    Page,
    /// The same as JSON.
    Index,
}

impl<'a> Target<'a> {
    /// Reads a path; `None` for what is not served under any circumstances.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        match path {
            "/" | "/index.html" => return Some(Self::Page),
            "/index.json" => return Some(Self::Index),
            _ => {}
        }
        if let Some(resource) = Resource::parse(path) {
            return Some(Self::Resource(resource));
        }
        let rest = path.strip_prefix("/file/")?;
        if let Some(cid) = rest.strip_suffix(METALINK)
            && let Ok(cid) = cid.parse()
        {
            return Some(Self::Metalink(cid));
        }
        let (cid, name) = rest.split_once('/')?;
        let taken = name.is_empty() || name.contains('/') || name == "chunk";
        let cid = cid.parse().ok().filter(|_| !taken)?;
        Some(Self::Named(cid, name))
    }
}

/// The path of a file's Metalink.
pub(super) fn metalink(cid: Cid) -> String {
    format!("/file/{cid}{METALINK}")
}

/// Whether a segment of a path is a file's name: as its author wrote it, or as it is
/// announced in `Content-Disposition`. Any other name stays free for what may come.
pub(super) fn is_name(segment: &str, header: &ManifestHeader) -> bool {
    let Some(hint) = header.name.as_deref() else {
        return false;
    };
    let name = decode(segment.as_bytes());
    let name = name.as_deref();
    name == Some(hint.as_bytes())
        || name.is_some() && name == link::file_name(hint).as_deref().map(str::as_bytes)
}

/// Takes percent escapes off (RFC 3986 §2.1).
fn decode(segment: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = byte == b'%';
        out.push(if escaped {
            let high = digit(bytes.next())?;
            (high << 4 | digit(bytes.next())?) as u8
        } else {
            byte
        });
    }
    Some(out)
}

/// What of a file a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) cid: Cid,
    pub(super) part: Part,
}

/// Which part of what is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All its bytes.
    File,
    /// The bytes of a chunk.
    Chunk(u32),
    /// The manifest header.
    Manifest,
    /// A page of the manifest.
    Page(u32),
    /// Which chunks are here.
    Coverage,
}

impl Resource {
    /// Reads a path; `None` for what is not served under any circumstances.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/file/")?.split('/');
        let cid = segments.next()?.parse().ok()?;
        let part = match (segments.next(), segments.next(), segments.next()) {
            (None, ..) => Part::File,
            (Some("manifest"), None, _) => Part::Manifest,
            (Some("coverage"), None, _) => Part::Coverage,
            (Some("chunk"), Some(index), None) => Part::Chunk(parse_index(index)?),
            (Some("manifest"), Some(index), None) => Part::Page(parse_index(index)?),
            _ => return None,
        };
        Some(Self { cid, part })
    }

    /// The path.
    pub(super) fn to_path(self) -> String {
        let cid = self.cid;
        match self.part {
            Part::File => format!("/file/{cid}"),
            Part::Chunk(index) => format!("/file/{cid}/chunk/{index}"),
            Part::Manifest => format!("/file/{cid}/manifest"),
            Part::Page(index) => format!("/file/{cid}/manifest/{index}"),
            Part::Coverage => format!("/file/{cid}/coverage"),
        }
    }
}

fn parse_index(text: &str) -> Option<u32> {
    // `parse` alone would take a plus sign and leading zeros.
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn other_spellings_are_refused() {
        assert!(Resource::parse(&format!("/file/{ABC}/chunk/4294967295")).is_some());
        let upper = ABC.to_uppercase();
        for bad in [
            "",
            "/",
            "/file",
            "/file/",
            "file/ABC",
            "/file/ABC/",
            "/file/ABC/chunk",
            "/file/ABC/chunk/",
            "/file/ABC/chunk/4294967296",
            "/file/ABC/chunk/01",
            "/file/ABC/chunk/00",
            "/file/ABC/chunk/+1",
            "/file/ABC/chunk/-1",
            "/file/ABC/chunk/0x1",
            "/file/ABC/chunk/1/",
            "/file/ABC/chunk/1/2",
            "/file/ABC/chunk/%31",
            "/file/ABC/Chunk/1",
            "/file/ABC/manifest/",
            "/file/ABC/coverage/1",
            "/file/ABC/../ABC",
            "/file/%2e%2e/ABC",
            "/file/0xABC",
            "//file/ABC",
            "/FILE/ABC",
            "/files/ABC",
            "/file/./ABC",
        ] {
            assert_eq!(Resource::parse(&bad.replace("ABC", ABC)), None, "{bad}");
        }
        assert_eq!(Resource::parse(&format!("/file/{upper}")), None);
        assert_eq!(Resource::parse(&format!("/file/{}", &ABC[1..])), None);
    }

    #[test]
    fn names_metalinks_and_the_page_have_paths() {
        let cid: Cid = ABC.parse().unwrap();
        for (path, expected) in [
            ("/", Target::Page),
            ("/index.html", Target::Page),
            ("/index.json", Target::Index),
            ("/file/ABC.meta4", Target::Metalink(cid)),
            ("/file/ABC/a%20b.txt", Target::Named(cid, "a%20b.txt")),
            ("/file/ABC/ABC.meta4", Target::Named(cid, "ABC.meta4")),
            ("/file/ABC/..", Target::Named(cid, "..")),
        ] {
            let path = path.replace("ABC", ABC);
            let target = Target::parse(&path);
            match expected {
                Target::Named(cid, name) => {
                    let name = name.replace("ABC", ABC);
                    assert_eq!(target, Some(Target::Named(cid, &name)), "{path}");
                }
                expected => assert_eq!(target, Some(expected), "{path}"),
            }
        }
        assert_eq!(Target::parse(&metalink(cid)), Some(Target::Metalink(cid)));
        for bad in [
            "",
            "index.html",
            "/index",
            "/file/ABC/",
            "/file/ABC/chunk",
            "/file/ABC/chunk/01",
            "/file/ABC/a/b",
            "/file/ABC.meta",
            "/file/ABC.meta4/",
            "/file/.meta4",
            "/file/x/y",
        ] {
            assert_eq!(Target::parse(&bad.replace("ABC", ABC)), None, "{bad}");
        }
    }

    #[test]
    fn a_file_goes_by_its_own_name_only() {
        let header = |name: Option<&str>| ManifestHeader {
            size: 1,
            cid: Cid::from_bytes([1; 32]),
            root: chiral_core::MerkleRoot::from_bytes([2; 32]),
            name: name.map(str::to_owned),
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        for (name, segment, expected) in [
            (Some("a b.txt"), "a%20b.txt", true),
            (Some("a b.txt"), "a b.txt", true),
            (Some("a b.txt"), "a%20b%2etxt", true),
            (Some("a b.txt"), "A%20b.txt", false),
            (Some("a b.txt"), "a+b.txt", false),
            (Some("../x"), "..%2Fx", true),
            (Some("../x"), "x", true),
            (Some("../x"), "..", false),
            (Some(".."), "..", true),
            (Some("%"), "%", false),
            (Some("%"), "%25", true),
            (Some("%zz"), "%zz", false),
            (Some("é"), "%C3%A9", true),
            (None, "x", false),
            (None, "%", false),
        ] {
            assert_eq!(
                is_name(segment, &header(name)),
                expected,
                "{name:?} {segment}"
            );
        }
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            Just(Part::File),
            Just(Part::Manifest),
            Just(Part::Coverage),
            any::<u32>().prop_map(Part::Chunk),
            any::<u32>().prop_map(Part::Page),
        ]
    }

    proptest! {
        #[test]
        fn a_resource_comes_back_from_its_path(cid: [u8; 32], part in part()) {
            let resource = Resource { cid: Cid::from_bytes(cid), part };
            prop_assert_eq!(Resource::parse(&resource.to_path()), Some(resource));
        }

        #[test]
        fn a_path_that_is_taken_is_the_only_spelling(tail in "[a-z0-9/%.+]{0,20}") {
            let path = format!("/file/{ABC}{tail}");
            if let Some(resource) = Resource::parse(&path) {
                prop_assert_eq!(resource.to_path(), path);
            }
        }

        #[test]
        fn no_path_panics(path in ".{0,100}") {
            let _ = Resource::parse(&path);
            let _ = Target::parse(&path);
            let _ = decode(path.as_bytes());
        }
    }
}
