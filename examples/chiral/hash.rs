//! `chiral hash`: links of files, sharing nothing.

use std::path::Path;
use std::sync::Arc;

use chiral::Link;
use chiral::core::ContentIdentity;
use chiral::storage::identify_file;
use serde_json::json;

use super::arguments::Hash;
use super::failure::{Exit, Failure, causes};
use super::output::Output;

/// Hashes all files; one that fails is told, and the rest go on.
pub(crate) async fn run(command: Hash, output: &Output) -> Result<(), Failure> {
    let mut failed = 0;
    for file in &command.files {
        let bar = output.bar(&file.to_string_lossy());
        let drawn = bar.clone();
        let progress = move |done, size| {
            drawn.set_length(size);
            drawn.set_position(done);
        };
        let result = identify_file(file, Some(Arc::new(progress))).await;
        bar.finish_and_clear();
        match result {
            Ok(identity) => {
                let link = link(identity, file);
                output.text(line(&link.to_string(), file))?;
                output.event(&json!({
                    "event": "hashed",
                    "file": file.to_string_lossy(),
                    "link": link.to_string(),
                    "cid": link.cid,
                    "root": link.root,
                    "size": link.size,
                }))?;
            }
            Err(error) => {
                failed += 1;
                output.note(causes(&error));
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => {
            let all = command.files.len();
            let message = format!("{failed} of {all} files could not be hashed");
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

/// The link that sharing the file would give.
fn link(identity: ContentIdentity, file: &Path) -> Link {
    let name = file.file_name().and_then(|name| name.to_str());
    Link {
        cid: identity.cid,
        root: Some(identity.root),
        size: Some(identity.size),
        name: name.map(str::to_owned),
    }
}

/// The line of one file, as `sha256sum` has it: a name that would not fit on a line is
/// escaped, and a backslash in front says so.
fn line(link: &str, file: &Path) -> String {
    let name = file.to_string_lossy();
    if !name.contains(['\\', '\n', '\r']) {
        return format!("{link}  {name}");
    }
    let name = name
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    format!("\\{link}  {name}")
}
