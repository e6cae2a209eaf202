//! [`Conversation`]: questions between Chiral nodes, over their extension, and of any peer for
//! hashes: all that takes a while to answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use chiral_core::{PaymentGate, ServeRequest, StoredContent};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::handle::{AnswerTo, Ask};
use super::sales::Sales;
use crate::bittorrent::extension::{ChiralMessage, MAX_CHIRAL_BODY};
use crate::bittorrent::merkle::NodeHash;
use crate::bittorrent::wire::HashRange;

/// Most questions of a peer that are answered at once; others are answered with nothing.
const MAX_ANSWERING: usize = 8;

/// Most questions of ours that stand.
const MAX_ASKED: usize = 32;

/// What is to be sent to the peer.
#[derive(Debug)]
pub(super) enum Reply {
    /// A message of Chiral's extension.
    Chiral(ChiralMessage),
    /// Hashes that it asked for (BEP 52), if there are such.
    Hashes(HashRange, Option<Vec<NodeHash>>),
}

type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Questions that stand, of both sides.
#[derive(Default)]
pub(super) struct Conversation {
    asked: BTreeMap<u32, AnswerTo>,
    next: u32,
    answering: FuturesUnordered<Answering>,
}

impl Conversation {
    /// A question of ours as it is to be sent; nothing if too many stand.
    pub(super) fn ask(&mut self, ask: Ask, answer: AnswerTo) -> Option<ChiralMessage> {
        self.asked.retain(|_, answer| !answer.is_closed());
        if self.asked.len() >= MAX_ASKED {
            return None;
        }
        let question = self.next;
        self.next = self.next.wrapping_add(1);
        self.asked.insert(question, answer);
        Some(match ask {
            Ask::Header => ChiralMessage::AskHeader { question },
            Ask::Page(index) => ChiralMessage::AskPage { question, index },
            Ask::Payment(body) => ChiralMessage::Payment { question, body },
            Ask::Admit { range, credential } => ChiralMessage::Admit {
                question,
                range,
                credential,
            },
            Ask::Tariff => ChiralMessage::AskTariff { question },
        })
    }

    /// The peer answered; whether it was asked.
    pub(super) fn answered(&mut self, question: u32, body: Option<Bytes>) -> bool {
        match self.asked.remove(&question) {
            Some(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(body);
                true
            }
            None => false,
        }
    }

    fn begin(&mut self, question: u32, work: impl Future<Output = Option<Bytes>> + Send + 'static) {
        let answer = move |body| Reply::Chiral(ChiralMessage::Answer { question, body });
        if self.answering.len() >= MAX_ANSWERING {
            self.answering.push(Box::pin(async move { answer(None) }));
        } else {
            self.answering
                .push(Box::pin(async move { answer(work.await) }));
        }
    }

    /// The peer asks for hashes.
    pub(super) fn hashes(
        &mut self,
        range: HashRange,
        work: impl Future<Output = Option<Vec<NodeHash>>> + Send + 'static,
    ) {
        if self.answering.len() >= MAX_ANSWERING {
            self.answering
                .push(Box::pin(async move { Reply::Hashes(range, None) }));
        } else {
            self.answering
                .push(Box::pin(async move { Reply::Hashes(range, work.await) }));
        }
    }

    /// The peer asks for the header of the manifest, or for a page.
    pub(super) fn manifest(
        &mut self,
        question: u32,
        page: Option<u32>,
        content: Option<Arc<dyn StoredContent>>,
    ) {
        self.begin(question, async move {
            let content = content?;
            match page {
                None => content.header().encode().ok().map(Bytes::from),
                Some(index) => Some(content.page(index).await.ok()??.encode().into()),
            }
        });
    }

    /// The peer's agent says something to our gate.
    pub(super) fn payment(&mut self, question: u32, body: Bytes, gate: Arc<dyn PaymentGate>) {
        self.begin(question, async move {
            let answer = gate.message(body).await.ok()?;
            (answer.len() <= MAX_CHIRAL_BODY).then_some(answer)
        });
    }

    /// The peer's agent asks for leave to ask for something.
    pub(super) fn admit(&mut self, question: u32, request: ServeRequest, sales: Sales) {
        self.begin(question, async move {
            Some(sales.admit(request).await.encode())
        });
    }

    /// Answers with what is known at once.
    pub(super) fn say(&mut self, question: u32, body: Option<Bytes>) {
        self.begin(question, std::future::ready(body));
    }

    /// The next answer that is to be sent; pending for ever if there is none.
    pub(super) async fn next(&mut self) -> Reply {
        if self.answering.is_empty() {
            std::future::pending::<()>().await;
        }
        match self.answering.next().await {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    }
}
