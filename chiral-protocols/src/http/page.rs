//! What is shared, as a page for people and as JSON for programs.

use std::fmt::Write;

use chiral_core::{Cid, ManifestHeader, Price, link};
use serde_json::{Value, json};

use super::escape::Escaped;
use super::media;
use super::path::{Part, Resource, metalink};

/// Most files on one page; the rest are on the next.
pub(super) const MAX_ROWS: usize = 500;

/// Nothing runs on the page, whatever is called how, and nothing is loaded but from here. The
/// hash is that of the style, between its tags.
pub(super) const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-oEgQdgrgii+uK1Bo06lE7/heHGYQ83fpvo8dW3Eslfk='; \
    media-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const STYLE: &str = "body{font-family:sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #8884;vertical-align:top}\
td{overflow-wrap:anywhere}\
.n{text-align:right;white-space:nowrap}\
video{display:block;max-width:100%;margin-top:.4rem}\
small{color:#777}\
:root{color-scheme:light dark}";

/// A file in the list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) header: ManifestHeader,
    pub(super) price: Price,
    /// Bytes per second, of late, and bytes in all.
    pub(super) sent: (u64, u64),
}

impl Row {
    fn path(&self, part: Part) -> String {
        let cid = self.header.cid;
        Resource { cid, part }.to_path()
    }

    fn name(&self) -> Option<String> {
        self.header.name.as_deref().and_then(link::file_name)
    }
}

/// A page of the list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) rows: Vec<Row>,
    /// Of everything that is served, as in [`Row`].
    pub(super) sent: (u64, u64),
    /// Behind which file the next page begins, if there is one.
    pub(super) next: Option<Cid>,
}

impl List {
    /// As JSON. Prices are in wei per MiB, in decimal digits: they may exceed what a JSON
    /// number holds exactly.
    pub(super) fn json(&self) -> Value {
        let files: Vec<Value> = self.rows.iter().map(file).collect();
        let mut list = json!({
            "files": files,
            "bytes_per_second": self.sent.0,
            "bytes_sent": self.sent.1,
        });
        if let Some(next) = self.next {
            list["next"] = json!(format!("/index.json?after={next}"));
        }
        list
    }

    /// As a page. Its links are relative, so that it works below any path of a proxy.
    pub(super) fn html(&self) -> String {
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Shared files</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <h1>Shared files</h1>\n<table>\n<thead><tr><th>File</th><th class=\"n\">Size</th>\
             <th class=\"n\">Price per MiB</th><th class=\"n\">Being sent</th><th></th></tr>\
             </thead>\n<tbody>\n"
        );
        for row in &self.rows {
            html_row(&mut out, row);
        }
        out.push_str("</tbody>\n</table>\n");
        if self.rows.is_empty() {
            out.push_str("<p>Nothing is shared now.</p>\n");
        }
        if let Some(next) = self.next {
            // Writing to a String does not fail.
            let _ = writeln!(out, "<p><a href=\"?after={next}\">More files</a></p>");
        }
        let _ = writeln!(
            out,
            "<p><small>{}/s now, {} since the start.</small></p>\n</body>\n</html>",
            size(self.sent.0),
            size(self.sent.1)
        );
        out
    }
}

fn file(row: &Row) -> Value {
    let header = &row.header;
    json!({
        "cid": header.cid.to_string(),
        "root": header.root.to_string(),
        "size": header.size,
        "name": row.name(),
        "media_type": media::media_type(header),
        "link": header.link().to_string(),
        "path": row.path(Part::File),
        "metalink": metalink(header.cid),
        "price_wei_per_mib": row.price.wei_per_mib().to_string(),
        "bytes_per_second": row.sent.0,
        "bytes_sent": row.sent.1,
    })
}

fn html_row(out: &mut String, row: &Row) {
    let header = &row.header;
    let name = row.name().unwrap_or_else(|| header.cid.to_string());
    let path = row.path(Part::File);
    let here = path.trim_start_matches('/');
    let price = if row.price.is_free() {
        "free".to_owned()
    } else {
        format!("{} CHI", row.price)
    };
    // Only the name and the link have a stranger's words in them.
    let _ = writeln!(
        out,
        "<tr><td><a href=\"{here}\">{}</a>{}</td>\
         <td class=\"n\" title=\"{} bytes\">{}</td><td class=\"n\">{price}</td>\
         <td class=\"n\">{}/s</td>\
         <td><a href=\"{}\">Metalink</a> <a href=\"{}\">chiral</a></td></tr>",
        Escaped(&name),
        player(row, here),
        header.size,
        size(header.size),
        size(row.sent.0),
        metalink(header.cid).trim_start_matches('/'),
        Escaped(&header.link().to_string()),
    );
}

/// Plays sounds and films where they stand; they are fetched in ranges, and not before
/// somebody wants them.
fn player(row: &Row, here: &str) -> String {
    let playable = matches!(
        media::media_type(&row.header).split('/').next(),
        Some("video" | "audio")
    );
    if !playable || !row.price.is_free() {
        return String::new();
    }
    format!(
        "<details><summary>Play</summary>\
         <video controls preload=\"none\" src=\"{here}\"></video></details>"
    )
}

/// Bytes for people, in binary units with three digits or so.
fn size(bytes: u64) -> String {
    let (mut unit, mut scaled, mut rest) = ("B", bytes, 0);
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if scaled < 1024 {
            break;
        }
        (unit, rest, scaled) = (next, scaled % 1024, scaled / 1024);
    }
    if unit == "B" || scaled >= 100 {
        format!("{scaled} {unit}")
    } else {
        format!("{scaled}.{} {unit}", rest * 10 / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use chiral_core::{MerkleRoot, U256};
    use proptest::prelude::*;

    fn row(name: Option<&str>, mime: Option<&str>) -> Row {
        Row {
            header: ManifestHeader {
                size: 3 << 20,
                cid: Cid::from_bytes([1; 32]),
                root: MerkleRoot::from_bytes([2; 32]),
                name: name.map(str::to_owned),
                mime: mime.map(str::to_owned),
                created_at: 0,
                aliases: Vec::new(),
            },
            price: Price::FREE,
            sent: (2048, 1 << 30),
        }
    }

    fn list(rows: Vec<Row>) -> List {
        List {
            rows,
            sent: (2048, 1 << 30),
            next: None,
        }
    }

    #[test]
    fn the_policy_knows_the_style() {
        let content = chiral_core::ContentIdentity::of(STYLE.as_bytes()).unwrap();
        let hash = STANDARD.encode(content.cid.as_bytes());
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 30) - 1, "1023 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_strangers_name_is_nothing_but_text() {
        let name = "\"><img src=x onerror=alert(1)><script>.mp4";
        let html = list(vec![row(Some(name), None)]).html();
        assert!(
            !html.contains("<img") && !html.contains("<script"),
            "{html}"
        );
        assert!(
            html.contains(">___img src=x onerror=alert(1)__script_.mp4</a>"),
            "{html}"
        );
    }

    #[test]
    fn films_play_and_paid_files_do_not() {
        let film = row(Some("a.mp4"), None);
        assert!(list(vec![film]).html().contains("<video"));
        let mut paid = row(Some("a.mp4"), None);
        paid.price = Price::from_wei_per_mib(U256::from(10).pow(U256::from(15)));
        let html = list(vec![paid]).html();
        assert!(html.contains("0.001 CHI") && !html.contains("<video"));
        for other in ["image/svg+xml", "text/html", "application/pdf"] {
            assert!(!list(vec![row(None, Some(other))]).html().contains("<video"));
        }
    }

    #[test]
    fn json_has_what_programs_need() {
        let mut list = list(vec![row(Some("a b"), None)]);
        list.next = Some(Cid::from_bytes([1; 32]));
        let value = list.json();
        let file = &value["files"][0];
        assert_eq!(file["size"], 3 << 20);
        assert_eq!(file["name"], "a b");
        assert_eq!(file["price_wei_per_mib"], "0");
        assert_eq!(file["bytes_per_second"], 2048);
        let link = file["link"].as_str().unwrap();
        assert_eq!(
            link.parse::<chiral_core::Link>().unwrap(),
            list.rows[0].header.link()
        );
        let next = format!("/index.json?after={}", "01".repeat(32));
        assert_eq!(value["next"], next);
    }

    proptest! {
        #[test]
        fn no_name_adds_an_element(name: String, mime: Option<String>) {
            let plain = list(vec![row(Some("a"), None)]).html();
            let strange = list(vec![row(Some(&name), mime.as_deref())]).html();
            let extra = usize::from(strange.contains("<details>")) * 6;
            prop_assert_eq!(
                strange.matches('<').count(), plain.matches('<').count() + extra
            );
        }
    }
}
