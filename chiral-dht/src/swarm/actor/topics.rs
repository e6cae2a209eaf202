//! [`Topics`]: who in this process listens to which topic.

use std::collections::HashMap;

use bytes::Bytes;
use libp2p::gossipsub::{IdentTopic, Message, PublishError, TopicHash};
use tokio::sync::mpsc;

use crate::swarm::MAX_WAITING_MESSAGES;
use crate::swarm::behaviour::Gossip;
use crate::swarm::handle::TopicMessage;

#[derive(Debug, Default)]
pub(super) struct Topics {
    subscribers: HashMap<TopicHash, Vec<mpsc::Sender<TopicMessage>>>,
}

impl Topics {
    /// One more subscription of a topic; ends when the receiver is dropped.
    pub(super) fn subscribe(
        &mut self,
        gossip: &mut Gossip,
        topic: &str,
    ) -> mpsc::Receiver<TopicMessage> {
        let topic = IdentTopic::new(topic);
        let (sender, receiver) = mpsc::channel(MAX_WAITING_MESSAGES);
        self.subscribers
            .entry(topic.hash())
            .or_default()
            .push(sender);
        if let Err(error) = gossip.subscribe(&topic) {
            tracing::warn!(%error, %topic, "the network is not told of a subscription");
        }
        receiver
    }

    /// A message arrived. A subscriber that does not keep up loses it.
    pub(super) fn heard(&mut self, message: Message) {
        // The signature was checked, so there is a publisher.
        let (Some(publisher), Some(subscribers)) =
            (message.source, self.subscribers.get(&message.topic))
        else {
            return;
        };
        let data = Bytes::from(message.data);
        for subscriber in subscribers {
            if subscriber.try_send((publisher, data.clone())).is_err() {
                tracing::debug!(topic = %message.topic, "a subscriber lost a message");
            }
        }
    }

    /// Forgets subscriptions that ended.
    pub(super) fn tick(&mut self, gossip: &mut Gossip) {
        self.subscribers.retain(|topic, subscribers| {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            if subscribers.is_empty() {
                gossip.unsubscribe(&IdentTopic::new(topic.as_str()));
            }
            !subscribers.is_empty()
        });
    }
}

/// Publishes to the others. That nobody listens, or cannot take more, is no error.
pub(super) fn publish(gossip: &mut Gossip, topic: &str, message: Bytes) {
    match gossip.publish(IdentTopic::new(topic), message) {
        Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
        Err(error) => tracing::warn!(%error, topic, "a message was not published"),
    }
}
