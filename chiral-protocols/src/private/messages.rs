//! What is said in a session. Fields that are not known are skipped, so that a later version
//! can say more.

use bytes::Bytes;

/// Version of the messages that is spoken here.
pub const VERSION: u32 = 1;

/// Most wants of one [`ChunkRequest`].
pub const MAX_WANTS: usize = 32;

/// What stands before the raw bytes of a frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Number of the request that this belongs to, chosen by whoever asks; 0 for the session.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Number of raw bytes behind the header.
    #[prost(uint32, tag = "2")]
    pub data_length: u32,
    /// What is said.
    #[prost(
        oneof = "Body",
        tags = "16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34"
    )]
    pub body: Option<Body>,
}

/// What is said.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// First frame of the buyer.
    #[prost(message, tag = "16")]
    OpenSession(OpenSession),
    /// First frame of the seeder.
    #[prost(message, tag = "17")]
    SessionAccepted(SessionAccepted),
    /// What do you hold?
    #[prost(message, tag = "18")]
    RequestHave(RequestHave),
    /// Raw bytes: runs of chunks, each two 32-bit big-endian numbers, first and end.
    #[prost(message, tag = "19")]
    Have(Have),
    /// A page of the manifest, please.
    #[prost(message, tag = "20")]
    RequestPage(RequestPage),
    /// Raw bytes: the page.
    #[prost(message, tag = "21")]
    Page(Page),
    /// Bytes of the file, please.
    #[prost(message, tag = "22")]
    RequestChunks(RequestChunks),
    /// Raw bytes: some of what was asked for, in order.
    #[prost(message, tag = "23")]
    StreamChunk(StreamChunk),
    /// All that was asked for has been sent.
    #[prost(message, tag = "24")]
    ChunksDone(ChunksDone),
    /// It is not done.
    #[prost(message, tag = "25")]
    Failed(Failed),
    /// Not before payment is arranged.
    #[prost(message, tag = "26")]
    PaymentRequired(PaymentRequired),
    /// From the buyer's payment side: a voucher, an acknowledgement.
    #[prost(message, tag = "27")]
    PaymentBatch(PaymentBatch),
    /// From the seeder's payment side.
    #[prost(message, tag = "28")]
    PaymentAnswer(PaymentAnswer),
    /// The rest of a request is not wanted any more.
    #[prost(message, tag = "29")]
    Cancel(Cancel),
    /// Last frame of either.
    #[prost(message, tag = "30")]
    CloseSession(CloseSession),
    /// Bytes of any file, in a session for another or for none.
    #[prost(message, tag = "31")]
    FileRequest(FileRequest),
    /// Raw bytes: as many of those asked for as lie in the chunk that they begin in.
    #[prost(message, tag = "32")]
    FileResponse(FileResponse),
    /// Chunks, please, each answered on its own: a want-list. The number is that of the first
    /// want, the others have those that follow.
    #[prost(message, tag = "33")]
    ChunkRequest(ChunkRequest),
    /// Raw bytes: all that one want is for, sealed or plain.
    #[prost(message, tag = "34")]
    ChunkResponse(ChunkResponse),
}

/// Begins a session for one file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenSession {
    /// The cid: 32 bytes. Empty in a session that only carries payment messages.
    #[prost(bytes = "bytes", tag = "1")]
    pub file_hash: Bytes,
    /// The newest version that is spoken; 0 is 1.
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

/// The session stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionAccepted {
    /// The file's manifest header as it is encoded everywhere.
    #[prost(bytes = "bytes", tag = "1")]
    pub manifest_header: Bytes,
    /// Price in wei for a MiB: up to 32 bytes, big-endian, no leading zero. Empty if free.
    #[prost(bytes = "bytes", tag = "2")]
    pub price: Bytes,
    /// Where payments go: 20 bytes, or none.
    #[prost(bytes = "bytes", tag = "3")]
    pub wallet: Bytes,
    /// The version that is spoken: the newest that both know; 0 is 1.
    #[prost(uint32, tag = "4")]
    pub version: u32,
}

/// Asks for the coverage.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RequestHave {}

/// The coverage.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Have {}

/// Asks for a page of the manifest.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RequestPage {
    /// Its index.
    #[prost(uint32, tag = "1")]
    pub index: u32,
}

/// A page of the manifest.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Page {}

/// Asks for bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestChunks {
    /// Where they begin.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// How many.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// What the payment side shows with this request.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub credential: Option<Bytes>,
}

/// Some of the bytes.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StreamChunk {
    /// Where they begin.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
}

/// All bytes of a request have been sent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ChunksDone {}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[non_exhaustive]
pub enum FailureKind {
    /// For a reason of its own; asking again may help.
    Internal = 0,
    /// The file is not served here.
    UnknownFile = 1,
    /// It is not held.
    Missing = 2,
    /// Not for you.
    Refused = 3,
    /// Too much at once.
    Busy = 4,
}

/// It is not done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// Why.
    #[prost(enumeration = "FailureKind", tag = "1")]
    pub kind: i32,
    /// In words, at most 200 bytes of which are looked at.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// Payment comes first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PaymentRequired {
    /// Terms, for the buyer's payment side.
    #[prost(bytes = "bytes", tag = "1")]
    pub terms: Bytes,
}

/// From payment side to payment side.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PaymentBatch {
    /// The message.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
}

/// The answer to a [`PaymentBatch`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct PaymentAnswer {
    /// The message.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
}

/// Ends a request early.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Cancel {}

/// Ends the session.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CloseSession {}

/// Asks for bytes of a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileRequest {
    /// The cid: 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub file_hash: Bytes,
    /// Where they begin.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// How many, at most; what comes ends with the chunk.
    #[prost(uint64, tag = "3")]
    pub length: u64,
    /// What the payment side shows with this request.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub credential: Option<Bytes>,
}

/// Bytes of a file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileResponse {
    /// They are of the file's last chunk.
    #[prost(bool, tag = "1")]
    pub is_last_chunk: bool,
    /// The hash of the next chunk: 32 bytes, if it is known and there is one.
    #[prost(bytes = "bytes", tag = "2")]
    pub next_chunk_hash: Bytes,
}

/// Asks for chunks one by one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkRequest {
    /// At most [`MAX_WANTS`].
    #[prost(message, repeated, tag = "1")]
    pub wants: Vec<Want>,
    /// From the buyer's payment side: what shows that it paid. The seeder's looks at it before
    /// anything is served; its answer comes with the first want's.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub payment_proof: Option<Bytes>,
}

/// Bytes of one chunk that are wanted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Want {
    /// Where they begin.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// How many; no more than lie in the chunk.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// What the payment side shows with this request.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub credential: Option<Bytes>,
    /// Whether they have to be sealed: then they come sealed or not at all.
    #[prost(bool, tag = "4")]
    pub sealed: bool,
}

/// The bytes of a [`Want`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkResponse {
    /// Where they begin.
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    /// The seeder's word on sealed bytes, for the buyer's payment side; empty if they are plain.
    #[prost(bytes = "bytes", tag = "2")]
    pub seal: Bytes,
    /// Hash of the chunk that they are of, if it is known: 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub verification_hash: Bytes,
    /// The seeder's answer to the payment that came with the request.
    #[prost(bytes = "bytes", tag = "4")]
    pub payment_answer: Bytes,
}
