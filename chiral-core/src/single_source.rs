//! The provided form of [`crate::ContentProtocol::get_content_from`]: one source, front to
//! back, through the same chain of hashes as every download.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use crate::chain::{EMPTY_CID, ForwardChain};
use crate::chunk_source::collect;
use crate::content_protocol::{Content, GetRequest, MAX_BYTES_IN_MEMORY};
use crate::{
    ByteRange, CHUNK_SIZE, ChunkHash, ChunkLayout, ChunkSource, FileIdentification, StoreError,
    TransferError, merkle,
};

/// Bytes asked for at a time.
const REQUEST: u64 = 16 * CHUNK_SIZE;

/// Where the bytes go until the last one is checked.
enum Sink {
    Memory(BytesMut),
    File {
        file: std::fs::File,
        temporary: PathBuf,
        path: PathBuf,
    },
}

impl Sink {
    fn open(destination: Option<PathBuf>, size: u64) -> Result<Self, TransferError> {
        let Some(path) = destination else {
            if size > MAX_BYTES_IN_MEMORY {
                return Err(TransferError::TooLarge {
                    size,
                    limit: MAX_BYTES_IN_MEMORY,
                });
            }
            return Ok(Self::Memory(BytesMut::new()));
        };
        if path.try_exists().map_err(|e| io("look for", &path, e))? {
            return Err(StoreError::AlreadyExists { path }.into());
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let temporary = path.with_file_name(name);
        let file =
            std::fs::File::create_new(&temporary).map_err(|e| io("create", &temporary, e))?;
        Ok(Self::File {
            file,
            temporary,
            path,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        match self {
            Self::Memory(buffer) => buffer.extend_from_slice(bytes),
            Self::File {
                file, temporary, ..
            } => {
                file.write_all(bytes)
                    .map_err(|e| io("write", temporary, e))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Content, TransferError> {
        match &mut self {
            Self::Memory(buffer) => Ok(Content::Bytes(std::mem::take(buffer).freeze())),
            Self::File {
                file,
                temporary,
                path,
            } => {
                file.sync_all().map_err(|e| io("sync", temporary, e))?;
                // A hard link, unlike a rename, never replaces what is there.
                std::fs::hard_link(&*temporary, &*path).map_err(|e| match e.kind() {
                    std::io::ErrorKind::AlreadyExists => {
                        StoreError::AlreadyExists { path: path.clone() }.into()
                    }
                    _ => io("name", path, e),
                })?;
                Ok(Content::File(path.clone()))
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::File { temporary, .. } = self {
            // Whatever happened, the temporary name goes; a failure leaves a stray file
            // with a `.part` name, which the next attempt reports.
            std::fs::remove_file(temporary).unwrap_or_default();
        }
    }
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> TransferError {
    StoreError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
    .into()
}

/// Gets all of the target from one source. Nothing is handed over before the whole has
/// been checked.
pub(crate) async fn get(
    source: Arc<dyn ChunkSource>,
    request: GetRequest,
) -> Result<Content, TransferError> {
    let name = source.offer().endpoint.as_str().to_owned();
    let size = match (request.target.size(), source.size()) {
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) => {
            let missing = TransferError::Missing {
                source_name: name,
                what: "the size of the file",
            };
            return Err(missing);
        }
    };
    let layout = ChunkLayout::new(size).map_err(|_| TransferError::Protocol {
        source_name: name.clone(),
        reason: "size",
    })?;
    let mut sink = Sink::open(request.destination, size)?;
    let mut chain = ForwardChain::new(layout);
    let mut leaves = Vec::new();
    let mut at = 0;
    while at < size {
        let range = ByteRange::new(at, size.min(at + REQUEST));
        let bytes = collect(&*source, range, size).await?;
        for chunk in bytes.chunks(CHUNK_SIZE as usize) {
            chain
                .push(chunk)
                .map_err(|_| broken(&name, "short chunk"))?;
            sink.write(chunk)?;
        }
        if let Some(progress) = &request.progress {
            progress(range.end, size);
        }
        at = range.end;
    }
    let cid = match request.target.cid() {
        Some(cid) => cid,
        None => chain.last_hash().map_or(EMPTY_CID, ChunkHash::into_cid),
    };
    for link in chain
        .finish(cid)
        .map_err(|_| broken(&name, "the bytes are not the file"))?
    {
        leaves.push(link.after());
    }
    let root = merkle::seal(size, merkle::tree_hash(&leaves));
    if request.target.root().is_some_and(|pinned| pinned != root) {
        return Err(match request.target {
            FileIdentification::Root(_) => broken(&name, "the bytes are not the file"),
            _ => TransferError::BadLink {
                reason: "the root is not the file's",
            },
        });
    }
    if request.target.cid().is_none() && request.target.root().is_none() {
        return Err(TransferError::Unknown {
            target: request.target.to_string(),
        });
    }
    if size > 0 {
        source.verified(ByteRange::new(0, size)).await;
    }
    source.close().await;
    sink.finish()
}

fn broken(name: &str, reason: &'static str) -> TransferError {
    TransferError::Protocol {
        source_name: name.to_owned(),
        reason,
    }
}
